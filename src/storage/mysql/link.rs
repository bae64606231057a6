//! A small pool of connections, with a timeout on each wait.
//!
//! A connection is pinged before a job gets it, so a restart of the server goes unnoticed. When a job fails
//! because of its connection, all idle ones are dropped, too, and the next job reconnects. A connection
//! that is dropped in a transaction rolls back; if its end does not reach the server, `wait_timeout` ends
//! it.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::fault::{self, MysqlFault};
use super::session::MysqlSession;
use super::settings;
use crate::base::secret::Secret;
use crate::storage::StorageError;
use crate::storage::sql::statements::Statements;

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
const STATEMENTS_MAX: usize = 128;

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

// === impl Dial ===

impl Dial {
    /// Connects, and sets up the session.
    pub(super) async fn connect(&self) -> Result<Conn, MysqlFault> {
        let connect = async {
            let mut conn = Conn::new(self.opts.clone()).await?;
            settings::set(&mut conn).await?;
            Ok(conn)
        };
        timeout(ANSWER_TIMEOUT, connect).await?
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
        let conn = self.connection().await?;
        Ok(MysqlSession::new(self, conn, room, statements, time_limit))
    }

    async fn connection(&self) -> Result<Conn, MysqlFault> {
        let idle = self.idle.lock().pop();
        if let Some(mut conn) = idle {
            if let Ok(Ok(())) = timeout(PING_TIMEOUT, conn.ping()).await {
                return Ok(conn);
            }
            // The other idle connections are as old or older.
            self.drop_idle();
        }
        self.dial.connect().await
    }

    /// The URL without its password.
    pub(super) fn place(&self) -> &str {
        &self.dial.place
    }

    /// Drops the idle connections.
    pub(super) fn drop_idle(&self) {
        self.idle.lock().clear();
    }

    /// Takes back a connection after its job.
    pub(super) async fn keep(&self, conn: Conn) {
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
