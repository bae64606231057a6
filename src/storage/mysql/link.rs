//! A small pool of connections, with a timeout on each wait.
//!
//! A connection is pinged before a job gets it, so a restart of the server goes unnoticed. When a job fails
//! because of its connection, all idle ones are dropped, too, and the next job reconnects. A connection
//! that is dropped in a transaction rolls back; if its end does not reach the server, `wait_timeout` ends
//! it.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Column, Conn, Opts, OptsBuilder, Params, Row, Value};
use parking_lot::Mutex;
use tokio::join;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::fault::{self, MysqlFault};
use super::misfit;
use super::rows::RowsSql;
use super::settings;
use crate::base::secret::Secret;
use crate::storage::StorageError;
use crate::storage::schema::{Call, Piece, Statements};

/// Maximum of connections; a site's server is not for Mika alone.
const CONNECTIONS_MAX: usize = 8;
/// Maximum of idle connections: for the journal and the follower.
const IDLE_MAX: usize = 2;
/// How long to wait for each answer of the server.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for a statement that reads or changes whole tables.
pub(super) const WHOLE_TABLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long to wait for an answer that needs no work.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(2);
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);
/// Prepared statements kept by each connection; more than there are named statements.
const STATEMENTS_MAX: usize = 64;

/// The address and options of a database.
#[derive(Clone)]
pub(super) struct Dial {
    opts: Opts,
    /// The URL without its password.
    pub(super) place: String,
}

/// The pool of connections to a database.
pub(super) struct MysqlLink {
    pub(super) dial: Dial,
    idle: Mutex<Vec<Conn>>,
    room: Semaphore,
}

/// A connection while a job has it.
pub(super) struct MysqlSession<'a> {
    conn: Conn,
    statements: &'a Statements,
    time_limit: Duration,
    /// Whether it holds named locks, which outlive a transaction.
    pub(super) is_locking: bool,
    /// Whether the next job needs a new connection.
    pub(super) is_last: bool,
    /// Whether strict mode is off for a statement; such a connection must not be reused.
    pub(super) is_lenient: bool,
    /// To be logged once the transaction is committed.
    pub(super) notes: Vec<String>,
    _room: SemaphorePermit<'a>,
}

// === impl Dial ===

impl Dial {
    /// Connects, and sets up the session.
    pub(super) async fn connect(&self) -> Result<Conn, MysqlFault> {
        let connect = async {
            let mut conn = Conn::new(self.opts.clone()).await?;
            settings::set(&mut conn).await?;
            Ok(conn)
        };
        match timeout(ANSWER_TIMEOUT, connect).await {
            Ok(conn) => conn,
            Err(_) => Err(MysqlFault::Late),
        }
    }
}

// === impl MysqlLink ===

impl MysqlLink {
    pub(super) fn new(url: &Secret) -> Result<Self, StorageError> {
        // The scheme of MariaDB's own tools.
        let text = match url.expose().strip_prefix("mariadb://") {
            Some(rest) => format!("mysql://{rest}"),
            None => url.expose().to_owned(),
        };
        let opts = Opts::from_url(&text).map_err(|error| fault::url(&error, url))?;
        if opts.db_name().is_none() {
            return Err(StorageError::Broken(
                "storage.url names no database: mysql://user:password@host:3306/database".into(),
            ));
        }
        let keepalive = opts.tcp_keepalive().unwrap_or(TCP_KEEPALIVE);
        let opts = OptsBuilder::from_opts(opts)
            // The socket that the server names may belong to another server on this host.
            .prefer_socket(false)
            // An UPDATE returns how many rows it found, not how many it changed.
            .client_found_rows(true)
            .tcp_keepalive(Some(keepalive))
            .tcp_nodelay(true)
            .stmt_cache_size(STATEMENTS_MAX);
        Ok(Self {
            dial: Dial {
                opts: opts.into(),
                place: url.masked(),
            },
            idle: Mutex::new(Vec::new()),
            room: Semaphore::new(CONNECTIONS_MAX),
        })
    }

