//! The session: every setting that changes what Mika's statements mean.
//!
//! A server's options file, or its `init_connect`, may set anything for all connections: another character
//! set, no strict mode, `autocommit = 0`. So Mika sets all of them on each new connection, after
//! `init_connect` has run; nothing resets a connection later.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use super::fault::{BINLOG_HINT, MysqlFault, MysqlResult, READ_ONLY_HINT};
use super::session::MysqlSession;
use crate::storage::Finding;
use crate::storage::sql::catalogue::changed_setting;

/// Invalid values are refused, not truncated; quotes and operators are standard.
pub(super) const SQL_MODE: &str = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION";

/// Required settings; one round trip each. The server ends a connection that is silent for a minute, so
/// that no lock outlives a lost route, and waits for the site's locks are short.
const NEEDED: [&str; 3] = [
    "SET NAMES utf8mb4 COLLATE utf8mb4_general_ci",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1, \
     completion_type = 0, sql_auto_is_null = 0, sql_safe_updates = 0, \
     sql_select_limit = 18446744073709551615, max_join_size = 18446744073709551615, \
     sql_big_selects = 1, foreign_key_checks = 1, unique_checks = 1, \
     group_concat_max_len = 1048576, div_precision_increment = 4, time_zone = '+00:00', \
     wait_timeout = 60, innodb_lock_wait_timeout = 3, lock_wait_timeout = 3",
];

/// Optional settings, which some servers lack or let only privileged accounts set: the clock of the session,
/// InnoDB's strictness, limits for long statements (Mika has its own), and that a node of a Galera cluster applies
/// what other nodes have committed before it reads.
const OPTIONAL: [&str; 5] = [
    "SET SESSION timestamp = DEFAULT",
    "SET SESSION innodb_strict_mode = 1",
    "SET SESSION max_statement_time = 0",
    "SET SESSION max_execution_time = 0",
    "SET SESSION wsrep_sync_wait = 1",
];

/// Settings that the check verifies: a proxy may not have passed them on.
const LOOKED_AT: [(&str, &str); 8] = [
    ("character_set_client", "utf8mb4"),
    ("character_set_connection", "utf8mb4"),
    ("character_set_results", "utf8mb4"),
    ("sql_mode", SQL_MODE),
    ("autocommit", "1"),
    ("completion_type", "NO_CHAIN"),
    ("sql_auto_is_null", "0"),
    ("time_zone", "+00:00"),
];

/// Sets up the session of a new connection.
pub(super) async fn set(conn: &mut Conn) -> MysqlResult<()> {
    for sql in NEEDED {
        conn.query_drop(sql).await?;
    }
    for sql in OPTIONAL {
        match conn.query_drop(sql).await.map_err(MysqlFault::from) {
            Err(fault) if !fault.is_no_variable() && !fault.is_denied() => return Err(fault),
            _ => {}
        }
    }
    Ok(())
}

/// Checks whether the session has these settings.
pub(super) async fn inspect(
    session: &mut MysqlSession<'_>,
    findings: &mut Vec<Finding>,
) -> MysqlResult<()> {
    let names = LOOKED_AT.map(|(name, _)| format!("@@SESSION.{name}"));
    let rows = session
        .query(&format!("SELECT {}", names.join(", ")))
        .await?;
    let Some(row) = rows.first() else {
        return Ok(());
    };
    for (column, (name, wanted)) in LOOKED_AT.into_iter().enumerate() {
        let instead = "and not a proxy or pooler that changes sessions";
        findings.extend(changed_setting(name, &row.text(column), wanted, instead));
    }
    of_server(session, findings).await
}

/// The oldest supported servers: Mika needs `NOWAIT`.
const MYSQL_OLDEST: (u16, u16, u16) = (8, 0, 1);
const MARIADB_OLDEST: (u16, u16, u16) = (10, 5, 2);

/// Checks whether the server is new enough.
pub(super) async fn version(session: &mut MysqlSession<'_>) -> MysqlResult<Vec<Finding>> {
    let rows = session.query("SELECT VERSION()").await?;
    let version = rows.first().map(|row| row.text(0)).unwrap_or_default();
    let oldest = if version.contains("MariaDB") {
        MARIADB_OLDEST
    } else {
        MYSQL_OLDEST
    };
    if session.server_version() >= oldest {
        return Ok(Vec::new());
    }
    let (major, minor, patch) = oldest;
    Ok(vec![Finding::problem(
        format!("the server is too old: {version}"),
        format!("update it to {major}.{minor}.{patch} or later"),
    )])
}

/// Bytes that the server must accept in one packet.
const PACKET_MIN: u64 = 1 << 20;

/// Checks global settings that Mika can't change.
async fn of_server(session: &mut MysqlSession<'_>, findings: &mut Vec<Finding>) -> MysqlResult<()> {
    let sql = "SELECT @@GLOBAL.log_bin, @@GLOBAL.binlog_format, @@GLOBAL.max_allowed_packet, \
        @@GLOBAL.read_only";
    let rows = match session.query(sql).await {
        Ok(rows) => rows,
        Err(fault) if fault.is_no_variable() => return Ok(()),
        Err(fault) => return Err(fault),
    };
    let Some(row) = rows.first() else {
        return Ok(());
    };
    if row.flag(0) && row.text(1) == "STATEMENT" {
        findings.push(Finding::problem(
            "binlog_format is STATEMENT, which does not go with READ COMMITTED: nothing can be written",
            BINLOG_HINT,
        ));
    }
    let packet = row.total(2);
    if packet < PACKET_MIN {
        findings.push(Finding::problem(
            format!("max_allowed_packet is {packet} bytes, and Mika needs 1M at least"),
            "as an administrator: SET GLOBAL max_allowed_packet = 16777216, and the same in the \
             server's options file",
        ));
    }
    let is_marked = !["0", "OFF"].contains(&row.text(3).as_str());
    if is_marked && !can_write(session).await? {
        findings.push(Finding::problem(
            "the server is read-only: nothing can be written",
            READ_ONLY_HINT,
        ));
    }
    Ok(())
}

/// Whether writes are possible; some accounts may write to a read-only server.
async fn can_write(session: &mut MysqlSession<'_>) -> MysqlResult<bool> {
    match session.query("DELETE FROM mika_journal WHERE 1 = 0").await {
        Err(fault) if fault.is_read_only() => Ok(false),
        Ok(_) | Err(MysqlFault::Sql(Error::Server(_), _)) => Ok(true),
        Err(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_that_is_looked_at_is_the_one_that_is_set() {
        assert!(NEEDED[2].contains(&format!("sql_mode = '{SQL_MODE}'")));
    }
}
