//! One job on a connection: its statements by name, and its attempts.

use std::iter::Take;
use std::sync::Arc;
use std::time::Duration;

use super::calls::{self, Call};
use super::cells::{SqlParams, SqlRows};
use super::database::{FaultKind, HashForm, SqlDatabase, SqlFault, SqlResult, SqlSession, Use};
use super::misfit;
use super::place::StatementPlace;
use super::statements::{Statement, Statements};
use crate::base::backoff::Backoff;
use crate::storage::passed_over::{self, Uncredited};
use crate::storage::values::log_refused;
use crate::storage::{StorageError, StorageResult};

/// How often a transaction is retried after a lock conflict, and the delays before.
const COLLISIONS_MAX: usize = 3;
const COLLISION_FIRST: Duration = Duration::from_millis(20);
const COLLISION_MAX: Duration = Duration::from_millis(500);

/// Whether a job may be repeated when its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Harmless,
    Never,
}

/// A connection, with the statements that run on it.
pub(super) struct Job<'a> {
    session: Box<dyn SqlSession + 'a>,
    statements: &'a Statements,
    in_transaction: bool,
    has_savepoint: bool,
    /// Whether an earlier attempt was to insert a row that another transaction inserted meanwhile.
    met_duplicate: bool,
    /// Rows of credit that the database did not take in full: to be logged after the commit.
    pub(super) notes: Vec<String>,
    /// Credit that reaches no row: likewise.
    pub(super) uncredited: Vec<Uncredited>,
}

/// The attempts of one job.
pub(super) struct Tries<'a, D> {
    database: &'a D,
    statements: &'a Statements,
    purpose: Use,
    /// The delays before retries after lock conflicts.
    collisions: Take<Backoff>,
    met_duplicate: bool,
    /// How many more connections may be lost.
    losses: u32,
}

// === impl Job ===

impl<'a> Job<'a> {
    pub(super) async fn begin(&mut self) -> SqlResult<()> {
        self.in_transaction = true;
        self.session.begin().await
    }

    /// Commits, and logs the notes.
    pub(super) async fn commit(&mut self) -> SqlResult<()> {
        self.session.commit().await?;
        self.in_transaction = false;
        log_refused(&std::mem::take(&mut self.notes));
        let uncredited = std::mem::take(&mut self.uncredited);
        uncredited.iter().for_each(passed_over::log_uncredited);
        Ok(())
    }

    /// A savepoint before this call: a failure is to take back what the call did, and nothing else.
    pub(super) async fn savepoint_for(&mut self, call: &Call) -> SqlResult<()> {
        let is_row_by_row = !call.rows.is_empty() && self.session.is_row_by_row();
        let is_several = self.statements.of(call).len() > 1;
        if is_several || is_row_by_row || !self.session.survives_failures() {
            return self.savepoint().await;
        }
        self.has_savepoint = false;
        Ok(())
    }

    /// A savepoint before several calls.
    pub(super) async fn savepoint(&mut self) -> SqlResult<()> {
        self.has_savepoint = true;
        self.session.savepoint().await
    }

    /// Takes back what a call did that failed, since the last savepoint.
    pub(super) async fn undo(&mut self) -> SqlResult<()> {
        if self.has_savepoint {
            self.session.undo().await?;
        }
        Ok(())
    }

    /// The connection itself.
    pub(super) fn session(&mut self) -> &mut (dyn SqlSession + 'a) {
        &mut *self.session
    }

