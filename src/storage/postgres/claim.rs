//! The claim of a daemon on a database that no other daemon may use: an advisory lock of the server, named by the
//! database's identity and held by its own connection.
//!
//! The server frees the lock when that connection ends, also if the daemon is killed or its host vanishes. A
//! lost connection is replaced, and the lock acquired again unless another process has it by then.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::SimpleQueryMessage;

use super::fault::PostgresFault;
use super::link::{ANSWER_TIMEOUT, PostgresConn, PostgresDial};
use crate::base::clock::timer;
use crate::storage::{Claim, StorageError};

/// How long the server may need to notice that a daemon was just killed.
const GRACE: Duration = Duration::from_secs(2);
/// How often to look in that time.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Seconds of silence after which the server ends the connection, and with it the claim.
const SILENCE_SECONDS: u32 = 10;
/// How often the connection is pinged; well below that.
const PERIOD: Duration = Duration::from_secs(3);
/// How often to retry to acquire a lost claim.
const RETRY: Duration = Duration::from_secs(1);
/// Attempts for which the holder may still be the lost connection: twice as long as the server keeps a
/// silent one. Later, its number may belong to another connection.
const FORMER_TRIES: u32 = 2 * SILENCE_SECONDS;
/// The first server that ends silent sessions by itself.
const WITH_SILENCE: u32 = 140_000;

/// Ends the connection of a host that vanished, also on a server that does not end silent sessions.
const KEEPALIVES: &str = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; \
    SET tcp_keepalives_count = 3; SET tcp_user_timeout = '10s'";

/// Holds the claim, and acquires it again when its connection is lost.
struct Keeper {
    dial: PostgresDial,
    /// The two halves of the lock's name.
    name: (u32, u32),
    /// The connection that has the lock.
    held: Option<Held>,
}

/// A connection that has the lock, and the number of its process in the server.
struct Held {
    conn: PostgresConn,
    process: u32,
}

/// The result of one attempt to acquire the lock.
enum Attempt {
    Taken(Held),
    /// Another connection has it.
    Refused(Holder),
}

/// The holder of the lock.
struct Holder {
    /// None if it was just released.
    process: Option<u32>,
    /// Account and address, if visible to Mika's account.
    who: Option<String>,
}

/// Claims the database of that identity.
pub(super) async fn claim(dial: PostgresDial, identity: &str) -> Result<Claim, StorageError> {
    let mut keeper = Keeper {
        dial,
        name: name_of(identity),
        held: None,
    };
    match keeper.take(GRACE).await {
        Ok(Attempt::Taken(held)) => keeper.held = Some(held),
        Ok(Attempt::Refused(holder)) => return Err(StorageError::Broken(keeper.refusal(&holder))),
        Err(fault) => return Err(fault.explain(keeper.dial.place(), ANSWER_TIMEOUT)),
    }
    let (guard, dropped) = oneshot::channel::<()>();
    let (lost, reason) = watch::channel(None);
    tokio::spawn(keep(keeper, dropped, lost));
    Ok(Claim::held_by(guard).until(reason))
}

/// The lock for a database: 64 bits of a hash.
fn name_of(identity: &str) -> (u32, u32) {
    let hash = Sha256::digest(format!("mika.{identity}"));
    let half = |at: usize| {
        let bytes = hash.iter().skip(at).take(4);
        bytes.fold(0, |half, byte| half << 8 | u32::from(*byte))
    };
    (half(0), half(4))
}

/// The server ends the session, and so the claim, when the connection is dropped.
async fn keep(
    mut keeper: Keeper,
    dropped: oneshot::Receiver<()>,
    lost: watch::Sender<Option<String>>,
) {
    tokio::select! {
        reason = keeper.hold() => drop(lost.send_replace(Some(reason))),
        _ = dropped => {}
    }
}

impl Keeper {
    /// Holds the claim until another process gets it; returns which.
    async fn hold(&mut self) -> String {
        loop {
            sleep(PERIOD).await;
            let Some(held) = &self.held else {
                continue;
            };
            let former = held.process;
            if self.is_held_by(held).await.unwrap_or(false) {
                continue;
            }
            self.held = None;
            tracing::warn!("the connection that claims the database was lost; claiming it again");
            match self.take_again(former).await {
                Ok(held) => self.held = Some(held),
                Err(holder) => return self.refusal(&holder),
            }
            tracing::info!("the database is claimed again");
        }
    }

