//! One job on a connection: its statements by name, and its attempts.

use std::iter::Take;
use std::time::Duration;

use super::calls::{self, Call};
use super::cells::{Cell, SqlRows};
use super::database::{FaultKind, HashForm, SqlDatabase, SqlFault, SqlSession, Use};
use super::place::StatementPlace;
use super::statements::Statements;
use crate::base::backoff::Backoff;
use crate::storage::StorageError;
use crate::storage::values::log_refused;

/// How often a transaction is retried after a lock conflict, and the delays before.
const COLLISIONS_MAX: usize = 3;
const COLLISION_FIRST: Duration = Duration::from_millis(20);
const COLLISION_MAX: Duration = Duration::from_millis(500);

/// Whether a job may be repeated when its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Repeat {
    Harmless,
    Never,
}

/// How often a job may still be tried.
pub(in crate::storage) struct Retries {
    /// The delays before retries after lock conflicts.
    collisions: Take<Backoff>,
    /// How many more connections may be lost.
    losses: u32,
}

/// A connection, with the statements that run on it.
pub(super) struct Job<'a> {
    session: Box<dyn SqlSession + 'a>,
    statements: &'a Statements,
    has_savepoint: bool,
    /// Rows of credit that the database did not take in full: to be logged after the commit.
    pub(super) notes: Vec<String>,
}

/// The attempts of one job.
pub(super) struct Tries<'a, D> {
    database: &'a D,
    statements: &'a Statements,
    purpose: Use,
    retries: Retries,
}

// === impl Job ===

impl Job<'_> {
    pub(super) async fn begin(&mut self) -> Result<(), SqlFault> {
        self.session.begin().await
    }

    /// Commits, and logs the notes.
    pub(super) async fn commit(&mut self) -> Result<(), SqlFault> {
        self.session.commit().await?;
        log_refused(&std::mem::take(&mut self.notes));
        Ok(())
    }

    /// A savepoint before this call: a failure is to take back what the call did, and nothing else.
    pub(super) async fn savepoint_for(&mut self, call: &Call) -> Result<(), SqlFault> {
        let is_row_by_row = !call.rows.is_empty() && self.session.is_row_by_row();
        let is_several = self.statements.of(call).len() > 1;
        if is_several || is_row_by_row || !self.session.survives_failures() {
            return self.savepoint().await;
        }
        self.has_savepoint = false;
        Ok(())
    }

    /// A savepoint before several calls.
    pub(super) async fn savepoint(&mut self) -> Result<(), SqlFault> {
        self.has_savepoint = true;
        self.session.savepoint().await
    }

    /// Takes back what a call did that failed, since the last savepoint.
    pub(super) async fn undo(&mut self) -> Result<(), SqlFault> {
        if self.has_savepoint {
            self.session.undo().await?;
        }
        Ok(())
    }

    /// Whether there is a statement of that name; those that are optional may be empty.
    pub(super) fn has(&self, call: &Call) -> bool {
        !self.statements.of(call).is_empty()
    }

    /// An answer for people if the schema has no such statement: it does not support `what`.
    pub(super) fn require(&self, call: &Call, what: &str) -> Result<(), SqlFault> {
        if self.has(call) {
            return Ok(());
        }
        let lacking = self.place(call).lacking();
        Err(StorageError::Unsupported(format!("{what}{lacking}")).into())
    }

    /// The rows of a named statement.
    pub(super) async fn call(
        &mut self,
        call: &'static Call,
        params: &[(&'static str, Cell<'_>)],
    ) -> Result<SqlRows, SqlFault> {
        self.call_then(call, params, "").await
    }

    /// The rows of a named statement with `tail` at its end.
    pub(super) async fn call_then(
        &mut self,
        call: &'static Call,
        params: &[(&'static str, Cell<'_>)],
        tail: &str,
    ) -> Result<SqlRows, SqlFault> {
        let statements = self.statements;
        let mut rows = SqlRows::default();
        for statement in statements.of(call) {
            rows = self.session.run(statement, params, tail).await?;
        }
        self.checked(call, rows)
    }

    /// The results of a named statement for `rows`.
    pub(super) async fn call_for(
        &mut self,
        call: &'static Call,
        rows: &SqlRows,
    ) -> Result<SqlRows, SqlFault> {
        self.call_for_columns(call, call.rows, rows).await
    }

    /// Like [`Self::call_for`], with rows of these columns, which may be more than the statement needs.
    pub(super) async fn call_for_columns(
        &mut self,
        call: &'static Call,
        columns: &'static str,
        rows: &SqlRows,
    ) -> Result<SqlRows, SqlFault> {
        let statements = self.statements;
        let mut found = SqlRows::default();
        if rows.is_empty() {
            return Ok(found);
        }
        for statement in statements.of(call) {
            let more = self.session.run_for(statement, columns, rows).await?;
            if found.is_empty() {
                found = more;
            } else {
                found.extend(&more);
            }
        }
        self.checked(call, found)
    }

    /// The result of a call, if it has all columns.
    fn checked(&self, call: &Call, rows: SqlRows) -> Result<SqlRows, SqlFault> {
        if rows.is_empty() || rows.width() >= call.width() {
            return Ok(rows);
        }
        Err(SqlFault::broken(self.place(call).of_config(&format!(
            "it must give the columns {}, and gives {} of {}",
            call.columns.replace(' ', ", "),
            rows.width(),
            call.width()
        ))))
    }

    /// The statements behind the names.
    pub(super) fn statements(&self) -> &Statements {
        self.statements
    }

    /// Where the statement of a call is.
    pub(super) fn place(&self, call: &Call) -> StatementPlace {
        self.statements.place(call)
    }

    pub(super) async fn lock_edits(&mut self) -> Result<(), SqlFault> {
        self.session.lock_edits().await
    }

    /// How a site's columns hold info hashes.
    pub(super) async fn hash_forms(&mut self) -> Result<[HashForm; 2], SqlFault> {
        match self.statements.of(&calls::TORRENTS).first() {
            Some(torrents) => self.session.hash_forms(torrents).await,
            None => Ok([HashForm::Bytes, HashForm::Bytes]),
        }
    }

    /// Whether 20 zeros can't be an info hash.
    pub(super) fn pads_with_zeros(&self) -> bool {
        self.session.pads_with_zeros()
    }

    pub(super) async fn feed_settled(&mut self, after: u64, newest: u64) -> Result<u64, SqlFault> {
        self.session.feed_settled(after, newest).await
    }

    pub(super) async fn set_clamping(&mut self, clamps: bool) -> Result<bool, SqlFault> {
        self.session.set_clamping(clamps).await
    }
}

