//! Runs each statement of an operator's own once, in a transaction that is taken back, and looks whether they fit
//! together: what `users` gives, the other statements have to find, and credit has to arrive where `users` reads it.
//!
//! Writes are about the first user and the first torrent of the site, or about none. An id that the database chooses
//! for a new row is lost with it.

mod hashes;
mod reads;
mod writes;

use super::calls::{self, CALLS, Call};
use super::catalogue;
use super::cells::{Cell, SqlParams, SqlRow, SqlRows};
use super::check::failing;
use super::check::inspect::{NO_TRANSACTIONS, to_innodb};
use super::database::{FaultKind, SqlFault, SqlResult};
use super::job::Job;
use super::misfit::key_taken;
use super::statements::{Statements, has_word, mentions};
use crate::storage::{Finding, Severity, StorageError, StoredTorrent, StoredUser};

/// Names of columns that are numbers, and 0 where they can't be read.
const NUMBERS: &str = "uploaded downloaded snatches announces seed_time seeders leechers";

/// What a statement is given.
#[derive(Clone, Copy)]
enum Given<'g> {
    Params(&'g SqlParams<'g>),
    Rows(&'g SqlRows),
}

impl<'g, const N: usize> From<&'g [(&'static str, Cell<'g>); N]> for Given<'g> {
    fn from(params: &'g [(&'static str, Cell<'g>); N]) -> Self {
        Self::Params(params)
    }
}

impl<'g> From<&'g SqlRows> for Given<'g> {
    fn from(rows: &'g SqlRows) -> Self {
        Self::Rows(rows)
    }
}

/// The trial while it runs.
struct StatementTrial<'t, 'a> {
    job: &'t mut Job<'a>,
    /// What was found before, which is not said again.
    known: &'t [Finding],
    findings: Vec<Finding>,
}

/// The first rows of a page as they were read, with those that can be used.
struct Sample<T> {
    rows: SqlRows,
    usable: Vec<T>,
}

/// Whether statements are to be tried: those of this crate need not be.
pub(super) fn is_wanted(statements: &Statements, known: &[Finding]) -> bool {
    let is_obstacle =
        |it: &Finding| it.severity == Severity::Fatal || it.problem.contains(NO_TRANSACTIONS);
    statements.has_own() && !known.iter().any(is_obstacle)
}

/// Runs the statements; returns what does not work.
pub(super) async fn run(job: &mut Job<'_>, known: &[Finding]) -> SqlResult<Vec<Finding>> {
    if let Some(finding) = keeps_writes(job).await? {
        return Ok(vec![finding]);
    }
    job.begin().await?;
    let mut trial = StatementTrial {
        job,
        known,
        findings: Vec::new(),
    };
    trial.begin().await?;
    let users = trial.users().await?;
    let torrents = trial.torrents().await?;
    trial.hashes().await?;
    trial.lists().await?;
    trial.credit(&users, &torrents).await?;
    trial
        .edits(users.usable.first(), torrents.usable.first())
        .await?;
    let findings = std::mem::take(&mut trial.findings);
    // Each part was taken back, so there is nothing to commit.
    job.commit().await?;
    Ok(findings)
}

/// A table that the statements or the triggers behind them name and that would keep what they write, or a view that
/// may show one: nothing is tried then.
async fn keeps_writes(job: &mut Job<'_>) -> SqlResult<Option<Finding>> {
    if !job.has(&calls::WITHOUT_TRANSACTIONS) {
        return Ok(None);
    }
    let found = job.call(&calls::WITHOUT_TRANSACTIONS, &[]).await?;
    let tables = catalogue::tables(job).await?;
    let triggers = catalogue::triggers(job).await?;
    let statements = job.statements();
    let is_used = |name: &str| {
        let mut calls = CALLS.into_iter();
        calls.any(|call| mentions(statements.of(call), name))
            || triggers.iter().any(|trigger| has_word(&trigger.body, name))
    };
    let is_written =
        |row: &SqlRow<'_>| is_used(&row.text(0)) && (row.is_null(2) || is_used(&row.text(2)));
    if let Some(row) = found.iter().find(is_written) {
        let (name, engine) = (row.text(0), row.text(1));
        return Ok(Some(Finding::problem(
            format!(
                "the table {name} has the engine {engine}, {NO_TRANSACTIONS}: credit could count twice, and the \
                 statements were not run"
            ),
            to_innodb(&name),
        )));
    }
    let is_view = |table: &&catalogue::SqlTable| table.is_view && is_used(&table.name);
    let view = tables.iter().find(is_view).filter(|_| !found.is_empty());
    Ok(view.map(|view| {
        Finding::note(
            format!(
                "the statements were not run: {} is a view, and may show a table without transactions",
                view.name
            ),
            "see that its tables have the engine InnoDB",
        )
    }))
}

