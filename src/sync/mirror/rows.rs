//! The cache's rows after an edit of storage.
//!
//! Two editors may write their rows to the cache in a different order than to storage. So after
//! writing a row each editor reads it from storage again, and writes what it finds until the two
//! agree. The cache ends up with storage's row: the last write to it was followed by a read of
//! storage that agreed, and an editor that changes storage after that read writes to the cache
//! later still, and checks in turn.

use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::cache::{CacheKey, Notice, Rows, Write, owner};
use crate::registry::{StoredTorrent, Wipe};
use crate::storage::UserPatch;

use super::{Mirror, RowSet, is_same_torrent};
use crate::sync::SyncError;

/// How many times a row that keeps changing is written before it is left to the editors who change it.
const TRIES: u32 = 10;

/// Rows read from storage at a time.
const PAGE: u32 = 5000;

impl Mirror {
    pub async fn users(&self, ids: &[UserId]) -> Result<(), SyncError> {
        self.refuse_foreign().await?;
        let write_all = async {
            for id in ids {
                self.write_user(*id).await?;
            }
            Ok(())
        };
        let notices: Vec<Notice> = ids.iter().copied().map(Notice::User).collect();
        self.finish(write_all.await, &notices).await
    }

    pub async fn torrents(&self, ids: &[TorrentId]) -> Result<(), SyncError> {
        self.refuse_foreign().await?;
        self.write_torrents(ids).await
    }

    /// Removes torrents that storage does not have any more.
    pub async fn torrents_gone(&self, gone: Vec<InfoHash>) -> Result<(), SyncError> {
        self.refuse_foreign().await?;
        self.remove_torrents(gone).await
    }

    pub async fn whitelist(&self) -> Result<(), SyncError> {
        self.refuse_foreign().await?;
        let written = self.write_whitelist().await;
        self.finish(written, &[Notice::Whitelist]).await
    }

    /// Writing a row leaves the counters that the cache has unchanged, so a total that an edit set is
    /// set there separately.
    pub async fn totals(&self, id: UserId, patch: &UserPatch) -> Result<(), SyncError> {
        if patch.uploaded.is_none() && patch.downloaded.is_none() {
            return Ok(());
        }
        self.refuse_foreign().await?;
        let (uploaded, downloaded) = (patch.uploaded, patch.downloaded);
        Ok(self.cache.set_totals(id, uploaded, downloaded).await?)
    }

