//! A connection while a job has it: statements, and what the engine asks for beside them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use mysql_async::{Column, Conn, Value};
use tokio::join;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::fault::{MysqlFault, MysqlResult};
use super::link::{MysqlLink, PING_TIMEOUT};
use super::rows::TextsForRows;
use super::settings::SQL_MODE;
use super::{cells, definers, feed, hashes};
use crate::storage::StorageError;
use crate::storage::sql::calls::Call;
use crate::storage::sql::cells::{Cell, SqlParams, SqlRows};
use crate::storage::sql::database::{HashForm, SqlFault, SqlResult, SqlSession};
use crate::storage::sql::statements::{Piece, Statement, Statements};

/// Seconds for which a job waits for the named lock of another.
const LOCK_SECONDS: u32 = 8;

/// A connection while a job has it.
pub(super) struct MysqlSession<'a> {
    link: &'a MysqlLink,
    conn: Conn,
    statements: &'a Statements,
    time_limit: Duration,
    /// Whether it holds named locks, which outlive a transaction.
    is_locking: bool,
    /// Whether the next job needs a new connection.
    is_last: bool,
    /// Whether strict mode is off for a statement; such a connection must not be reused.
    is_lenient: bool,
    _room: SemaphorePermit<'a>,
}

impl<'a> MysqlSession<'a> {
    pub(super) fn new(
        link: &'a MysqlLink,
        conn: Conn,
        room: SemaphorePermit<'a>,
        statements: &'a Statements,
        time_limit: Duration,
    ) -> Self {
        Self {
            link,
            conn,
            statements,
            time_limit,
            is_locking: false,
            is_last: false,
            is_lenient: false,
            _room: room,
        }
    }

