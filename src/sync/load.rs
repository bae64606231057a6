//! Loading a node's registry page by page, from storage or from the cache.

use std::collections::HashSet;

use crate::base::ids::{TorrentId, UserId};
use crate::cache::{Cache, CacheError, Generation, Scan};
use crate::registry::{BadRow, ClientPrefix, RegistryChange, StoredTorrent, StoredUser, Whitelist};
use crate::storage::{FeedPosition, Page, Storage, StorageError};

use super::origin::Origin;
use super::{Replica, SyncError};

/// Rows read at once.
const PAGE: u32 = 5000;

/// Bad rows that are named in the log; the rest are only counted.
const BAD_ROWS_SHOWN: usize = 10;

/// Whether a registry is loaded for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadPass {
    /// Swarms and histories are loaded afterwards, for all torrents at once.
    First,
    /// Torrents that are new are applied together with what is known of them.
    Again,
}

/// Part of a table of the registry.
pub struct RegistryPage<T> {
    pub rows: Vec<T>,
    pub bad: Vec<BadRow>,
    /// Rows that the site has not finished.
    pub unfinished: u64,
    /// Where the next page begins; none after the last one.
    pub next: Option<u64>,
}

/// Where the registry is read from. Cursors begin at 0.
enum RegistrySource<'a> {
    Storage(&'a dyn Storage),
    Cache(&'a dyn Cache, Generation),
}

/// Loads users, torrents and whitelist from storage; returns the position in the feed to follow
/// from. What storage no longer has is removed from the registry, so that this serves a reload, too.
pub async fn from_storage(replica: &Replica, pass: LoadPass) -> Result<FeedPosition, SyncError> {
    // First, so that what changes during the load is found in the feed.
    let position = replica.storage.feed_position().await?;
    let source = RegistrySource::Storage(&*replica.storage);
    load(replica, &source, pass).await?;
    let (users, torrents, clients) = replica.registry.sizes();
    tracing::info!(users, torrents, clients, "registry loaded");
    Ok(position)
}

/// Loads users, torrents and whitelist from the cache. What the cache does not have is removed, unless it
/// was emptied meanwhile.
pub(super) async fn from_cache(
    replica: &Replica,
    cache: &dyn Cache,
    pass: LoadPass,
) -> Result<(), SyncError> {
    let generation = cache.ping().await?;
    let source = RegistrySource::Cache(cache, generation);
    load(replica, &source, pass).await?;
    let (users, torrents, clients) = replica.registry.sizes();
    tracing::info!(users, torrents, clients, "registry loaded from the cache");
    Ok(())
}

/// Like [`from_cache`]; false if it may have missed rows, because the cache moves them between servers.
pub(super) async fn from_cache_if_still(
    replica: &Replica,
    cache: &dyn Cache,
    pass: LoadPass,
) -> Result<bool, SyncError> {
    match from_cache(replica, cache, pass).await {
        Ok(()) => Ok(true),
        Err(SyncError::Cache(CacheError::Moving)) => {
            tracing::info!(
                "the cache moves keys between servers: its registry can't be loaded now"
            );
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Loads the registry again, as a reload asks: from the cache, or from storage while the cache
/// does not have all of it.
pub async fn reload(replica: &Replica, cache: &dyn Cache) -> Result<(), SyncError> {
    let origin = Origin::find(&*replica.storage, cache).await?;
    if origin.is_usable() && from_cache_if_still(replica, cache, LoadPass::Again).await? {
        return Ok(());
    }
    origin.log_load_from_storage();
    if origin == Origin::Unfollowed {
        // The lease holder fills it again, and publishes that.
        cache.forget_mirrored().await?;
    }
    from_storage(replica, LoadPass::Again).await?;
    Ok(())
}

async fn load(
    replica: &Replica,
    source: &RegistrySource<'_>,
    pass: LoadPass,
) -> Result<(), SyncError> {
    let registry = &replica.registry;
    let (users, torrents) = registry.ids();
    let mut bad = Vec::new();

    let (mut unfinished_users, mut cursor) = (0, Some(0));
    let mut gone: HashSet<UserId> = users.into_iter().collect();
    while let Some(at) = cursor {
        let page = source.users(at).await?;
        for row in page.rows {
            gone.remove(&row.user.id);
            registry.apply(RegistryChange::User(row.user));
        }
        bad.extend(page.bad);
        unfinished_users += page.unfinished;
        cursor = page.next;
    }
    source.check_whole().await?;
    for id in gone {
        registry.apply(RegistryChange::UserGone(id));
    }

    let (mut unfinished_torrents, mut cursor) = (0, Some(0));
    let mut gone: HashSet<TorrentId> = torrents.into_iter().collect();
    while let Some(at) = cursor {
        let page = source.torrents(at).await?;
        let torrents: Vec<_> = page.rows.into_iter().map(|row| row.torrent).collect();
        for torrent in &torrents {
            gone.remove(&torrent.id);
        }
        let hooks = &replica.hooks;
        hooks.apply_torrents(torrents, Vec::new(), pass).await?;
        bad.extend(page.bad);
        unfinished_torrents += page.unfinished;
        cursor = page.next;
    }
    source.check_whole().await?;
    let gone = gone.into_iter().collect();
    replica.hooks.apply_torrents(Vec::new(), gone, pass).await?;

    let (clients, bad_clients) = source.whitelist().await?;
    source.check_whole().await?;
    registry.apply(RegistryChange::Whitelist(Whitelist::new(&clients)));
    bad.extend(bad_clients);
    log_bad_rows(&bad);
    if unfinished_users + unfinished_torrents > 0 {
        tracing::info!(
            users = unfinished_users,
            torrents = unfinished_torrents,
            "some rows are not ready yet: users without a passkey, torrents without an info hash"
        );
    }
    Ok(())
}

/// Fails if the cache does not have all that it had in that generation.
pub(super) async fn check_whole(
    cache: &dyn Cache,
    generation: Generation,
) -> Result<(), CacheError> {
    let now = cache.ping().await?;
    if now != generation || cache.mirrored().await?.is_none() {
        return Err(CacheError::Restarted(now));
    }
    Ok(())
}

/// Names rows that can't be used, so that an operator can correct them.
pub fn log_bad_rows(bad: &[BadRow]) {
    for row in bad.iter().take(BAD_ROWS_SHOWN) {
        tracing::warn!(table = row.table, id = %row.id, "row passed over: {}", row.problem);
    }
    if bad.len() > BAD_ROWS_SHOWN {
        let more = bad.len() - BAD_ROWS_SHOWN;
        tracing::warn!(more, "more rows were passed over; see: mika-manage check");
    }
}

/// Users of storage from a cursor on.
pub async fn stored_users(
    storage: &dyn Storage,
    cursor: u64,
    limit: u32,
) -> Result<RegistryPage<StoredUser>, StorageError> {
    let page = storage.users(before(cursor).map(UserId), limit).await?;
    RegistryPage::of(page, |row| row.user.id.0)
}

/// Torrents of storage from a cursor on.
pub async fn stored_torrents(
    storage: &dyn Storage,
    cursor: u64,
    limit: u32,
) -> Result<RegistryPage<StoredTorrent>, StorageError> {
    let page = storage
        .torrents(before(cursor).map(TorrentId), limit)
        .await?;
    RegistryPage::of(page, |row| row.torrent.id.0)
}

/// Whether that is the last page. Fails for an empty page that is not, because it would be read forever.
pub(super) fn is_last<T>(page: &Page<T>) -> Result<bool, StorageError> {
    if page.rows.is_empty() && !page.last {
        let text = "the storage driver returned an empty page before the end of the table";
        return Err(StorageError::Broken(text.into()));
    }
    Ok(page.last)
}

/// The id after which a page of storage begins; none at the first one.
fn before(cursor: u64) -> Option<u32> {
    u32::try_from(cursor.checked_sub(1)?).ok()
}

// === impl RegistryPage ===

impl<T> RegistryPage<T> {
    /// A page of storage.
    fn of(page: Page<T>, id: impl Fn(&T) -> u32) -> Result<Self, StorageError> {
        let last_id = page.rows.last().map(id);
        let next = if is_last(&page)? {
            None
        } else {
            last_id.map(|id| u64::from(id) + 1)
        };
        Ok(Self {
            rows: page.rows,
            bad: page.bad,
            unfinished: page.unfinished,
            next,
        })
    }
}

impl<T> From<Scan<T>> for RegistryPage<T> {
    fn from(scan: Scan<T>) -> Self {
        Self {
            rows: scan.rows,
            bad: scan.bad,
            unfinished: 0,
            next: scan.next,
        }
    }
}

// === impl RegistrySource ===

impl RegistrySource<'_> {
    async fn users(&self, cursor: u64) -> Result<RegistryPage<StoredUser>, SyncError> {
        Ok(match self {
            Self::Storage(storage) => stored_users(*storage, cursor, PAGE).await?,
            Self::Cache(cache, _) => cache.users(cursor).await?.into(),
        })
    }

    async fn torrents(&self, cursor: u64) -> Result<RegistryPage<StoredTorrent>, SyncError> {
        Ok(match self {
            Self::Storage(storage) => stored_torrents(*storage, cursor, PAGE).await?,
            Self::Cache(cache, _) => cache.torrents(cursor).await?.into(),
        })
    }

    async fn whitelist(&self) -> Result<(Vec<ClientPrefix>, Vec<BadRow>), SyncError> {
        Ok(match self {
            Self::Storage(storage) => (storage.whitelist().await?, storage.bad_clients().await?),
            Self::Cache(cache, _) => (cache.whitelist().await?, Vec::new()),
        })
    }

    /// Fails if rows may be missing from what was read: it does not follow that they are gone.
    async fn check_whole(&self) -> Result<(), SyncError> {
        match self {
            Self::Storage(_) => Ok(()),
            Self::Cache(cache, generation) => Ok(check_whole(*cache, *generation).await?),
        }
    }
}
