//! Writes settled histories.

use super::super::calls;
use super::super::cells::{Cell, SqlRows};
use super::super::database::SqlResult;
use super::super::job::Job;
use crate::accounting::coverage::Coverage;
use crate::storage::settle::{HistoryRow, Settlement, clamp};

/// Columns that are written: those that each announce changes, all, and all of a new row.
const OFTEN: usize = 8;
const ALL: usize = 12;
const NEW: usize = 13;

pub(super) async fn write(job: &mut Job<'_>, settled: &Settlement<'_>) -> SqlResult<()> {
    write_standing(job, settled).await?;
    let count = settled.histories.len();
    let mut new = SqlRows::with_capacity(NEW, count);
    let mut grown = SqlRows::with_capacity(OFTEN, count);
    let mut others = SqlRows::with_capacity(ALL, count);
    for row in &settled.histories {
        let cells = cells(row);
        if row.is_new {
            new.push(&cells);
        } else if row.only_grew() {
            grown.push(&cells[..OFTEN]);
        } else {
            others.push(&cells[..ALL]);
        }
    }
    job.call_for(&calls::INSERT_HISTORIES, new).await?;
    job.call_for(&calls::UPDATE_HISTORIES_OFTEN, grown).await?;
    job.call_for(&calls::UPDATE_HISTORIES, others).await?;
    Ok(())
}

/// The columns in the order of [`calls::HISTORY`], and the one that is written once.
fn cells(row: &HistoryRow) -> [Cell<'static>; NEW] {
    let now = &row.now;
    [
        Cell::Int(row.torrent.0.into()),
        Cell::Int(row.user.0.into()),
        Cell::Int(clamp(now.uploaded)),
        Cell::Int(clamp(now.downloaded)),
        Cell::Int(clamp(now.seed_time)),
        Cell::Int(clamp(now.announces)),
        Cell::Int(now.last_announce),
        Cell::maybe(now.covered.map(|covered| covered.until)),
        Cell::maybe(now.completed_at),
        Cell::Int(now.hnr.into()),
        Cell::maybe(now.covered.and_then(Coverage::floor)),
        Cell::maybe(now.covered.map(|covered| covered.from)),
        Cell::Int(row.first_announce),
    ]
}

/// Copies the standing to the user's other peers of the torrent.
async fn write_standing(job: &mut Job<'_>, settled: &Settlement<'_>) -> SqlResult<()> {
    let mut changed = SqlRows::new(4);
    for row in &settled.histories {
        if row.has_new_standing() {
            changed.push(&[
                Cell::Int(row.torrent.0.into()),
                Cell::Int(row.user.0.into()),
                Cell::Int(row.now.hnr.into()),
                Cell::maybe(row.now.completed_at),
            ]);
        }
    }
    job.call_for(&calls::UPDATE_STANDING, changed).await?;
    Ok(())
}