    /// Retries until the lock is acquired, or another process has it. The server may take a while to notice
    /// that the `former` connection is lost.
    async fn take_again(&self, former: u32) -> Result<Held, Holder> {
        let mut refusals = 0;
        loop {
            match self.take(Duration::ZERO).await {
                Ok(Attempt::Taken(held)) => return Ok(held),
                Ok(Attempt::Refused(holder)) => {
                    let may_be_former = holder.process.is_none_or(|process| process == former);
                    refusals += 1;
                    if !may_be_former || refusals > FORMER_TRIES {
                        return Err(holder);
                    }
                }
                Err(fault) => {
                    let error = fault.explain(self.dial.place(), ANSWER_TIMEOUT);
                    tracing::debug!(%error, "the database can't be claimed again yet");
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Attempts on a new connection, for that long.
    async fn take(&self, wait: Duration) -> Result<Attempt, PostgresFault> {
        let conn = self.dial.connect().await?;
        ask(&conn, KEEPALIVES).await?;
        let version = number(ask(&conn, "SHOW server_version_num").await?.as_deref());
        if version.is_some_and(|version| version >= WITH_SILENCE) {
            let silence = format!("SET idle_session_timeout = '{SILENCE_SECONDS}s'");
            ask(&conn, &silence).await?;
        }
        let (first, second) = self.name;
        let sql = format!(
            "SELECT CASE WHEN pg_try_advisory_lock({}, {}) THEN pg_backend_pid() END",
            first.cast_signed(),
            second.cast_signed()
        );
        let end = timer() + wait;
        loop {
            if let Some(process) = number(ask(&conn, &sql).await?.as_deref()) {
                return Ok(Attempt::Taken(Held { conn, process }));
            }
            if timer() >= end {
                return Ok(Attempt::Refused(self.holder(&conn).await?));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether the connection still has the lock: behind a pooler, its session may be another one.
    async fn is_held_by(&self, held: &Held) -> Result<bool, PostgresFault> {
        let sql = format!("{} AND pid = pg_backend_pid()", self.locks());
        Ok(number(ask(&held.conn, &sql).await?.as_deref()) == Some(held.process))
    }

    /// The statement that finds the process which has the lock.
    fn locks(&self) -> String {
        let (first, second) = self.name;
        format!(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = {first} \
             AND objid = {second} AND granted \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    }

    async fn holder(&self, conn: &PostgresConn) -> Result<Holder, PostgresFault> {
        let process = number(ask(conn, &self.locks()).await?.as_deref());
        let mut who = None;
        if let Some(process) = process {
            let sql = format!(
                "SELECT usename || COALESCE(' from ' || host(client_addr), '') \
                 FROM pg_stat_activity WHERE pid = {process}"
            );
            who = ask(conn, &sql).await?;
        }
        Ok(Holder { process, who })
    }

    fn refusal(&self, holder: &Holder) -> String {
        let process = holder.process.map_or_else(
            || "another connection".to_owned(),
            |process| format!("process {process} of the server"),
        );
        let who = holder.who.as_ref().map(|who| format!(", {who},"));
        format!(
            "{} is in use by another mika ({process}{} has the advisory lock {}, {}): stop that one, or let both \
             share a cache (cache.driver \"redis\"); if this is a copy of its database, give it an id of its own \
             (docs/sql.md)",
            self.dial.place(),
            who.unwrap_or_default(),
            self.name.0.cast_signed(),
            self.name.1.cast_signed()
        )
    }
}

/// The first value of a statement.
async fn ask(conn: &PostgresConn, sql: &str) -> Result<Option<String>, PostgresFault> {
    let Ok(messages) = timeout(ANSWER_TIMEOUT, conn.client.simple_query(sql)).await else {
        return Err(PostgresFault::Late);
    };
    Ok(messages?.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    }))
}

fn number(value: Option<&str>) -> Option<u32> {
    value?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_has_a_lock_of_its_own() {
        assert_eq!(name_of("a"), name_of("a"));
        assert_ne!(name_of("a"), name_of("b"));
    }
}
