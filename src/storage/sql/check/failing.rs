//! Statements of a schema that a database does not take, as findings.

use crate::storage::Finding;
use crate::storage::sql::calls::Call;

/// Why statements fail: each problem with the names of the statements.
#[derive(Debug, Default)]
pub(super) struct FailingStatements(Vec<(String, Vec<&'static str>)>);

impl FailingStatements {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn note(&mut self, call: &Call, problem: String) {
        match self.0.iter_mut().find(|(known, _)| *known == problem) {
            Some((_, names)) if names.contains(&call.name) => {}
            Some((_, names)) => names.push(call.name),
            None => self.0.push((problem, vec![call.name])),
        }
    }

    /// Notes a statement whose result has fewer columns than its call.
    pub(super) fn note_width(&mut self, call: &Call, width: usize) {
        let wanted = call.width();
        if width < wanted {
            let columns = call.columns.replace(' ', ", ");
            let problem = format!("it gives {width} columns and not {wanted}: {columns}");
            self.note(call, problem);
        }
    }

    /// Leaves out those whose table or column is reported already: the problem names it.
    pub(super) fn leave_out_known(&mut self, findings: &[Finding]) {
        let is_known = |problem: &str| {
            let is_part = |char: char| char.is_alphanumeric() || char == '_';
            let mut words = problem.split(|char| !is_part(char));
            words.any(|word| {
                let mut problems = findings.iter().map(|finding| finding.problem.as_str());
                problems.any(|reported| is_missing(reported, word))
            })
        };
        self.0.retain(|(problem, _)| !is_known(problem));
    }

    pub(super) fn findings(self) -> impl Iterator<Item = Finding> {
        self.0.into_iter().map(|(problem, names)| {
            let (these, fits) = match names.as_slice() {
                [name] => (format!("statement {name} does"), format!(".{name}")),
                _ => (format!("statements {} do", names.join(", ")), String::new()),
            };
            Finding::problem(
                format!("the {these} not work: {problem}"),
                format!("correct the table, or put what fits it into storage.statements{fits}"),
            )
        })
    }
}

/// Whether a finding says that a table of that name is missing, or that a table lacks a column of that name.
fn is_missing(reported: &str, name: &str) -> bool {
    let tables = [
        format!("the table `{name}` is missing"),
        format!("the table {name} is missing"),
        format!("the database has no identity (table {name})"),
    ];
    let columns = reported
        .split_once("` lacks the column")
        .or_else(|| reported.split_once(" has no column"));
    let mut columns = columns
        .into_iter()
        .flat_map(|(_, names)| names.split([' ', ',']));
    tables.iter().any(|missing| reported.starts_with(missing))
        || !name.is_empty() && columns.any(|column| column.eq_ignore_ascii_case(name))
}
