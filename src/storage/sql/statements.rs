//! Schemas: how a web application's own tables are read and written, as named statements.
//!
//! A schema is a folder of `src/storage/schemas` with one file for each dialect; Mika's own tables, which are
//! beside the site's in every database, have the folder `own`. A line `-- name: users` begins the statement
//! of that name; where one name holds several statements with a `;` between them, they are run in order.
//! `:after` is a parameter, and `{rows}` stands for the rows of a call, as a table that can be joined
//! (`{values}`: as the list of an INSERT). Where a dialect runs a statement for each row by itself, the columns
//! of the row are parameters. `storage.statements` of the config replaces single ones.

use std::collections::BTreeMap;
use std::path::Path;

use super::calls::{CALLS, CATALOGUE_CALLS, Call, OWN_CALLS};
use super::header::{Dialect, FollowedTable};
use super::place::StatementPlace;
use super::site_schema;
use crate::base::suggest::hint;
use crate::storage::migrate::Migration;
use crate::storage::{StorageConfig, StorageError, StorageResult};

/// Begins a statement in a schema's file.
pub const NAME: &str = "-- name:";
/// Stands for the rows of a call in a statement, as a table.
const ROWS: &str = "{rows}";
/// The same as a list of values.
const VALUES: &str = "{values}";

/// A schema of this crate, for one driver.
#[derive(Debug)]
pub struct Schema {
    pub name: &'static str,
    /// The file of named statements.
    pub statements: &'static str,
    /// Statements of another schema, for what the file has none; empty for a schema of this crate.
    pub base: &'static str,
    /// The file of statements about Mika's own tables.
    pub own: &'static str,
    /// Prefix of the names of Mika's own tables `peers` and `history`.
    pub prefix: &'static str,
    pub migrations: &'static [Migration],
    /// The SQL of tables that its statements need beside those of the site, for schemas based on it.
    pub beside: &'static str,
    pub dialect: Dialect,
    /// The tables of the site whose triggers are made from the head of the file.
    pub followed: &'static [FollowedTable],
    /// Whether the columns of rows may be parameters, because a statement is run for each row by itself.
    pub is_row_by_row: bool,
}

/// A piece of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// The parameter of that name, without its colon.
    Param(String),
    /// The rows as a table.
    Rows,
    /// The rows as a list of values.
    Values,
}

/// One statement of a call.
#[derive(Clone, Debug)]
pub struct Statement {
    pub call: &'static Call,
    pub place: StatementPlace,
    pub pieces: Vec<Piece>,
}

/// The statements of a schema, with the replacements of the config, and those about Mika's own tables.
#[derive(Debug)]
pub struct Statements {
    by_name: BTreeMap<&'static str, Vec<Statement>>,
    /// Where those are that a file of the operator has, or may have.
    places: BTreeMap<&'static str, String>,
    /// Whether the operator has written any.
    has_own: bool,
}

impl Statement {
    /// Whether its text begins with that word, such as `update`.
    pub(super) fn begins_with(&self, word: &str) -> bool {
        let Some(Piece::Text(text)) = self.pieces.first() else {
            return false;
        };
        let first = text.split_whitespace().next();
        first.is_some_and(|first| first.eq_ignore_ascii_case(word))
    }
}

/// The text of a statement in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedText {
    /// The line of its name, from 1.
    pub line: usize,
    /// Without lines of comment.
    pub text: String,
}

// === impl Schema ===

impl Schema {
    /// Whether a table of that name is Mika's own, and credit is counted from it.
    pub fn owns(&self, table: &str) -> bool {
        let named = |name: &str| table.eq_ignore_ascii_case(&format!("{}{name}", self.prefix));
        named("peers") || named("history") || table.starts_with("mika_")
    }
}

