//! Storage's rows into the cache: page after page, the next one read while the last ones are written.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::seen::Seen;
use super::{Counts, PAGE, Parts, Progress, Report, Step, WarmupError};
use crate::cache::{Cache, CacheError, RegistryKey, Write};
use crate::registry::{BadRow, ClientPrefix, RowChange, StoredTorrent, StoredUser};
use crate::storage::{Feed, FeedPosition, Page, Storage, StorageError};

/// Pages on their way to the cache at once.
const IN_FLIGHT: usize = 4;

/// Changes taken from the feed at a time.
const FEED_PAGE: u32 = 1000;

/// A warmup at work.
pub(super) struct Loader<'a, P> {
    pub storage: &'a Arc<dyn Storage>,
    pub cache: &'a Arc<dyn Cache>,
    pub progress: &'a mut P,
    pub seen: Seen,
    pub report: Report,
    /// How far the feed was followed.
    pub position: FeedPosition,
    /// Of which parts the cache had anything before.
    pub had: Parts,
}

/// Writes to the cache that go on while the next page is read.
#[derive(Default)]
pub(super) struct Writes(JoinSet<Result<(), CacheError>>);

// === impl Loader ===

impl<'a, P: Progress> Loader<'a, P> {
    /// `position` is where the feed stood before anything was read.
    pub fn new(
        storage: &'a Arc<dyn Storage>,
        cache: &'a Arc<dyn Cache>,
        position: FeedPosition,
        progress: &'a mut P,
    ) -> Self {
        Self {
            storage,
            cache,
            progress,
            seen: Seen::default(),
            report: Report::default(),
            position,
            had: Parts::ALL,
        }
    }

    /// Looks whether the cache has users and torrents. A cache that has none is filled without
    /// asking for what is there, and nothing is to be removed from it.
    pub async fn look(&mut self) -> Result<(), WarmupError> {
        self.had.users = false;
        self.had.torrents = false;
        let mut cursor = Some(0);
        while let Some(at) = cursor
            && self.had != Parts::ALL
        {
            let scan = self.cache.registry_keys(at).await?;
            cursor = scan.next;
            for key in scan.rows {
                match key {
                    RegistryKey::User(_) | RegistryKey::Passkey(_) => self.had.users = true,
                    RegistryKey::Torrent(_) => self.had.torrents = true,
                }
            }
        }
        Ok(())
    }

