//! Mirroring storage's feed into the cache: one node at a time does it for all.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::base::backoff::Backoff;
use crate::base::clock::timer;
use crate::base::ids::{InfoHash, TorrentId};
use crate::cache::{CacheError, ControlPosition, Generation, Mirrored};
use crate::registry::{BadRow, RowChange};
use crate::storage::{Feed, FeedPosition, StorageError};

use super::Mirror;
use super::changes::{CHANGES_AT_ONCE, FeedRead};
use super::published::{NoticeLog, Published};
use crate::sync::follow::FormerHashes;
use crate::sync::load::log_bad_rows;
use crate::sync::warmup::{self, WarmupOptions, WarmupParts, WarmupProgress};
use crate::sync::{Replica, SyncError};

/// How often the lease is taken or renewed; the feed is read no more often unless storage says that it changed.
const PERIOD: Duration = Duration::from_millis(300);

/// The longest pause after failures. An attempt to fill the cache may read all of storage before it fails.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How long a lease holds without being renewed.
const LEASE: Duration = Duration::from_secs(5);

/// How long to wait until this node has followed the notices that were given; less than the lease.
const CATCH_UP: Duration = Duration::from_secs(2);

/// How long to wait where going on without them costs only another notice.
const CATCH_UP_SHORT: Duration = Duration::from_millis(100);

/// Mirrors the feed whenever this node holds the lease.
pub struct LeaseHolder {
    replica: Replica,
    mirror: Mirror,
    /// How far this node has followed the notices.
    position_rx: watch::Receiver<ControlPosition>,
    /// The rows that they named.
    log: Arc<NoticeLog>,
    /// Hashes that this node's registry no longer has, but the cache may have.
    former: FormerHashes,
    /// The identity of storage, as it was last read.
    database: String,
    published: Published,
    /// When the feed is to be read again.
    next_read: Instant,
}

/// Rows that a warmup skipped.
#[derive(Default)]
struct Skipped(Vec<BadRow>);

impl LeaseHolder {
    pub fn new(
        replica: Replica,
        mirror: Mirror,
        position_rx: watch::Receiver<ControlPosition>,
        log: Arc<NoticeLog>,
        former: FormerHashes,
    ) -> Self {
        Self {
            replica,
            mirror,
            position_rx,
            log,
            former,
            database: String::new(),
            published: Published::new(),
            next_read: timer(),
        }
    }

    /// Runs until cancelled.
    pub async fn run(mut self) {
        let mut delays = None;
        loop {
            match self.step().await {
                Ok(has_more) => {
                    if delays.take().is_some() {
                        tracing::info!("registry changes are mirrored again");
                    }
                    if !has_more {
                        self.rest().await;
                    }
                }
                Err(error) => {
                    if delays.is_none() {
                        tracing::warn!(%error, "registry changes can't be mirrored into the cache; trying again until they can");
                    }
                    self.forget_published();
                    let delays = delays.get_or_insert_with(|| Backoff::new(PERIOD, RETRY_MAX));
                    sleep(delays.next().unwrap_or(RETRY_MAX)).await;
                }
            }
        }
    }

    /// Waits until there may be something to do.
    async fn rest(&mut self) {
        tokio::select! {
            biased;
            () = self.mirror.storage.feed_changed() => self.next_read = timer(),
            () = sleep(PERIOD) => {}
        }
    }

    /// Mirrors the next changes; returns whether there may be more.
    async fn step(&mut self) -> Result<bool, SyncError> {
        let cache = Arc::clone(&self.mirror.cache);
        if !cache.lease("mirror", &self.replica.node, LEASE).await? {
            self.forget_published();
            self.next_read = timer();
            return Ok(false);
        }
        let generation = cache.ping().await?;
        let Some(mirrored) = cache.mirrored().await? else {
            tracing::info!("the cache has no complete registry: filling it from storage");
            self.warm_up().await?;
            return Ok(true);
        };
        if !self.is_own(&mirrored).await? {
            tracing::error!(
                "the cache has the registry of another database: filling it from this node's; nodes \
                 and mika-manage must name the same storage.url, or another cache.url"
            );
            self.warm_up().await?;
            return Ok(true);
        }
        if timer() < self.next_read {
            return Ok(false);
        }
        self.published.add(self.log.take());
        let position = FeedPosition(mirrored.position);
        match self.mirror.storage.feed(position, CHANGES_AT_ONCE).await? {
            Feed::Changes(changes, next) => {
                let read = FeedRead {
                    changes,
                    from: position,
                    next,
                };
                self.take(read, generation, mirrored).await
            }
            Feed::Lost => {
                tracing::warn!(
                    "not every registry change can be followed one by one; filling the cache from storage again"
                );
                self.warm_up().await?;
                Ok(true)
            }
        }
    }

