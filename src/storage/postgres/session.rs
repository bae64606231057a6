//! A connection while a job has it: statements, and what the engine asks for beside them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::cells;
use super::fault::{PostgresFault, PostgresResult};
use super::link::{PING_TIMEOUT, PostgresConn, PostgresLink};
use super::settings;
use super::statement::{part, with_params, with_rows};
use super::values::{ColumnKind, PostgresValue};
use super::{feed, refused};
use crate::storage::StorageError;
use crate::storage::sql::calls::Call;
use crate::storage::sql::cells::{Cell, SqlParams, SqlRows};
use crate::storage::sql::database::{
    ANSWER_TIMEOUT, HashForm, SqlFault, SqlResult, SqlSession, Use,
};
use crate::storage::sql::statements::Statement;

/// The name of a lock of these tables. Its first half is `mika`.
macro_rules! lock_name {
    () => {
        "(1835625313, hashtext($1::text || '.' || current_schema()))"
    };
}

/// A connection while a job has it.
pub(super) struct PostgresSession<'a> {
    link: &'a PostgresLink,
    conn: PostgresConn,
    job: Use,
    stage: Stage,
    /// Whether a statement of the transaction failed, so that the server takes no other.
    has_failed: bool,
    /// Whether the next job needs a new connection.
    is_last: bool,
    /// Whether the site's info hashes are text.
    hashes_are_text: bool,
    _room: SemaphorePermit<'a>,
}

/// Where the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Each statement is a transaction.
    Single,
    Transaction,
    /// A transaction that can be taken back to a savepoint.
    Savepoint,
    /// A transaction that was rolled back: nothing more is written.
    Over,
}

impl<'a> PostgresSession<'a> {
    pub(super) fn new(
        link: &'a PostgresLink,
        conn: PostgresConn,
        room: SemaphorePermit<'a>,
        job: Use,
    ) -> Self {
        Self {
            link,
            conn,
            job,
            stage: Stage::Single,
            has_failed: false,
            is_last: false,
            hashes_are_text: false,
            _room: room,
        }
    }

