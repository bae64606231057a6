//! What the cache has and storage no longer has.

use super::load::Loader;
use super::{Parts, Progress, Report, Step, WarmupError};
use crate::ids::{InfoHash, Passkey, UserId};
use crate::registry::StoredTorrent;
use crate::storage::StorageError;

impl<P: Progress> Loader<'_, P> {
    /// Removes it from those parts; returns what the whole warmup did, and how far the cache
    /// follows storage by now.
    pub async fn remove(mut self, parts: Parts) -> Result<(Report, u64), WarmupError> {
        self.progress.begin(Step::Removal);
        if parts.users {
            self.remove_users().await?;
            self.remove_passkeys().await?;
        }
        if parts.torrents {
            self.remove_torrents().await?;
        }
        let report = self.report;
        let counts = super::Counts {
            removed: [report.users, report.torrents]
                .iter()
                .flatten()
                .map(|counts| counts.removed)
                .sum(),
            ..super::Counts::default()
        };
        self.progress.end(Step::Removal, &counts);
        Ok((report, self.position.0))
    }

    async fn remove_users(&mut self) -> Result<(), WarmupError> {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = self.cache.users(at).await?;
            cursor = scan.next;
            self.progress.advance(scan.rows.len() as u64);
            self.report.unusable += scan.bad.len() as u64;
            let ids = scan.rows.into_iter().map(|row| row.user.id);
            let mut gone: Vec<UserId> = ids.filter(|id| !self.seen.has_user(*id)).collect();
            if !gone.is_empty() {
                // Some may have been added since the last page of storage was read.
                self.follow_feed().await?;
                gone.retain(|id| !self.seen.has_user(*id));
                self.cache.remove_users(&gone).await?;
                add_to(&mut self.report.users, gone.len());
            }
        }
        Ok(())
    }

    /// Passkeys that users had before, and those of users that are gone.
    async fn remove_passkeys(&mut self) -> Result<(), WarmupError> {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = self.cache.passkeys(at).await?;
            cursor = scan.next;
            self.report.unusable += scan.bad.len() as u64;
            let is_stale = |entry: &(Passkey, UserId)| !self.seen.has_passkey(&entry.0, entry.1);
            let mut stale: Vec<_> = scan.rows.into_iter().filter(is_stale).collect();
            if !stale.is_empty() {
                self.follow_feed().await?;
                stale.retain(|(passkey, user)| !self.seen.has_passkey(passkey, *user));
                self.cache.remove_passkeys(&stale).await?;
                self.report.stale_passkeys += stale.len() as u64;
            }
        }
        Ok(())
    }

    async fn remove_torrents(&mut self) -> Result<(), WarmupError> {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = self.cache.torrents(at).await?;
            cursor = scan.next;
            self.progress.advance(scan.rows.len() as u64);
            self.report.unusable += scan.bad.len() as u64;
            let mut rows = scan.rows;
            rows.retain(|row| self.may_be_gone(row));
            if rows.is_empty() {
                continue;
            }
            self.follow_feed().await?;
            let mut gone: Vec<InfoHash> = Vec::new();
            for row in rows {
                if self.is_gone(&row).await? {
                    gone.push(row.torrent.info_hash);
                }
            }
            self.cache.remove_torrents(&gone).await?;
            add_to(&mut self.report.torrents, gone.len());
        }
        Ok(())
    }

    fn may_be_gone(&self, row: &StoredTorrent) -> bool {
        !self.seen.has_torrent(&row.torrent.info_hash) || self.seen.is_doubtful(row.torrent.id)
    }

    /// The feed names a deleted torrent by its id alone, so of those storage is asked.
    async fn is_gone(&self, row: &StoredTorrent) -> Result<bool, WarmupError> {
        let info_hash = row.torrent.info_hash;
        if !self.seen.has_torrent(&info_hash) {
            return Ok(true);
        }
        if !self.seen.is_doubtful(row.torrent.id) {
            return Ok(false);
        }
        match self.storage.torrent(info_hash).await {
            Ok(stored) => Ok(stored.is_none_or(|it| it.torrent.info_hash != info_hash)),
            // Its row can't be used any more.
            Err(StorageError::Broken(_)) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

fn add_to(counts: &mut Option<super::Counts>, removed: usize) {
    if let Some(counts) = counts {
        counts.removed += removed as u64;
    }
}
