//! Storage's rows into the cache: page after page, the next one read while the previous ones are written.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::read::{Reader, count_gone};
use super::{WarmupCounts, WarmupParts, WarmupProgress, WarmupStep};
use crate::cache::{Cache, CacheError, CacheKey, KeySet, Rows, Write};
use crate::registry::RowChange;
use crate::storage::{Feed, FeedPosition, StorageError};
use crate::sync::SyncError;
use crate::sync::mirror::RowSet;

/// Pages on their way to the cache at once.
const IN_FLIGHT: usize = 4;

/// Changes taken from the feed at a time.
const FEED_PAGE: u32 = 1000;

/// A warmup at work.
pub(super) struct Loader<'a, P> {
    pub reader: Reader<'a, P>,
    pub cache: &'a Arc<dyn Cache>,
    /// How far the feed was followed.
    pub position: FeedPosition,
    /// The parts of which the cache had anything before.
    pub had: WarmupParts,
}

/// Writes to the cache that go on while the next page is read.
#[derive(Default)]
pub(super) struct Writes(JoinSet<Result<(), CacheError>>);

// === impl Loader ===

impl<'a, P: WarmupProgress> Loader<'a, P> {
    /// `position` is where the feed stood before anything was read.
    pub fn new(reader: Reader<'a, P>, cache: &'a Arc<dyn Cache>, position: FeedPosition) -> Self {
        Self {
            reader,
            cache,
            position,
            had: WarmupParts::ALL,
        }
    }

    /// Finds out whether the cache has users and torrents. A cache that has none is filled without asking
    /// for what is there, and nothing is to be removed from it.
    pub async fn look(&mut self) -> Result<(), SyncError> {
        self.had.users = false;
        self.had.torrents = false;
        let mut cursor = Some(0);
        while let Some(at) = cursor
            && self.had != WarmupParts::ALL
        {
            let scan = self.cache.keys(KeySet::Registry, at).await?;
            cursor = scan.next;
            for key in scan.rows {
                match key {
                    CacheKey::User(_) | CacheKey::Passkey(..) => self.had.users = true,
                    CacheKey::Torrent(_) => self.had.torrents = true,
                    CacheKey::Swarm(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Writes all rows of those parts.
    pub async fn load(&mut self, parts: WarmupParts) -> Result<(), SyncError> {
        if parts.whitelist {
            self.load_whitelist().await?;
        }
        if parts.users {
            self.load_users().await?;
        }
        if parts.torrents {
            self.load_torrents().await?;
        }
        Ok(())
    }

    /// Writes what changed while the rows were read.
    pub async fn follow_feed(&mut self) -> Result<(), SyncError> {
        let end = self.reader.storage.feed_position().await?;
        while self.position < end {
            let Feed::Changes(changes, next) =
                self.reader.storage.feed(self.position, FEED_PAGE).await?
            else {
                let text = "more changed meanwhile than the feed of changes keeps; try again";
                return Err(StorageError::Away(text.into()).into());
            };
            self.put_changes(changes).await?;
            if next <= self.position {
                break;
            }
            self.position = next;
        }
        Ok(())
    }

    async fn load_whitelist(&mut self) -> Result<(), SyncError> {
        self.reader.progress.begin(WarmupStep::Whitelist);
        let clients = self.reader.whitelist().await?;
        let counts = WarmupCounts {
            rows: clients.len() as u64,
            removed: count_gone(&self.cache.whitelist().await?, &clients),
            ..WarmupCounts::default()
        };
        self.cache
            .put(Rows::Whitelist(&clients), Write::Warmup)
            .await?;
        self.reader.progress.advance(counts.rows);
        self.reader.progress.end(WarmupStep::Whitelist, &counts);
        self.reader.report.whitelist = Some(counts);
        Ok(())
    }

    async fn load_users(&mut self) -> Result<(), SyncError> {
        self.reader.progress.begin(WarmupStep::Users);
        let mut counts = WarmupCounts::default();
        let mut writes = Writes::default();
        let how = how(self.had.users);
        let mut cursor = Some(0);
        while let Some(rows) = self.reader.next_users(&mut cursor).await? {
            counts.rows += rows.len() as u64;
            let cache = Arc::clone(self.cache);
            let write = async move { cache.put(Rows::Users(&rows), how).await };
            writes.add(write).await?;
        }
        writes.finish().await?;
        self.reader.progress.end(WarmupStep::Users, &counts);
        self.reader.report.users = Some(counts);
        Ok(())
    }

    async fn load_torrents(&mut self) -> Result<(), SyncError> {
        self.reader.progress.begin(WarmupStep::Torrents);
        let mut counts = WarmupCounts::default();
        let mut writes = Writes::default();
        let how = how(self.had.torrents);
        let mut cursor = Some(0);
        while let Some(rows) = self.reader.next_torrents(&mut cursor).await? {
            counts.rows += rows.len() as u64;
            let cache = Arc::clone(self.cache);
            let write = async move { cache.put(Rows::Torrents(&rows), how).await };
            writes.add(write).await?;
        }
        writes.finish().await?;
        self.reader.progress.end(WarmupStep::Torrents, &counts);
        self.reader.report.torrents = Some(counts);
        Ok(())
    }

    /// Writes changed rows as a whole, in the order in which they changed, whoever changed them.
    async fn put_changes(&mut self, changes: Vec<RowChange>) -> Result<(), SyncError> {
        let reader = &mut self.reader;
        let mut rows = RowSet::default();
        for change in changes {
            match change {
                RowChange::User(row) => match reader.stored.add_user(&row) {
                    Ok(()) => rows.users.push(row),
                    Err(bad) => reader.skip(&[bad]),
                },
                RowChange::UserGone(id) => {
                    reader.stored.remove_user(id);
                    rows.users.retain(|row| row.user.id != id);
                }
                RowChange::Torrent(row) => {
                    reader.stored.doubt(row.torrent.id);
                    match reader.stored.add_torrent(&row) {
                        Ok(()) => rows.torrents.push(row),
                        Err(bad) => reader.skip(&[bad]),
                    }
                }
                RowChange::TorrentGone(id) => {
                    reader.stored.doubt(id);
                    rows.torrents.retain(|row| row.torrent.id != id);
                }
                RowChange::Whitelist(clients) => rows.whitelist = Some(clients),
            }
        }
        Ok(rows.put(&**self.cache).await?)
    }
}

/// How to write rows into a cache that had some before, or had none.
fn how(had_some: bool) -> Write {
    if had_some { Write::Warmup } else { Write::Fill }
}

// === impl Writes ===

impl Writes {
    /// Begins a write, once there is room for it.
    pub async fn add(
        &mut self,
        write: impl Future<Output = Result<(), CacheError>> + Send + 'static,
    ) -> Result<(), CacheError> {
        while self.0.len() >= IN_FLIGHT {
            self.next().await?;
        }
        self.0.spawn(write);
        Ok(())
    }

    pub async fn finish(mut self) -> Result<(), CacheError> {
        while !self.0.is_empty() {
            self.next().await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<(), CacheError> {
        match self.0.join_next().await {
            Some(Ok(written)) => written,
            Some(Err(error)) => Err(CacheError::Broken(format!("a write broke off: {error}"))),
            None => Ok(()),
        }
    }
}
