//! The registry in the cache, and the notices that say which of its rows changed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::base::ids::{InfoHash, UserId};
use crate::cache::{Cache, CacheError, ControlPosition, Generation, Notice};
use crate::node::load::{self, Registered};
use crate::node::shared::LoadError;
use crate::node::shared::origin::{self, Origin};
use crate::node::{Node, torrents};
use crate::registry::{RegistryChange, StoredTorrent, StoredUser, Whitelist};
use crate::telemetry::events::{Events, LiveEvent};

/// How long a read waits for the next notice.
const WAIT: Duration = Duration::from_secs(1);

/// How long a failure is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Rows asked for at the same time.
const AT_ONCE: usize = 256;

/// Loads users, torrents and whitelist from the cache; what it does not have goes, unless the
/// cache was emptied meanwhile.
pub(super) async fn load_registry(
    node: &Node,
    cache: &dyn Cache,
    when: Registered,
) -> Result<(), LoadError> {
    let generation = cache.ping().await?;
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
    is_whole(cache, generation).await?;
    let removals = gone.into_iter().map(RegistryChange::UserGone);
    removals.for_each(|change| node.registry.apply(change));

    let mut gone: HashSet<_> = known_torrents.into_iter().collect();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let scan = cache.torrents(at).await?;
        let rows = scan.rows.into_iter().map(|row| row.torrent);
        let rows: Vec<_> = rows.collect();
        for torrent in &rows {
            gone.remove(&torrent.id);
        }
        torrents::follow(node, rows, Vec::new(), when).await?;
        bad.extend(scan.bad);
        cursor = scan.next;
    }
    is_whole(cache, generation).await?;
    torrents::follow(node, Vec::new(), gone.into_iter().collect(), when).await?;
    whitelist(node, cache, generation).await?;
    load::report(&bad);
    let (users, torrents, clients) = node.registry.sizes();
    tracing::info!(users, torrents, clients, "registry loaded from the cache");
    Ok(())
}

/// Says that the cache has all that it had in that generation. From one that was emptied it does
/// not follow that something is gone.
async fn is_whole(cache: &dyn Cache, generation: Generation) -> Result<(), CacheError> {
    let now = cache.ping().await?;
    if now != generation || cache.mirrored().await?.is_none() {
        return Err(CacheError::Restarted(now));
    }
    Ok(())
}

async fn whitelist(
    node: &Node,
    cache: &dyn Cache,
    generation: Generation,
) -> Result<(), CacheError> {
    let clients = cache.whitelist().await?;
    is_whole(cache, generation).await?;
    let whitelist = RegistryChange::Whitelist(Whitelist::new(&clients));
    node.registry.apply(whitelist);
    Ok(())
}