    /// The pool that it is from.
    pub(super) fn link(&self) -> &'a PostgresLink {
        self.link
    }

    /// How long the server may take for a statement.
    pub(super) fn time_limit(&self) -> Duration {
        self.job.time_limit()
    }

    /// Runs statements of the driver's own without parameters and rows.
    pub(super) async fn batch(&mut self, sql: &str) -> PostgresResult<()> {
        let limit = self.time_limit() + PING_TIMEOUT;
        Ok(timeout(limit, self.conn.client.batch_execute(sql)).await??)
    }

    /// The rows of the driver's own SQL; its parameters are $1, $2 and so on.
    pub(super) async fn query(
        &mut self,
        sql: &str,
        params: &[Cell<'_>],
    ) -> PostgresResult<SqlRows> {
        let prepared = self.prepare(sql).await?;
        let params: Vec<_> = params.iter().copied().map(PostgresValue::Cell).collect();
        self.run_prepared(&prepared, &params).await
    }

    /// A prepared statement.
    pub(super) async fn prepare(&mut self, sql: &str) -> PostgresResult<tokio_postgres::Statement> {
        let limit = self.time_limit() + PING_TIMEOUT;
        Ok(timeout(limit, self.conn.prepare(sql)).await??)
    }

    /// The same by the tables as they are now: a statement that was prepared before may not know of a change.
    pub(super) async fn prepare_anew(
        &mut self,
        sql: &str,
    ) -> PostgresResult<tokio_postgres::Statement> {
        let limit = self.time_limit() + PING_TIMEOUT;
        Ok(timeout(limit, self.conn.client.prepare(sql)).await??)
    }

    /// Runs a prepared statement.
    pub(super) async fn run_prepared(
        &mut self,
        prepared: &tokio_postgres::Statement,
        params: &[PostgresValue<'_>],
    ) -> PostgresResult<SqlRows> {
        let limit = self.time_limit() + PING_TIMEOUT;
        let work = async {
            let found = self.conn.client.query_raw(prepared, params).await?;
            let mut found = pin!(found);
            let mut rows = cells::rows_of(prepared);
            while let Some(row) = found.try_next().await? {
                cells::push(&mut rows, &row)?;
            }
            rows.changed = found.rows_affected().unwrap_or(0);
            Ok::<_, tokio_postgres::Error>(rows)
        };
        Ok(timeout(limit, work).await??)
    }

    /// The rows of a named statement with `tail` at its end.
    async fn call(
        &mut self,
        statement: &Statement,
        params: &SqlParams<'_>,
        tail: &str,
    ) -> PostgresResult<SqlRows> {
        self.must_go_on(statement.call)?;
        let (sql, names) = with_params(statement, tail);
        let prepared = self.prepare(&sql).await?;
        let is_lookup = !statement.call.columns.is_empty();
        let mut values = Vec::with_capacity(names.len());
        for (name, of) in names.into_iter().zip(prepared.params()) {
            let given = params.iter().find(|(param, _)| *param == name);
            let value = PostgresValue::Cell(given.map_or(Cell::Null, |(_, value)| *value));
            if is_lookup {
                values.push(value.for_lookup(of));
            } else if let Some(why) = value.misfit(of) {
                return Err(refused::of_parameter(name, why).into());
            } else {
                values.push(value);
            }
        }
        self.run_prepared(&prepared, &values).await
    }

    /// The results of a named statement for `rows`.
    async fn call_for(
        &mut self,
        statement: &Statement,
        columns: &str,
        rows: &SqlRows,
    ) -> PostgresResult<SqlRows> {
        self.must_go_on(statement.call)?;
        let sql = self.with_rows(statement, columns)?;
        let prepared = self.prepare(&sql).await?;
        let mut found = cells::rows_of(&prepared);
        let mut start = 0;
        while start < rows.len() {
            let part = part(rows, start);
            start = part.end;
            let row = |number: usize| rows.row(number);
            let names = columns.split_whitespace().enumerate();
            let values: Vec<_> = names
                .map(|(column, name)| {
                    let kind = ColumnKind::of(name, self.hashes_are_text);
                    kind.values(column, part.clone().filter_map(row))
                })
                .collect();
            found.extend(&self.run_prepared(&prepared, &values).await?);
        }
        Ok(found)
    }

    /// How the site's columns hold info hashes. Text can hold them in hex only: it has no NUL. The literal is the
    /// hex of the text, which [`ColumnKind::values`] reads.
    pub(super) async fn look_at_hashes(
        &mut self,
        torrents: &Statement,
    ) -> PostgresResult<[HashForm; 2]> {
        let (sql, _) = with_params(torrents, "");
        let prepared = self.prepare(&sql).await;
        let prepared = prepared.map_err(|fault| fault.within(torrents))?;
        let form = |column: usize| match prepared.columns().get(column) {
            Some(column) if cells::is_text(column.type_()) => HashForm::Text {
                is_hex: true,
                literal: "{}".into(),
            },
            _ => HashForm::Bytes,
        };
        let forms = [form(1), form(2)];
        self.hashes_are_text = forms[0] != HashForm::Bytes;
        Ok(forms)
    }

    /// The text of a statement for rows, which has an array for each column.
    pub(super) fn with_rows(&self, statement: &Statement, columns: &str) -> PostgresResult<String> {
        with_rows(statement, columns, self.hashes_are_text)
    }

    /// Rolls back what a failed statement leaves, so that others can be run: to the savepoint if there is one.
    pub(super) async fn recover(&mut self) -> PostgresResult<()> {
        match self.stage {
            Stage::Single | Stage::Over => {}
            Stage::Savepoint => self.batch("ROLLBACK TO SAVEPOINT mika").await?,
            Stage::Transaction => {
                self.batch("ROLLBACK").await?;
                self.stage = Stage::Over;
            }
        }
        self.has_failed = false;
        Ok(())
    }

    /// Nothing may be done outside a transaction that is over. What explains its failure may be looked up.
    fn must_go_on(&self, call: &Call) -> PostgresResult<()> {
        let is_own_lookup = call.own && !call.columns.is_empty();
        match self.stage {
            Stage::Over if !is_own_lookup => Err(PostgresFault::broken(
                "a transaction was rolled back before its end",
            )),
            _ => Ok(()),
        }
    }

    /// Whether a transaction is open.
    pub(super) fn is_in_transaction(&self) -> bool {
        matches!(self.stage, Stage::Transaction | Stage::Savepoint)
    }

    async fn start(&mut self) -> PostgresResult<()> {
        self.batch(settings::BEGIN).await?;
        self.stage = Stage::Transaction;
        Ok(())
    }

    /// Commits. The server would answer the COMMIT of a failed transaction by a silent rollback.
    async fn finish(&mut self) -> PostgresResult<()> {
        if self.has_failed || !self.is_in_transaction() {
            let text = "a transaction of which a part failed can't be committed";
            return Err(PostgresFault::broken(text));
        }
        self.batch("COMMIT").await?;
        self.stage = Stage::Single;
        Ok(())
    }

    /// Returns the connection to the pool after its job, or drops it.
    async fn close(self) {
        if self.is_last || self.conn.client.is_closed() {
            return self.link.drop_idle();
        }
        if self.is_in_transaction() {
            let rolled_back = self.conn.client.batch_execute("ROLLBACK");
            if !matches!(timeout(PING_TIMEOUT, rolled_back).await, Ok(Ok(()))) {
                return;
            }
        }
        if self.job.is_long()
            && settings::set_time_limit(&self.conn.client, ANSWER_TIMEOUT)
                .await
                .is_err()
        {
            return;
        }
        self.link.keep(self.conn);
    }
}

/// The result of a job on a session as the engine has it.
pub(super) fn told<T>(
    result: PostgresResult<T>,
    session: &mut PostgresSession<'_>,
) -> SqlResult<T> {
    result.map_err(|fault| {
        session.has_failed |= session.is_in_transaction() && fault.is_of_statement();
        session.is_last |= fault.wants_new_link();
        fault.told(session.link.place(), session.time_limit())
    })
}

#[async_trait]
impl SqlSession for PostgresSession<'_> {
    async fn begin(&mut self) -> SqlResult<()> {
        told(self.start().await, self)
    }

    async fn commit(&mut self) -> SqlResult<()> {
        told(self.finish().await, self)
    }

    async fn savepoint(&mut self) -> SqlResult<()> {
        // Savepoints of one name would be kept until the end.
        let sql = match self.stage {
            Stage::Savepoint => "RELEASE SAVEPOINT mika; SAVEPOINT mika",
            _ => "SAVEPOINT mika",
        };
        let result = self.batch(sql).await;
        if result.is_ok() {
            self.stage = Stage::Savepoint;
        }
        told(result, self)
    }

    async fn undo(&mut self) -> SqlResult<()> {
        told(self.recover().await, self)
    }

    async fn run(
        &mut self,
        statement: &Statement,
        params: &SqlParams<'_>,
        tail: &str,
    ) -> SqlResult<SqlRows> {
        let result = self.call(statement, params, tail).await;
        let result = result.map_err(|fault| refused::with_default(fault, statement));
        told(result, self)
    }

    async fn run_for(
        &mut self,
        statement: &Statement,
        columns: &'static str,
        rows: &Arc<SqlRows>,
    ) -> SqlResult<SqlRows> {
        let result = self.call_for(statement, columns, rows).await;
        let result = result.map_err(|fault| refused::with_default(fault, statement));
        told(result, self)
    }

    async fn execute(&mut self, sql: &str) -> SqlResult<()> {
        told(self.batch(sql).await, self)
    }

    async fn lock(&mut self, name: &str) -> SqlResult<()> {
        let sql = concat!("SELECT pg_advisory_xact_lock", lock_name!());
        let result = match self.query(sql, &[Cell::Text(name)]).await {
            Err(fault) if fault.is_locked() => {
                let text = "another mika or mika-manage is changing the same tables: try again";
                Err(StorageError::Away(text.into()).into())
            }
            result => result.map(drop),
        };
        told(result, self)
    }

    async fn lock_applying(&mut self, alone: bool) -> SqlResult<()> {
        let sql = if alone {
            concat!("SELECT pg_advisory_xact_lock", lock_name!())
        } else {
            concat!("SELECT pg_advisory_xact_lock_shared", lock_name!())
        };
        let result = self.query(sql, &[Cell::Text("apply")]).await;
        told(result.map(drop), self)
    }

    async fn hash_forms(&mut self, torrents: &Statement) -> SqlResult<[HashForm; 2]> {
        told(self.look_at_hashes(torrents).await, self)
    }

    async fn feed_settled(&mut self, after: u64, newest: u64) -> SqlResult<u64> {
        told(feed::settled(self, after, newest).await, self)
    }

    fn timeline(&self) -> Option<u32> {
        self.conn.timeline
    }

    async fn end(self: Box<Self>, failure: Option<SqlFault>) -> Option<SqlFault> {
        self.close().await;
        failure
    }
}
