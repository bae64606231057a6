//! A small pool of connections, with a timeout on each wait.
//!
//! A connection is pinged before a job gets it, so a restart of the server goes unnoticed. When a job fails
//! because of its connection, all idle ones are dropped, too, and the next job reconnects. A connection
//! that is dropped in a transaction rolls back; if its end does not reach the server,
//! `idle_in_transaction_session_timeout` ends it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fault::{PostgresFault, PostgresResult};
use super::session::PostgresSession;
use super::settings;
use super::tls::Certainty;
use super::url::PostgresUrl;
use crate::base::secret::Secret;
use crate::storage::hosts::out_of_service;
use crate::storage::sql::database::{ANSWER_TIMEOUT, Use};
use crate::storage::{Finding, StorageResult};

/// Maximum of connections; a site's server is not for Mika alone.
const CONNECTIONS_MAX: usize = 8;
/// Maximum of idle connections: for the journal and the follower.
const IDLE_MAX: usize = 2;
/// How long to wait for an answer that needs no work.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for one of several hosts.
const HOST_TIMEOUT: Duration = Duration::from_secs(4);
/// Prepared statements that a connection keeps: some more than there are named ones.
const STATEMENTS_MAX: usize = 160;

/// The address and options of a database.
#[derive(Clone)]
pub(super) struct PostgresDial {
    url: PostgresUrl,
}

/// A connection.
pub(super) struct PostgresConn {
    pub(super) client: Client,
    /// Notified of what it LISTENs to, and of its end.
    pub(super) heard: Arc<Notify>,
    prepared: HashMap<String, tokio_postgres::Statement>,
    /// See [`settings::timeline`].
    pub(super) timeline: Option<u32>,
}

/// The pool of connections to a database.
pub(super) struct PostgresLink {
    pub(super) dial: PostgresDial,
    idle: Mutex<Vec<PostgresConn>>,
    room: Semaphore,
}

// === impl PostgresDial ===

impl PostgresDial {
    /// Connects to the first host that can be used, and sets up the session.
    pub(super) async fn connect(&self) -> PostgresResult<PostgresConn> {
        let connector = self.connector().await?;
        let hosts = &self.url.hosts;
        let mut failure = PostgresFault::Late;
        for (place, host) in hosts.in_turn() {
            failure = match self.connect_to(host, connector.as_ref()).await {
                Ok(conn) => {
                    if hosts.used(place) {
                        tracing::info!(server = named(host), "storage is another server now");
                    }
                    return Ok(conn);
                }
                Err(fault) if fault.is_of_this_host() => fault,
                Err(fault) => return Err(fault),
            };
        }
        Err(failure)
    }

    async fn connector(&self) -> PostgresResult<Option<MakeRustlsConnect>> {
        if self.url.tls.certainty == Certainty::NoTls {
            return Ok(None);
        }
        let tls = self.url.tls.clone();
        // It reads files.
        let connector = tokio::task::spawn_blocking(move || tls.connector()).await;
        match connector {
            Ok(Ok(connector)) => Ok(Some(connector)),
            Ok(Err(error)) => Err(PostgresFault::no_tls(self.place(), &error)),
            Err(_) => Err(PostgresFault::Late),
        }
    }

    /// Servers that could not take over now.
    pub(super) async fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.url.hosts.len() == 1 {
            return findings;
        }
        let Ok(connector) = self.connector().await else {
            return findings;
        };
        for host in self.url.hosts.all() {
            match self.connect_to(host, connector.as_ref()).await {
                Ok(_) | Err(PostgresFault::Standby) => {}
                Err(fault) => {
                    let why = fault.explain(&named(host), HOST_TIMEOUT);
                    findings.push(out_of_service(&named(host), &why));
                }
            }
        }
        findings
    }

    async fn connect_to(
        &self,
        host: &Config,
        connector: Option<&MakeRustlsConnect>,
    ) -> PostgresResult<PostgresConn> {
        let limit = match host.get_connect_timeout() {
            Some(limit) => (*limit + PING_TIMEOUT).min(ANSWER_TIMEOUT),
            None if self.url.hosts.len() > 1 => HOST_TIMEOUT,
            None => ANSWER_TIMEOUT,
        };
        let connected = timeout(limit, self.set_up(host, connector)).await;
        connected.unwrap_or(Err(PostgresFault::Late))
    }

    async fn set_up(
        &self,
        host: &Config,
        connector: Option<&MakeRustlsConnect>,
    ) -> PostgresResult<PostgresConn> {
        let (client, heard) = match connector {
            Some(connector) => connected(host, connector.clone()).await?,
            None => connected(host, NoTls).await?,
        };
        settings::set(&client).await?;
        if !self.url.takes_standby && settings::is_read_only(&client).await? {
            return Err(PostgresFault::Standby);
        }
        Ok(PostgresConn {
            timeline: settings::timeline(&client).await?,
            client,
            heard,
            prepared: HashMap::new(),
        })
    }

    /// The URL without its password.
    pub(super) fn place(&self) -> &str {
        &self.url.place
    }
}

