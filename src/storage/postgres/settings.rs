//! The session: every setting that changes what Mika's statements mean.
//!
//! A server, a database or an account may have other defaults for all of its connections. So Mika sets all of them
//! on each new connection. The `search_path` is the account's own: it says where the site's tables are.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::fault::{PostgresFault, PostgresResult, STANDBY_HINT};
use super::session::PostgresSession;
use crate::storage::Finding;
use crate::storage::sql::catalogue::changed_setting;
use crate::storage::sql::cells::SqlRow;
use crate::storage::sql::database::ANSWER_TIMEOUT;

/// Waits for locks of the site are short, because a job tries again. The server ends a transaction that is
/// silent for a minute, so that no lock outlives a lost route. Compiled plans (`jit`) cost more than these
/// statements.
const NEEDED: &str = "SET SESSION CHARACTERISTICS AS TRANSACTION \
        ISOLATION LEVEL READ COMMITTED, READ WRITE, NOT DEFERRABLE; \
    SET standard_conforming_strings = on; SET transform_null_equals = off; SET TimeZone = 'UTC'; \
    SET statement_timeout = '10s'; SET lock_timeout = '3s'; \
    SET idle_in_transaction_session_timeout = '60s'; SET client_min_messages = error; SET jit = off";

/// Begins a transaction. One that writes looks up its rows by index, in the order in which they are given or in that
/// of the index, so that all writers lock in the same order.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_seqscan = off";

/// Settings that the check verifies: a pooler may not have passed them on.
const EXPECTED: [(&str, &str); 6] = [
    ("client_encoding", "UTF8"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
    ("TimeZone", "UTC"),
    ("lock_timeout", "3s"),
];

/// Sets up the session of a new connection.
pub(super) async fn set(client: &Client) -> PostgresResult<()> {
    Ok(client.batch_execute(NEEDED).await?)
}

/// For how long the server works on a statement. It ends a bit later here, so that the server says so itself.
pub(super) async fn set_time_limit(client: &Client, limit: Duration) -> PostgresResult<()> {
    let sql = format!("SET statement_timeout = '{}s'", limit.as_secs());
    Ok(timeout(ANSWER_TIMEOUT, client.batch_execute(&sql)).await??)
}

/// Whether the server takes no writes: it is a standby.
pub(super) async fn is_read_only(client: &Client) -> PostgresResult<bool> {
    let messages = client.simple_query("SHOW transaction_read_only").await?;
    let is_on = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("on"),
        _ => false,
    };
    Ok(messages.iter().any(is_on))
}

/// The timeline of a primary: a standby that is promoted begins another one. None on a standby, and where an account or
/// another kind of server can't tell. It is the same for as long as the connection is.
pub(super) async fn timeline(client: &Client) -> PostgresResult<Option<u32>> {
    let sql = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)";
    let messages = match client.simple_query(sql).await.map_err(PostgresFault::from) {
        Err(fault) if fault.is_of_server() => return Ok(None),
        messages => messages?,
    };
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => u32::from_str_radix(row.get(0)?, 16).ok(),
        _ => None,
    }))
}

/// The oldest supported server, as it numbers itself.
const OLDEST: i64 = 130_000;

/// Checks whether the server is new enough.
pub(super) async fn version(session: &mut PostgresSession<'_>) -> PostgresResult<Vec<Finding>> {
    let sql =
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')";
    let rows = session.query(sql, &[]).await?;
    let is_old = |row: &SqlRow<'_>| row.integer(0).is_some_and(|version| version < OLDEST);
    let finding = |row: SqlRow<'_>| {
        Finding::problem(
            format!("the server is too old: {}", row.text(1)),
            format!("update it to {} or later", OLDEST / 10_000),
        )
    };
    Ok(rows
        .first()
        .filter(is_old)
        .map(finding)
        .into_iter()
        .collect())
}

/// Checks whether the session has these settings, and whether the server can be written to.
pub(super) async fn inspect(
    session: &mut PostgresSession<'_>,
    findings: &mut Vec<Finding>,
) -> PostgresResult<()> {
    let names = EXPECTED.map(|(name, _)| format!("current_setting('{name}')"));
    let sql = format!("SELECT {}, pg_is_in_recovery()", names.join(", "));
    let rows = session.query(&sql, &[]).await?;
    let Some(row) = rows.first() else {
        return Ok(());
    };
    for (column, (name, wanted)) in EXPECTED.into_iter().enumerate() {
        let instead = "or a pooler that keeps a session for each connection";
        findings.extend(changed_setting(name, &row.text(column), wanted, instead));
    }
    if row.flag(EXPECTED.len()) {
        findings.push(Finding::problem(
            "the server is a standby: nothing can be written",
            STANDBY_HINT,
        ));
    }
    Ok(())
}