    /// A working connection for one job.
    pub(super) async fn session<'a>(
        &'a self,
        statements: &'a Statements,
        time_limit: Duration,
    ) -> Result<MysqlSession<'a>, MysqlFault> {
        let room = timeout(ANSWER_TIMEOUT, self.room.acquire()).await;
        let Ok(Ok(room)) = room else {
            return Err(MysqlFault::Late);
        };
        Ok(MysqlSession {
            conn: self.connection().await?,
            statements,
            time_limit,
            is_locking: false,
            is_last: false,
            is_lenient: false,
            notes: Vec::new(),
            _room: room,
        })
    }

    async fn connection(&self) -> Result<Conn, MysqlFault> {
        let idle = self.idle.lock().pop();
        if let Some(mut conn) = idle {
            if let Ok(Ok(())) = timeout(PING_TIMEOUT, conn.ping()).await {
                return Ok(conn);
            }
            // The other idle connections are as old or older.
            self.idle.lock().clear();
        }
        self.dial.connect().await
    }

    /// The URL without its password.
    pub(super) fn place(&self) -> &str {
        &self.dial.place
    }

    /// Returns a connection to the pool after its job, or drops it.
    pub(super) async fn end<T>(
        &self,
        mut session: MysqlSession<'_>,
        result: &Result<T, MysqlFault>,
    ) {
        let is_lost = result
            .as_ref()
            .err()
            .is_some_and(MysqlFault::wants_new_link);
        if is_lost || session.is_last || session.is_lenient {
            return self.idle.lock().clear();
        }
        let clean = match (result, session.is_locking) {
            (Ok(_), false) => "",
            (Ok(_), true) => "DO RELEASE_ALL_LOCKS()",
            (Err(_), false) => "ROLLBACK",
            (Err(_), true) => "ROLLBACK; DO RELEASE_ALL_LOCKS()",
        };
        for sql in clean.split_terminator("; ") {
            match timeout(PING_TIMEOUT, session.conn.query_drop(sql)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
        self.keep(session.conn).await;
    }

    async fn keep(&self, conn: Conn) {
        {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE_MAX {
                return idle.push(conn);
            }
        }
        // Without a goodbye, the server would log an aborted connection.
        let _ = timeout(PING_TIMEOUT, conn.disconnect()).await;
    }
}

/// Without a goodbye, the server would log aborted connections, so idle ones disconnect if there is a
/// runtime: `mika-manage` waits for it, a daemon does not.
impl Drop for MysqlLink {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        for conn in self.idle.get_mut().drain(..) {
            runtime.spawn(timeout(PING_TIMEOUT, conn.disconnect()));
        }
    }
}

// === impl MysqlSession ===

