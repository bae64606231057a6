//! The claim of a daemon on a database that no other daemon may use: a named lock of the server, named by the
//! database's identity and held by its own connection.
//!
//! The server frees the lock when that connection ends, also if the daemon is killed or its host vanishes. A
//! lost connection is replaced, and the lock acquired again unless another process has it by then. Each server has
//! its own locks, so a daemon whose URL names several takes that of each one that it can reach.

use std::time::Duration;

use mysql_async::Conn;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::cells;
use super::fault::MysqlFault;
use super::link::{ANSWER_TIMEOUT, Dial, PING_TIMEOUT};
use crate::storage::sql::cells::SqlRows;
use crate::storage::{Claim, StorageError};

/// Maximum length of a lock's name in MySQL, in characters.
const NAME_MAX: usize = 64;
/// Seconds that the server may need to notice that a daemon was just killed.
const GRACE_SECONDS: u32 = 2;
/// Seconds of silence after which the server ends the connection, and with it the claim.
const SILENCE_SECONDS: u32 = 10;
/// How often the connection is pinged; well below that.
const PERIOD: Duration = Duration::from_secs(3);
/// How often to retry to acquire a lost claim.
const RETRY: Duration = Duration::from_secs(1);
/// Attempts for which the holder may still be the lost connection: twice as long as the server keeps a
/// silent one. Later, its number may belong to another connection.
const FORMER_TRIES: u32 = 2 * SILENCE_SECONDS;

/// Holds the claim on one server, and acquires it again when its connection is lost.
struct Keeper {
    dial: Dial,
    name: String,
    /// The connection that has the lock.
    conn: Option<Conn>,
}

/// The result of one attempt to acquire the lock.
enum Try {
    Taken(Conn),
    /// Another connection has it.
    Refused(Holder),
}

/// The holder of the lock.
struct Holder {
    /// None if it was just released.
    connection: Option<u32>,
    /// Account and address, if visible to Mika's account.
    who: Option<String>,
}

/// Claims the database of that identity on all of its servers that can be reached: at least one.
pub(super) async fn claim(dial: &Dial, identity: &str) -> Result<Claim, StorageError> {
    let mut name = format!("mika.{identity}");
    name.truncate(NAME_MAX);
    let mut keepers = Vec::new();
    let mut failure = None;
    for dial in dial.each() {
        let mut keeper = Keeper {
            dial,
            name: name.clone(),
            conn: None,
        };
        match keeper.take(GRACE_SECONDS).await {
            Ok(Try::Taken(conn)) => keeper.conn = Some(conn),
            Ok(Try::Refused(holder)) => return Err(StorageError::Broken(keeper.refusal(&holder))),
            Err(fault) => failure = Some(fault),
        }
        keepers.push(keeper);
    }
    if let Some(fault) = failure
        && keepers.iter().all(|keeper| keeper.conn.is_none())
    {
        return Err(fault.explain(&dial.place, ANSWER_TIMEOUT));
    }
    let (guard, dropped) = watch::channel(());
    let (lost, reason) = watch::channel(None);
    for keeper in keepers {
        tokio::spawn(keep(keeper, dropped.clone(), lost.clone()));
    }
    Ok(Claim::held_by(guard).until(reason))
}

async fn keep(
    mut keeper: Keeper,
    mut dropped: watch::Receiver<()>,
    lost: watch::Sender<Option<String>>,
) {
    tokio::select! {
        reason = keeper.hold() => drop(lost.send_replace(Some(reason))),
        _ = dropped.changed() => {}
    }
    if let Some(conn) = keeper.conn {
        // Without a goodbye, the server would log an aborted connection.
        let _ = timeout(PING_TIMEOUT, conn.disconnect()).await;
    }
}

