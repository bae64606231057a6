//! Which of several servers takes writes: a node of a Galera cluster that is ready, or the primary of replicas.

use mysql_async::Conn;

use super::cells;
use super::fault::{MysqlFault, MysqlResult};
use crate::storage::sql::cells::SqlRows;

/// What `wsrep_local_state` says of a node that has all that the others have.
const SYNCED: &str = "4";

/// Why a server takes no writes that is meant to take none.
pub(super) const READ_ONLY: &str = "is read-only";

/// Whether a server is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriterState {
    Ready,
    /// A node that supplies another one with its data, and may be blocked by that: only if there is no better one.
    Busy,
}

/// How a server stands; a fault if it takes no writes.
pub(super) async fn standing(conn: &mut Conn) -> MysqlResult<WriterState> {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'wsrep_on')";
    let variables = ask(conn, sql).await?;
    let is_on =
        |name| value(&variables, name).is_some_and(|value| !["0", "OFF"].contains(&&*value));
    if is_on("read_only") {
        return Err(MysqlFault::NoWriter(READ_ONLY));
    }
    if !is_on("wsrep_on") {
        return Ok(WriterState::Ready);
    }
    let sql = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_local_state')";
    let status = ask(conn, sql).await?;
    if value(&status, "wsrep_ready").is_none_or(|ready| ready != "ON") {
        return Err(MysqlFault::NoWriter(
            "is not in the primary component of its Galera cluster, or not ready yet",
        ));
    }
    match value(&status, "wsrep_local_state") {
        Some(state) if state != SYNCED => Ok(WriterState::Busy),
        _ => Ok(WriterState::Ready),
    }
}

async fn ask(conn: &mut Conn, sql: &str) -> MysqlResult<SqlRows> {
    let mut rows = SqlRows::default();
    cells::query(conn, sql, &mut rows).await?;
    Ok(rows)
}

/// The value behind a name.
fn value(rows: &SqlRows, name: &str) -> Option<String> {
    let row = rows.iter().find(|row| row.text(0) == name)?;
    Some(row.text(1))
}