impl MysqlSession<'_> {
    /// Runs Mika's own SQL.
    pub(super) async fn run(&mut self, sql: &str) -> Result<u64, MysqlFault> {
        self.query(sql).await?;
        Ok(self.conn.affected_rows())
    }

    /// The rows of Mika's own SQL.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Row>, MysqlFault> {
        match timeout(self.time_limit, self.conn.query(sql)).await {
            Ok(rows) => Ok(rows?),
            Err(_) => Err(MysqlFault::Late),
        }
    }

    /// Runs Mika's own statements in order and passes each row to `take`. While the server works on a
    /// statement, the previous rows are processed and the next statement is built.
    pub(super) async fn query_each(
        &mut self,
        mut statements: impl Iterator<Item = String>,
        mut take: impl FnMut(&Row),
    ) -> Result<(), MysqlFault> {
        let mut found = Vec::new();
        let mut next = statements.next();
        while let Some(sql) = next {
            let meanwhile = async {
                found.drain(..).for_each(|row| take(&row));
                statements.next()
            };
            let (rows, following) = join!(self.query(&sql), meanwhile);
            (found, next) = (rows?, following);
        }
        found.iter().for_each(take);
        Ok(())
    }

    /// Runs Mika's own statements in order; while the server works on one, the next is built.
    pub(super) async fn run_each(
        &mut self,
        statements: impl Iterator<Item = String>,
    ) -> Result<(), MysqlFault> {
        self.query_each(statements, |_| {}).await
    }

    /// The rows of Mika's own SQL with parameters.
    pub(super) async fn exec(
        &mut self,
        sql: &str,
        params: Vec<Value>,
    ) -> Result<Vec<Row>, MysqlFault> {
        let params = if params.is_empty() {
            Params::Empty
        } else {
            Params::Positional(params)
        };
        match timeout(self.time_limit, self.conn.exec(sql, params)).await {
            Ok(rows) => Ok(rows?),
            Err(_) => Err(MysqlFault::Late),
        }
    }

    /// Whether there is a statement of that name; those that are optional may be empty.
    pub(super) fn can(&self, call: &Call) -> bool {
        !self.statements.of(call).is_empty()
    }

    /// The rows of a named statement.
    pub(super) async fn call(
        &mut self,
        call: &'static Call,
        params: &[(&str, Value)],
    ) -> Result<Vec<Row>, MysqlFault> {
        self.call_then(call, params, "").await
    }

    /// The rows of a named statement with `tail` at its end.
    pub(super) async fn call_then(
        &mut self,
        call: &'static Call,
        params: &[(&str, Value)],
        tail: &str,
    ) -> Result<Vec<Row>, MysqlFault> {
        let statements = self.statements;
        let mut rows = Vec::new();
        for pieces in statements.of(call) {
            let (mut sql, values) = prepared(pieces, params);
            sql.push_str(tail);
            rows = match self.exec(&sql, values).await {
                Ok(rows) => rows,
                Err(fault) => misfit::found_or_refused(self, fault, call, params).await?,
            };
        }
        if let Some(row) = rows.first().filter(|row| row.len() < call.width()) {
            return Err(MysqlFault::broken(format!(
                "storage.statements.{}: it must give the columns {}, and gives {} of {}",
                call.name,
                call.columns.replace(' ', ", "),
                row.len(),
                call.width()
            )));
        }
        Ok(rows)
    }

    /// The results of a named statement for `rows`, as many at a time as one statement holds.
    pub(super) async fn call_with(
        &mut self,
        call: &'static Call,
        rows: &RowsSql,
    ) -> Result<Vec<Row>, MysqlFault> {
        self.call_with_columns(call, call.rows, rows).await
    }

    /// Like [`Self::call_with`], with rows of these columns, which may be more than the statement needs.
    pub(super) async fn call_with_columns(
        &mut self,
        call: &'static Call,
        columns: &str,
        rows: &RowsSql,
    ) -> Result<Vec<Row>, MysqlFault> {
        let statements = self.statements;
        let mut found = Vec::new();
        for table in rows.tables(columns) {
            for pieces in statements.of(call) {
                let result = self.query(&filled(pieces, &table)).await;
                found.extend(result.map_err(|fault| within(fault, call))?);
            }
        }
        Ok(found)
    }

    /// The statements behind a name.
    pub(super) fn statements_of(&self, call: &Call) -> &[Vec<Piece>] {
        self.statements.of(call)
    }

    /// The result columns of a named statement, as the server describes them.
    pub(super) async fn described(
        &mut self,
        call: &'static Call,
    ) -> Result<Arc<[Column]>, MysqlFault> {
        let Some(pieces) = self.statements.of(call).first() else {
            return Ok(Arc::default());
        };
        // Prepared statements are cached: one round trip for each connection.
        let (sql, _) = prepared(pieces, &[]);
        match timeout(self.time_limit, self.conn.prep(sql)).await {
            Ok(Ok(statement)) => Ok(statement.columns()),
            Ok(Err(error)) => Err(within(error.into(), call)),
            Err(_) => Err(MysqlFault::Late),
        }
    }

    pub(super) fn has(&self, call: &'static Call) -> bool {
        !self.statements.of(call).is_empty()
    }

    /// Prepares a statement without running it; returns the number of result columns.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<usize, MysqlFault> {
        let prepared = async {
            let statement = self.conn.prep(sql).await?;
            let width = statement.columns().len();
            self.conn.close(statement).await?;
            Ok::<_, MysqlFault>(width)
        };
        match timeout(self.time_limit, prepared).await {
            Ok(width) => width,
            Err(_) => Err(MysqlFault::Late),
        }
    }

    pub(super) fn server_version(&self) -> (u16, u16, u16) {
        self.conn.server_version()
    }
}

pub(super) fn within(fault: MysqlFault, call: &'static Call) -> MysqlFault {
    match fault {
        MysqlFault::Sql(error, _) => MysqlFault::Sql(error, Some(call.name)),
        other => other,
    }
}

/// The statement with `?` for its parameters, and their values in order.
fn prepared(pieces: &[Piece], params: &[(&str, Value)]) -> (String, Vec<Value>) {
    let mut sql = String::new();
    let mut values = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => sql.push_str(text),
            Piece::Rows => {}
            Piece::Param(name) => {
                sql.push('?');
                let value = params.iter().find(|(param, _)| param == name);
                values.push(value.map_or(Value::NULL, |(_, value)| value.clone()));
            }
        }
    }
    (sql, values)
}

/// The statement with `table` for its rows.
pub(super) fn filled(pieces: &[Piece], table: &str) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Rows => table.to_owned(),
        Piece::Param(_) => "?".into(),
    };
    pieces.iter().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_url_is_refused_without_a_part_of_its_password() {
        for url in [
            "mysql://mika:hun?ter2=x@localhost/mika",
            "mysql://mika:hun?ter2@localhost/mika",
            "mysql://mika:hunter2@localhost:port/mika",
            "mysql://mika:hunter2@localhost",
            "mysql://mika:hunter2@localhost/mika?pool_min=hunter2",
        ] {
            let error = MysqlLink::new(&Secret::new(url))
                .err()
                .expect(url)
                .to_string();
            assert!(
                !error.contains("hun") && !error.contains("ter2"),
                "{url}: {error}"
            );
        }
        let error = MysqlLink::new(&Secret::new("mysql://u:p@localhost/mika?compres=1"));
        assert!(
            error
                .err()
                .expect("an error")
                .to_string()
                .contains("\"compres\"")
        );
    }
}
