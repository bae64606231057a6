//! Writes settled histories.

use super::{inserts, updates};
use crate::accounting::coverage::Coverage;
use crate::storage::mysql::fault::MysqlFault;
use crate::storage::mysql::link::MysqlSession;
use crate::storage::mysql::rows::{Cell, INSERT_ROWS_MAX, RowsSql};
use crate::storage::mysql::tables::Own;
use crate::storage::settle::{HistoryRow, Settlement, clamp};

/// The key of a history.
const HISTORY_KEY: [&str; 2] = ["torrent_id", "user_id"];

/// Columns of a history after its key. The last [`HISTORY_SELDOM`] are unchanged unless something
/// happened, and the very last one is written once.
const HISTORY: [&str; 11] = [
    "uploaded",
    "downloaded",
    "seed_time",
    "announces",
    "last_announce",
    "seeded_until",
    "completed_at",
    "hnr",
    "seeded_floor",
    "seeded_from",
    "first_announce",
];
const HISTORY_SELDOM: usize = 5;

pub(super) async fn write_histories(
    session: &mut MysqlSession<'_>,
    own: &Own,
    settled: &Settlement<'_>,
) -> Result<(), MysqlFault> {
    write_siblings(session, own, settled).await?;
    let parts = settled.histories.chunks(INSERT_ROWS_MAX);
    let statements = parts.flat_map(|part| histories_written(own, part));
    session.run_each(statements).await
}

/// Statements that write histories.
fn histories_written(own: &Own, histories: &[HistoryRow]) -> Vec<String> {
    let (mut new, mut grown, mut others) =
        (RowsSql::default(), RowsSql::default(), RowsSql::default());
    for row in histories {
        if row.is_new {
            push_history(&mut new, row, HISTORY.len());
        } else if row.only_grew() {
            push_history(&mut grown, row, HISTORY.len() - HISTORY_SELDOM);
        } else {
            push_history(&mut others, row, HISTORY.len() - 1);
        }
    }
    let often = &HISTORY[..HISTORY.len() - HISTORY_SELDOM];
    let all = &HISTORY[..HISTORY.len() - 1];
    let mut statements = inserts(&own.history, &HISTORY_KEY, &HISTORY, &new);
    statements.extend(updates(&own.history, &HISTORY_KEY, often, &grown));
    statements.extend(updates(&own.history, &HISTORY_KEY, all, &others));
    statements
}

/// Appends the key, and the first `columns` of [`HISTORY`].
fn push_history(rows: &mut RowsSql, row: &HistoryRow, columns: usize) {
    let now = &row.now;
    let cells = [
        Cell::Number(row.torrent.0.into()),
        Cell::Number(row.user.0.into()),
        Cell::Number(clamp(now.uploaded)),
        Cell::Number(clamp(now.downloaded)),
        Cell::Number(clamp(now.seed_time)),
        Cell::Number(clamp(now.announces)),
        Cell::Number(now.last_announce),
        Cell::maybe(now.covered.map(|covered| covered.until)),
        Cell::maybe(now.completed_at),
        Cell::Number(now.hnr.into()),
        Cell::maybe(now.covered.and_then(Coverage::floor)),
        Cell::maybe(now.covered.map(|covered| covered.from)),
        Cell::Number(row.first_announce),
    ];
    rows.push(&cells[..HISTORY_KEY.len() + columns]);
}

/// Copies the standing to the user's other peers of the torrent.
async fn write_siblings(
    session: &mut MysqlSession<'_>,
    own: &Own,
    settled: &Settlement<'_>,
) -> Result<(), MysqlFault> {
    let mut changed = RowsSql::default();
    for row in &settled.histories {
        if row.has_new_standing() {
            changed.push(&[
                Cell::Number(row.torrent.0.into()),
                Cell::Number(row.user.0.into()),
                Cell::Number(row.now.hnr.into()),
                Cell::maybe(row.now.completed_at),
            ]);
        }
    }
    for table in changed.tables("torrent_id user_id hnr completed_at") {
        let sql = format!(
            "UPDATE {table} AS standing STRAIGHT_JOIN {} AS peer \
             ON peer.user_id = standing.user_id AND peer.torrent_id = standing.torrent_id \
             SET peer.hnr = standing.hnr, peer.completed_at = standing.completed_at",
            own.peers
        );
        session.run(&sql).await?;
    }
    Ok(())
}
