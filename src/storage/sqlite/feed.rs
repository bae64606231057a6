//! The feed of registry changes. Triggers write it (see `migrations/`), so it includes changes by plain SQL.

use rusqlite::{Connection, OptionalExtension};

use super::fault::SqliteFault;
use super::read;
use super::tables::begin;
use crate::base::ids::{TorrentId, UserId};
use crate::registry::RowChange;
use crate::storage::{Feed, FeedPosition, StorageError, passed_over};

/// Entries that the feed keeps; a follower that is further behind loads everything again.
const KEPT: i64 = 100_000;
/// Maximum of entries that one trim deletes.
const TRIM_MAX: i64 = 50_000;

/// The kind of an entry that makes followers load everything again: triggers were missing for a while.
pub(super) const RELOAD: &str = "reload";

/// The newest position. SQLite remembers it even if all entries are deleted.
pub(super) fn position(connection: &Connection) -> Result<FeedPosition, SqliteFault> {
    let mut select =
        connection.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'mika_feed'")?;
    let newest: Option<i64> = select.query_row([], |row| row.get(0)).optional()?;
    Ok(FeedPosition(newest.unwrap_or(0).max(0).cast_unsigned()))
}

/// Entries become the rows as they are now, so repeated ones are read once.
pub(super) fn changes(
    connection: &mut Connection,
    after: FeedPosition,
    limit: u32,
) -> Result<Feed, SqliteFault> {
    // One snapshot: a row is never older than the entry that names it.
    let snapshot = connection.transaction()?;
    let newest = position(&snapshot)?;
    if after == newest {
        return Ok(Feed::Changes(Vec::new(), newest));
    }
    if after > newest || after.0 + 1 < oldest(&snapshot, newest)? {
        return Ok(Feed::Lost);
    }
    let (entries, reached) = entries(&snapshot, after, limit)?;
    if entries.iter().any(|(kind, _)| kind == RELOAD) {
        return Ok(Feed::Lost);
    }
    let mut changes = Vec::with_capacity(entries.len());
    for (kind, key) in entries {
        changes.extend(change(&snapshot, &kind, key)?);
    }
    Ok(Feed::Changes(changes, reached))
}

/// Deletes the oldest entries above [`KEPT`], a bounded number at a time.
pub(super) fn trim(connection: &Connection) -> Result<(), SqliteFault> {
    let newest = position(connection)?;
    let oldest = oldest(connection, newest)?.cast_signed();
    let end = newest
        .0
        .cast_signed()
        .saturating_sub(KEPT)
        .min(oldest.saturating_add(TRIM_MAX));
    connection.execute("DELETE FROM mika_feed WHERE seq <= ?1", [end])?;
    Ok(())
}

fn oldest(connection: &Connection, newest: FeedPosition) -> Result<u64, SqliteFault> {
    let mut select = connection.prepare_cached("SELECT MIN(seq) FROM mika_feed")?;
    let oldest: Option<i64> = select.query_row([], |row| row.get(0))?;
    Ok(oldest.map_or(newest.0 + 1, |seq| seq.max(0).cast_unsigned()))
}

type Entry = (String, i64);

/// At most `limit` entries, each kind and key once, and the position that they reach.
fn entries(
    connection: &Connection,
    after: FeedPosition,
    limit: u32,
) -> Result<(Vec<Entry>, FeedPosition), SqliteFault> {
    let mut select = connection.prepare_cached(
        "SELECT seq, kind, key FROM mika_feed WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = select.query([after.0.cast_signed(), i64::from(limit.max(1))])?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut reached = after;
    while let Some(row) = rows.next()? {
        reached = FeedPosition(row.get::<_, i64>(0)?.cast_unsigned());
        entries.push((row.get(1)?, row.get(2)?));
    }
    // The order between rows does not matter: the registry takes an id's latest state.
    entries.sort_unstable();
    entries.dedup();
    Ok((entries, reached))
}

/// An unusable row must not stay in force, so it counts as deleted.
fn change(connection: &Connection, kind: &str, key: i64) -> Result<Option<RowChange>, SqliteFault> {
    if kind == "whitelist" {
        return Ok(Some(RowChange::Whitelist(read::whitelist(connection)?)));
    }
    // The tracker has never loaded an id that does not fit.
    let Ok(key) = u32::try_from(key) else {
        return Ok(None);
    };
    Ok(match kind {
        "user" => Some(
            match usable(read::user_by_id(connection, UserId(key)), "users", key)? {
                Some(stored) => RowChange::User(stored),
                None => RowChange::UserGone(UserId(key)),
            },
        ),
        "torrent" => Some(
            match usable(
                read::torrent_by_id(connection, TorrentId(key)),
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
    row: Result<Option<T>, SqliteFault>,
    table: &'static str,
    id: u32,
) -> Result<Option<T>, SqliteFault> {
    match row {
        Err(SqliteFault::Storage(StorageError::Broken(problem))) => {
            passed_over::log(table, id, &problem);
            Ok(None)
        }
        other => other,
    }
}

/// Implements [`crate::storage::Storage::prune`]; also trims the feed.
pub(super) fn prune(
    connection: &mut Connection,
    before: i64,
    limit: u32,
) -> Result<u64, SqliteFault> {
    let transaction = begin(connection)?;
    let gone = transaction
        .prepare_cached(
            "DELETE FROM peers WHERE (user_id, torrent_id, peer_id) IN (
                 SELECT user_id, torrent_id, peer_id FROM peers
                 WHERE active = 0 AND last_announce < ?1 ORDER BY last_announce LIMIT ?2)",
        )?
        .execute([before, i64::from(limit)])?;
    trim(&transaction)?;
    transaction.commit()?;
    Ok(gone as u64)
}