impl Keeper {
    /// Holds the claim until another process gets it; returns which.
    async fn hold(&mut self) -> String {
        let mut former = None;
        loop {
            if let Some(conn) = &mut self.conn {
                sleep(PERIOD).await;
                let sql = format!("SELECT IS_USED_LOCK('{}') = CONNECTION_ID()", self.name);
                if ask(conn, &sql).await.is_ok_and(|rows| is_true(&rows)) {
                    continue;
                }
                former = Some(conn.id());
                self.conn = None;
                tracing::warn!(
                    "the connection that claims the database was lost; claiming it again"
                );
            }
            match self.take_again(former).await {
                Ok(conn) => self.conn = Some(conn),
                Err(holder) => return self.refusal(&holder),
            }
            tracing::info!("the database is claimed again");
        }
    }

    /// Retries until the lock is acquired, or another process has it. The server may take a while to notice
    /// that the `former` connection is lost, or that of this daemon's last start.
    async fn take_again(&self, former: Option<u32>) -> Result<Conn, Holder> {
        let mut refusals = 0;
        loop {
            match self.take(0).await {
                Ok(Try::Taken(conn)) => return Ok(conn),
                Ok(Try::Refused(holder)) => {
                    let is_former = |id| former.is_none_or(|former| former == id);
                    let may_be_former = holder.connection.is_none_or(is_former);
                    refusals += 1;
                    if !may_be_former || refusals > FORMER_TRIES {
                        return Err(holder);
                    }
                }
                Err(fault) => {
                    let error = fault.explain(&self.dial.place, ANSWER_TIMEOUT);
                    tracing::debug!(%error, "the database can't be claimed again yet");
                }
            }
            sleep(RETRY).await;
        }
    }

    /// One attempt on a new connection.
    async fn take(&self, wait_seconds: u32) -> Result<Try, MysqlFault> {
        let mut conn = self.dial.connect().await?;
        let silence = format!("SET SESSION wait_timeout = {SILENCE_SECONDS}");
        ask(&mut conn, &silence).await?;
        let sql = format!("SELECT GET_LOCK('{}', {wait_seconds})", self.name);
        if is_true(&ask(&mut conn, &sql).await?) {
            return Ok(Try::Taken(conn));
        }
        let holder = self.holder(&mut conn).await?;
        // Without a goodbye, the server would log an aborted connection.
        let _ = timeout(PING_TIMEOUT, conn.disconnect()).await;
        Ok(Try::Refused(holder))
    }

    async fn holder(&self, conn: &mut Conn) -> Result<Holder, MysqlFault> {
        let sql = format!("SELECT IS_USED_LOCK('{}')", self.name);
        let rows = ask(conn, &sql).await?;
        let connection = rows
            .first()
            .and_then(|row| row.integer(0))
            .and_then(|id| u32::try_from(id).ok());
        let mut who = None;
        if let Some(id) = connection {
            let sql = format!(
                "SELECT CONCAT(user, ' from ', host) FROM information_schema.processlist \
                 WHERE id = {id}"
            );
            // Only privileged accounts see other accounts' connections.
            let rows = ask(conn, &sql).await.unwrap_or_default();
            who = rows.first().map(|row| row.text(0));
        }
        Ok(Holder { connection, who })
    }

    fn refusal(&self, holder: &Holder) -> String {
        let connection = holder.connection.map_or_else(
            || "another connection".to_owned(),
            |id| format!("connection {id}"),
        );
        let who = holder.who.as_ref().map(|who| format!(", {who},"));
        format!(
            "{} is in use by another mika ({connection}{} has the lock {}): stop that one, or let both share a \
             cache (cache.driver \"redis\"); if this is a copy of its database, give it an id of its own \
             (docs/sql.md)",
            self.dial.place,
            who.unwrap_or_default(),
            self.name
        )
    }
}

async fn ask(conn: &mut Conn, sql: &str) -> Result<SqlRows, MysqlFault> {
    let mut rows = SqlRows::default();
    match timeout(ANSWER_TIMEOUT, cells::query(conn, sql, &mut rows)).await {
        Ok(done) => done?,
        Err(_) => return Err(MysqlFault::Late),
    }
    Ok(rows)
}

/// Whether the only cell is 1.
fn is_true(rows: &SqlRows) -> bool {
    rows.first().is_some_and(|row| row.flag(0))
}