/// The schema that `config` names: one of this crate, or a file.
pub fn chosen(
    built_in: &'static [Schema],
    config: &StorageConfig,
) -> StorageResult<&'static Schema> {
    if is_file(&config.schema) {
        return site_schema::load(built_in, Path::new(&config.schema));
    }
    let found = built_in.iter().find(|schema| schema.name == config.schema);
    found.ok_or_else(|| {
        let known: Vec<&str> = built_in.iter().map(|schema| schema.name).collect();
        StorageError::Broken(format!(
            "storage.schema: there is no schema {:?}; there are: {}. For another web application write a file \
             of your own, such as ./my-site.sql (docs/schemas.md)",
            config.schema,
            known.join(", ")
        ))
    })
}

/// Whether a schema is named by the path of its file.
pub fn is_file(schema: &str) -> bool {
    let has_extension = Path::new(schema).extension().is_some_and(|it| it == "sql");
    has_extension || schema.contains('/')
}

// === impl Statements ===

impl Statements {
    pub fn new(schema: &Schema, overrides: &BTreeMap<String, String>) -> StorageResult<Self> {
        let theirs = named(schema.statements);
        let base = named(schema.base);
        let own_text = schema
            .own
            .replace("{peers}", &format!("{}peers", schema.prefix))
            .replace("{history}", &format!("{}history", schema.prefix));
        let own = named(&own_text);
        if let Some(name) = overrides.keys().find(|name| call(name).is_none()) {
            let problem = no_statement(name);
            return Err(StorageError::Broken(format!(
                "storage.statements: {problem}"
            )));
        }
        let mut all = Self {
            by_name: BTreeMap::new(),
            places: BTreeMap::new(),
            has_own: is_file(schema.name) || !overrides.is_empty(),
        };
        for call in CALLS {
            let theirs = theirs.get(call.name);
            let text = if let Some(text) = overrides.get(call.name) {
                text.as_str()
            } else {
                if is_file(schema.name) {
                    let line = theirs.map_or_else(String::new, |it| format!(":{}", it.line));
                    let place = format!("{}{line}", schema.name);
                    all.places.insert(call.name, place);
                }
                let found = theirs.or_else(|| base.get(call.name));
                found.map_or("", |it| it.text.as_str())
            };
            all.add(schema, call, text)?;
        }
        for call in OWN_CALLS.into_iter().chain(CATALOGUE_CALLS) {
            let text = own.get(call.name).map_or("", |it| it.text.as_str());
            all.add(schema, call, text)?;
        }
        Ok(all)
    }

    fn add(&mut self, schema: &Schema, call: &'static Call, text: &str) -> StorageResult<()> {
        let place = self.place(call);
        let statements = checked(schema, call, text)
            .map_err(|problem| StorageError::Broken(place.of_config(&problem)))?;
        let statement = |pieces| Statement {
            call,
            place: place.clone(),
            pieces,
        };
        let statements = statements.into_iter().map(statement).collect();
        self.by_name.insert(call.name, statements);
        Ok(())
    }

    /// Whether some are not of this crate.
    pub fn has_own(&self) -> bool {
        self.has_own
    }

    /// Where the statements of a call are, or belong.
    pub fn place(&self, call: &Call) -> StatementPlace {
        let file = self.places.get(call.name).cloned();
        StatementPlace::new(call.name, file)
    }

    /// The statements of a name, in the order in which they are run. Empty if there is nothing to do.
    pub fn of(&self, call: &Call) -> &[Statement] {
        self.by_name.get(call.name).map_or(&[], Vec::as_slice)
    }
}

/// Whether the words of these statements include that table or column.
pub fn mentions(statements: &[Statement], name: &str) -> bool {
    let mut pieces = statements.iter().flat_map(|statement| &statement.pieces);
    pieces.any(|piece| match piece {
        Piece::Text(text) => has_word(text, name),
        Piece::Param(_) | Piece::Rows | Piece::Values => false,
    })
}

/// Whether SQL has that name as a word.
pub fn has_word(sql: &str, name: &str) -> bool {
    let is_part = |char: char| char.is_alphanumeric() || char == '_' || char == '$';
    let mut words = sql.split(|char| !is_part(char));
    words.any(|word| word.eq_ignore_ascii_case(name))
}

