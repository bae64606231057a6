//! Statements of a schema that a database does not take, as findings.

use super::Finding;
use super::sql::calls::{CALLS, Call, OWN_CALLS};
use super::sql::statements::Statements;

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

    pub(super) fn findings(self, statements: &Statements) -> impl Iterator<Item = Finding> {
        let finding = |(problem, names): (String, Vec<&str>)| finding(&problem, &names, statements);
        self.0.into_iter().map(finding)
    }
}

/// The finding for statements of these names, which fail for the same reason.
pub(super) fn finding(problem: &str, names: &[&str], statements: &Statements) -> Finding {
    let all = || CALLS.into_iter().chain(OWN_CALLS);
    let places = all().filter(|call| names.contains(&call.name));
    let places: Vec<_> = places.map(|call| statements.place(call)).collect();
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
