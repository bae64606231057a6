//! Statements of a schema that a database does not take, as findings.

use crate::storage::Finding;
use crate::storage::sql::calls::Call;
use crate::storage::sql::statements::Statements;

/// Why statements fail: each problem with their calls.
#[derive(Debug, Default)]
pub(super) struct FailingStatements(Vec<(String, Vec<&'static Call>)>);

impl FailingStatements {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn note(&mut self, call: &'static Call, problem: String) {
        match self.0.iter_mut().find(|(known, _)| *known == problem) {
            Some((_, calls)) if calls.iter().any(|it| it.name == call.name) => {}
            Some((_, calls)) => calls.push(call),
            None => self.0.push((problem, vec![call])),
        }
    }

    /// Notes a statement whose result has fewer columns than its call.
    pub(super) fn note_width(&mut self, call: &'static Call, width: usize) {
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

    pub(super) fn findings(self, statements: &Statements) -> impl Iterator<Item = Finding> {
        let all = self.0.into_iter();
        all.map(|(problem, calls)| finding(&problem, &calls, statements))
    }
}

/// The finding for calls whose statements fail for the same reason.
pub(in crate::storage::sql) fn finding(
    problem: &str,
    calls: &[&Call],
    statements: &Statements,
) -> Finding {
    let places: Vec<_> = calls.iter().map(|call| statements.place(call)).collect();
    let shown: Vec<String> = places.iter().map(ToString::to_string).collect();
    let these = match shown.as_slice() {
        [one] => format!("statement {one} does"),
        _ => format!("statements {} do", shown.join(", ")),
    };
    let or = match places.as_slice() {
        [one] if one.is_in_file() => one.remedy(),
        [first, ..] if first.is_in_file() => "those lines".into(),
        [one] => format!("put what fits it into {}", one.remedy()),
        _ => "put what fits it into storage.statements".into(),
    };
    Finding::problem(
        format!("the {these} not work: {problem}"),
        format!("correct the table, or {or}"),
    )
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
