//! The driver: changes go to the file, everything else is read in memory.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mika::base::ids::{TorrentId, UserId};
use mika::change::sums::Credited;
use mika::change::{Batch, PeerKey, codec};
use mika::registry::ClientPrefix;
use mika::storage::{
    Added, CreditRules, Feed, FeedPosition, NewTorrent, NewUser, Page, Storage, StorageConfig,
    StorageError, StoredHistory, StoredPeer, StoredTorrent, StoredUser,
};
use parking_lot::RwLockReadGuard;

use super::file::{Entry, Log, Result, Tables, broken};

/// How long a change may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The driver.
struct Append(Arc<Log>);

/// Opens the file that `storage.url` names.
pub fn open(place: &StorageConfig) -> Result<Arc<dyn Storage>> {
    let log = Log::open(Path::new(place.url.expose()))?;
    Ok(Arc::new(Append(Arc::new(log))))
}

// === impl Append ===

impl Append {
    /// Makes a change, on a thread that may block. If its caller gives up, it goes on, which does no harm: an entry is
    /// whole, and no batch is applied twice.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Log, &mut Option<File>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let log = Arc::clone(&self.0);
        let changed = tokio::task::spawn_blocking(move || change(&log, &mut log.file.lock()));
        match tokio::time::timeout(TIMEOUT, changed).await {
            Ok(result) => result.map_err(broken)?,
            Err(_) => Err(StorageError::Away("the disk does not answer".into())),
        }
    }

    /// The tables, which nobody locks for long.
    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.0.tables.read()
    }
}

#[async_trait]
impl Storage for Append {
    async fn identity(&self) -> Result<String> {
        Ok(self.tables().identity.clone())
    }

    async fn users(&self, after: Option<UserId>, limit: u32) -> Result<Page<StoredUser>> {
        Ok(self.tables().rows.users(after, limit))
    }

    async fn torrents(&self, after: Option<TorrentId>, limit: u32) -> Result<Page<StoredTorrent>> {
        Ok(self.tables().rows.torrents(after, limit))
    }

    /// It has none: set `tracker.whitelist` to false.
    async fn whitelist(&self) -> Result<Vec<ClientPrefix>> {
        Ok(Vec::new())
    }

    async fn peers(&self, from: i64, after: Option<PeerKey>, max: u32) -> Result<Page<StoredPeer>> {
        Ok(self.tables().rows.peers(from, after, max))
    }

    async fn histories(
        &self,
        after: Option<(TorrentId, UserId)>,
        limit: u32,
    ) -> Result<Page<StoredHistory>> {
        Ok(self.tables().rows.histories(after, limit))
    }

    async fn feed_position(&self) -> Result<FeedPosition> {
        Ok(FeedPosition(self.tables().added.len() as u64))
    }

    async fn feed(&self, position: FeedPosition, limit: u32) -> Result<Feed> {
        let from = usize::try_from(position.0).unwrap_or(usize::MAX);
        let tables = self.tables();
        let Some(later) = tables.added.get(from..) else {
            return Ok(Feed::Lost);
        };
        let next: Vec<_> = later.iter().take(limit as usize).cloned().collect();
        let position = FeedPosition((from + next.len()) as u64);
        Ok(Feed::Changes(next, position))
    }

    async fn last_applied(&self, journal: &str) -> Result<u64> {
        Ok(self.tables().rows.last_applied(journal))
    }

    async fn journals(&self) -> Result<Vec<(String, u64)>> {
        Ok(self.tables().rows.journals.clone().into_iter().collect())
    }

    async fn begin_at(&self, journal: &str, number: u64) -> Result<()> {
        let entry = Entry::BeginAt(journal.into(), number);
        self.change(|log, file| log.append(file, entry).map(drop))
            .await
    }

    async fn apply(&self, batches: &[Arc<Batch>], rules: &CreditRules) -> Result<Credited> {
        let (batches, rules) = (batches.to_vec(), *rules);
        self.change(move |log, file| {
            let new = log.tables.read().rows.not_applied(&batches)?;
            let Some(first) = new.first() else {
                return Ok(Credited::default());
            };
            let texts = new.iter().map(|batch| codec::encode(&batch.changes));
            let (journal, texts) = (first.journal.clone(), texts.collect());
            log.append(file, Entry::Batches(journal, first.number, texts, rules))
        })
        .await
    }

    async fn add_users(&self, users: &[NewUser]) -> Result<Vec<Added<UserId>>> {
        let users = users.to_vec();
        self.change(move |log, file| {
            let add = |new: NewUser| {
                let Some(id) = log.tables.read().rows.free_user_id(&new) else {
                    return Ok(Ok(None));
                };
                let passkey = new.passkey.expose().to_owned();
                let entry = Entry::User(id.0, new.username, passkey, new.can_leech);
                log.append(file, entry).map(|_| Ok(Some(id)))
            };
            users.into_iter().map(add).collect()
        })
        .await
    }

    async fn add_torrents(&self, torrents: &[NewTorrent]) -> Result<Vec<Added<TorrentId>>> {
        let torrents = torrents.to_vec();
        self.change(move |log, file| {
            let add = |new: NewTorrent| {
                let Some(id) = log.tables.read().rows.free_torrent_id(&new) else {
                    return Ok(Ok(None));
                };
                let second = new.info_hash_v2.map(|hash| hash.to_string());
                let entry = Entry::Torrent(id.0, new.info_hash.to_string(), second, new.name);
                log.append(file, entry).map(|_| Ok(Some(id)))
            };
            torrents.into_iter().map(add).collect()
        })
        .await
    }
}
