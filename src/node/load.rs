//! Loading swarms and accounts from storage at the start, once the registry is there.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::try_join_all;
use parking_lot::Mutex;

use crate::base::ids::{PeerId, TorrentId, UserId};
use crate::base::thread::{on_thread, parallelism};
use crate::change::PeerKey;
use crate::node::Node;
use crate::registry::BadRow;
use crate::storage::{Storage, StorageError, StoredHistory};
use crate::sync::load::{is_last, log_bad_rows};
use crate::tracker::{KnownHistory, Mode, Tracker};

/// Rows read at once.
const PAGE: u32 = 5000;

/// Threads that read at the same time, each on a connection of its own, which are not for Mika alone.
pub(super) const READERS_MAX: usize = 4;

/// For fewer users or torrents than a page has, threads and connections would cost more than they save.
const READ_ALONE: usize = PAGE as usize;

/// Parts of a table where several read at the same time: so many that they end at about the same time, and so few that
/// the pages which reach into the next part don't count.
const PARTS: usize = 16;

/// The base of a record whose age is unknown is dated this many seconds into the future (rule A7).
const OF_UNKNOWN_AGE: i64 = 86_400;

/// The rows of a table whose first key is in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// The range begins after that id; none for the first part.
    after: Option<u32>,
    /// It ends with that id; none for the last part.
    until: Option<u32>,
}

/// What was loaded.
#[derive(Default)]
struct Loaded {
    rows: u64,
    bad: Vec<BadRow>,
}

/// Loads what users did with torrents, and the peers with their accounts. Only private
/// trackers keep any.
pub(super) async fn swarms(node: &Node) -> Result<(), StorageError> {
    if node.tracker.mode() == Mode::Public {
        return Ok(());
    }
    histories(node).await?;
    let (users, _) = node.registry.ids();
    let loaded = in_parts(node, users.iter().map(|id| id.0), peers_of).await?;
    log_bad_rows(&loaded.bad);
    sweep_all(node);
    let (_, seeders, leechers) = node.tracker.totals();
    tracing::info!(accounts = loaded.rows, seeders, leechers, "swarms loaded");
    Ok(())
}

/// Sweeps all swarms: at the start, to expire peers that fell silent while no tracker ran, before any is
/// handed out; at the end, so that peers that owe the journal no longer do.
pub(super) fn sweep_all(node: &Node) {
    let now = node.clock.now();
    for shard in 0..Tracker::SHARDS {
        node.tracker.sweep(shard, now);
    }
}

/// Loads what users did with torrents; only private trackers keep it. To be done before peers are loaded.
pub(super) async fn histories(node: &Node) -> Result<(), StorageError> {
    if node.tracker.mode() == Mode::Public {
        return Ok(());
    }
    let (_, torrents) = node.registry.ids();
    let loaded = in_parts(node, torrents.iter().map(|id| id.0), histories_of).await?;
    log_bad_rows(&loaded.bad);
    Ok(())
}

pub(super) fn known_history(row: &StoredHistory) -> KnownHistory {
    KnownHistory {
        user: row.user,
        downloaded: row.downloaded,
        seed_time: u32::try_from(row.seed_time).unwrap_or(u32::MAX),
        completed_at: row.completed_at,
        hnr: row.hnr,
    }
}

/// Loads the peers of a part of the users.
async fn peers_of(
    node: Node,
    storage: Arc<dyn Storage>,
    part: Part,
) -> Result<Loaded, StorageError> {
    let now = node.clock.now();
    let since = now.unix - i64::from(node.tracker.record_ttl());
    let mut loaded = Loaded::default();
    let mut after = part.after.map(|user| PeerKey {
        user: UserId(user),
        torrent: TorrentId(u32::MAX),
        peer_id: PeerId([u8::MAX; 20]),
    });
    loop {
        let page = storage.peers(since, after, PAGE).await?;
        let is_end = is_last(&page)?;
        let last = page.rows.last().map(|row| row.key);
        for mut row in page.rows {
            if !part.has(row.key.user.0) {
                continue;
            }
            if node.clocks.was_set_back() {
                row.record.base_at = now.unix + OF_UNKNOWN_AGE;
            }
            // Peers of torrents that can't be used now are restored when these can.
            if let Some(info_hash) = node.registry.canonical(row.key.torrent) {
                node.tracker
                    .restore_peer(info_hash, &row.key, &row.record, true, now);
                loaded.rows += 1;
            }
        }
        let bad = page.bad.into_iter().filter(|row| part.has_bad(row));
        loaded.bad.extend(bad);
        if is_end || last.is_some_and(|key| !part.has(key.user.0)) {
            return Ok(loaded);
        }
        after = last;
    }
}

