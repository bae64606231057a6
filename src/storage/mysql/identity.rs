//! Which database this is, and what its clock says.

use super::cells::Cells;
use super::fault::Fault;
use super::link::Session;
use crate::storage::identity_of;

/// Where the database is by the server's own account, which is the same for all clients; and when
/// the feed was made, which is another time after a dump was restored.
const PLACE: &str = "SELECT @@hostname, @@port, @@datadir, DATABASE(), \
     (SELECT UNIX_TIMESTAMP(CREATE_TIME) FROM information_schema.TABLES \
      WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'mika_feed')";
const PLACE_COLUMNS: usize = 5;

/// Names the database, as seen through one schema.
pub(super) async fn identity(session: &mut Session<'_>, schema: &str) -> Result<String, Fault> {
    let rows = session.query(PLACE).await?;
    let place = rows.first().map(|row| {
        let cells = Cells(row);
        let columns = 0..PLACE_COLUMNS;
        columns.map(|column| cells.text(column)).collect()
    });
    let mut parts: Vec<String> = place.unwrap_or_default();
    parts.push(schema.to_owned());
    Ok(identity_of(&parts))
}

/// The server's clock (Unix time).
pub(super) async fn time(session: &mut Session<'_>) -> Result<Option<i64>, Fault> {
    let rows = session.query("SELECT UNIX_TIMESTAMP()").await?;
    Ok(rows.first().and_then(|row| Cells(row).integer(0)))
}
