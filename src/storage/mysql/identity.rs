//! The identity of the database, and its clock.

use super::cells::MysqlCells;
use super::fault::MysqlFault;
use super::link::MysqlSession;
use crate::storage::StorageError;
use crate::storage::identity::checked;

/// The identity; a random text made by a migration.
pub(super) async fn identity(session: &mut MysqlSession<'_>) -> Result<String, MysqlFault> {
    let rows = match session.query("SELECT id FROM mika_identity").await {
        Err(fault) if fault.is_no_table() => Vec::new(),
        rows => rows?,
    };
    let found = rows.first().map(|row| MysqlCells(row).text(0));
    Ok(checked(found).map_err(StorageError::from)?)
}

/// Replaces the identity.
pub(super) async fn renew(session: &mut MysqlSession<'_>) -> Result<String, MysqlFault> {
    session
        .run("UPDATE mika_identity SET id = MD5(CONCAT(UUID(), RAND()))")
        .await?;
    identity(session).await
}

/// The server's clock (Unix time).
pub(super) async fn time(session: &mut MysqlSession<'_>) -> Result<Option<i64>, MysqlFault> {
    let rows = session.query("SELECT UNIX_TIMESTAMP()").await?;
    Ok(rows.first().and_then(|row| MysqlCells(row).integer(0)))
}