    /// Sets the totals of all users or torrents to 0.
    pub async fn wipe(
        &self,
        what: Wipe,
        progress: &mut (dyn FnMut() + Send),
    ) -> Result<(), SyncError> {
        self.refuse_foreign().await?;
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = self.cache.wipe(what, at).await?.next;
            progress();
        }
        if what == Wipe::Torrents {
            self.cache.publish(&[Notice::SnatchesWiped]).await?;
        }
        Ok(())
    }

    /// Nodes of another database must not be notified of this one's rows.
    async fn refuse_foreign(&self) -> Result<(), SyncError> {
        let database = self.storage.identity().await?;
        Ok(owner::refuse_foreign(&*self.cache, &database).await?)
    }

    async fn write_user(&self, id: UserId) -> Result<(), SyncError> {
        let mut row = self.storage.user(id).await?;
        for _ in 0..TRIES {
            let mut rows = RowSet::default();
            match &row {
                Some(row) => rows.users.push(row.clone()),
                None => rows.gone_users.push(id),
            }
            rows.put(&*self.cache).await?;
            let now = self.storage.user(id).await?;
            let (written, wanted) = (row.map(|row| row.user), now.as_ref().map(|now| &now.user));
            if written.as_ref() == wanted {
                return Ok(());
            }
            let former = written.map(|user| user.passkey);
            // The editor that changed the passkey may have looked for a former one to remove before
            // this one was written.
            if let Some(former) =
                former.filter(|former| wanted.is_none_or(|now| now.passkey != *former))
            {
                let former = CacheKey::Passkey(former, Some(id));
                self.cache.remove(&[former]).await?;
            }
            row = now;
        }
        Err(SyncError::KeepsChanging)
    }

    /// Nodes are notified before storage is read again: an editor that changes it after that read
    /// can tell from the notice under which info hash the cache has a torrent.
    async fn write_torrents(&self, ids: &[TorrentId]) -> Result<(), SyncError> {
        let mut written = self.read_torrents(ids).await?;
        let mut to_write = RowSet {
            torrents: written.clone(),
            ..RowSet::default()
        };
        for _ in 0..TRIES {
            to_write.put_and_publish(&*self.cache).await?;
            let now = self.read_torrents(ids).await?;
            self.take_back(&written, &now).await?;
            to_write.torrents.clone_from(&now);
            to_write.torrents.retain(|row| {
                find(&written, row.torrent.id).is_none_or(|before| !is_same_torrent(row, before))
            });
            if to_write.torrents.is_empty() {
                return Ok(());
            }
            written = now;
        }
        Err(SyncError::KeepsChanging)
    }

    /// Removes torrents from the cache that are gone again, or have another info hash.
    async fn take_back(
        &self,
        written: &[StoredTorrent],
        now: &[StoredTorrent],
    ) -> Result<(), SyncError> {
        let mut gone = Vec::new();
        for row in written {
            let info_hash = row.torrent.info_hash;
            let now = find(now, row.torrent.id);
            if now.is_none_or(|now| now.torrent.info_hash != info_hash) {
                gone.push(info_hash);
            }
        }
        self.remove_torrents(gone).await
    }

    async fn remove_torrents(&self, gone: Vec<InfoHash>) -> Result<(), SyncError> {
        let keys: Vec<CacheKey> = gone.iter().copied().map(CacheKey::Torrent).collect();
        self.cache.remove(&keys).await?;
        // One may have come back under another id.
        for &info_hash in &gone {
            if let Some(row) = self.storage.torrent(info_hash).await? {
                let rows = Rows::Torrents(std::slice::from_ref(&row));
                self.cache.put(rows, Write::Edit).await?;
            }
        }
        let notices: Vec<Notice> = gone.into_iter().map(Notice::Torrent).collect();
        Ok(self.cache.publish(&notices).await?)
    }

    async fn write_whitelist(&self) -> Result<(), SyncError> {
        let mut clients = self.storage.whitelist().await?;
        for _ in 0..TRIES {
            self.cache
                .put(Rows::Whitelist(&clients), Write::Edit)
                .await?;
            let now = self.storage.whitelist().await?;
            if now == clients {
                return Ok(());
            }
            clients = now;
        }
        Err(SyncError::KeepsChanging)
    }

    /// Torrents by id, read in whole pages: those of one import have consecutive ids.
    async fn read_torrents(&self, ids: &[TorrentId]) -> Result<Vec<StoredTorrent>, SyncError> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        let mut rows = Vec::with_capacity(ids.len());
        let mut wanted = &ids[..];
        while let Some(first) = wanted.first() {
            let after = first.0.checked_sub(1).map(TorrentId);
            let limit = u32::try_from(wanted.len()).map_or(PAGE, |count| count.min(PAGE));
            let page = self.storage.torrents(after, limit).await?;
            let read_to = page.rows.last().map(|row| row.torrent.id);
            let known = |row: &StoredTorrent| wanted.binary_search(&row.torrent.id).is_ok();
            rows.extend(page.rows.into_iter().filter(known));
            wanted = match read_to {
                Some(last) if !page.last => &wanted[wanted.partition_point(|id| *id <= last)..],
                _ => break,
            };
        }
        Ok(rows)
    }

    /// Notifies the nodes even if writing failed half-way: they read the rows themselves.
    async fn finish(
        &self,
        written: Result<(), SyncError>,
        notices: &[Notice],
    ) -> Result<(), SyncError> {
        let published = self.cache.publish(notices).await;
        written.and(published.map_err(SyncError::from))
    }
}

/// A torrent among rows in the order of their ids.
fn find(rows: &[StoredTorrent], id: TorrentId) -> Option<&StoredTorrent> {
    let found = rows.binary_search_by_key(&id, |row| row.torrent.id);
    rows.get(found.ok()?)
}
