//! The lock by which a daemon claims a database: a named one, held by its own connection.

use std::time::Duration;

use async_trait::async_trait;
use mysql_async::Conn;
use tokio::time::timeout;

use super::cells;
use super::fault::MysqlResult;
use super::link::{Dial, PING_TIMEOUT};
use crate::storage::StorageResult;
use crate::storage::sql::cells::SqlRows;
use crate::storage::sql::database::ANSWER_TIMEOUT;
use crate::storage::sql::keeper::{Attempt, LockHolder, SILENCE_SECONDS, ServerLock};

/// Maximum length of a lock's name in MySQL, in characters.
const NAME_MAX: usize = 64;

/// The lock for a database.
pub(super) struct NamedLock {
    dial: Dial,
    name: String,
}

impl NamedLock {
    /// The lock for the database of that identity.
    pub(super) fn new(dial: Dial, identity: &str) -> Self {
        let mut name = format!("mika.{identity}");
        name.truncate(NAME_MAX);
        Self { dial, name }
    }

    async fn attempt(&self, wait: Duration) -> MysqlResult<Attempt<Conn>> {
        let mut conn = self.dial.connect().await?;
        let silence = format!("SET SESSION wait_timeout = {SILENCE_SECONDS}");
        ask(&mut conn, &silence).await?;
        let sql = format!("SELECT GET_LOCK('{}', {})", self.name, wait.as_secs());
        if is_true(&ask(&mut conn, &sql).await?) {
            return Ok(Attempt::Taken(conn));
        }
        let holder = self.holder(&mut conn).await?;
        self.release(conn).await;
        Ok(Attempt::Refused(holder))
    }

    async fn holder(&self, conn: &mut Conn) -> MysqlResult<LockHolder> {
        let sql = format!("SELECT IS_USED_LOCK('{}')", self.name);
        let rows = ask(conn, &sql).await?;
        let number = rows.first().and_then(|row| row.integer(0));
        let number = number.and_then(|number| u32::try_from(number).ok());
        let mut who = None;
        if let Some(number) = number {
            let sql = format!(
                "SELECT CONCAT(user, ' from ', host) FROM information_schema.processlist \
                 WHERE id = {number}"
            );
            // Only privileged accounts see other accounts' connections.
            let rows = ask(conn, &sql).await.unwrap_or_default();
            who = rows.first().map(|row| row.text(0));
        }
        Ok(LockHolder { number, who })
    }
}

#[async_trait]
impl ServerLock for NamedLock {
    type Holding = Conn;

    async fn take(&self, wait: Duration) -> StorageResult<Attempt<Conn>> {
        let attempt = self.attempt(wait).await;
        attempt.map_err(|fault| fault.explain(self.place(), ANSWER_TIMEOUT))
    }

    async fn is_held(&self, conn: &mut Conn) -> bool {
        let sql = format!("SELECT IS_USED_LOCK('{}') = CONNECTION_ID()", self.name);
        ask(conn, &sql).await.is_ok_and(|rows| is_true(&rows))
    }

    fn number(&self, conn: &Conn) -> u32 {
        conn.id()
    }

    /// Without a goodbye, the server would log an aborted connection.
    async fn release(&self, conn: Conn) {
        let _ = timeout(PING_TIMEOUT, conn.disconnect()).await;
    }

    fn place(&self) -> &str {
        &self.dial.place
    }

    fn words(&self, number: u32) -> (String, String) {
        (
            format!("connection {number}"),
            format!("lock {}", self.name),
        )
    }
}

async fn ask(conn: &mut Conn, sql: &str) -> MysqlResult<SqlRows> {
    let mut rows = SqlRows::default();
    timeout(ANSWER_TIMEOUT, cells::query(conn, sql, &mut rows)).await??;
    Ok(rows)
}

/// Whether the only cell is 1.
fn is_true(rows: &SqlRows) -> bool {
    rows.first().is_some_and(|row| row.flag(0))
}
