//! Whether a Galera cluster can lose a node, and replicates all tables.

use super::durability::seen;
use super::fault::MysqlResult;
use super::session::MysqlSession;
use crate::storage::Finding;
use crate::storage::unusable::plural;

/// Nodes and arbitrators of which one can be lost: the others are a majority.
const MEMBERS_MIN: u64 = 3;

/// Tables that a finding names.
const NAMED_MAX: usize = 5;

/// Tables of which a cluster does not replicate every change.
const UNREPLICATED: &str = "SELECT t.table_name FROM information_schema.tables t \
    LEFT JOIN information_schema.statistics s ON s.table_schema = t.table_schema \
        AND s.table_name = t.table_name AND s.index_name = 'PRIMARY' AND s.seq_in_index = 1 \
    WHERE t.table_schema = DATABASE() AND t.table_type = 'BASE TABLE' \
        AND (s.index_name IS NULL OR t.engine <> 'InnoDB') ORDER BY t.table_name";

/// Whether the server is a node of a cluster. If so, adds what is to be said about that.
pub(super) async fn inspect(
    session: &mut MysqlSession<'_>,
    findings: &mut Vec<Finding>,
) -> MysqlResult<bool> {
    let rows = seen(session, "SELECT @@GLOBAL.wsrep_on").await?;
    if !rows.first().is_some_and(|row| row.flag(0)) {
        return Ok(false);
    }
    let rows = seen(session, "SHOW GLOBAL STATUS LIKE 'wsrep_cluster_size'").await?;
    let members: Option<u64> = rows.first().and_then(|row| row.text(1).parse().ok());
    if let Some(members) = members.filter(|members| *members < MEMBERS_MIN) {
        findings.push(Finding::note(
            format!(
                "the Galera cluster has {members} of the {MEMBERS_MIN} members that it needs: if one more is \
                 lost, nothing can be written"
            ),
            "start the nodes that are missing, or add a node or an arbitrator (garbd)",
        ));
    }
    let rows = seen(session, UNREPLICATED).await?;
    if !rows.is_empty() {
        let names = rows.iter().take(NAMED_MAX).map(|row| row.text(0));
        let names: Vec<String> = names.collect();
        let noun = plural(rows.len(), "table", "tables");
        findings.push(Finding::note(
            format!(
                "{} {noun} without a primary key, or not of InnoDB ({}): the Galera cluster does not replicate all \
                 of their changes",
                rows.len(),
                names.join(", ")
            ),
            "give each a primary key, and ALTER TABLE … ENGINE = InnoDB",
        ));
    }
    Ok(true)
}
