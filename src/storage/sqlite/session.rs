//! A connection while a job has it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;

use super::fault::SqliteFault;
use super::statement::SqliteStatement;
use super::worker::{Worker, WorkerTurn};
use crate::storage::sql::cells::{Cell, SqlParams, SqlRows};
use crate::storage::sql::database::{SqlFault, SqlResult, SqlSession};
use crate::storage::sql::statements::Statement;

/// A connection while a job has it, which nobody else uses until all of the job is done or taken back.
pub(super) struct SqliteSession<'a> {
    turn: WorkerTurn<'a>,
    /// For each statement.
    time_limit: Duration,
    begin: &'static str,
    /// Whether a transaction may be open.
    in_transaction: bool,
    has_savepoint: bool,
}

impl<'a> SqliteSession<'a> {
    /// Waits for the connection. `begin` is the statement that begins a transaction.
    pub(super) async fn open(
        worker: &'a Worker,
        time_limit: Duration,
        begin: &'static str,
    ) -> SqlResult<Self> {
        Ok(Self {
            turn: worker.turn(time_limit).await?,
            time_limit,
            begin,
            in_transaction: false,
            has_savepoint: false,
        })
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &str {
        self.turn.path()
    }

    /// Does a part of the job, unless its transaction has ended.
    pub(super) async fn step<T: Send + 'static>(
        &self,
        part: impl FnOnce(&Connection) -> Result<T, SqliteFault> + Send + 'static,
    ) -> SqlResult<T> {
        let in_transaction = self.in_transaction;
        let part = move |connection: &mut Connection| {
            if !in_transaction {
                return part(connection);
            }
            must_be_open(connection)?;
            match part(connection) {
                // SQLite itself ends the transaction if, say, the disk is full.
                Err(fault) if !fault.is_constraint() => Err(fault),
                result => must_be_open(connection).and(result),
            }
        };
        self.turn.run(self.time_limit, part).await
    }
}

/// A trigger of the site's may have rolled the transaction back: later statements would be committed alone.
fn must_be_open(connection: &Connection) -> Result<(), SqliteFault> {
    if connection.is_autocommit() {
        let text = "a trigger ends the transaction: let it use RAISE(ABORT, …) and not ROLLBACK";
        return Err(SqliteFault::broken(text));
    }
    Ok(())
}

#[async_trait]
impl SqlSession for SqliteSession<'_> {
    async fn begin(&mut self) -> SqlResult<()> {
        let begin = self.begin;
        // Before: this may be cancelled, and the statement is run nevertheless.
        self.in_transaction = true;
        self.has_savepoint = false;
        let begin = move |connection: &mut Connection| Ok(connection.execute_batch(begin)?);
        self.turn.run(self.time_limit, begin).await
    }

    async fn commit(&mut self) -> SqlResult<()> {
        let commit = |connection: &mut Connection| {
            must_be_open(connection)?;
            Ok(connection.execute_batch("COMMIT")?)
        };
        self.turn.run(self.time_limit, commit).await?;
        self.in_transaction = false;
        Ok(())
    }

    async fn savepoint(&mut self) -> SqlResult<()> {
        let sql = if self.has_savepoint {
            "RELEASE mika; SAVEPOINT mika"
        } else {
            "SAVEPOINT mika"
        };
        self.execute(sql).await?;
        self.has_savepoint = true;
        Ok(())
    }

    async fn run(
        &mut self,
        statement: &Statement,
        params: &SqlParams<'_>,
        tail: &str,
    ) -> SqlResult<SqlRows> {
        let (names, cells): (Vec<&str>, Vec<Cell<'_>>) = params.iter().copied().unzip();
        let statement = SqliteStatement::new(statement, &names, tail);
        let mut row = SqlRows::new(cells.len());
        row.push(&cells);
        self.step(move |connection| statement.run(connection, &row))
            .await
    }

    async fn run_for(
        &mut self,
        statement: &Statement,
        columns: &'static str,
        rows: &Arc<SqlRows>,
    ) -> SqlResult<SqlRows> {
        if rows.is_empty() {
            return Ok(SqlRows::default());
        }
        let columns: Vec<&str> = columns.split_whitespace().collect();
        let statement = SqliteStatement::new(statement, &columns, "");
        let rows = Arc::clone(rows);
        self.step(move |connection| statement.run(connection, &rows))
            .await
    }

    fn survives_failures(&self) -> bool {
        true
    }

    fn is_row_by_row(&self) -> bool {
        true
    }

    async fn execute(&mut self, sql: &str) -> SqlResult<()> {
        let sql = sql.to_owned();
        self.step(move |connection| Ok(connection.execute_batch(&sql)?))
            .await
    }

    /// A transaction that writes is the only one.
    async fn lock(&mut self, _name: &str) -> SqlResult<()> {
        Ok(())
    }

    /// What is left to do is done when it is dropped.
    async fn end(self: Box<Self>, failure: Option<SqlFault>) -> Option<SqlFault> {
        failure
    }
}

impl Drop for SqliteSession<'_> {
    fn drop(&mut self) {
        if !self.in_transaction {
            return;
        }
        self.turn.send(|connection| {
            if !connection.is_autocommit() {
                // It fails only if SQLite has rolled back by itself.
                let _ = connection.execute_batch("ROLLBACK");
            }
        });
    }
}