/// What is wrong with a name that no statement has.
pub(super) fn no_statement(name: &str) -> String {
    let names = CALLS.map(|call| call.name);
    format!("there is no statement {name:?}: {}", hint(name, &names))
}

pub fn call(name: &str) -> Option<&'static Call> {
    CALLS.into_iter().find(|call| call.name == name)
}

/// The statements of a file by their names, without the comments.
pub fn named(file: &str) -> BTreeMap<&str, NamedText> {
    let mut statements = BTreeMap::new();
    let mut current = None;
    for (line, number) in file.lines().zip(1..) {
        if let Some(name) = line.strip_prefix(NAME) {
            let text = String::new();
            statements.insert(name.trim(), NamedText { line: number, text });
            current = Some(name.trim());
        } else if let Some(name) = current.filter(|_| !line.starts_with("--"))
            && let Some(NamedText { text, .. }) = statements.get_mut(name)
        {
            text.push_str(line);
            text.push('\n');
        }
    }
    statements
}

/// The pieces of a call's statements; an error if one uses a parameter that the call does not have.
fn checked(schema: &Schema, call: &Call, text: &str) -> Result<Vec<Vec<Piece>>, String> {
    let statements = split(text);
    if statements.is_empty() && !call.optional {
        return Err("it is empty, and Mika can't do without it".into());
    }
    if statements.len() > 1 && !call.columns.is_empty() {
        return Err("it must be a single SELECT".into());
    }
    let columns = if schema.is_row_by_row { call.rows } else { "" };
    let params: Vec<&str> = [call.params, columns]
        .iter()
        .flat_map(|names| names.split_whitespace())
        .collect();
    let mut has_rows = false;
    for piece in statements.iter().flatten() {
        match piece {
            Piece::Param(name) if !params.contains(&name.as_str()) => {
                let known = if params.is_empty() {
                    "it has none".into()
                } else {
                    format!("it has :{}", params.join(", :"))
                };
                return Err(format!("there is no parameter :{name}: {known}"));
            }
            Piece::Rows | Piece::Values if call.rows.is_empty() => {
                return Err(format!("it is not given any {ROWS}"));
            }
            Piece::Rows | Piece::Values => has_rows = true,
            Piece::Param(_) => has_rows |= schema.is_row_by_row,
            Piece::Text(_) => {}
        }
    }
    if !has_rows && !call.rows.is_empty() && !statements.is_empty() {
        return Err(format!(
            "it needs {ROWS}, the rows to work on: a table with the columns {}",
            call.rows.replace(' ', ", ")
        ));
    }
    Ok(statements)
}

/// The statements of a text and their pieces. Parameters in quotes and comments are not recognised.
pub fn split(sql: &str) -> Vec<Vec<Piece>> {
    let mut statements = Vec::new();
    let mut current = Vec::new();
    let mut text = String::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '\'' | '"' | '`' => quoted(rest, first),
            '-' if rest.starts_with("-- ") => {
                rest = rest.split_once('\n').map_or("", |(_, after)| after);
                text.push('\n');
                continue;
            }
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            ';' => {
                finish(&mut statements, &mut current, &mut text);
                rest = &rest[1..];
                continue;
            }
            '{' if rest.starts_with(ROWS) => {
                take(&mut current, &mut text);
                current.push(Piece::Rows);
                rest = &rest[ROWS.len()..];
                continue;
            }
            '{' if rest.starts_with(VALUES) => {
                take(&mut current, &mut text);
                current.push(Piece::Values);
                rest = &rest[VALUES.len()..];
                continue;
            }
            // A cast of Postgres, or an assignment of MySQL.
            ':' if rest.starts_with("::") || rest.starts_with(":=") => 2,
            ':' => {
                let name = word(&rest[1..]);
                if !name.is_empty() {
                    take(&mut current, &mut text);
                    current.push(Piece::Param(name.to_owned()));
                    rest = &rest[1 + name.len()..];
                    continue;
                }
                1
            }
            other => other.len_utf8(),
        };
        text.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    finish(&mut statements, &mut current, &mut text);
    statements
}

