//! Rows of storage into the cache: those of an edit at once (`rows`), and what the feed of changes
//! has (`changes`), which one node at a time follows for all (`lease`). [`warmup`](super::warmup)
//! brings all rows there.
//!
//! Every writer puts a row into the cache first, and publishes it after that.

mod changes;
mod lease;
mod published;
mod rows;

use std::collections::HashSet;
use std::sync::Arc;

use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::cache::{Cache, CacheError, CacheKey, Notice, Rows, Write};
use crate::registry::{ClientPrefix, RowChange, StoredTorrent, StoredUser};
use crate::storage::Storage;

pub use lease::LeaseHolder;
pub use published::NoticeLog;

/// Brings rows of storage to the cache, and publishes them to the nodes.
#[derive(Clone)]
pub struct Mirror {
    pub storage: Arc<dyn Storage>,
    pub cache: Arc<dyn Cache>,
}

/// Rows as storage has them, to be written to the cache.
#[derive(Default)]
pub(super) struct RowSet {
    pub users: Vec<StoredUser>,
    pub gone_users: Vec<UserId>,
    pub torrents: Vec<StoredTorrent>,
    pub gone_torrents: Vec<InfoHash>,
    pub whitelist: Option<Vec<ClientPrefix>>,
}

impl RowSet {
    /// The rows of changes. `hashes_of` has the info hashes under which the cache may have a torrent.
    pub fn of_changes<I: IntoIterator<Item = InfoHash>>(
        changes: Vec<RowChange>,
        hashes_of: impl Fn(TorrentId) -> I,
    ) -> Self {
        let mut rows = Self::default();
        for change in changes {
            match change {
                RowChange::User(row) => rows.users.push(row),
                RowChange::UserGone(id) => rows.gone_users.push(id),
                RowChange::Torrent(row) => {
                    // One that has another info hash now is gone under the old one.
                    let old = hashes_of(row.torrent.id).into_iter();
                    let new = row.torrent.info_hash;
                    rows.gone_torrents.extend(old.filter(|old| *old != new));
                    rows.torrents.push(row);
                }
                RowChange::TorrentGone(id) => rows.gone_torrents.extend(hashes_of(id)),
                RowChange::Whitelist(clients) => rows.whitelist = Some(clients),
            }
        }
        // One that is gone under an id may be there under another.
        let there: HashSet<InfoHash> = rows
            .torrents
            .iter()
            .map(|row| row.torrent.info_hash)
            .collect();
        rows.gone_torrents
            .retain(|info_hash| !there.contains(info_hash));
        rows
    }

    /// Writes the rows to the cache, and publishes them.
    pub async fn put_and_publish(&self, cache: &dyn Cache) -> Result<(), CacheError> {
        self.put(cache).await?;
        cache.publish(&self.notices()).await
    }

    /// Writes the rows to the cache: what is gone first, because its place may be taken.
    pub async fn put(&self, cache: &dyn Cache) -> Result<(), CacheError> {
        if let Some(clients) = &self.whitelist {
            cache.put(Rows::Whitelist(clients), Write::Edit).await?;
        }
        let users = self.gone_users.iter().copied().map(CacheKey::User);
        let torrents = self.gone_torrents.iter().copied().map(CacheKey::Torrent);
        let gone: Vec<CacheKey> = users.chain(torrents).collect();
        cache.remove(&gone).await?;
        cache.put(Rows::Users(&self.users), Write::Edit).await?;
        cache.put(Rows::Torrents(&self.torrents), Write::Edit).await
    }

    /// Which rows nodes have to read again.
    pub fn notices(&self) -> Vec<Notice> {
        let users = self.users.iter().map(|row| row.user.id);
        let users = users.chain(self.gone_users.iter().copied());
        let torrents = self.torrents.iter().map(|row| row.torrent.info_hash);
        let torrents = torrents.chain(self.gone_torrents.iter().copied());
        let whitelist = self.whitelist.iter().map(|_| Notice::Whitelist);
        users
            .map(Notice::User)
            .chain(torrents.map(Notice::Torrent))
            .chain(whitelist)
            .collect()
    }
}

/// Whether two rows are the same but for totals, which move with every announce.
fn is_same_user(one: &StoredUser, other: &StoredUser) -> bool {
    one.user == other.user
}

/// Whether two rows are the same but for counters. No reason and an empty one are the same.
fn is_same_torrent(one: &StoredTorrent, other: &StoredTorrent) -> bool {
    let fields = |row: &StoredTorrent| {
        let mut torrent = row.torrent.clone();
        torrent.snatches = 0;
        torrent.reason = torrent.reason.filter(|reason| !reason.is_empty());
        torrent
    };
    one.name == other.name && fields(one) == fields(other)
}
