//! The cache's rows after an edit of storage.
//!
//! Two editors may write their rows to the cache in another order than to storage. So after
//! writing a row each reads it from storage again, and writes what it finds until the two agree.
//! That ends right: the last write to the cache was followed by a look at storage that agreed, and
//! whoever changes storage after that look writes to the cache after it, and so later still.

use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::cache::{Cache, CacheError, Notice, Write, owner};
use crate::registry::{StoredTorrent, StoredUser, Wipe};
use crate::storage::{Storage, StorageError, UserPatch};

/// How often a row that keeps changing is written before it is left to the others who change it.
const TRIES: u32 = 10;

/// Rows read from storage at a time.
const PAGE: u32 = 5000;

/// Brings rows of the cache up to storage, and tells the nodes.
pub(super) struct Mirror<'a> {
    pub storage: &'a dyn Storage,
    pub cache: &'a dyn Cache,
}

/// Why the nodes were not told.
#[derive(Debug, thiserror::Error)]
enum MirrorError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("others keep changing it")]
    Restless,
}

// === impl Mirror ===

impl Mirror<'_> {
    /// Errors are the reason, as text.
    pub async fn user(&self, id: UserId) -> Result<(), String> {
        self.refuse_foreign().await?;
        let written = self.write_user(id).await;
        self.end(written, &[Notice::User(id)]).await
    }

    /// The same for several.
    pub async fn users(&self, ids: &[UserId]) -> Result<(), String> {
        self.refuse_foreign().await?;
        let write_all = async {
            for id in ids {
                self.write_user(*id).await?;
            }
            Ok(())
        };
        let notices: Vec<Notice> = ids.iter().copied().map(Notice::User).collect();
        self.end(write_all.await, &notices).await
    }

    pub async fn torrents(&self, ids: &[TorrentId]) -> Result<(), String> {
        self.refuse_foreign().await?;
        let written = self.write_torrents(ids).await;
        written.map_err(|error| error.to_string())
    }

    /// Of torrents that storage does not have any more.
    pub async fn torrents_gone(&self, gone: &[InfoHash]) -> Result<(), String> {
        self.refuse_foreign().await?;
        let removed = self.remove_torrents(gone).await;
        removed.map_err(|error| error.to_string())
    }

    pub async fn whitelist(&self) -> Result<(), String> {
        self.refuse_foreign().await?;
        let written = self.write_whitelist().await;
        self.end(written, &[Notice::Whitelist]).await
    }

    /// Counters that are in the cache stay as they are when its rows are written, so a total that
    /// was set is set there as well.
    pub async fn totals(&self, id: UserId, patch: &UserPatch) -> Result<(), String> {
        if patch.uploaded.is_none() && patch.downloaded.is_none() {
            return Ok(());
        }
        self.refuse_foreign().await?;
        let set = self.cache.set_totals(id, patch.uploaded, patch.downloaded);
        set.await.map_err(|error| error.to_string())
    }

    /// Sets the totals of all users or torrents to 0.
    pub async fn wipe(
        &self,
        what: Wipe,
        progress: &mut (dyn FnMut() + Send),
    ) -> Result<(), String> {
        self.refuse_foreign().await?;
        let wiped = self.wipe_all(what, progress).await;
        wiped.map_err(|error| error.to_string())
    }

    async fn wipe_all(
        &self,
        what: Wipe,
        progress: &mut (dyn FnMut() + Send),
    ) -> Result<(), CacheError> {
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

    /// Nodes of another database must not be told of this one's rows.
    async fn refuse_foreign(&self) -> Result<(), String> {
        let database = self.storage.identity().await;
        let database = database.map_err(|error| error.to_string())?;
        let checked = owner::refuse_foreign(self.cache, &database).await;
        checked.map_err(|error| error.to_string())
    }

    async fn write_user(&self, id: UserId) -> Result<(), MirrorError> {
        let mut row = self.storage.user(id).await?;
        for _ in 0..TRIES {
            match &row {
                Some(row) => {
                    let rows = std::slice::from_ref(row);
                    self.cache.put_users(rows, Write::Edit).await?;
                }
                None => self.cache.remove_users(&[id]).await?,
            }
            let now = self.storage.user(id).await?;
            // Totals move with every announce, and are not written.
            if now.as_ref().map(|row| &row.user) == row.as_ref().map(|row| &row.user) {
                return Ok(());
            }
            self.forget_passkey(row.as_ref(), now.as_ref()).await?;
            row = now;
        }
        Err(MirrorError::Restless)
    }

    /// A passkey that was written and is not the user's any more. Whoever changed it may have
    /// looked for a former one before it was there.
    async fn forget_passkey(
        &self,
        written: Option<&StoredUser>,
        now: Option<&StoredUser>,
    ) -> Result<(), MirrorError> {
        let passkey = |row: &StoredUser| row.user.passkey.clone();
        if let Some(written) = written
            && now.map(passkey).as_ref() != Some(&written.user.passkey)
        {
            let id = written.user.id;
            let former = [passkey(written)];
            self.cache.remove_passkeys(&former, Some(id)).await?;
        }
        Ok(())
    }

    /// Nodes are told before storage is looked at again: whoever changes it after that look can
    /// know by the notice under which info hash a torrent is in the cache.
    async fn write_torrents(&self, ids: &[TorrentId]) -> Result<(), MirrorError> {
        let mut rows = self.read_torrents(ids).await?;
        let mut to_write = rows.clone();
        for _ in 0..TRIES {
            self.cache.put_torrents(&to_write, Write::Edit).await?;
            self.tell_torrents(to_write.iter().map(|row| row.torrent.info_hash))
                .await?;
            let now = self.read_torrents(ids).await?;
            self.take_back(&rows, &now).await?;
            to_write.clone_from(&now);
            to_write.retain(|row| is_news(row, &rows));
            if to_write.is_empty() {
                return Ok(());
            }
            rows = now;
        }
        Err(MirrorError::Restless)
    }

    /// Removes torrents from the cache that are gone again, or have another info hash.
    async fn take_back(
        &self,
        written: &[StoredTorrent],
        now: &[StoredTorrent],
    ) -> Result<(), MirrorError> {
        let is_gone = |row: &&StoredTorrent| {
            let found = now.binary_search_by_key(&row.torrent.id, |it| it.torrent.id);
            let now = found.ok().and_then(|at| now.get(at));
            now.is_none_or(|now| now.torrent.info_hash != row.torrent.info_hash)
        };
        let gone = written.iter().filter(is_gone);
        let gone: Vec<InfoHash> = gone.map(|row| row.torrent.info_hash).collect();
        self.remove_torrents(&gone).await
    }

    async fn remove_torrents(&self, gone: &[InfoHash]) -> Result<(), MirrorError> {
        self.cache.remove_torrents(gone).await?;
        // One may have come back under another id.
        for &info_hash in gone {
            if let Some(row) = self.storage.torrent(info_hash).await? {
                self.cache.put_torrents(&[row], Write::Edit).await?;
            }
        }
        self.tell_torrents(gone.iter().copied()).await
    }

    async fn tell_torrents(
        &self,
        torrents: impl Iterator<Item = InfoHash>,
    ) -> Result<(), MirrorError> {
        let notices: Vec<Notice> = torrents.map(Notice::Torrent).collect();
        Ok(self.cache.publish(&notices).await?)
    }

    async fn write_whitelist(&self) -> Result<(), MirrorError> {
        let mut clients = self.storage.whitelist().await?;
        for _ in 0..TRIES {
            self.cache.put_whitelist(&clients).await?;
            let now = self.storage.whitelist().await?;
            if now == clients {
                return Ok(());
            }
            clients = now;
        }
        Err(MirrorError::Restless)
    }

    /// Torrents by id, in pages: those of one import have ids that follow each other.
    async fn read_torrents(&self, ids: &[TorrentId]) -> Result<Vec<StoredTorrent>, MirrorError> {
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

    /// Tells the nodes, whatever was written: they read the rows themselves.
    async fn end(
        &self,
        written: Result<(), MirrorError>,
        notices: &[Notice],
    ) -> Result<(), String> {
        let told = self.cache.publish(notices).await.map_err(MirrorError::from);
        written.and(told).map_err(|error| error.to_string())
    }
}

/// Whether a row of storage is not what was written to the cache; counters don't count.
fn is_news(row: &StoredTorrent, written: &[StoredTorrent]) -> bool {
    // Both are in the order of their ids.
    let found = written.binary_search_by_key(&row.torrent.id, |it| it.torrent.id);
    let Some(before) = found.ok().and_then(|at| written.get(at)) else {
        return true;
    };
    let fields = |it: &StoredTorrent| {
        let mut torrent = it.torrent.clone();
        torrent.snatches = 0;
        (torrent, it.name.clone())
    };
    fields(row) != fields(before)
}