/// Loads what users did with a part of the torrents.
async fn histories_of(
    node: Node,
    storage: Arc<dyn Storage>,
    part: Part,
) -> Result<Loaded, StorageError> {
    let mut loaded = Loaded::default();
    let mut after = part
        .after
        .map(|torrent| (TorrentId(torrent), UserId(u32::MAX)));
    loop {
        let page = storage.histories(after, PAGE).await?;
        let is_end = is_last(&page)?;
        let last = page.rows.last().map(|row| (row.torrent, row.user));
        for row in page.rows.iter().filter(|row| part.has(row.torrent.0)) {
            if let Some(info_hash) = node.registry.canonical(row.torrent) {
                node.tracker.restore_history(info_hash, &known_history(row));
                loaded.rows += 1;
            }
        }
        let bad = page.bad.into_iter().filter(|row| part.has_bad(row));
        loaded.bad.extend(bad);
        if is_end || last.is_some_and(|(torrent, _)| !part.has(torrent.0)) {
            return Ok(loaded);
        }
        after = last;
    }
}

/// Reads a table whose first key is one of these ids: in parts, several at the same time, if storage has readers for
/// that; else as a whole.
async fn in_parts<F>(
    node: &Node,
    ids: impl Iterator<Item = u32>,
    read: fn(Node, Arc<dyn Storage>, Part) -> F,
) -> Result<Loaded, StorageError>
where
    F: Future<Output = Result<Loaded, StorageError>> + 'static,
{
    let ids: Vec<u32> = ids.collect();
    let readers = readers(ids.len(), || node.storage.reader());
    if readers.is_empty() {
        return read(node.clone(), Arc::clone(&node.storage), Part::ALL).await;
    }
    let queue = Arc::new(Mutex::new(Part::split(ids, PARTS).into_iter()));
    let work = readers.into_iter().map(|storage| {
        let (node, queue) = (node.clone(), Arc::clone(&queue));
        let next = move || queue.lock().next();
        let work = move || async move {
            let mut loaded = Loaded::default();
            while let Some(part) = next() {
                loaded.add(read(node.clone(), Arc::clone(&storage), part).await?);
            }
            Ok(loaded)
        };
        async move { on_thread("loader", work).await.unwrap_or_else(has_ended) }
    });
    let mut all = Loaded::default();
    for loaded in try_join_all(work).await? {
        all.add(loaded);
    }
    Ok(all)
}

/// Several readers for as many threads; none if there are no readers, or one thread would be as fast, because there are
/// so few users or torrents.
pub(super) fn readers<T>(count: usize, reader: impl Fn() -> Option<T>) -> Vec<T> {
    let wanted = if count < READ_ALONE {
        1
    } else {
        parallelism(READERS_MAX)
    };
    let readers: Option<Vec<T>> = (0..wanted).map(|_| reader()).collect();
    readers.filter(|all| all.len() > 1).unwrap_or_default()
}

fn has_ended<T>(error: std::io::Error) -> Result<T, StorageError> {
    let text = format!("a thread that reads storage has ended: {error}");
    Err(StorageError::Broken(text))
}

// === impl Part ===

impl Part {
    const ALL: Self = Self {
        after: None,
        until: None,
    };

    /// Splits all ids into so many ranges, which have about the same number of these ids.
    fn split(mut ids: Vec<u32>, count: usize) -> Vec<Self> {
        ids.sort_unstable();
        let ends = (1..count).filter_map(|number| ids.get(ids.len() * number / count).copied());
        let mut ends: Vec<Option<u32>> = ends.map(Some).collect();
        ends.dedup();
        let starts = std::iter::once(None).chain(ends.clone());
        let ends = ends.iter().copied().chain([None]);
        let parts = starts.zip(ends);
        parts.map(|(after, until)| Self { after, until }).collect()
    }

    /// Whether an id that is behind the beginning of the range is in it.
    fn has(&self, id: u32) -> bool {
        self.until.is_none_or(|until| id <= until)
    }

    /// Whether a row behind the beginning of the range is in it, by what it shows of its id.
    fn has_bad(&self, row: &BadRow) -> bool {
        match row.id.parse() {
            Ok(id) => self.has(id),
            Err(_) => self.until.is_none(),
        }
    }
}

// === impl Loaded ===

impl Loaded {
    fn add(&mut self, more: Self) {
        self.rows += more.rows;
        self.bad.extend(more.bad);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_each_id_once() {
        let ids = || (0..1000).map(|n| n * 7);
        let parts = Part::split(ids().collect(), PARTS);
        assert_eq!(parts.len(), PARTS);
        assert_eq!((parts[0].after, parts[PARTS - 1].until), (None, None));
        for id in ids().chain([8, u32::MAX]) {
            let is_in = |part: &&Part| part.after.is_none_or(|after| id > after) && part.has(id);
            assert_eq!(parts.iter().filter(is_in).count(), 1, "{id}");
        }
        assert_eq!(Part::split(Vec::new(), PARTS), [Part::ALL]);
        assert_eq!(Part::split(vec![5], PARTS).len(), 2);
    }
}
