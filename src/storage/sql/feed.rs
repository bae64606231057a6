//! The feed of registry changes. Triggers write it (see `migrations/`), so it includes changes by plain SQL.
//!
//! An entry gets its number when it is written and is seen when its transaction commits, so a
//! lower number may appear after a higher one. A position therefore stops before the first
//! number that may still appear: a row that its transaction holds locked, or a gap so young that
//! its row may be about to be written. Entries after such a number are reported at once, and again until
//! the position has passed them, which is idempotent: each is the row as it is now. During a long
//! transaction of a site, up to `limit` entries after it are reported.
//!
//! A replica that takes over may lack the last entries, and gives their numbers to others. So a position has the
//! database's timeline, too, if that is known; on another one, everything is loaded again.

use parking_lot::Mutex;

use super::calls;
use super::cells::SqlRow;
use super::database::{SqlFault, SqlResult};
use super::job::Job;
use super::read;
use super::rebuilt;
use crate::base::ids::{TorrentId, UserId};
use crate::registry::RowChange;
use crate::storage::settle::clamp;
use crate::storage::{Feed, FeedPosition, StorageError, passed_over};

/// Entries that the feed keeps; a follower that is further behind loads everything again.
const KEPT: u64 = 100_000;
/// Maximum of entries that one trim deletes.
const TRIM_MAX: u64 = 10_000;
/// Seconds after which the number in a gap was never used: its transaction was rolled back.
/// A number is written to its row within microseconds; whole seconds are compared.
const GAP_SECONDS: i64 = 3;
/// Entries of the last seconds to search for young gaps.
const YOUNG_MAX: u32 = 10_000;

/// The bits of a position that are the number of an entry. Those above are the lowest bits of the timeline; 0 if it is
/// unknown.
const NUMBER_BITS: u32 = 48;

/// The kind of an entry that makes followers load everything again: triggers were missing for a while.
pub(super) const RELOAD: &str = "reload";

/// Which of these entries are done, by position and number: a load that began at the position has read
/// everything before the entry of that number.
#[derive(Debug, Default)]
pub(super) struct Reloads(Mutex<(u64, u64)>);

/// Number, kind and key of an entry, and its age in seconds.
type Entry = (u64, String, i64, i64);

/// The newest position before which nothing can appear.
pub(super) async fn position(job: &mut Job<'_>, reloads: &Reloads) -> SqlResult<FeedPosition> {
    if !job.has(&calls::FEED) {
        return Ok(FeedPosition(0));
    }
    let (_, newest) = bounds(job).await?;
    let settled = job.feed_settled(0, newest).await?;
    let young = newest.saturating_sub(YOUNG_MAX.into());
    let entries = entries(job, young, YOUNG_MAX).await?;
    let position = settled.min(before_gap(young, newest, &entries));
    *reloads.0.lock() = (position, newest);
    Ok(position_of(position, timeline(job)))
}

/// Entries become the rows as they are now, so repeated ones are read once.
pub(super) async fn changes(
    job: &mut Job<'_>,
    reloads: &Reloads,
    after: FeedPosition,
    limit: u32,
) -> SqlResult<Feed> {
    if !job.has(&calls::FEED) {
        return Ok(Feed::Changes(Vec::new(), after));
    }
    let timeline = timeline(job);
    let (after, earlier) = parts_of(after);
    if earlier != timeline && earlier != 0 && timeline != 0 {
        return Ok(Feed::Lost);
    }
    let (oldest, newest) = bounds(job).await?;
    if after == newest {
        return Ok(Feed::Changes(Vec::new(), position_of(after, timeline)));
    }
    if after > newest || (after + 1 < oldest && reloads.lack(after, oldest, newest)) {
        return Ok(Feed::Lost);
    }
    // Locks first: what commits in between is among the entries.
    let settled = job.feed_settled(after, newest).await?;
    let entries = entries(job, after, limit.max(1)).await?;
    let read = entries.last().map_or(after, |entry| entry.0);
    let reached = settled.min(before_gap(after, read, &entries)).max(after);
    if entries
        .iter()
        .any(|entry| entry.1 == RELOAD && !reloads.has(after, entry.0))
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
        changes.extend(change(job, &kind, key).await?);
    }
    Ok(Feed::Changes(changes, position_of(reached, timeline)))
}

/// The bits of the timeline that positions have; 0 if it is unknown.
fn timeline(job: &mut Job<'_>) -> u64 {
    let timeline = job.session().timeline().unwrap_or(0);
    u64::from(timeline) & (u64::MAX >> NUMBER_BITS)
}

