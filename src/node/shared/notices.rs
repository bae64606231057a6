//! The registry in the cache, and the notices that say which of its rows changed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cache::{Cache, CacheError, ControlPosition, Notice};
use crate::events::{Event, Events};
use crate::ids::{InfoHash, UserId};
use crate::node::Node;
use crate::node::load::{self, Registered};
use crate::node::shared::LoadError;
use crate::registry::{RegistryChange, StoredTorrent, StoredUser, Whitelist};

/// How long a read waits for the next notice.
const WAIT: Duration = Duration::from_secs(1);

/// How long a failure is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Rows asked for at the same time.
const AT_ONCE: usize = 256;

/// Loads users, torrents and whitelist from the cache; what it does not have goes.
pub(super) async fn load_registry(
    node: &Node,
    cache: &dyn Cache,
    when: Registered,
) -> Result<(), LoadError> {
    let mut bad = Vec::new();
    let (known_users, known_torrents) = node.registry.ids();
    let mut gone: HashSet<_> = known_users.into_iter().collect();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let scan = cache.users(at).await?;
        for row in scan.rows {
            gone.remove(&row.user.id);
            node.registry.apply(RegistryChange::User(row.user));
        }
        bad.extend(scan.bad);
        cursor = scan.next;
    }
    let removals = gone.into_iter().map(RegistryChange::UserGone);
    removals.for_each(|change| node.registry.apply(change));

    let mut gone: HashSet<_> = known_torrents.into_iter().collect();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let scan = cache.torrents(at).await?;
        let torrents = scan.rows.into_iter().map(|row| row.torrent);
        let torrents: Vec<_> = torrents.collect();
        for torrent in &torrents {
            gone.remove(&torrent.id);
        }
        load::registered(node, torrents, when).await?;
        bad.extend(scan.bad);
        cursor = scan.next;
    }
    for id in gone {
        load::torrent_gone(node, id);
    }
    whitelist(node, cache).await?;
    load::report(&bad);
    let (users, torrents, clients) = node.registry.sizes();
    tracing::info!(users, torrents, clients, "registry loaded from the cache");
    Ok(())
}

async fn whitelist(node: &Node, cache: &dyn Cache) -> Result<(), CacheError> {
    let clients = cache.whitelist().await?;
    let whitelist = RegistryChange::Whitelist(Whitelist::new(&clients));
    node.registry.apply(whitelist);
    Ok(())
}

/// Follows the notices from where `reached` is, for ever, and tells there how far it came.
pub(super) async fn follow(
    node: Node,
    cache: Arc<dyn Cache>,
    reached: watch::Sender<ControlPosition>,
) {
    let mut position = reached.borrow().clone();
    let mut generation = node.journal.generation();
    loop {
        // A cache that forgot may have forgotten notices, too.
        let is_restarted = generation.has_changed().unwrap_or(false);
        match step(&node, &cache, &position, is_restarted).await {
            Ok(next) => {
                if is_restarted {
                    generation.mark_unchanged();
                }
                position.clone_from(&next);
                reached.send_replace(next);
            }
            Err(error) => {
                // Somebody waits here nearly all the time, so this is the first to notice.
                if matches!(error, LoadError::Cache(CacheError::Away(_))) {
                    node.journal.cache_broke();
                }
                tracing::debug!(%error, "the notices of the cache can't be followed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Takes the next notices; returns the position after them.
async fn step(
    node: &Node,
    cache: &Arc<dyn Cache>,
    position: &ControlPosition,
    is_restarted: bool,
) -> Result<ControlPosition, LoadError> {
    if is_restarted {
        let _turn = node.registry_turn.lock().await;
        let position = cache.control_position().await?;
        load_if_complete(node, &**cache).await?;
        return Ok(position);
    }
    let (notices, next) = cache.control(position, WAIT).await?;
    if notices.is_empty() {
        return Ok(next);
    }
    let _turn = node.registry_turn.lock().await;
    let count = notices.len();
    let (mut users, mut torrents) = (HashSet::new(), HashSet::new());
    let (mut is_whitelist, mut is_everything) = (false, false);
    for notice in notices {
        tell(&node.events, &notice);
        match notice {
            Notice::User(id) => drop(users.insert(id)),
            Notice::Torrent(info_hash) => drop(torrents.insert(info_hash)),
            Notice::Whitelist => is_whitelist = true,
            Notice::Registry => is_everything = true,
            Notice::SnatchesWiped => node.tracker.wipe_snatches(),
        }
    }
    if is_everything {
        load_if_complete(node, &**cache).await?;
        return Ok(next);
    }
    take_users(node, cache, users.into_iter().collect()).await?;
    take_torrents(node, cache, torrents.into_iter().collect()).await?;
    if is_whitelist {
        whitelist(node, &**cache).await?;
    }
    tracing::info!(changes = count, "registry changed");
    Ok(next)
}

fn tell(events: &Events, notice: &Notice) {
    events.tell(match notice {
        Notice::User(id) => Event::User(*id),
        Notice::Torrent(info_hash) => Event::Torrent(None, Some(*info_hash)),
        Notice::Whitelist => Event::Whitelist,
        Notice::Registry | Notice::SnatchesWiped => Event::Registry,
    });
}

/// A registry that is not complete would shut everybody out: whoever fills it tells when it is.
async fn load_if_complete(node: &Node, cache: &dyn Cache) -> Result<(), LoadError> {
    if cache.mirrored().await?.is_some() {
        load_registry(node, cache, Registered::Again).await?;
    }
    Ok(())
}

async fn take_users(
    node: &Node,
    cache: &Arc<dyn Cache>,
    users: Vec<UserId>,
) -> Result<(), LoadError> {
    for users in users.chunks(AT_ONCE) {
        let mut reads = JoinSet::new();
        for &id in users {
            let cache = Arc::clone(cache);
            reads.spawn(async move { (id, cache.user(id).await) });
        }
        while let Some(read) = reads.join_next().await {
            let (id, row) = read.map_err(|error| CacheError::Away(error.to_string()))?;
            node.registry.apply(match usable(row)? {
                Some(StoredUser { user, .. }) => RegistryChange::User(user),
                None => RegistryChange::UserGone(id),
            });
        }
    }
    Ok(())
}

/// A row that can't be used must not stay in force, so it counts as gone.
fn usable<T>(row: Result<Option<T>, CacheError>) -> Result<Option<T>, CacheError> {
    match row {
        Err(CacheError::Broken(problem)) => {
            tracing::warn!(problem, "row of the cache passed over");
            Ok(None)
        }
        other => other,
    }
}

async fn take_torrents(
    node: &Node,
    cache: &Arc<dyn Cache>,
    torrents: Vec<InfoHash>,
) -> Result<(), LoadError> {
    for torrents in torrents.chunks(AT_ONCE) {
        let mut reads = JoinSet::new();
        for &info_hash in torrents {
            let cache = Arc::clone(cache);
            reads.spawn(async move { (info_hash, cache.torrent(info_hash).await) });
        }
        let mut found = Vec::new();
        while let Some(read) = reads.join_next().await {
            let (info_hash, row) = read.map_err(|error| CacheError::Away(error.to_string()))?;
            match usable(row)? {
                Some(StoredTorrent { torrent, .. }) => found.push(torrent),
                None => {
                    if let Some(torrent) = node.registry.torrent(&info_hash)
                        && torrent.canonical == info_hash
                    {
                        load::torrent_gone(node, torrent.id);
                    }
                }
            }
        }
        load::registered(node, found, Registered::Again).await?;
    }
    Ok(())
}
