//! What `mika-manage check` found, shown as it comes.

use anyhow::Result;
use serde::Serialize;

use crate::manage::ExitStatus;
use crate::manage::print::Printer;

/// One thing that was tried.
#[derive(Serialize)]
struct Tried {
    what: String,
    /// Whether it stops nothing: a note is `ok` as well.
    ok: bool,
    /// `ok`, `note` or `problem`.
    level: &'static str,
    /// What was found, or what is wrong.
    found: String,
    /// One line of advice; none where there is none to give.
    hint: Option<String>,
}

/// Collects what was tried, and shows each at once.
pub(super) struct Report<'a> {
    printer: &'a mut Printer,
    all: Vec<Tried>,
}

/// How what was found is shown, and the advice.
#[derive(Clone, Copy)]
enum Level<'a> {
    Ok,
    Note(&'a str),
    Problem(&'a str),
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

    pub(super) fn ok(&mut self, what: &str, found: &str) -> Result<()> {
        self.add(what, found, Level::Ok)
    }

    /// Something worth knowing that stops nothing.
    pub(super) fn note(&mut self, what: &str, found: &str, hint: &str) -> Result<()> {
        self.add(what, found, Level::Note(hint))
    }

    pub(super) fn problem(&mut self, what: &str, problem: &str, hint: &str) -> Result<()> {
        self.add(what, problem, Level::Problem(hint))
    }

    pub(super) fn result(&mut self, what: &str, result: Result<String, Problem>) -> Result<()> {
        match result {
            Ok(found) => self.ok(what, &found),
            Err(Problem { problem, hint }) => self.problem(what, &problem, &hint),
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
        self.all.push(Tried {
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
        Ok(if self.all.iter().all(|tried| tried.ok) {
            ExitStatus::Success
        } else {
            ExitStatus::Failure
        })
    }
}
