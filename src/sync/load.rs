//! Loading a node's registry page by page, from storage or from the cache.

use std::collections::HashSet;
use std::hash::Hash;

use crate::base::ids::{TorrentId, UserId};
use crate::base::thread::on_thread;
use crate::cache::{Cache, CacheError, Generation, RegistryCursor};
use crate::registry::{
    BadRow, ClientPrefix, Registry, RegistryChange, StoredTorrent, StoredUser, Torrent, User,
    Whitelist,
};
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

/// What was loaded of users or torrents.
struct LoadedPart<K> {
    /// Those in the registry that the source does not have.
    gone: HashSet<K>,
    bad: Vec<BadRow>,
    unfinished: u64,
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
    let (users, torrents) = match source {
        RegistrySource::Cache(cache, _) => load_cached(replica, *cache, pass).await?,
        RegistrySource::Storage(storage) => load_stored(replica, *storage, pass).await?,
    };
    let (clients, bad_clients) = source.whitelist().await?;
    source.check_whole().await?;
    for id in users.gone {
        registry.apply(RegistryChange::UserGone(id));
    }
    let (hooks, gone) = (&replica.hooks, torrents.gone.into_iter().collect());
    hooks.apply_torrents(Vec::new(), gone, pass).await?;
    registry.apply(RegistryChange::Whitelist(Whitelist::new(&clients)));
    let bad: Vec<BadRow> = [users.bad, torrents.bad, bad_clients].concat();
    log_bad_rows(&bad);
    if users.unfinished + torrents.unfinished > 0 {
        tracing::info!(
            users = users.unfinished,
            torrents = torrents.unfinished,
            "some rows are not ready yet: users without a passkey, torrents without an info hash"
        );
    }
    Ok(())
}

/// Users and torrents of the cache, which are in force as soon as they are read.
async fn load_cached(
    replica: &Replica,
    cache: &dyn Cache,
    pass: LoadPass,
) -> Result<(LoadedPart<UserId>, LoadedPart<TorrentId>), SyncError> {
    let registry = &replica.registry;
    let (users, torrents) = registry.ids();
    let (mut users, mut torrents) = (LoadedPart::new(users), LoadedPart::new(torrents));
    let mut cursor = Some(RegistryCursor::START);
    while let Some(at) = cursor {
        let scan = cache.registry(at).await?;
        users.apply_users(registry, scan.users);
        torrents
            .apply_torrents(replica, scan.torrents, pass)
            .await?;
        users.bad.extend(scan.bad);
        cursor = scan.next;
    }
    Ok((users, torrents))
}

/// The same of storage: at a start, both at the same time, if it has readers for that.
async fn load_stored(
    replica: &Replica,
    storage: &dyn Storage,
    pass: LoadPass,
) -> Result<(LoadedPart<UserId>, LoadedPart<TorrentId>), SyncError> {
    let reader = || {
        (pass == LoadPass::First)
            .then(|| storage.reader())
            .flatten()
    };
    if let (Some(one), Some(other)) = (reader(), reader()) {
        let copies = (replica.clone(), replica.clone());
        let users = move || async move { load_users(&copies.0, &*one).await };
        let torrents = move || async move { load_torrents(&copies.1, &*other, pass).await };
        return tokio::try_join!(on_loader(users), on_loader(torrents));
    }
    let users = load_users(replica, storage).await?;
    Ok((users, load_torrents(replica, storage, pass).await?))
}

async fn load_users(
    replica: &Replica,
    storage: &dyn Storage,
) -> Result<LoadedPart<UserId>, SyncError> {
    let registry = &replica.registry;
    let mut loaded = LoadedPart::new(registry.ids().0);
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let page = stored_users(storage, at, PAGE).await?;
        loaded.apply_users(registry, page.rows.into_iter().map(|row| row.user));
        loaded.bad.extend(page.bad);
        loaded.unfinished += page.unfinished;
        cursor = page.next;
    }
    Ok(loaded)
}

async fn load_torrents(
    replica: &Replica,
    storage: &dyn Storage,
    pass: LoadPass,
) -> Result<LoadedPart<TorrentId>, SyncError> {
    let mut loaded = LoadedPart::new(replica.registry.ids().1);
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let page = stored_torrents(storage, at, PAGE).await?;
        let torrents = page.rows.into_iter().map(|row| row.torrent).collect();
        loaded.apply_torrents(replica, torrents, pass).await?;
        loaded.bad.extend(page.bad);
        loaded.unfinished += page.unfinished;
        cursor = page.next;
    }
    Ok(loaded)
}

/// Loads a part on a thread of its own.
async fn on_loader<T, F>(load: impl FnOnce() -> F + Send + 'static) -> Result<T, SyncError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, SyncError>>,
{
    let ended = |error| StorageError::Broken(format!("a thread of the load has ended: {error}"));
    on_thread("loader", load).await.map_err(ended)?
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
pub fn is_last<T>(page: &Page<T>) -> Result<bool, StorageError> {
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

// === impl RegistrySource ===

impl RegistrySource<'_> {
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

// === impl LoadedPart ===

impl<K: Eq + Hash> LoadedPart<K> {
    /// Nothing of what is known was read yet.
    fn new(known: Vec<K>) -> Self {
        Self {
            gone: known.into_iter().collect(),
            bad: Vec::new(),
            unfinished: 0,
        }
    }
}

impl LoadedPart<UserId> {
    fn apply_users(&mut self, registry: &Registry, users: impl IntoIterator<Item = User>) {
        for user in users {
            self.gone.remove(&user.id);
            registry.apply(RegistryChange::User(user));
        }
    }
}

impl LoadedPart<TorrentId> {
    async fn apply_torrents(
        &mut self,
        replica: &Replica,
        torrents: Vec<Torrent>,
        pass: LoadPass,
    ) -> Result<(), StorageError> {
        for torrent in &torrents {
            self.gone.remove(&torrent.id);
        }
        let hooks = &replica.hooks;
        hooks.apply_torrents(torrents, Vec::new(), pass).await
    }
}
