//! The feed of registry changes. Triggers write it (see `migrations/`), so it includes changes by plain SQL.
//!
//! An entry gets its number when it is written and is seen when its transaction commits, so a
//! lower number may appear after a higher one. A position therefore stops before the first
//! number that may still appear: a row that its transaction holds locked, or a gap so young that
//! its row may be about to be written. Entries after such a number are reported at once, and again until
//! the position has passed them, which is idempotent: each is the row as it is now. During a long
//! transaction of a site, up to `limit` entries after it are reported.

use mysql_async::Value;
use parking_lot::Mutex;

use super::cells::MysqlCells;
use super::fault::MysqlFault;
use super::link::MysqlSession;
use super::read;
use super::tables::Own;
use crate::base::ids::{TorrentId, UserId};
use crate::registry::RowChange;
use crate::storage::{Feed, FeedPosition, StorageError, passed_over, schema};

/// Entries that the feed keeps; a follower that is further behind loads everything again.
const KEPT: u64 = 100_000;
/// Maximum of entries that one trim deletes.
const TRIM_MAX: u64 = 10_000;
/// Seconds after which the number in a gap was never used: its transaction was rolled back.
/// A number is written to its row within microseconds; whole seconds are compared.
const GAP_SECONDS: i64 = 3;
/// Entries of the last seconds to search for young gaps.
const YOUNG_MAX: u32 = 10_000;

/// The kind of an entry that makes followers load everything again: triggers were missing for a while.
pub(super) const RELOAD: &str = "reload";

/// Which of these entries are done, by position and number: a load that began at the position has read
/// everything before the entry of that number.
#[derive(Debug, Default)]
pub(super) struct Reloads(Mutex<(u64, u64)>);

/// Number, kind and key of an entry, and its age in seconds.
type Entry = (u64, String, i64, i64);

/// The newest position before which nothing can appear.
pub(super) async fn position(
    session: &mut MysqlSession<'_>,
    reloads: &Reloads,
) -> Result<FeedPosition, MysqlFault> {
    if !session.has(&schema::FEED) {
        return Ok(FeedPosition(0));
    }
    let (_, newest) = bounds(session).await?;
    let settled = settled(session, 0, newest).await?;
    let young = newest.saturating_sub(YOUNG_MAX.into());
    let entries = entries(session, young, YOUNG_MAX).await?;
    let position = settled.min(before_gap(young, newest, &entries));
    *reloads.0.lock() = (position, newest);
    Ok(FeedPosition(position))
}

/// Entries become the rows as they are now, so repeated ones are read once.
pub(super) async fn changes(
    session: &mut MysqlSession<'_>,
    reloads: &Reloads,
    after: FeedPosition,
    limit: u32,
) -> Result<Feed, MysqlFault> {
    if !session.has(&schema::FEED) {
        return Ok(Feed::Changes(Vec::new(), after));
    }
    let (oldest, newest) = bounds(session).await?;
    if after.0 == newest {
        return Ok(Feed::Changes(Vec::new(), after));
    }
    if after.0 > newest || after.0 + 1 < oldest {
        return Ok(Feed::Lost);
    }
    // Locks first: what commits in between is among the entries.
    let settled = settled(session, after.0, newest).await?;
    let entries = entries(session, after.0, limit.max(1)).await?;
    let read = entries.last().map_or(after.0, |entry| entry.0);
    let reached = settled
        .min(before_gap(after.0, read, &entries))
        .max(after.0);
    if entries
        .iter()
        .any(|entry| entry.1 == RELOAD && !reloads.has(after.0, entry.0))
    {
        return Ok(Feed::Lost);
    }
    let mut changed: Vec<(String, i64)> = entries
        .into_iter()
        .map(|(_, kind, key, _)| (kind, key))
        .collect();
    // The order between rows does not matter: the registry takes an id's latest state.
    changed.sort_unstable();
    changed.dedup();
    let mut changes = Vec::with_capacity(changed.len());
    for (kind, key) in changed {
        changes.extend(change(session, &kind, key).await?);
    }
    Ok(Feed::Changes(changes, FeedPosition(reached)))
}

impl Reloads {
    /// Whether a follower at `after` has loaded everything since the entry `seq`.
    fn has(&self, after: u64, seq: u64) -> bool {
        let (position, newest) = *self.0.lock();
        after >= position && seq <= newest
    }
}

