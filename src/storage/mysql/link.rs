//! A small pool of connections, with a timeout on each wait.
//!
//! A connection is pinged before a job gets it, so a restart of the server goes unnoticed. When a job fails
//! because of its connection, all idle ones are dropped, too, and the next job reconnects. A connection
//! that is dropped in a transaction rolls back; if its end does not reach the server, `wait_timeout` ends
//! it.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::fault::{MysqlFault, MysqlResult};
use super::server::{self, WriterState};
use super::session::MysqlSession;
use super::{settings, url};
use crate::base::secret::Secret;
use crate::storage::hosts::{Hosts, out_of_service};
use crate::storage::sql::database::ANSWER_TIMEOUT;
use crate::storage::sql::statements::Statements;
use crate::storage::{Finding, StorageResult};

/// Maximum of connections; a site's server is not for Mika alone.
const CONNECTIONS_MAX: usize = 8;
/// Maximum of idle connections: for the journal and the follower.
const IDLE_MAX: usize = 2;
/// How long to wait for an answer that needs no work.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for one of several hosts.
const HOST_TIMEOUT: Duration = Duration::from_secs(4);

/// The servers of a database.
#[derive(Clone)]
pub(super) struct Dial {
    hosts: Arc<Hosts<Opts>>,
    /// How long to wait for one of them.
    host_timeout: Duration,
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
    fn new(url: &Secret) -> StorageResult<Self> {
        let hosts = url::hosts(url)?;
        let is_alone = hosts.len() == 1;
        Ok(Self {
            hosts: Arc::new(Hosts::new(hosts)),
            host_timeout: if is_alone {
                ANSWER_TIMEOUT
            } else {
                HOST_TIMEOUT
            },
            place: url.masked(),
        })
    }

    /// The same for each server by itself.
    pub(super) fn each(&self) -> impl Iterator<Item = Self> {
        self.hosts.all().iter().map(|host| Self {
            hosts: Arc::new(Hosts::new(vec![host.clone()])),
            ..self.clone()
        })
    }

    /// Connects to the server that takes writes, and sets up the session.
    pub(super) async fn connect(&self) -> MysqlResult<Conn> {
        let mut spare = None;
        let mut failure = MysqlFault::Late;
        for (place, host) in self.hosts.in_turn() {
            let connected = timeout(self.host_timeout, self.connect_to(host)).await;
            match connected.unwrap_or(Err(MysqlFault::Late)) {
                Ok((conn, WriterState::Ready)) => return Ok(self.used(place, conn)),
                Ok((conn, WriterState::Busy)) => spare = spare.or(Some((place, conn))),
                Err(fault) if fault.is_of_this_host() => failure = fault,
                Err(fault) => return Err(fault),
            }
        }
        let (place, conn) = spare.ok_or(failure)?;
        Ok(self.used(place, conn))
    }

    /// Servers that could not take over now.
    pub(super) async fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.hosts.len() == 1 {
            return findings;
        }
        for host in self.hosts.all() {
            let connected = timeout(self.host_timeout, self.connect_to(host)).await;
            match connected.unwrap_or(Err(MysqlFault::Late)) {
                Ok((conn, _)) => drop(timeout(PING_TIMEOUT, conn.disconnect()).await),
                Err(MysqlFault::NoWriter(server::READ_ONLY)) => {}
                Err(fault) => findings.push(out_of_service(
                    &named(host),
                    &fault.explain(&named(host), self.host_timeout),
                )),
            }
        }
        findings
    }

    async fn connect_to(&self, host: &Opts) -> MysqlResult<(Conn, WriterState)> {
        let mut conn = Conn::new(host.clone()).await?;
        settings::set(&mut conn).await?;
        let standing = if self.hosts.len() > 1 {
            server::standing(&mut conn).await?
        } else {
            WriterState::Ready
        };
        Ok((conn, standing))
    }

    /// The connection to the server at `place`, which is used from now on.
    fn used(&self, place: usize, conn: Conn) -> Conn {
        if self.hosts.used(place) {
            tracing::info!(server = named(conn.opts()), "storage is another server now");
        }
        conn
    }
}

/// Host and port.
fn named(host: &Opts) -> String {
    format!("{}:{}", host.ip_or_hostname(), host.tcp_port())
}

// === impl MysqlLink ===

impl MysqlLink {
    pub(super) fn new(url: &Secret) -> StorageResult<Self> {
        Ok(Self::of(Dial::new(url)?))
    }

    /// An empty pool.
    pub(super) fn of(dial: Dial) -> Self {
        Self {
            dial,
            idle: Mutex::new(Vec::new()),
            room: Semaphore::new(CONNECTIONS_MAX),
        }
    }

    /// A working connection for one job.
    pub(super) async fn session<'a>(
        &'a self,
        statements: &'a Statements,
        time_limit: Duration,
    ) -> MysqlResult<MysqlSession<'a>> {
        let room = timeout(ANSWER_TIMEOUT, self.room.acquire()).await;
        let Ok(Ok(room)) = room else {
            return Err(MysqlFault::Late);
        };
        let conn = self.connection().await?;
        Ok(MysqlSession::new(self, conn, room, statements, time_limit))
    }

    async fn connection(&self) -> MysqlResult<Conn> {
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