    /// Mirrors what was read from the feed; returns whether there may be more.
    async fn take(
        &mut self,
        read: FeedRead,
        generation: Generation,
        mirrored: Mirrored,
    ) -> Result<bool, SyncError> {
        let (from, next) = (read.from, read.next);
        if read.changes.is_empty() && next == from {
            self.published.finish(&[], self.log.take());
            self.next_read = timer() + self.replica.poll_interval;
            return Ok(false);
        }
        if !self.catch_up_with_notices(&read.changes).await? {
            return Ok(false);
        }
        let noticed = self.log.take();
        self.published.add(noticed.clone());
        let hashes_of = |id| self.cached_hashes(id);
        let given = self.mirror.changes(read, hashes_of, &self.published);
        let given = given.await?;
        self.published.finish(&given, noticed);
        let mirrored = Mirrored {
            position: next.0,
            ..mirrored
        };
        let cache = &self.mirror.cache;
        cache.set_mirrored(generation, mirrored).await?;
        if next == from {
            // Changes behind a transaction that is still open are read again until it ends.
            self.next_read = timer() + self.replica.poll_interval;
        }
        Ok(next != from)
    }

    /// The info hashes under which the cache may have that torrent.
    fn cached_hashes(&self, id: TorrentId) -> Vec<InfoHash> {
        let registry = &self.replica.registry;
        let mut hashes: Vec<InfoHash> = registry.canonical(id).into_iter().collect();
        if let Some(former) = self.former.get(&id)
            && registry.torrent(former).is_none()
        {
            hashes.push(*former);
        }
        hashes
    }

    /// Whether the cache has the registry of this node's database.
    async fn is_own(&mut self, mirrored: &Mirrored) -> Result<bool, StorageError> {
        if mirrored.storage != self.database {
            self.database = self.mirror.storage.identity().await?;
        }
        Ok(mirrored.storage == self.database)
    }

    /// Waits until this node has followed the notices that were given before. Without that it does
    /// not know under which info hashes torrents that changed are in the cache, and must not go on;
    /// of other rows, it does not know which were published.
    async fn catch_up_with_notices(&mut self, changes: &[RowChange]) -> Result<bool, CacheError> {
        let cache = &self.mirror.cache;
        let end = cache.control_position().await?;
        let must_wait = changes.iter().any(|change| change.torrent().is_some());
        let patience = if must_wait { CATCH_UP } else { CATCH_UP_SHORT };
        let position_rx = &mut self.position_rx;
        let caught_up = position_rx.wait_for(|position| position.has_reached(&end));
        let is_caught_up = tokio::time::timeout(patience, caught_up).await.is_ok();
        if !is_caught_up {
            self.forget_published();
        }
        Ok(is_caught_up || !must_wait)
    }

    fn forget_published(&mut self) {
        self.log.take();
        self.published = Published::new();
    }

    /// Fills the cache, and keeps the lease meanwhile.
    async fn warm_up(&mut self) -> Result<(), SyncError> {
        self.forget_published();
        // Totals are read from storage, so it should have what was counted until now.
        let _ = tokio::time::timeout(CATCH_UP, self.replica.hooks.all_applied()).await;
        let cache = &self.mirror.cache;
        let hold = async || -> Infallible {
            loop {
                sleep(LEASE / 3).await;
                // Without the lease another node may do the same, which does no harm.
                let _ = cache.lease("mirror", &self.replica.node, LEASE).await;
            }
        };
        let options = WarmupOptions {
            parts: WarmupParts::ALL,
            dry_run: false,
        };
        let mut skipped = Skipped::default();
        tokio::select! {
            report = warmup::run(&self.mirror, &options, &mut skipped) => report?,
            never = hold() => match never {},
        };
        log_bad_rows(&skipped.0);
        Ok(())
    }
}

impl WarmupProgress for Skipped {
    fn skipped(&mut self, row: &BadRow) {
        self.0.push(row.clone());
    }
}
