//! What `mika-manage check` found, shown as it comes.

use anyhow::Result;
use serde::Serialize;

use crate::manage::ExitStatus;
use crate::manage::print::Printer;

/// One thing that was tried.
#[derive(Serialize)]
struct Tried {
    what: String,
    ok: bool,
    /// What was found, or what is wrong.
    found: String,
    /// One line of advice; none where there is nothing to change.
    hint: Option<String>,
}

/// Collects what was tried, and shows each at once.
pub(super) struct Report<'a> {
    pub(super) printer: &'a mut Printer,
    all: Vec<Tried>,
}

/// What is wrong, and what to do about it.
pub(super) struct Problem {
    problem: String,
    hint: String,
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(problem: String, hint: &str) -> Self {
        Self {
            problem,
            hint: hint.into(),
        }
    }
}

// === impl Report ===

impl<'a> Report<'a> {
    pub(super) fn new(printer: &'a mut Printer) -> Self {
        Self {
            printer,
            all: Vec::new(),
        }
    }

    /// Something that works, and that should still be changed: no failure of the check.
    pub(super) fn warning(&mut self, what: &str, found: &str, hint: &str) -> Result<()> {
        self.add("warning", what, found, Some(hint))
    }

    pub(super) fn ok(&mut self, what: &str, found: &str) -> Result<()> {
        self.add("ok", what, found, None)
    }

    pub(super) fn problem(&mut self, what: &str, problem: &str, hint: &str) -> Result<()> {
        self.add("problem", what, problem, Some(hint))
    }

    pub(super) fn result(&mut self, what: &str, result: Result<String, Problem>) -> Result<()> {
        match result {
            Ok(found) => self.ok(what, &found),
            Err(Problem { problem, hint }) => self.problem(what, &problem, &hint),
        }
    }

    fn add(&mut self, state: &str, what: &str, found: &str, hint: Option<&str>) -> Result<()> {
        if !self.printer.is_json() {
            let hint = hint.map(|hint| format!(" → {hint}")).unwrap_or_default();
            self.printer
                .line(format_args!("{state:<9}{what}: {found}{hint}"))?;
        }
        self.all.push(Tried {
            what: what.into(),
            ok: state != "problem",
            found: found.into(),
            hint: hint.map(Into::into),
        });
        Ok(())
    }

    pub(super) fn end(self) -> Result<ExitStatus> {
        if self.printer.is_json() {
            self.printer.document(&self.all)?;
        }
        Ok(if self.all.iter().all(|tried| tried.ok) {
            ExitStatus::Success
        } else {
            ExitStatus::Failure
        })
    }
}