fn position_of(number: u64, timeline: u64) -> FeedPosition {
    FeedPosition(timeline << NUMBER_BITS | number)
}

/// The number and the timeline of a position.
fn parts_of(position: FeedPosition) -> (u64, u64) {
    let number = position.0 & ((1 << NUMBER_BITS) - 1);
    (number, position.0 >> NUMBER_BITS)
}

impl Reloads {
    /// Whether a follower at `after` has loaded everything since the entry `seq`.
    fn has(&self, after: u64, seq: u64) -> bool {
        let (position, newest) = *self.0.lock();
        after >= position && seq <= newest
    }

    /// Whether entries between `after` and `oldest` were deleted that a follower at `after` has not loaded. The feed
    /// begins with a gap, too, if the transaction of its first number is open or was rolled back.
    fn lack(&self, after: u64, oldest: u64, newest: u64) -> bool {
        newest > after + KEPT || (after > 0 && !self.has(after, oldest - 1))
    }
}

/// Implements [`crate::storage::Storage::prune`]; also trims the feed.
pub(super) async fn prune(job: &mut Job<'_>, before: i64, limit: u32) -> SqlResult<u64> {
    let params = [("before", before.into()), ("limit", limit.into())];
    let gone = job.call(&calls::PRUNE_PEERS, &params).await?.changed;
    if job.has(&calls::FEED) {
        trim(job).await?;
    }
    Ok(gone)
}

/// Deletes the oldest entries above [`KEPT`], a bounded number at a time.
async fn trim(job: &mut Job<'_>) -> SqlResult<()> {
    let (oldest, newest) = bounds(job).await?;
    let end = newest
        .saturating_sub(KEPT)
        .min(oldest.saturating_add(TRIM_MAX));
    if end >= oldest {
        let last = clamp(end);
        job.call(&calls::TRIM_FEED, &[("last", last.into())])
            .await?;
    }
    Ok(())
}

/// The first and the last number that can be seen.
async fn bounds(job: &mut Job<'_>) -> SqlResult<(u64, u64)> {
    let rows = job.call(&calls::FEED_BOUNDS, &[]).await?;
    let row = rows.first();
    Ok(row.map_or((0, 0), |row| (row.total(0), row.total(1))))
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

async fn entries(job: &mut Job<'_>, after: u64, limit: u32) -> SqlResult<Vec<Entry>> {
    let params = [("after", clamp(after).into()), ("limit", limit.into())];
    let rows = job.call(&calls::FEED, &params).await?;
    let entry = |row: SqlRow<'_>| {
        let key = row.integer(2).unwrap_or(0);
        // Without a time: where numbers appear in order.
        let age = row.integer(3).unwrap_or(i64::MAX);
        (row.total(0), row.text(1), key, age)
    };
    Ok(rows.iter().map(entry).collect())
}

/// An unusable row must not stay in force, so it counts as deleted.
async fn change(job: &mut Job<'_>, kind: &str, key: i64) -> SqlResult<Option<RowChange>> {
    if kind == "whitelist" {
        let clients = read::whitelist(job).await?;
        return Ok(Some(RowChange::Whitelist(clients)));
    }
    // The tracker has never loaded an id that does not fit.
    let Ok(key) = u32::try_from(key) else {
        return Ok(None);
    };
    Ok(match kind {
        "user" => Some(
            match usable(read::user_by_id(job, UserId(key)).await, "users", key)? {
                Some(stored) => RowChange::User(stored),
                None => RowChange::UserGone(UserId(key)),
            },
        ),
        "torrent" => Some(torrent_change(job, key).await?),
        _ => None,
    })
}

async fn torrent_change(job: &mut Job<'_>, id: u32) -> SqlResult<RowChange> {
    for row in rebuilt::fill_one(job, id).await? {
        passed_over::log(row.table, id, &row.problem);
    }
    let row = read::torrent_by_id(job, TorrentId(id)).await;
    Ok(match usable(row, "torrents", id)? {
        Some(stored) => RowChange::Torrent(stored),
        None => RowChange::TorrentGone(TorrentId(id)),
    })
}

fn usable<T>(row: SqlResult<Option<T>>, table: &'static str, id: u32) -> SqlResult<Option<T>> {
    match row {
        Err(SqlFault {
            error: StorageError::Broken(problem),
            ..
        }) => {
            passed_over::log(table, id, &problem);
            Ok(None)
        }
        other => other,
    }
}
