//! Whether committed data survives a crash of the server or its host, and a fail-over.

use super::fault::PostgresResult;
use super::session::PostgresSession;
use crate::storage::Finding;
use crate::storage::sql::catalogue::{AFTERWARDS, asynchronous};

/// Checks settings of the server and its standbys.
pub(super) async fn inspect(session: &mut PostgresSession<'_>) -> PostgresResult<Vec<Finding>> {
    let sql = "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
        current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), \
        (SELECT COUNT(*) FROM pg_stat_replication)";
    let rows = session.query(sql, &[]).await?;
    let Some(row) = rows.first() else {
        return Ok(Vec::new());
    };
    let mut findings = Vec::new();
    for (column, name) in [(0, "fsync"), (1, "full_page_writes")] {
        if row.text(column) == "off" {
            findings.push(Finding::problem(
                format!(
                    "{name} is off: a crash of the server's host may damage the whole database"
                ),
                format!(
                    "as an administrator: ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()"
                ),
            ));
        }
    }
    let commit = row.text(2);
    if commit == "off" {
        findings.push(Finding::note(
            format!(
                "synchronous_commit is off: a crash of the server loses about a second of what it has confirmed; \
                 {AFTERWARDS}"
            ),
            "as an administrator: ALTER ROLE … SET synchronous_commit = on, with the name of Mika's account",
        ));
    }
    let standbys = usize::try_from(row.total(4)).unwrap_or(usize::MAX);
    let waits = !row.text(3).is_empty() && !["off", "local"].contains(&commit.as_str());
    if standbys > 0 && !waits {
        let noun = ("standby follows", "standbys follow");
        findings.push(asynchronous(
            standbys,
            noun,
            "let a standby catch up before it takes over, or name it in synchronous_standby_names",
        ));
    }
    Ok(findings)
}