/// Host and port, as the URL has them.
fn named(host: &Config) -> String {
    let name = match (host.get_hosts().first(), host.get_hostaddrs().first()) {
        (Some(Host::Tcp(name)), _) => name.clone(),
        (Some(Host::Unix(folder)), _) => folder.display().to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => String::new(),
    };
    let port = host.get_ports().first();
    port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"))
}

/// Connects, and does what the connection has to do on a task of its own. Messages of the server are dropped: a
/// site's triggers may send values. Of notifications, it is only told that there are some.
async fn connected<T>(host: &Config, tls: T) -> PostgresResult<(Client, Arc<Notify>)>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, mut connection) = host.connect(tls).await?;
    let heard = Arc::new(Notify::new());
    let tell = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                tell.notify_one();
            }
        }
        drop(connection);
        tell.notify_one();
    });
    Ok((client, heard))
}

// === impl PostgresConn ===

impl PostgresConn {
    /// A statement, prepared once by this connection.
    pub(super) async fn prepare(
        &mut self,
        sql: &str,
    ) -> Result<tokio_postgres::Statement, tokio_postgres::Error> {
        if let Some(known) = self.prepared.get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.prepare(sql).await?;
        if self.prepared.len() >= STATEMENTS_MAX {
            self.prepared.clear();
        }
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Whether the server answers.
    pub(super) async fn is_alive(&self) -> bool {
        let ping = timeout(PING_TIMEOUT, self.client.batch_execute("")).await;
        matches!(ping, Ok(Ok(())))
    }
}

// === impl PostgresLink ===

impl PostgresLink {
    pub(super) fn new(url: &Secret) -> StorageResult<Self> {
        let url = PostgresUrl::of(url)?;
        Ok(Self::of(PostgresDial { url }))
    }

    /// An empty pool.
    pub(super) fn of(dial: PostgresDial) -> Self {
        Self {
            dial,
            idle: Mutex::new(Vec::new()),
            room: Semaphore::new(CONNECTIONS_MAX),
        }
    }

    /// A working connection for one job.
    pub(super) async fn session(&self, job: Use) -> PostgresResult<PostgresSession<'_>> {
        let room = timeout(ANSWER_TIMEOUT, self.room.acquire()).await;
        let Ok(Ok(room)) = room else {
            return Err(PostgresFault::Late);
        };
        let conn = self.connection().await?;
        if job.is_long() {
            settings::set_time_limit(&conn.client, job.time_limit()).await?;
        }
        Ok(PostgresSession::new(self, conn, room, job))
    }

    async fn connection(&self) -> PostgresResult<PostgresConn> {
        let idle = self.idle.lock().pop();
        if let Some(conn) = idle {
            if conn.is_alive().await {
                return Ok(conn);
            }
            // The other idle connections are as old or older.
            self.drop_idle();
        }
        self.dial.connect().await
    }

    /// The URL without its password.
    pub(super) fn place(&self) -> &str {
        self.dial.place()
    }

    /// Drops the idle connections.
    pub(super) fn drop_idle(&self) {
        self.idle.lock().clear();
    }

    /// Takes back a connection after its job.
    pub(super) fn keep(&self, conn: PostgresConn) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(conn);
        }
    }
}
