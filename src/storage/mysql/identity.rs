//! Which database this is, and what its clock says.

use super::cells::Cells;
use super::fault::Fault;
use super::link::Session;
use super::tables;
use crate::storage::identity_of;

/// Where the database is by the server's own account, which is the same for all clients.
const PLACE: &str = "SELECT @@hostname, @@port, @@datadir, DATABASE()";
const PLACE_COLUMNS: usize = 4;

/// When Mika's tables were first made. It is among the data, so it survives a rebuild of any
/// table, and a dump that is restored into the same database: of that the feed's position tells.
const MADE: &str = "SELECT UNIX_TIMESTAMP(MIN(applied_at)) FROM mika_migrations";

/// Names the database, as seen through one schema.
pub(super) async fn identity(session: &mut Session<'_>, schema: &str) -> Result<String, Fault> {
    let rows = session.query(PLACE).await?;
    let place = rows.first().map(|row| {
        let cells = Cells(row);
        let columns = 0..PLACE_COLUMNS;
        columns.map(|column| cells.text(column)).collect()
    });
    let mut parts: Vec<String> = place.unwrap_or_default();
    // A database that was never migrated has no such table.
    if tables::is_there(session).await? {
        let rows = session.query(MADE).await?;
        parts.push(
            rows.first()
                .map(|row| Cells(row).text(0))
                .unwrap_or_default(),
        );
    }
    parts.push(schema.to_owned());
    Ok(identity_of(&parts))
}

/// The server's clock (Unix time).
pub(super) async fn time(session: &mut Session<'_>) -> Result<Option<i64>, Fault> {
    let rows = session.query("SELECT UNIX_TIMESTAMP()").await?;
    Ok(rows.first().and_then(|row| Cells(row).integer(0)))
}
