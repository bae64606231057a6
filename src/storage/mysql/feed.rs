//! Which numbers of the feed open transactions hold.

use super::fault::MysqlResult;
use super::session::MysqlSession;

/// The last number up to `newest` such that no open transaction holds it or one after `after` before it.
/// It may be one too low, because the server also locks the row behind a range.
pub(super) async fn settled(
    session: &mut MysqlSession<'_>,
    after: u64,
    newest: u64,
) -> MysqlResult<u64> {
    if !is_held(session, after, newest).await? {
        return Ok(newest);
    }
    // None is held up to `free`, one is held up to `held`.
    let (mut free, mut held) = (after, newest);
    while held - free > 1 {
        let middle = free + (held - free) / 2;
        if is_held(session, free, middle).await? {
            held = middle;
        } else {
            free = middle;
        }
    }
    Ok(free)
}

/// Whether a transaction holds one of the numbers after `after` up to `last`.
async fn is_held(session: &mut MysqlSession<'_>, after: u64, last: u64) -> MysqlResult<bool> {
    let sql = format!(
        "SELECT COUNT(*) FROM mika_feed WHERE seq > {after} AND seq <= {last} FOR UPDATE NOWAIT"
    );
    match session.query(&sql).await {
        Ok(_) => Ok(false),
        Err(fault) if fault.is_locked() => Ok(true),
        Err(fault) => Err(fault),
    }
}
