//! Changes of the feed into the cache, but for those that their editors have brought there already.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use crate::base::ids::{InfoHash, TorrentId};
use crate::cache::{CacheError, Notice};
use crate::registry::{ClientPrefix, RowChange, StoredTorrent, StoredUser};
use crate::storage::{Feed, FeedPosition};

use super::published::{NoticedRow, Published};
use super::{Mirror, RowSet, is_same_torrent, is_same_user};
use crate::sync::{SyncError, read_rows};

/// Changes read from the feed at once.
pub(super) const CHANGES_AT_ONCE: u32 = 5000;

/// Changes of one read of the feed.
pub(super) struct FeedRead {
    pub changes: Vec<RowChange>,
    pub from: FeedPosition,
    pub next: FeedPosition,
}

// === impl FeedRead ===

impl FeedRead {
    /// Whether each of its rows was edited only once. `later` is what the feed has after it: entries
    /// behind a transaction that is still open are in both.
    fn is_each_edited_once(&self, later: &[RowChange]) -> bool {
        let later: HashSet<_> = later.iter().map(row_of).collect();
        let entries = self.next.0.saturating_sub(self.from.0);
        let rows = &self.changes;
        rows.len() as u64 == entries && rows.iter().all(|change| !later.contains(&row_of(change)))
    }

    /// Whether torrents are gone: an info hash may have moved from one of them to another torrent, and
    /// its notice does not say of which torrent it is.
    fn has_gone_torrents(&self) -> bool {
        let is_gone = |change: &RowChange| matches!(change, RowChange::TorrentGone(_));
        self.changes.iter().any(is_gone)
    }
}

/// The kind and the id of a row.
fn row_of(change: &RowChange) -> (u8, u32) {
    match change {
        RowChange::User(row) => (0, row.user.id.0),
        RowChange::UserGone(id) => (0, id.0),
        RowChange::Torrent(row) => (1, row.torrent.id.0),
        RowChange::TorrentGone(id) => (1, id.0),
        RowChange::Whitelist(_) => (2, 0),
    }
}

// === impl Mirror ===

impl Mirror {
    /// Writes changes to the cache and publishes them, but for those that the cache has and that
    /// were published. Returns the notices that were given. `hashes_of` has the info hashes under
    /// which the cache may have a torrent.
    pub(super) async fn changes(
        &self,
        read: FeedRead,
        hashes_of: impl Fn(TorrentId) -> Vec<InfoHash>,
        published: &Published,
    ) -> Result<Vec<Notice>, SyncError> {
        let mut rows = RowSet::of_changes(read.changes.clone(), hashes_of);
        let mut noticed = rows.notices().into_iter();
        if noticed.any(|notice| published.has_notice(&notice))
            && let Feed::Changes(later, _) = self.storage.feed(read.next, CHANGES_AT_ONCE).await?
            && read.is_each_edited_once(&later)
        {
            let has_gone = !rows.gone_torrents.is_empty() || read.has_gone_torrents();
            let key = |row: &StoredUser| (row.user.id, NoticedRow::User(row.user.id));
            let read = |id| {
                let cache = Arc::clone(&self.cache);
                async move { cache.user(id).await }
            };
            omit(&mut rows.users, published, key, read, is_same_user).await?;
            self.omit_whitelist(&mut rows.whitelist, published).await?;
            if !has_gone {
                let key = |row: &StoredTorrent| {
                    let info_hash = row.torrent.info_hash;
                    (info_hash, NoticedRow::Torrent(info_hash))
                };
                let read = |info_hash| {
                    let cache = Arc::clone(&self.cache);
                    async move { cache.torrent(info_hash).await }
                };
                omit(&mut rows.torrents, published, key, read, is_same_torrent).await?;
            }
        }
        rows.put_and_publish(&*self.cache).await?;
        Ok(rows.notices())
    }

    async fn omit_whitelist(
        &self,
        whitelist: &mut Option<Vec<ClientPrefix>>,
        published: &Published,
    ) -> Result<(), CacheError> {
        if let Some(clients) = whitelist
            && published.has(&NoticedRow::Whitelist)
        {
            let mut cached = self.cache.whitelist().await?;
            for clients in [&mut *clients, &mut cached] {
                clients.sort_unstable_by(|one, other| one.prefix.cmp(&other.prefix));
            }
            if *clients == cached {
                *whitelist = None;
            }
        }
        Ok(())
    }
}

/// Removes rows that were published and that the cache has.
async fn omit<K, T, F>(
    rows: &mut Vec<T>,
    published: &Published,
    key: impl Fn(&T) -> (K, NoticedRow),
    read: impl Fn(K) -> F,
    is_same: fn(&T, &T) -> bool,
) -> Result<(), CacheError>
where
    K: Copy + Eq + Hash + Send + 'static,
    T: Send + 'static,
    F: Future<Output = Result<Option<T>, CacheError>> + Send + 'static,
{
    let keys: Vec<K> = rows
        .iter()
        .map(&key)
        .filter(|(_, row)| published.has(row))
        .map(|(key, _)| key)
        .collect();
    let cached: HashMap<K, Option<T>> = read_rows(&keys, read).await?.into_iter().collect();
    rows.retain(|row| match cached.get(&key(row).0) {
        Some(Some(cached)) => !is_same(cached, row),
        _ => true,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::UserId;

    #[test]
    fn a_row_that_was_edited_twice_is_one_change() {
        let gone = |id| RowChange::UserGone(UserId(id));
        let read = |changes: &[RowChange], entries: u64| FeedRead {
            changes: changes.to_vec(),
            from: FeedPosition(7),
            next: FeedPosition(7 + entries),
        };
        let both = [gone(1), gone(2)];
        assert!(read(&both, 2).is_each_edited_once(&[]));
        assert!(read(&both, 2).is_each_edited_once(&[gone(3)]));
        assert!(
            !read(&both, 3).is_each_edited_once(&[]),
            "one of them twice"
        );
        assert!(
            !read(&both, 0).is_each_edited_once(&both),
            "behind an open transaction"
        );
        assert!(
            !read(&both, 2).is_each_edited_once(&[gone(2)]),
            "the first one twice, the second behind an open transaction"
        );
    }
}
