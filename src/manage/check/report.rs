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

/// The level of an outcome, with the hint.
#[derive(Clone, Copy)]
enum Level<'a> {
    Ok,
    Note(&'a str),
    Problem(&'a str),
}

/// What is wrong, with a hint.
pub(super) struct CheckProblem {
    problem: String,
    hint: String,
}

// === impl CheckProblem ===

impl CheckProblem {
    pub(super) fn new(problem: String, hint: &str) -> Self {
        Self {
            problem,
            hint: hint.into(),
        }
    }
}

// === impl CheckReport ===

impl<'a> CheckReport<'a> {
    pub(super) fn new(printer: &'a mut Printer) -> Self {
        Self {
            printer,
            all: Vec::new(),
        }
    }

    pub(super) fn ok(&mut self, what: &str, found: &str) -> Result<()> {
        self.add(what, found, Level::Ok)
    }

    /// Something worth knowing that is no problem.
    pub(super) fn note(&mut self, what: &str, found: &str, hint: &str) -> Result<()> {
        self.add(what, found, Level::Note(hint))
    }

    pub(super) fn problem(&mut self, what: &str, problem: &str, hint: &str) -> Result<()> {
        self.add(what, problem, Level::Problem(hint))
    }

    pub(super) fn result(
        &mut self,
        what: &str,
        result: Result<String, CheckProblem>,
    ) -> Result<()> {
        match result {
            Ok(found) => self.ok(what, &found),
            Err(CheckProblem { problem, hint }) => self.problem(what, &problem, &hint),
        }
    }

    fn add(&mut self, what: &str, found: &str, level: Level<'_>) -> Result<()> {
        let (word, hint) = match level {
            Level::Ok => ("ok", None),
            Level::Note(hint) => ("note", Some(hint)),
            Level::Problem(hint) => ("problem", Some(hint)),
        };
        if !self.printer.is_json() {
            let hint = hint.map(|hint| format!(" → {hint}")).unwrap_or_default();
            self.printer
                .line(format_args!("{word:<8} {what}: {found}{hint}"))?;
        }
        self.all.push(Outcome {
            what: what.into(),
            ok: !matches!(level, Level::Problem(_)),
            level: word,
            found: found.into(),
            hint: hint.map(Into::into),
        });
        Ok(())
    }

    pub(super) fn end(self) -> Result<ExitStatus> {
        if self.printer.is_json() {
            self.printer.document(&self.all)?;
        }
        Ok(if self.all.iter().all(|outcome| outcome.ok) {
            ExitStatus::Success
        } else {
            ExitStatus::Failure
        })
    }
}