/// Implements [`crate::storage::Storage::prune`]; also trims the feed.
pub(super) async fn prune(
    session: &mut MysqlSession<'_>,
    own: &Own,
    before: i64,
    limit: u32,
) -> Result<u64, MysqlFault> {
    let gone = session
        .run(&format!(
            "DELETE FROM {} WHERE inactive_since < {before} ORDER BY inactive_since LIMIT {limit}",
            own.peers
        ))
        .await?;
    if session.has(&schema::FEED) {
        trim(session).await?;
    }
    Ok(gone)
}

/// Deletes the oldest entries above [`KEPT`], a bounded number at a time.
async fn trim(session: &mut MysqlSession<'_>) -> Result<(), MysqlFault> {
    let (oldest, newest) = bounds(session).await?;
    let end = newest
        .saturating_sub(KEPT)
        .min(oldest.saturating_add(TRIM_MAX));
    if end >= oldest {
        let sql = format!("DELETE FROM mika_feed WHERE seq <= {end}");
        session.run(&sql).await?;
    }
    Ok(())
}

/// The first and the last number that can be seen.
async fn bounds(session: &mut MysqlSession<'_>) -> Result<(u64, u64), MysqlFault> {
    let sql = "SELECT MIN(seq), MAX(seq) FROM mika_feed";
    let rows = session.query(sql).await?;
    let cells = rows.first().map(MysqlCells);
    Ok(cells.map_or((0, 0), |cells| (cells.total(0), cells.total(1))))
}

/// The last number up to `newest` such that no open transaction holds it or one after `after` before it.
/// It may be one too low, because the server also locks the row behind a range.
async fn settled(
    session: &mut MysqlSession<'_>,
    after: u64,
    newest: u64,
) -> Result<u64, MysqlFault> {
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
async fn is_held(
    session: &mut MysqlSession<'_>,
    after: u64,
    last: u64,
) -> Result<bool, MysqlFault> {
    let sql = format!(
        "SELECT COUNT(*) FROM mika_feed WHERE seq > {after} AND seq <= {last} FOR UPDATE NOWAIT"
    );
    match session.query(&sql).await {
        Ok(_) => Ok(false),
        Err(fault) if fault.is_locked() => Ok(true),
        Err(fault) => Err(fault),
    }
}

/// The last number before the first gap that is too young to be skipped; `read` without one.
fn before_gap(after: u64, read: u64, entries: &[Entry]) -> u64 {
    let mut expected = after + 1;
    for (seq, _, _, age) in entries {
        if *seq > expected && *age < GAP_SECONDS {
            return expected - 1;
        }
        expected = seq + 1;
    }
    read
}

async fn entries(
    session: &mut MysqlSession<'_>,
    after: u64,
    limit: u32,
) -> Result<Vec<Entry>, MysqlFault> {
    let params = [("after", Value::from(after)), ("limit", limit.into())];
    let rows = session.call(&schema::FEED, &params).await?;
    let entry = |cells: MysqlCells<'_>| {
        let key = cells.integer(2).unwrap_or(0);
        let age = cells.integer(3).unwrap_or(0);
        (cells.total(0), cells.text(1), key, age)
    };
    Ok(rows.iter().map(|row| entry(MysqlCells(row))).collect())
}

/// An unusable row must not stay in force, so it counts as deleted.
async fn change(
    session: &mut MysqlSession<'_>,
    kind: &str,
    key: i64,
) -> Result<Option<RowChange>, MysqlFault> {
    if kind == "whitelist" {
        let clients = read::whitelist(session).await?;
        return Ok(Some(RowChange::Whitelist(clients)));
    }
    // The tracker has never loaded an id that does not fit.
    let Ok(key) = u32::try_from(key) else {
        return Ok(None);
    };
    Ok(match kind {
        "user" => Some(
            match usable(read::user_by_id(session, UserId(key)).await, "users", key)? {
                Some(stored) => RowChange::User(stored),
                None => RowChange::UserGone(UserId(key)),
            },
        ),
        "torrent" => Some(
            match usable(
                read::torrent_by_id(session, TorrentId(key)).await,
                "torrents",
                key,
            )? {
                Some(stored) => RowChange::Torrent(stored),
                None => RowChange::TorrentGone(TorrentId(key)),
            },
        ),
        _ => None,
    })
}

fn usable<T>(
    row: Result<Option<T>, MysqlFault>,
    table: &'static str,
    id: u32,
) -> Result<Option<T>, MysqlFault> {
    match row {
        Err(MysqlFault::Storage(StorageError::Broken(problem))) => {
            passed_over::log(table, id, &problem);
            Ok(None)
        }
        other => other,
    }
}
