//! Statements of a schema that a database does not take, as findings.

use super::Finding;
use super::sql::calls::Call;

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