/// Follows the notices from where `reached` is, for ever, and tells there how far it came. `stale`
/// is told when peers are to be brought to the cache.
pub(super) async fn follow(
    node: Node,
    cache: Arc<dyn Cache>,
    reached: watch::Sender<ControlPosition>,
    stale: Arc<Notify>,
) {
    let mut position = reached.borrow().clone();
    let mut generation = node.journal.generation();
    loop {
        // A cache that forgot may have forgotten notices, too.
        let is_restarted = generation.has_changed().unwrap_or(false);
        match step(&node, &cache, &position, is_restarted, &stale).await {
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
                    node.journal.on_cache_broke();
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
    stale: &Notify,
) -> Result<ControlPosition, LoadError> {
    if is_restarted {
        let _turn = node.registry_turn.lock().await;
        let position = cache.control_position().await?;
        load_if_complete(node, &**cache).await?;
        // Of the notices up to there, which are skipped, one may have asked for peers.
        stale.notify_one();
        return Ok(position);
    }
    let generation = cache.ping().await?;
    let (notices, next) = cache.control(position, WAIT).await?;
    if notices.is_empty() {
        return Ok(next);
    }
    let _turn = node.registry_turn.lock().await;
    let count = notices.iter().filter(|it| **it != Notice::Peers).count();
    let (mut users, mut torrents) = (HashSet::new(), HashSet::new());
    let (mut is_whitelist, mut is_everything) = (false, false);
    for notice in notices {
        tell(&node.events, &notice);
        match notice {
            Notice::User(id) => drop(users.insert(id)),
            Notice::Torrent(info_hash) => drop(torrents.insert(info_hash)),
            Notice::Whitelist => is_whitelist = true,
            Notice::Registry => is_everything = true,
            Notice::Peers => stale.notify_one(),
            Notice::SnatchesWiped => node.tracker.wipe_snatches(),
        }
    }
    if is_everything {
        load_if_complete(node, &**cache).await?;
        return Ok(next);
    }
    let (user_count, torrent_count) = (users.len(), torrents.len());
    let taken = async {
        take_users(node, cache, users.into_iter().collect(), generation).await?;
        take_torrents(node, cache, torrents.into_iter().collect(), generation).await?;
        if is_whitelist {
            whitelist(node, &**cache, generation).await?;
        }
        Ok(())
    };
    match taken.await {
        // Whoever fills it tells when it is complete.
        Err(LoadError::Cache(CacheError::Restarted(_))) => return Ok(next),
        other => other?,
    }
    if count > 0 {
        tracing::info!(
            changes = count,
            users = user_count,
            torrents = torrent_count,
            whitelist = u8::from(is_whitelist),
            "registry changed"
        );
    }
    Ok(next)
}

fn tell(events: &Events, notice: &Notice) {
    events.publish(match notice {
        Notice::Peers => return,
        Notice::User(id) => LiveEvent::User(*id),
        Notice::Torrent(info_hash) => LiveEvent::Torrent(None, Some(*info_hash)),
        Notice::Whitelist => LiveEvent::Whitelist,
        Notice::Registry | Notice::SnatchesWiped => LiveEvent::Registry,
    });
}

/// A registry that is not complete would shut everybody out, and so would another database's:
/// whoever fills it tells when it is.
async fn load_if_complete(node: &Node, cache: &dyn Cache) -> Result<(), LoadError> {
    match origin::of(node, cache).await? {
        // Without a feed, a notice of the whole registry says that it was filled a moment ago.
        Origin::Cache(_) | Origin::Unfollowed => {
            load_registry(node, cache, Registered::Again).await?;
        }
        Origin::Evicted => drop(load::registry(node, Registered::Again).await?),
        Origin::Incomplete | Origin::Foreign | Origin::Behind => {}
    }
    Ok(())
}

async fn take_users(
    node: &Node,
    cache: &Arc<dyn Cache>,
    users: Vec<UserId>,
    generation: Generation,
) -> Result<(), LoadError> {
    for users in users.chunks(AT_ONCE) {
        let mut reads = JoinSet::new();
        for &id in users {
            let cache = Arc::clone(cache);
            reads.spawn(async move { (id, cache.user(id).await) });
        }
        let mut gone = Vec::new();
        while let Some(read) = reads.join_next().await {
            let (id, row) = read.map_err(|error| CacheError::Away(error.to_string()))?;
            match usable(row)? {
                Some(StoredUser { user, .. }) => node.registry.apply(RegistryChange::User(user)),
                None => gone.push(id),
            }
        }
        if !gone.is_empty() {
            is_whole(&**cache, generation).await?;
        }
        for id in gone {
            node.registry.apply(RegistryChange::UserGone(id));
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

/// Takes all torrents at once, so that hashes that move from one to another are known to do so.
async fn take_torrents(
    node: &Node,
    cache: &Arc<dyn Cache>,
    hashes: Vec<InfoHash>,
    generation: Generation,
) -> Result<(), LoadError> {
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    for hashes in hashes.chunks(AT_ONCE) {
        let mut reads = JoinSet::new();
        for &info_hash in hashes {
            let cache = Arc::clone(cache);
            reads.spawn(async move { (info_hash, cache.torrent(info_hash).await) });
        }
        let mut absent = Vec::new();
        while let Some(read) = reads.join_next().await {
            let (info_hash, row) = read.map_err(|error| CacheError::Away(error.to_string()))?;
            match usable(row)? {
                Some(StoredTorrent { torrent, .. }) => changed.push(torrent),
                None => absent.push(info_hash),
            }
        }
        if !absent.is_empty() {
            is_whole(&**cache, generation).await?;
        }
        for info_hash in absent {
            if let Some(torrent) = node.registry.torrent(&info_hash)
                && torrent.canonical == info_hash
            {
                gone.push(torrent.id);
            }
        }
    }
    Ok(torrents::follow(node, changed, gone, Registered::Again).await?)
}
