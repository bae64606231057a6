//! Which database this is, and what its clock says.

use super::cells::Cells;
use super::fault::Fault;
use super::link::Session;
use crate::storage::StorageError;
use crate::storage::identity::checked;

/// The random text that a migration made.
pub(super) async fn identity(session: &mut Session<'_>) -> Result<String, Fault> {
    let rows = match session.query("SELECT id FROM mika_identity").await {
        Err(fault) if fault.is_no_table() => Vec::new(),
        rows => rows?,
    };
    let found = rows.first().map(|row| Cells(row).text(0));
    Ok(checked(found).map_err(StorageError::from)?)
}

/// Makes another one.
pub(super) async fn renew(session: &mut Session<'_>) -> Result<String, Fault> {
    session
        .run("UPDATE mika_identity SET id = MD5(CONCAT(UUID(), RAND()))")
        .await?;
    identity(session).await
}

/// The server's clock (Unix time).
pub(super) async fn time(session: &mut Session<'_>) -> Result<Option<i64>, Fault> {
    let rows = session.query("SELECT UNIX_TIMESTAMP()").await?;
    Ok(rows.first().and_then(|row| Cells(row).integer(0)))
}