    /// The pool that it is from.
    pub(super) fn link(&self) -> &'a MysqlLink {
        self.link
    }

    pub(super) fn server_version(&self) -> (u16, u16, u16) {
        self.conn.server_version()
    }

    /// The statements behind a name.
    pub(super) fn statements_of(&self, call: &Call) -> &'a [Statement] {
        self.statements.of(call)
    }

    /// The rows of the driver's own SQL.
    pub(super) async fn query(&mut self, sql: &str) -> MysqlResult<SqlRows> {
        let mut rows = SqlRows::default();
        self.query_into(&mut rows, sql).await?;
        Ok(rows)
    }

    async fn query_into(&mut self, rows: &mut SqlRows, sql: &str) -> MysqlResult<()> {
        Ok(timeout(self.time_limit, cells::query(&mut self.conn, sql, rows)).await??)
    }

    /// The rows of the driver's own SQL with parameters.
    pub(super) async fn exec(&mut self, sql: &str, params: &[Cell<'_>]) -> MysqlResult<SqlRows> {
        let params = params.iter().map(cells::param).collect();
        self.exec_values(sql, params).await
    }

    async fn exec_values(&mut self, sql: &str, params: Vec<Value>) -> MysqlResult<SqlRows> {
        Ok(timeout(self.time_limit, cells::exec(&mut self.conn, sql, params)).await??)
    }

    /// The rows of a named statement with `tail` at its end.
    pub(super) async fn call(
        &mut self,
        statement: &Statement,
        params: &SqlParams<'_>,
        tail: &str,
    ) -> MysqlResult<SqlRows> {
        let (mut sql, values) = prepared(statement, params);
        sql.push_str(tail);
        let result = self.exec_values(&sql, values).await;
        result.map_err(|fault| fault.within(statement))
    }

    /// The results of a named statement for `rows`, as many at a time as one text holds. While the server
    /// works on a text, the next is built.
    pub(super) async fn call_for(
        &mut self,
        statement: &Statement,
        columns: &str,
        rows: &SqlRows,
    ) -> MysqlResult<SqlRows> {
        let mut found = SqlRows::default();
        let mut texts = TextsForRows::new(statement, columns, rows);
        let mut next = texts.next();
        while let Some(sql) = next {
            let following = async { texts.next() };
            let (done, following) = join!(self.query_into(&mut found, &sql), following);
            done.map_err(|fault| fault.within(statement))?;
            next = following;
        }
        Ok(found)
    }

    /// The result columns of a named statement, as the server describes them.
    pub(super) async fn described(&mut self, statement: &Statement) -> MysqlResult<Arc<[Column]>> {
        // Prepared statements are cached: one round trip for each connection.
        let (sql, _) = prepared(statement, &[]);
        let prepared = timeout(self.time_limit, self.conn.prep(sql)).await?;
        let prepared = prepared.map_err(|error| MysqlFault::from(error).within(statement))?;
        Ok(prepared.columns())
    }

    /// Prepares a statement without running it; returns the number of result columns.
    pub(super) async fn prepare(&mut self, sql: &str) -> MysqlResult<usize> {
        let prepared = async {
            let statement = self.conn.prep(sql).await?;
            let width = statement.columns().len();
            self.conn.close(statement).await?;
            Ok::<_, MysqlFault>(width)
        };
        timeout(self.time_limit, prepared).await?
    }

    /// Acquires a lock that excludes other processes with the same database.
    async fn acquire(&mut self, name: &str) -> MysqlResult<()> {
        // Locks are global on the server; a name has at most 64 characters.
        let sql = format!(
            "SELECT GET_LOCK(CONCAT('mika.{name}.', LEFT(MD5(DATABASE()), 16)), {LOCK_SECONDS})"
        );
        self.is_locking = true;
        let rows = self.query(&sql).await?;
        if rows.first().is_some_and(|row| row.flag(0)) {
            return Ok(());
        }
        let text = "another mika or mika-manage is changing the same tables: try again";
        Err(StorageError::Away(text.into()).into())
    }

    /// Returns the connection to the pool after its job, or drops it.
    async fn close(mut self, has_failed: bool) {
        if self.is_last || self.is_lenient {
            return self.link.drop_idle();
        }
        let clean = match (has_failed, self.is_locking) {
            (false, false) => "",
            (false, true) => "DO RELEASE_ALL_LOCKS()",
            (true, false) => "ROLLBACK",
            (true, true) => "ROLLBACK; DO RELEASE_ALL_LOCKS()",
        };
        for sql in clean.split_terminator("; ") {
            match timeout(PING_TIMEOUT, self.conn.query_drop(sql)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
        self.link.keep(self.conn).await;
    }
}

/// The result of a job on a session as the engine has it: with the trigger in the fault of one that runs as an unusable
/// account.
pub(super) async fn told<T>(
    result: MysqlResult<T>,
    session: &mut MysqlSession<'_>,
) -> SqlResult<T> {
    let fault = match result {
        Ok(done) => return Ok(done),
        Err(fault) => fault,
    };
    session.is_last |= fault.wants_new_link();
    let complaint = fault.complaint();
    let fault = if fault.is_by_account() {
        definers::named(session, fault).await
    } else {
        fault
    };
    let fault = fault.told(session.link.place(), session.time_limit);
    Err(SqlFault { complaint, ..fault })
}

#[async_trait]
impl SqlSession for MysqlSession<'_> {
    fn pads_with_zeros(&self) -> bool {
        true
    }

    fn survives_failures(&self) -> bool {
        true
    }

    async fn run(
        &mut self,
        statement: &Statement,
        params: &SqlParams<'_>,
        tail: &str,
    ) -> SqlResult<SqlRows> {
        told(self.call(statement, params, tail).await, self).await
    }

    async fn run_for(
        &mut self,
        statement: &Statement,
        columns: &'static str,
        rows: &Arc<SqlRows>,
    ) -> SqlResult<SqlRows> {
        told(self.call_for(statement, columns, rows).await, self).await
    }

    async fn execute(&mut self, sql: &str) -> SqlResult<()> {
        let result = self.query(sql).await;
        told(result.map(drop), self).await
    }

    async fn lock(&mut self, name: &str) -> SqlResult<()> {
        told(self.acquire(name).await, self).await
    }

    async fn hash_forms(&mut self, torrents: &Statement) -> SqlResult<[HashForm; 2]> {
        told(hashes::forms(self, torrents).await, self).await
    }

    async fn feed_settled(&mut self, after: u64, newest: u64) -> SqlResult<u64> {
        told(feed::settled(self, after, newest).await, self).await
    }

    /// Without strict mode, the server clamps totals to their columns.
    async fn set_clamping(&mut self, clamps: bool) -> SqlResult<bool> {
        let mode = if clamps {
            "NO_ENGINE_SUBSTITUTION"
        } else {
            SQL_MODE
        };
        self.is_lenient = true;
        self.execute(&format!("SET SESSION sql_mode = '{mode}'"))
            .await?;
        self.is_lenient = clamps;
        Ok(true)
    }

    async fn end(self: Box<Self>, failure: Option<SqlFault>) -> Option<SqlFault> {
        self.close(failure.is_some()).await;
        failure
    }
}

/// The text of a statement with `?` for its parameters, and their values in order.
fn prepared(statement: &Statement, params: &SqlParams<'_>) -> (String, Vec<Value>) {
    let mut sql = String::new();
    let mut values = Vec::new();
    for piece in &statement.pieces {
        match piece {
            Piece::Text(text) => sql.push_str(text),
            Piece::Rows | Piece::Values => {}
            Piece::Param(name) => {
                sql.push('?');
                let value = params.iter().find(|(param, _)| param == name);
                values.push(value.map_or(Value::NULL, |(_, value)| cells::param(value)));
            }
        }
    }
    (sql, values)
}

/// A text of a statement that can be prepared to look what the server says about it.
pub(super) fn example(statement: &Statement) -> String {
    let columns = statement.call.rows;
    let mut rows = SqlRows::new(columns.split_whitespace().count());
    for _ in 0..rows.width() {
        rows.push_cell(Cell::Int(0));
    }
    let mut texts = TextsForRows::new(statement, columns, &rows);
    texts.next().unwrap_or_else(|| prepared(statement, &[]).0)
}
