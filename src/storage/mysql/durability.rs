//! Whether committed data survives a crash of the server or its host, and a fail-over.

use mysql_async::Error;

use super::fault::{MysqlFault, MysqlResult};
use super::galera;
use super::session::MysqlSession;
use crate::storage::Finding;
use crate::storage::sql::catalogue::{AFTERWARDS, asynchronous};
use crate::storage::sql::cells::{SqlRow, SqlRows};

/// Checks settings of the server and its replicas, as far as Mika's account may see them.
pub(super) async fn inspect(session: &mut MysqlSession<'_>) -> MysqlResult<Vec<Finding>> {
    let mut findings = Vec::new();
    // What a crash costs a node of a cluster, the others still have.
    if !galera::inspect(session, &mut findings).await? {
        settings(session, &mut findings).await?;
    }
    replication(session, &mut findings).await?;
    Ok(findings)
}

async fn settings(session: &mut MysqlSession<'_>, findings: &mut Vec<Finding>) -> MysqlResult<()> {
    let sql =
        "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.log_bin, @@GLOBAL.sync_binlog";
    let rows = seen(session, sql).await?;
    let Some(row) = rows.first() else {
        return Ok(());
    };
    let crash = match row.total(0) {
        0 => "a crash of the server",
        2 => "a crash of its host",
        _ => "",
    };
    if !crash.is_empty() {
        let flush = row.total(0);
        findings.push(Finding::note(
            format!(
                "innodb_flush_log_at_trx_commit is {flush}: {crash} loses about a second of what the server has \
                 confirmed; {AFTERWARDS}"
            ),
            "as an administrator: SET GLOBAL innodb_flush_log_at_trx_commit = 1, and the same in the server's \
             options file",
        ));
    }
    let sync = row.total(2);
    if row.flag(1) && sync != 1 {
        findings.push(Finding::note(
            format!(
                "sync_binlog is {sync} while the binary log is on: a crash of the host loses what the server has \
                 confirmed, and replicas may have more than it; {AFTERWARDS}"
            ),
            "as an administrator: SET GLOBAL sync_binlog = 1, and the same in the server's options file",
        ));
    }
    Ok(())
}

/// After a fail-over, a replica lacks what did not reach it, unless the server waited for that.
async fn replication(
    session: &mut MysqlSession<'_>,
    findings: &mut Vec<Finding>,
) -> MysqlResult<()> {
    let replicas = replicas(session).await?;
    if replicas == 0 || is_semi_synchronous(session).await? {
        return Ok(());
    }
    let noun = ("replica follows", "replicas follow");
    findings.push(asynchronous(
        replicas,
        noun,
        "let a replica catch up before it takes over, or turn on semi-synchronous replication \
         (rpl_semi_sync_master_enabled; in MySQL rpl_semi_sync_source_enabled)",
    ));
    Ok(())
}

/// Number of replicas that are connected, or were registered, as far as this account may see.
async fn replicas(session: &mut MysqlSession<'_>) -> MysqlResult<usize> {
    // MariaDB shows it to every account.
    let rows = seen(session, "SHOW GLOBAL STATUS LIKE 'Slaves_connected'").await?;
    if let Some(row) = rows.first() {
        let connected = row.text(1).parse();
        return Ok(connected.unwrap_or(0));
    }
    for sql in ["SHOW REPLICAS", "SHOW SLAVE HOSTS"] {
        let rows = seen(session, sql).await?;
        if !rows.is_empty() {
            return Ok(rows.len());
        }
    }
    Ok(0)
}

async fn is_semi_synchronous(session: &mut MysqlSession<'_>) -> MysqlResult<bool> {
    let rows = seen(session, "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_%_status'").await?;
    let is_on = |row: SqlRow<'_>| {
        let name = row.text(0).to_ascii_lowercase();
        (name.contains("master") || name.contains("source")) && row.text(1) == "ON"
    };
    Ok(rows.iter().any(is_on))
}

/// The rows of a statement; none if the server does not have it, or this account may not run it.
pub(super) async fn seen(session: &mut MysqlSession<'_>, sql: &str) -> MysqlResult<SqlRows> {
    match session.query(sql).await {
        Err(MysqlFault::Sql(Error::Server(_), _)) => Ok(SqlRows::default()),
        rows => rows,
    }
}