    /// The statements behind a name.
    pub(super) fn statements_of(&self, call: &Call) -> &'a [Statement] {
        self.statements.of(call)
    }

    /// Whether other statements can be run after one that failed.
    pub(super) fn can_go_on(&self) -> bool {
        !self.in_transaction || self.session.survives_failures()
    }

    /// Lets other statements be run after one that failed, which may end the transaction.
    pub(super) async fn recover(&mut self) -> SqlResult<()> {
        if self.can_go_on() {
            return Ok(());
        }
        self.session.undo().await
    }

    /// Whether there is a statement of that name; those that are optional may be empty.
    pub(super) fn has(&self, call: &Call) -> bool {
        !self.statements.of(call).is_empty()
    }

    /// An answer for people if the schema has no such statement: it does not support `what`.
    pub(super) fn require(&self, call: &Call, what: &str) -> SqlResult<()> {
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
        params: &SqlParams<'_>,
    ) -> SqlResult<SqlRows> {
        self.call_then(call, params, "").await
    }

    /// The rows of a named statement with `tail` at its end.
    pub(super) async fn call_then(
        &mut self,
        call: &'static Call,
        params: &SqlParams<'_>,
        tail: &str,
    ) -> SqlResult<SqlRows> {
        let statements = self.statements;
        let mut rows = SqlRows::default();
        for statement in statements.of(call) {
            rows = match self.session.run(statement, params, tail).await {
                Err(fault) if !call.own => {
                    misfit::found_or_refused(self, fault, statement, params).await?
                }
                result => result?,
            };
        }
        self.checked(call, rows)
    }

    /// The results of a named statement for `rows`.
    pub(super) async fn call_for(
        &mut self,
        call: &'static Call,
        rows: SqlRows,
    ) -> SqlResult<SqlRows> {
        self.call_for_columns(call, call.rows, &Arc::new(rows))
            .await
    }

    /// Like [`Self::call_for`], with rows of these columns, which may be more than the statement needs.
    pub(super) async fn call_for_columns(
        &mut self,
        call: &'static Call,
        columns: &'static str,
        rows: &Arc<SqlRows>,
    ) -> SqlResult<SqlRows> {
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
    fn checked(&self, call: &Call, rows: SqlRows) -> SqlResult<SqlRows> {
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
    pub(super) fn statements(&self) -> &'a Statements {
        self.statements
    }

    /// Where the statement of a call is.
    pub(super) fn place(&self, call: &Call) -> StatementPlace {
        self.statements.place(call)
    }

    /// Nodes apply side by side. One that met a row which another inserted meanwhile does it alone: another one that
    /// keeps inserting what this one is about to insert would make it fail again and again.
    pub(super) async fn lock_applying(&mut self) -> SqlResult<()> {
        self.session.lock_applying(self.met_duplicate).await
    }

    /// Excludes other processes that edit: a site's tables need not have unique keys.
    pub(super) async fn lock_edits(&mut self) -> SqlResult<()> {
        self.session.lock("edit").await
    }

    /// How a site's columns hold info hashes.
    pub(super) async fn hash_forms(&mut self) -> SqlResult<[HashForm; 2]> {
        match self.statements.of(&calls::TORRENTS).first() {
            Some(torrents) => self.session.hash_forms(torrents).await,
            None => Ok([HashForm::Bytes, HashForm::Bytes]),
        }
    }

    /// Whether 20 zeros can't be an info hash.
    pub(super) fn pads_with_zeros(&self) -> bool {
        self.session.pads_with_zeros()
    }

    pub(super) async fn feed_settled(&mut self, after: u64, newest: u64) -> SqlResult<u64> {
        self.session.feed_settled(after, newest).await
    }

    pub(super) async fn set_clamping(&mut self, clamps: bool) -> SqlResult<bool> {
        self.session.set_clamping(clamps).await
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
            collisions: Backoff::new(COLLISION_FIRST, COLLISION_MAX).take(COLLISIONS_MAX),
            met_duplicate: false,
            losses: u32::from(repeat == Repeat::Harmless),
        }
    }

    /// A connection for the next attempt.
    pub(super) async fn open(&self) -> StorageResult<Job<'a>> {
        let session = self.database.session(self.purpose).await;
        Ok(Job {
            session: session.map_err(|fault| fault.error)?,
            statements: self.statements,
            in_transaction: false,
            has_savepoint: false,
            met_duplicate: self.met_duplicate,
            notes: Vec::new(),
            uncredited: Vec::new(),
        })
    }

    /// Ends an attempt: returns the result of the job, or none if it is to be retried.
    pub(super) async fn end<T>(
        &mut self,
        job: Job<'a>,
        result: SqlResult<T>,
    ) -> Option<StorageResult<T>> {
        let (done, fault) = match result {
            Ok(done) => (Some(done), None),
            Err(fault) => (None, Some(fault)),
        };
        let fault = job.session.end(fault).await;
        if let Some(done) = done {
            return Some(Ok(done));
        }
        let fault = fault.unwrap_or_else(|| SqlFault::broken("a job failed without a reason"));
        if self.wait_for_retry(&fault).await {
            return None;
        }
        Some(Err(fault.error))
    }

    /// Whether the job is to be tried again after this fault; waits until then.
    async fn wait_for_retry(&mut self, fault: &SqlFault) -> bool {
        if fault.is_collision()
            && let Some(wait) = self.collisions.next()
        {
            self.met_duplicate |= fault.duplicate_key().is_some();
            tokio::time::sleep(wait).await;
            return true;
        }
        let may_be_lost = fault.kind == FaultKind::Lost && self.losses > 0;
        self.losses -= u32::from(may_be_lost);
        may_be_lost
    }
}