// === impl Retries ===

impl Retries {
    pub(in crate::storage) fn new(repeat: Repeat) -> Self {
        Self {
            collisions: Backoff::new(COLLISION_FIRST, COLLISION_MAX).take(COLLISIONS_MAX),
            losses: u32::from(repeat == Repeat::Harmless),
        }
    }

    /// Whether the job is to be tried again after this fault; waits until then.
    pub(in crate::storage) async fn wait(&mut self, fault: &SqlFault) -> bool {
        if fault.is_collision()
            && let Some(wait) = self.collisions.next()
        {
            tokio::time::sleep(wait).await;
            return true;
        }
        if fault.kind == FaultKind::Lost && self.losses > 0 {
            self.losses -= 1;
            return true;
        }
        false
    }
}

// === impl Tries ===

impl<'a, D: SqlDatabase> Tries<'a, D> {
    pub(super) fn new(
        database: &'a D,
        statements: &'a Statements,
        purpose: Use,
        repeat: Repeat,
    ) -> Self {
        Self {
            database,
            statements,
            purpose,
            retries: Retries::new(repeat),
        }
    }

    /// A connection for the next attempt.
    pub(super) async fn open(&self) -> Result<Job<'a>, StorageError> {
        let session = self.database.session(self.purpose).await;
        Ok(Job {
            session: session.map_err(|fault| fault.error)?,
            statements: self.statements,
            has_savepoint: false,
            notes: Vec::new(),
        })
    }

    /// Ends an attempt: returns the result of the job, or none if it is to be retried.
    pub(super) async fn end<T>(
        &mut self,
        job: Job<'a>,
        result: Result<T, SqlFault>,
    ) -> Option<Result<T, StorageError>> {
        let (done, fault) = match result {
            Ok(done) => (Some(done), None),
            Err(fault) => (None, Some(fault)),
        };
        let fault = job.session.end(fault).await;
        if let Some(done) = done {
            return Some(Ok(done));
        }
        let fault = fault.unwrap_or_else(|| SqlFault::broken("a job failed without a reason"));
        if self.retries.wait(&fault).await {
            return None;
        }
        Some(Err(fault.error))
    }
}
