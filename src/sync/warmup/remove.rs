//! Removes orphans: keys of the cache whose rows storage no longer has.

use super::load::Loader;
use super::{WarmupCounts, WarmupParts, WarmupProgress, WarmupReport, WarmupStep};
use crate::base::ids::{InfoHash, Passkey, UserId};
use crate::cache::{CacheKey, KeySet};
use crate::storage::StorageError;
use crate::sync::SyncError;

/// Keys of the cache that may be orphans.
#[derive(Default)]
struct Candidates {
    users: Vec<UserId>,
    passkeys: Vec<Passkey>,
    torrents: Vec<InfoHash>,
}

impl<P: WarmupProgress> Loader<'_, P> {
    /// Removes the orphans of those parts; returns what the whole warmup did, and how far the cache
    /// follows storage by now.
    pub async fn remove(mut self, parts: WarmupParts) -> Result<(WarmupReport, u64), SyncError> {
        let had = WarmupParts {
            whitelist: false,
            users: parts.users && self.had.users,
            torrents: parts.torrents && self.had.torrents,
        };
        if had != WarmupParts::NONE {
            self.reader.progress.begin(WarmupStep::Removal);
            self.remove_all(had).await?;
            self.reader
                .progress
                .end(WarmupStep::Removal, &WarmupCounts::default());
        }
        Ok((self.reader.report, self.position.0))
    }

    async fn remove_all(&mut self, parts: WarmupParts) -> Result<(), SyncError> {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = self.cache.keys(KeySet::Registry, at).await?;
            cursor = scan.next;
            self.reader.progress.advance(scan.rows.len() as u64);
            let candidates = self.candidates(scan.rows, parts);
            if !candidates.is_empty() {
                // Some of them may have been added since the last page of storage was read.
                self.follow_feed().await?;
                self.remove_some(candidates).await?;
            }
        }
        Ok(())
    }

    fn candidates(&self, keys: Vec<CacheKey>, parts: WarmupParts) -> Candidates {
        let mut candidates = Candidates::default();
        for key in keys {
            match key {
                CacheKey::User(id) if parts.users && !self.reader.stored.has_user(id) => {
                    candidates.users.push(id);
                }
                CacheKey::Passkey(passkey, _)
                    if parts.users && !self.reader.stored.knows_passkey(&passkey) =>
                {
                    candidates.passkeys.push(passkey);
                }
                CacheKey::Torrent(info_hash)
                    if parts.torrents
                        && self.reader.stored.has_torrent(&info_hash) != Some(true) =>
                {
                    candidates.torrents.push(info_hash);
                }
                _ => {}
            }
        }
        candidates
    }

    async fn remove_some(&mut self, candidates: Candidates) -> Result<(), SyncError> {
        let Candidates {
            mut users,
            mut passkeys,
            torrents,
        } = candidates;
        users.retain(|id| !self.reader.stored.has_user(*id));
        let mut users_gone = Vec::with_capacity(users.len());
        for id in users {
            // The feed stops in front of a transaction that is still open, and what was added
            // behind it is in force already.
            match self.reader.storage.user(id).await {
                Ok(Some(row)) if !self.reader.stored.knows_passkey(&row.user.passkey) => {}
                // It is gone, or another user has its passkey.
                Ok(_) | Err(StorageError::Broken(_)) => users_gone.push(id),
                Err(error) => return Err(error.into()),
            }
        }
        passkeys.retain(|passkey| !self.reader.stored.knows_passkey(passkey));
        let users = users_gone.into_iter().map(CacheKey::User);
        let mut keys: Vec<CacheKey> = users.collect();
        let removed_users = keys.len();
        keys.extend(passkeys.into_iter().map(|it| CacheKey::Passkey(it, None)));
        self.cache.remove(&keys).await?;
        let mut gone = Vec::with_capacity(torrents.len());
        for info_hash in torrents {
            if self.is_gone(info_hash).await? {
                gone.push(CacheKey::Torrent(info_hash));
            }
        }
        self.cache.remove(&gone).await?;
        for (counts, removed) in [
            (&mut self.reader.report.users, removed_users),
            (&mut self.reader.report.torrents, gone.len()),
        ] {
            if let Some(counts) = counts {
                counts.removed += removed as u64;
            }
        }
        Ok(())
    }

    /// Asks storage about a torrent that is not known to be there: for the same reason as with users, and
    /// because the feed names a deleted torrent by its id alone.
    async fn is_gone(&self, info_hash: InfoHash) -> Result<bool, SyncError> {
        if self.reader.stored.has_torrent(&info_hash) == Some(true) {
            return Ok(false);
        }
        match self.reader.storage.torrent(info_hash).await {
            Ok(stored) => Ok(stored.is_none_or(|row| row.torrent.info_hash != info_hash)),
            // Its row can't be used any more.
            Err(StorageError::Broken(_)) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

impl Candidates {
    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.passkeys.is_empty() && self.torrents.is_empty()
    }
}