/// Bytes of the quoted text at the start of `sql`; a doubled quote begins another one.
fn quoted(sql: &str, quote: char) -> usize {
    sql[1..].find(quote).map_or(sql.len(), |end| end + 2)
}

fn word(sql: &str) -> &str {
    let end = sql.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &sql[..end.unwrap_or(sql.len())]
}

fn take(pieces: &mut Vec<Piece>, text: &mut String) {
    if !text.is_empty() {
        pieces.push(Piece::Text(std::mem::take(text)));
    }
}

fn finish(statements: &mut Vec<Vec<Piece>>, pieces: &mut Vec<Piece>, text: &mut String) {
    if text.trim().is_empty() && pieces.is_empty() {
        text.clear();
        return;
    }
    let end = text.trim_end().len();
    text.truncate(end);
    take(pieces, text);
    statements.push(std::mem::take(pieces));
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Schema = Schema {
        name: "nothing",
        statements: "",
        base: "",
        own: "",
        prefix: "",
        migrations: &[],
        beside: "",
        dialect: Dialect::Mysql,
        followed: &[],
        is_row_by_row: false,
    };

    fn error(schema: &Schema, overrides: &[(&str, &str)]) -> String {
        let overrides = overrides
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let result = Statements::new(schema, &overrides.collect());
        result
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn statements_come_apart_at_semicolons_and_parameters() {
        let text = "SELECT ':no' , \"a;b\", `x:y`, a::int /* :none; */ -- :not this;\n \
                    WHERE id > :after AND {rows};\n;UPDATE x";
        let statements = split(text);
        assert_eq!(statements.len(), 2);
        let params: Vec<&Piece> = statements[0]
            .iter()
            .filter(|piece| !matches!(piece, Piece::Text(_)))
            .collect();
        assert_eq!(params, [&Piece::Param("after".into()), &Piece::Rows]);
        assert_eq!(statements[1], [Piece::Text("UPDATE x".into())]);
        assert!(split(" ;\n; -- nothing").is_empty());
        assert_eq!(split("it's cut off").len(), 1);
    }

    #[test]
    fn a_file_is_read_by_names() {
        let statements =
            named("-- A file.\n-- name: a\n-- columns: x\nSELECT 1\n\n-- name: b\nSELECT 2");
        assert_eq!(statements["a"].text.trim(), "SELECT 1");
        assert_eq!(statements["b"].text, "SELECT 2\n");
        assert_eq!((statements["a"].line, statements["b"].line), (2, 6));
    }

    #[test]
    fn what_can_not_work_is_told() {
        let hint = error(&NOTHING, &[("user_named", "SELECT 1")]);
        assert!(hint.contains("did you mean \"users_named\"?"), "{hint}");
        assert!(error(&NOTHING, &[]).contains("storage.statements.users: it is empty"));
        let params = error(&NOTHING, &[("users", "SELECT :aftr")]);
        assert!(
            params.contains("no parameter :aftr: it has :after, :limit"),
            "{params}"
        );
        let two = error(&NOTHING, &[("users", "SELECT 1; SELECT 2")]);
        assert!(two.contains("single SELECT"), "{two}");
        let rows = error(&NOTHING, &[("users", "SELECT {rows}")]);
        assert!(rows.contains("not given any {rows}"), "{rows}");
    }

    #[test]
    fn a_statement_of_a_file_is_named_with_its_line() {
        let schema = Schema {
            name: "./site.sql",
            statements: "-- Ours.\n\n-- name: users\nSELECT :aftr",
            base: "-- name: user\nSELECT :idd",
            ..NOTHING
        };
        assert_eq!(
            error(&schema, &[]),
            "storage.schema ./site.sql:3: the statement users: there is no parameter :aftr: it has :after, :limit"
        );
        let of_base = error(&schema, &[("users", "SELECT 1")]);
        assert!(
            of_base.starts_with("storage.schema ./site.sql: the statement user: "),
            "{of_base}"
        );
        let of_config = error(&schema, &[("users", "SELECT :x")]);
        assert!(
            of_config.starts_with("storage.statements.users: "),
            "{of_config}"
        );
    }
}
