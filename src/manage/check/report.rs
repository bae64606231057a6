//! The findings of `mika-manage check`, shown as they come.

use anyhow::Result;
use serde::Serialize;

use crate::manage::ExitStatus;
use crate::manage::print::Printer;

/// The result of one check.
#[derive(Serialize)]
struct Outcome {
    what: String,
    /// A note is `ok` as well.
    ok: bool,
    /// `ok`, `note` or `problem`.
    level: &'static str,
    /// What was found, or what is wrong.
    found: String,
    /// One line of advice, if there is any.
    hint: Option<String>,
}

/// Collects outcomes, and shows each immediately.
pub(super) struct CheckReport<'a> {
    printer: &'a mut Printer,
    all: Vec<Outcome>,
}

/// What is wrong, with a hint.
pub(super) struct CheckProblem {
    pub problem: String,
    pub hint: &'static str,
}

impl<'a> CheckReport<'a> {
    pub(super) fn new(printer: &'a mut Printer) -> Self {
        Self {
            printer,
            all: Vec::new(),
        }
    }

    pub(super) fn ok(&mut self, what: &str, found: &str) -> Result<()> {
        self.add("ok", what, found, None)
    }

    /// Something worth knowing that is no problem.
    pub(super) fn note(&mut self, what: &str, found: &str, hint: &str) -> Result<()> {
        self.add("note", what, found, Some(hint))
    }

    pub(super) fn problem(&mut self, what: &str, problem: &str, hint: &str) -> Result<()> {
        self.add("problem", what, problem, Some(hint))
    }

    pub(super) fn result(
        &mut self,
        what: &str,
        result: Result<String, CheckProblem>,
    ) -> Result<()> {
        match result {
            Ok(found) => self.ok(what, &found),
            Err(CheckProblem { problem, hint }) => self.problem(what, &problem, hint),
        }
    }

    fn add(
        &mut self,
        level: &'static str,
        what: &str,
        found: &str,
        hint: Option<&str>,
    ) -> Result<()> {
        if !self.printer.is_json() {
            let hint = hint.map(|hint| format!(" → {hint}")).unwrap_or_default();
            self.printer
                .line(format_args!("{level:<8} {what}: {found}{hint}"))?;
        }
        self.all.push(Outcome {
            what: what.into(),
            ok: level != "problem",
            level,
            found: found.into(),
            hint: hint.map(Into::into),
        });
        Ok(())
    }

    pub(super) fn end(self) -> Result<ExitStatus> {
        if self.printer.is_json() {
            self.printer.document(&self.all)?;
        }
        Ok(ExitStatus::of(self.all.iter().all(|outcome| outcome.ok)))
    }
}