/// Whether a failure is none of the statement's.
fn is_passing(fault: &SqlFault) -> bool {
    matches!(fault.kind, FaultKind::Collision | FaultKind::Lost)
        || matches!(fault.error, StorageError::Away(_))
}

impl StatementTrial<'_, '_> {
    /// Begins a part, which [`Self::end`] takes back.
    async fn begin(&mut self) -> SqlResult<()> {
        self.job.savepoint().await
    }

    async fn end(&mut self) -> SqlResult<()> {
        self.job.undo().await
    }

    /// Runs a statement as a part of its own.
    async fn part(
        &mut self,
        call: &'static Call,
        given: impl Into<Given<'_>> + Send,
    ) -> SqlResult<Option<SqlRows>> {
        self.begin().await?;
        let rows = self.run(call, given).await?;
        self.end().await?;
        Ok(rows)
    }

    /// Runs a statement within a part; none if it fails, which takes the part back.
    async fn run(
        &mut self,
        call: &'static Call,
        given: impl Into<Given<'_>> + Send,
    ) -> SqlResult<Option<SqlRows>> {
        let result = match given.into() {
            Given::Params(params) => self.job.call(call, params).await,
            Given::Rows(rows) => self.job.call_for(call, rows.clone()).await,
        };
        match result {
            Ok(rows) => {
                self.look_at(call, &rows);
                Ok(Some(rows))
            }
            Err(fault) => {
                self.failed(call, fault).await?;
                Ok(None)
            }
        }
    }

    /// Notes why a statement failed, and takes its part back. Other failures than the statement's end the trial.
    async fn failed(&mut self, call: &'static Call, fault: SqlFault) -> SqlResult<()> {
        if is_passing(&fault) {
            return Err(fault);
        }
        self.end().await?;
        let refused = match (&fault.error, fault.duplicate_key()) {
            (StorageError::Invalid(problem), _) => Some(problem.clone()),
            (_, Some(key)) => Some(key_taken(self.job, key, false).await?),
            _ => fault.refused_row(),
        };
        let place = self.job.place(call);
        let finding = match refused {
            Some(why) if call.optional && call.columns.is_empty() => Finding::note(
                format!("what the statement {place} writes would be refused: {why}"),
                format!(
                    "until then such edits fail: correct the table, or {}",
                    place.remedy()
                ),
            ),
            why => {
                let why = why.unwrap_or_else(|| fault.error.to_string());
                // The statement is named already.
                let why = why.split(" (statement ").next().unwrap_or_default();
                failing::finding(why, &[call], self.job.statements())
            }
        };
        self.note(finding);
        Ok(())
    }

    /// Adds a finding, unless its column was named before.
    fn note(&mut self, finding: Finding) {
        let column = finding
            .problem
            .split_once("the column ")
            .map(|(_, rest)| rest);
        let column =
            column.and_then(|rest| rest.split_inclusive('`').nth(1).zip(rest.split('`').nth(3)));
        let is_known = column.is_some_and(|(name, table)| {
            let shown = format!("`{name} of `{table}`");
            self.known.iter().any(|it| it.problem.contains(&shown))
        });
        if !is_known && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn problem(&mut self, call: &Call, problem: impl AsRef<str>) {
        let place = self.job.place(call);
        self.note(Finding::problem(
            format!("the statement {place} {}", problem.as_ref()),
            format!("correct {}", place.remedy()),
        ));
    }

    /// Looks at the columns of a result.
    fn look_at(&mut self, call: &'static Call, rows: &SqlRows) {
        let (width, wanted) = (rows.width(), call.width());
        if wanted > 0 && width > wanted {
            let place = self.job.place(call);
            self.note(Finding::note(
                format!(
                    "the statement {place} gives {width} columns, and only the first {wanted} are read: {}",
                    call.columns.replace(' ', ", ")
                ),
                "columns are known by their position: see whether one is too much",
            ));
        }
        let names = call.columns.split_whitespace().enumerate();
        for (at, name) in names.filter(|(_, name)| has_word(NUMBERS, name)) {
            let is_wrong = |row: SqlRow<'_>| !row.is_null(at) && row.number(at).is_none();
            if rows.iter().any(is_wrong) {
                let place = at + 1;
                self.problem(
                    call,
                    format!("gives no number as its column {place}, {name}: it would be read as 0"),
                );
            }
        }
    }
}