    /// Writes all rows of those parts.
    pub async fn load(&mut self, parts: Parts) -> Result<(), WarmupError> {
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

    /// Takes over what changed while the rows were read.
    pub async fn follow_feed(&mut self) -> Result<(), WarmupError> {
        let end = self.storage.feed_position().await?;
        while self.position < end {
            let Feed::Changes(changes, next) = self.storage.feed(self.position, FEED_PAGE).await?
            else {
                let text = "more changed meanwhile than the feed of changes keeps; try again";
                return Err(StorageError::Away(text.into()).into());
            };
            self.take_over(changes).await?;
            if next <= self.position {
                break;
            }
            self.position = next;
        }
        Ok(())
    }

    async fn load_whitelist(&mut self) -> Result<(), WarmupError> {
        self.progress.begin(Step::Whitelist);
        let clients = self.storage.whitelist().await?;
        let bad = self.storage.bad_clients().await?;
        self.skip(&bad);
        let counts = Counts {
            rows: clients.len() as u64,
            removed: count_gone(&self.cache.whitelist().await?, &clients),
            ..Counts::default()
        };
        self.cache.put_whitelist(&clients).await?;
        self.progress.advance(counts.rows);
        self.progress.end(Step::Whitelist, &counts);
        self.report.whitelist = Some(counts);
        Ok(())
    }

    async fn load_users(&mut self) -> Result<(), WarmupError> {
        self.progress.begin(Step::Users);
        let mut counts = Counts::default();
        let mut writes = Writes::default();
        let how = how(self.had.users);
        let mut after = None;
        loop {
            let mut page = self.storage.users(after, PAGE).await?;
            after = page.rows.last().map(|row| row.user.id);
            let last = is_last(&page)?;
            self.skip(&page.bad);
            self.report.unfinished.users += page.unfinished;
            let doubled = keep_usable(&mut page.rows, |row| self.seen.add_user(row));
            self.skip(&doubled);
            counts.rows += page.rows.len() as u64;
            self.progress.advance(page.rows.len() as u64);
            let cache = Arc::clone(self.cache);
            let write = async move { cache.put_users(&page.rows, how).await };
            writes.add(write).await?;
            if last {
                break;
            }
        }
        writes.finish().await?;
        self.progress.end(Step::Users, &counts);
        self.report.users = Some(counts);
        Ok(())
    }

    async fn load_torrents(&mut self) -> Result<(), WarmupError> {
        self.progress.begin(Step::Torrents);
        let mut counts = Counts::default();
        let mut writes = Writes::default();
        let how = how(self.had.torrents);
        let mut after = None;
        loop {
            let mut page = self.storage.torrents(after, PAGE).await?;
            after = page.rows.last().map(|row| row.torrent.id);
            let last = is_last(&page)?;
            self.skip(&page.bad);
            self.report.unfinished.torrents += page.unfinished;
            let doubled = keep_usable(&mut page.rows, |row| self.seen.add_torrent(row));
            self.skip(&doubled);
            counts.rows += page.rows.len() as u64;
            self.progress.advance(page.rows.len() as u64);
            let cache = Arc::clone(self.cache);
            let write = async move { cache.put_torrents(&page.rows, how).await };
            writes.add(write).await?;
            if last {
                break;
            }
        }
        writes.finish().await?;
        self.progress.end(Step::Torrents, &counts);
        self.report.torrents = Some(counts);
        Ok(())
    }

    /// Rows whole, in the order in which they changed. Whoever changed them does not matter.
    async fn take_over(&mut self, changes: Vec<RowChange>) -> Result<(), WarmupError> {
        let mut users: Vec<StoredUser> = Vec::new();
        let mut torrents: Vec<StoredTorrent> = Vec::new();
        let mut whitelist = None;
        for change in changes {
            match change {
                RowChange::User(row) => match self.seen.add_user(&row) {
                    Ok(()) => users.push(row),
                    Err(bad) => self.skip(&[bad]),
                },
                RowChange::UserGone(id) => {
                    self.seen.remove_user(id);
                    users.retain(|row| row.user.id != id);
                }
                RowChange::Torrent(row) => {
                    self.seen.doubt(row.torrent.id);
                    match self.seen.add_torrent(&row) {
                        Ok(()) => torrents.push(row),
                        Err(bad) => self.skip(&[bad]),
                    }
                }
                RowChange::TorrentGone(id) => {
                    self.seen.doubt(id);
                    torrents.retain(|row| row.torrent.id != id);
                }
                RowChange::Whitelist(clients) => whitelist = Some(clients),
            }
        }
        self.cache.put_users(&users, Write::Edit).await?;
        self.cache.put_torrents(&torrents, Write::Edit).await?;
        if let Some(clients) = whitelist {
            self.cache.put_whitelist(&clients).await?;
        }
        Ok(())
    }

    fn skip(&mut self, rows: &[BadRow]) {
        self.report.skipped += rows.len() as u64;
        for row in rows {
            self.progress.skipped(row);
        }
    }
}

/// How to write rows into a cache that had some before, or had none.
fn how(had_some: bool) -> Write {
    if had_some { Write::Warmup } else { Write::Fill }
}

/// How many of those in the cache are not in storage.
pub(super) fn count_gone(cached: &[ClientPrefix], stored: &[ClientPrefix]) -> u64 {
    let is_gone = |client: &&ClientPrefix| !stored.iter().any(|it| it.prefix == client.prefix);
    cached.iter().filter(is_gone).count() as u64
}

/// Takes the rows that `check` refuses out of `rows`, and returns why.
pub(super) fn keep_usable<T>(
    rows: &mut Vec<T>,
    mut check: impl FnMut(&T) -> Result<(), BadRow>,
) -> Vec<BadRow> {
    let mut bad = Vec::new();
    rows.retain(|row| match check(row) {
        Ok(()) => true,
        Err(problem) => {
            bad.push(problem);
            false
        }
    });
    bad
}

/// Whether that is the last page. One without rows that is not would be read for ever.
pub(super) fn is_last<T>(page: &Page<T>) -> Result<bool, StorageError> {
    if page.rows.is_empty() && !page.last {
        let text = "the storage driver returned an empty page before the end of the table";
        return Err(StorageError::Broken(text.into()));
    }
    Ok(page.last)
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
