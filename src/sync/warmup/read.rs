//! Rows of storage, page by page, without those that can't be used.

use super::stored::StoredIndex;
use super::{WarmupProgress, WarmupReport};
use crate::registry::{BadRow, ClientPrefix, StoredTorrent, StoredUser};
use crate::storage::Storage;
use crate::sync::SyncError;
use crate::sync::load::{stored_torrents, stored_users};

/// Rows read from storage at a time.
pub(super) const PAGE: u32 = 2000;

/// Reads storage for a warmup.
pub(super) struct Reader<'a, P> {
    pub storage: &'a dyn Storage,
    pub progress: &'a mut P,
    pub stored: StoredIndex,
    pub report: WarmupReport,
}

impl<'a, P: WarmupProgress> Reader<'a, P> {
    pub fn new(storage: &'a dyn Storage, progress: &'a mut P) -> Self {
        Self {
            storage,
            progress,
            stored: StoredIndex::default(),
            report: WarmupReport::default(),
        }
    }

    pub async fn whitelist(&mut self) -> Result<Vec<ClientPrefix>, SyncError> {
        let clients = self.storage.whitelist().await?;
        let bad = self.storage.bad_clients().await?;
        self.skip(&bad);
        Ok(clients)
    }

    /// The next usable users; none at the end of the table. A cursor begins as `Some(0)`.
    pub async fn next_users(
        &mut self,
        cursor: &mut Option<u64>,
    ) -> Result<Option<Vec<StoredUser>>, SyncError> {
        let Some(at) = *cursor else { return Ok(None) };
        let mut page = stored_users(self.storage, at, PAGE).await?;
        *cursor = page.next;
        self.report.unfinished.users += page.unfinished;
        let doubled = keep_usable(&mut page.rows, |row| self.stored.add_user(row));
        page.bad.extend(doubled);
        self.skip(&page.bad);
        self.progress.advance(page.rows.len() as u64);
        Ok(Some(page.rows))
    }

    /// The next usable torrents; none at the end of the table. A cursor begins as `Some(0)`.
    pub async fn next_torrents(
        &mut self,
        cursor: &mut Option<u64>,
    ) -> Result<Option<Vec<StoredTorrent>>, SyncError> {
        let Some(at) = *cursor else { return Ok(None) };
        let mut page = stored_torrents(self.storage, at, PAGE).await?;
        *cursor = page.next;
        self.report.unfinished.torrents += page.unfinished;
        let doubled = keep_usable(&mut page.rows, |row| self.stored.add_torrent(row));
        page.bad.extend(doubled);
        self.skip(&page.bad);
        self.progress.advance(page.rows.len() as u64);
        Ok(Some(page.rows))
    }

    pub fn skip(&mut self, rows: &[BadRow]) {
        self.report.skipped += rows.len() as u64;
        for row in rows {
            self.progress.skipped(row);
        }
    }
}

/// How many clients of the cache are not in storage.
pub(super) fn count_gone(cached: &[ClientPrefix], stored: &[ClientPrefix]) -> u64 {
    let is_gone = |client: &&ClientPrefix| !stored.iter().any(|row| row.prefix == client.prefix);
    cached.iter().filter(is_gone).count() as u64
}

/// Removes the rows that `check` refuses, and returns why.
fn keep_usable<T>(
    rows: &mut Vec<T>,
    mut check: impl FnMut(&T) -> Result<(), BadRow>,
) -> Vec<BadRow> {
    let mut bad = Vec::new();
    rows.retain(|row| check(row).map_err(|problem| bad.push(problem)).is_ok());
    bad
}
