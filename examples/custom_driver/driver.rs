//! The driver: changes go to the file, everything else is read in memory.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mika::base::ids::{TorrentId, UserId};
use mika::change::sums::Credited;
use mika::change::{Batch, PeerKey};
use mika::registry::ClientPrefix;
use mika::storage::memory::{MemoryChange, MemoryRows};
use mika::storage::{
    Added, CreditRules, Feed, FeedPosition, NewTorrent, NewUser, Page, Storage, StorageConfig,
    StoredHistory, StoredPeer, StoredTorrent, StoredUser, blocking,
};
use parking_lot::RwLockReadGuard;

use super::file::{Log, Result};

/// How long a change may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The driver.
struct Append(Arc<Log>);

/// Opens the file that `storage.url` names.
pub fn open(config: &StorageConfig) -> Result<Arc<dyn Storage>> {
    let log = Log::open(Path::new(config.url.expose()))?;
    Ok(Arc::new(Append(Arc::new(log))))
}

// === impl Append ===

impl Append {
    /// Makes changes, on a thread that may block. If its caller gives up, it goes on, which does no harm: a line is
    /// whole, and no batch is applied twice.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Log, &mut Option<File>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let log = Arc::clone(&self.0);
        blocking(TIMEOUT, move || change(&log, &mut log.file.lock())).await
    }

    /// Adds a row for each of these, as far as there is a change for it.
    async fn add<N: Clone + Send + 'static, I: Send + 'static>(
        &self,
        new: &[N],
        adding: fn(&MemoryRows, &N) -> Option<(I, MemoryChange)>,
    ) -> Result<Vec<Added<I>>> {
        let new = new.to_vec();
        self.change(move |log, file| {
            let mut added = Vec::new();
            for row in &new {
                let change = adding(&log.rows.read(), row);
                if let Some((_, change)) = &change {
                    log.append(file, change)?;
                }
                added.push(Ok(change.map(|(id, _)| id)));
            }
            Ok(added)
        })
        .await
    }

    /// The rows, which nobody locks for long.
    fn rows(&self) -> RwLockReadGuard<'_, MemoryRows> {
        self.0.rows.read()
    }
}

#[async_trait]
impl Storage for Append {
    async fn identity(&self) -> Result<String> {
        Ok(self.0.identity.clone())
    }

    async fn users(&self, after: Option<UserId>, limit: u32) -> Result<Page<StoredUser>> {
        Ok(self.rows().users(after, limit))
    }

    async fn torrents(&self, after: Option<TorrentId>, limit: u32) -> Result<Page<StoredTorrent>> {
        Ok(self.rows().torrents(after, limit))
    }

    /// It has none: set `tracker.whitelist` to false.
    async fn whitelist(&self) -> Result<Vec<ClientPrefix>> {
        Ok(Vec::new())
    }

    async fn peers(&self, from: i64, after: Option<PeerKey>, max: u32) -> Result<Page<StoredPeer>> {
        Ok(self.rows().peers(from, after, max))
    }

    async fn histories(
        &self,
        after: Option<(TorrentId, UserId)>,
        limit: u32,
    ) -> Result<Page<StoredHistory>> {
        Ok(self.rows().histories(after, limit))
    }

    async fn feed_position(&self) -> Result<FeedPosition> {
        Ok(self.rows().feed.position())
    }

    async fn feed(&self, position: FeedPosition, limit: u32) -> Result<Feed> {
        Ok(self.rows().feed.after(position, limit))
    }

    async fn last_applied(&self, journal: &str) -> Result<u64> {
        Ok(self.rows().last_applied(journal))
    }

    async fn journals(&self) -> Result<Vec<(String, u64)>> {
        Ok(self.rows().journals.clone().into_iter().collect())
    }

    async fn begin_at(&self, journal: &str, number: u64) -> Result<()> {
        let journal = journal.to_owned();
        let change = MemoryChange::BeginAt { journal, number };
        self.change(move |log, file| log.append(file, &change).map(drop))
            .await
    }

    async fn apply(&self, batches: &[Arc<Batch>], rules: &CreditRules) -> Result<Credited> {
        let (batches, rules) = (batches.to_vec(), *rules);
        self.change(move |log, file| {
            let change = log.rows.read().applying(&batches, &rules)?;
            match change {
                Some(change) => log.append(file, &change),
                None => Ok(Credited::default()),
            }
        })
        .await
    }

    async fn add_users(&self, users: &[NewUser]) -> Result<Vec<Added<UserId>>> {
        self.add(users, MemoryRows::adding_user).await
    }

    async fn add_torrents(&self, torrents: &[NewTorrent]) -> Result<Vec<Added<TorrentId>>> {
        self.add(torrents, MemoryRows::adding_torrent).await
    }
}
