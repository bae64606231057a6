//! The last applied batch of each journal.

use mysql_async::Value;

use crate::storage::mysql::cells::MysqlCells;
use crate::storage::mysql::fault::MysqlFault;
use crate::storage::mysql::link::MysqlSession;
use crate::storage::mysql::tables::begin;
use crate::storage::settle::clamp;

/// All journals, with the number of the last batch of each.
pub(in crate::storage::mysql) async fn journals(
    session: &mut MysqlSession<'_>,
) -> Result<Vec<(String, u64)>, MysqlFault> {
    let sql = "SELECT node, applied FROM mika_journal ORDER BY node";
    let rows = session.query(sql).await?;
    let journal = |cells: MysqlCells<'_>| (cells.text(0), cells.total(1));
    Ok(rows.iter().map(|row| journal(MysqlCells(row))).collect())
}

/// Gives up missing batches up to `number`.
pub(in crate::storage::mysql) async fn begin_at(
    session: &mut MysqlSession<'_>,
    node: &str,
    number: u64,
) -> Result<(), MysqlFault> {
    let sql = "INSERT INTO mika_journal (node, applied) VALUES (?, ?) \
               ON DUPLICATE KEY UPDATE applied = GREATEST(applied, VALUES(applied))";
    let params = vec![node.into(), Value::from(clamp(number))];
    session.exec(sql, params).await?;
    Ok(())
}

/// Forgets a journal's number if it is still this one.
pub(in crate::storage::mysql) async fn forget(
    session: &mut MysqlSession<'_>,
    node: &str,
    number: u64,
) -> Result<bool, MysqlFault> {
    begin(session).await?;
    let sql = "SELECT applied FROM mika_journal WHERE node = ? FOR UPDATE";
    let rows = session.exec(sql, vec![node.into()]).await?;
    let is_there = rows
        .first()
        .is_some_and(|row| MysqlCells(row).total(0) == number);
    if is_there {
        let sql = "DELETE FROM mika_journal WHERE node = ?";
        session.exec(sql, vec![node.into()]).await?;
    }
    session.run("COMMIT").await?;
    Ok(is_there)
}

/// Waits for an open transaction of the same journal, whose process may be gone.
pub(in crate::storage::mysql) async fn last_applied(
    session: &mut MysqlSession<'_>,
    node: &str,
) -> Result<u64, MysqlFault> {
    let sql = "SELECT applied FROM mika_journal WHERE node = ? FOR UPDATE";
    let rows = session.exec(sql, vec![node.into()]).await?;
    Ok(rows.first().map_or(0, |row| MysqlCells(row).total(0)))
}

/// The number, locked until the end of this transaction.
pub(super) async fn applied_for_update(
    session: &mut MysqlSession<'_>,
    node: &str,
) -> Result<u64, MysqlFault> {
    let sql = "SELECT applied FROM mika_journal WHERE node = ? FOR UPDATE";
    let rows = session.exec(sql, vec![node.into()]).await?;
    if let Some(row) = rows.first() {
        return Ok(MysqlCells(row).total(0));
    }
    // A missing row can't be locked: two first batches would both count.
    let insert = "INSERT IGNORE INTO mika_journal (node, applied) VALUES (?, 0)";
    session.exec(insert, vec![node.into()]).await?;
    let rows = session.exec(sql, vec![node.into()]).await?;
    Ok(rows.first().map_or(0, |row| MysqlCells(row).total(0)))
}
