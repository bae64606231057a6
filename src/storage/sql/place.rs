//! Where a statement is written, for messages: in a file, with its line, or in the config.

use std::fmt;

/// A statement as messages name it: `users`, or `users (./my-site.sql:12)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementPlace {
    name: &'static str,
    /// The file with the line; without it, where the statement belongs.
    file: Option<String>,
}

impl fmt::Display for StatementPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{} ({file})", self.name),
            None => f.write_str(self.name),
        }
    }
}

impl StatementPlace {
    pub fn new(name: &'static str, file: Option<String>) -> Self {
        Self { name, file }
    }

    /// What follows the text of an error.
    pub fn at(&self) -> String {
        match &self.file {
            Some(file) => format!(" (statement {}, {file})", self.name),
            None => format!(" (statement {})", self.name),
        }
    }

    /// What follows if a file has no such statement.
    pub fn lacking(&self) -> String {
        match &self.file {
            Some(file) => format!(": {file} has no statement {}", self.name),
            None => String::new(),
        }
    }

    pub fn is_in_file(&self) -> bool {
        self.file.is_some()
    }

    /// Where to write what fits better: a key of the config, or a line of the file.
    pub fn remedy(&self) -> String {
        match &self.file {
            Some(file) => file.clone(),
            None => format!("storage.statements.{}", self.name),
        }
    }

    /// A problem of the statement that shows without the database.
    pub fn of_config(&self, problem: &str) -> String {
        match &self.file {
            Some(file) => format!(
                "storage.schema {file}: the statement {}: {problem}",
                self.name
            ),
            None => format!("{}: {problem}", self.remedy()),
        }
    }
}
