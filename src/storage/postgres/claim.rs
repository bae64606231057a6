//! The lock by which a daemon claims a database: an advisory one, held by its own connection.

use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};
use tokio_postgres::SimpleQueryMessage;

use super::fault::PostgresResult;
use super::link::{PostgresConn, PostgresDial};
use crate::base::clock::timer;
use crate::storage::StorageResult;
use crate::storage::sql::database::ANSWER_TIMEOUT;
use crate::storage::sql::keeper::{Attempt, LockHolder, SILENCE_SECONDS, ServerLock};

/// How often to look whether a lock was released.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The first server that ends silent sessions by itself.
const WITH_SILENCE: u32 = 140_000;

/// Ends the connection of a host that vanished, also on a server that does not end silent sessions.
const KEEPALIVES: &str = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; \
    SET tcp_keepalives_count = 3; SET tcp_user_timeout = '10s'";

/// The lock for a database.
pub(super) struct AdvisoryLock {
    dial: PostgresDial,
    /// The two halves of its name.
    name: (u32, u32),
}

/// A connection that has the lock, and the number of its process in the server.
pub(super) struct Held {
    conn: PostgresConn,
    process: u32,
}

impl AdvisoryLock {
    /// The lock for the database of that identity.
    pub(super) fn new(dial: PostgresDial, identity: &str) -> Self {
        let name = name_of(identity);
        Self { dial, name }
    }

    async fn attempt(&self, wait: Duration) -> PostgresResult<Attempt<Held>> {
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

    /// The statement that finds the process which has the lock.
    fn locks(&self) -> String {
        let (first, second) = self.name;
        format!(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = {first} \
             AND objid = {second} AND granted \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    }

    async fn holder(&self, conn: &PostgresConn) -> PostgresResult<LockHolder> {
        let number = number(ask(conn, &self.locks()).await?.as_deref());
        let mut who = None;
        if let Some(process) = number {
            let sql = format!(
                "SELECT usename || COALESCE(' from ' || host(client_addr), '') \
                 FROM pg_stat_activity WHERE pid = {process}"
            );
            who = ask(conn, &sql).await?;
        }
        Ok(LockHolder { number, who })
    }
}

#[async_trait]
impl ServerLock for AdvisoryLock {
    type Holding = Held;

    async fn take(&self, wait: Duration) -> StorageResult<Attempt<Held>> {
        let attempt = self.attempt(wait).await;
        attempt.map_err(|fault| fault.explain(self.place(), ANSWER_TIMEOUT))
    }

    /// Behind a pooler, the session of the connection may be another one.
    async fn is_held(&self, held: &mut Held) -> bool {
        let sql = format!("{} AND pid = pg_backend_pid()", self.locks());
        let process = ask(&held.conn, &sql).await.unwrap_or_default();
        number(process.as_deref()) == Some(held.process)
    }

    fn number(&self, held: &Held) -> u32 {
        held.process
    }

    /// The server ends the session, and so the claim, when the connection is dropped.
    async fn release(&self, held: Held) {
        drop(held);
    }

    fn place(&self) -> &str {
        self.dial.place()
    }

    fn words(&self, number: u32) -> (String, String) {
        let (first, second) = self.name;
        (
            format!("process {number} of the server"),
            format!(
                "advisory lock {}, {}",
                first.cast_signed(),
                second.cast_signed()
            ),
        )
    }
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

/// The first value of a statement.
async fn ask(conn: &PostgresConn, sql: &str) -> PostgresResult<Option<String>> {
    let messages = timeout(ANSWER_TIMEOUT, conn.client.simple_query(sql)).await??;
    Ok(messages.iter().find_map(|message| match message {
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
