//! A node that shares a cache with others: what it loads from there, and what it follows.
//!
//! Storage is the truth of the registry; one node at a time mirrors its changes into the cache
//! (`mirror`), and every node follows the cache's notices (`notices`). Of swarms, every node
//! follows the journals of the others (`peers`). `watch` shows that this node is alive, and
//! notices when the cache was restarted and may have forgotten what it was given.

mod mirror;
mod notices;
mod origin;
mod peers;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{Notify, watch as channel};
use tokio::task::JoinSet;

use crate::cache::{Cache, CacheError, ControlPosition};
use crate::node::follow::FormerHashes;
use crate::node::load::Registered;
use crate::node::{Node, follow, health, load};
use crate::storage::{FeedPosition, StorageError};

use self::origin::Origin;

pub use watch::Process;
pub(super) use watch::{host_of, refuse_namesake, show, take_leave};

/// Where to follow from.
pub(super) struct Positions {
    pub control: ControlPosition,
    /// The last batch of each node that was taken over.
    pub journals: HashMap<String, u64>,
    /// Of torrents that the cache may still have under these hashes.
    pub former: FormerHashes,
}

/// Why a load failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Loads the registry, and the swarms: each from the cache if it is as new as storage there, else
/// from storage.
pub(super) async fn load(node: &Node, cache: &Arc<dyn Cache>) -> Result<Positions, LoadError> {
    // Before anything is read, so that what changes meanwhile is followed.
    let control = cache.control_position().await?;
    let applied: HashMap<String, u64> = node.storage.journals().await?.into_iter().collect();
    peers::note_company(node, applied.keys());
    let (origin, former) = load_registry(node, &**cache).await?;
    let has_peers = origin.is_usable() && has_peers(&**cache, &applied).await?;
    if has_peers {
        load::histories(node).await?;
        peers::load(node, &**cache).await?;
        let (swarms, seeders, leechers) = node.tracker.totals();
        tracing::info!(swarms, seeders, leechers, "swarms loaded from the cache");
    } else {
        load::swarms(node).await?;
    }
    let journals = peers::overlay(node, &**cache, &applied).await?;
    if !has_peers {
        peers::upload_loaded(node, &**cache).await?;
        peers::catch_up(&**cache, &applied).await?;
    }
    load::expire(node);
    Ok(Positions {
        control,
        journals,
        former,
    })
}

/// Loads the registry as it is in storage now. Returns also what the cache may still have of torrents that
/// changed meanwhile.
async fn load_registry(
    node: &Node,
    cache: &dyn Cache,
) -> Result<(Origin, FormerHashes), LoadError> {
    let origin = origin::of(node, cache).await?;
    if let Origin::Cache(mirrored) = &origin {
        notices::load_registry(node, cache, Registered::First).await?;
        // What changed since is in the cache once a node has mirrored it; it is in force now.
        let position = FeedPosition(mirrored.position);
        if let Some(former) = follow::catch_up(node, position, Registered::First).await? {
            return Ok((origin, former));
        }
    }
    tracing::info!("the registry is loaded from storage, and not from the cache: {origin}");
    // It may have rows that storage has no longer, of which nobody tells again.
    cache.forget_mirrored().await?;
    load::registry(node, Registered::First).await?;
    Ok((origin, FormerHashes::new()))
}

/// Follows all that is shared, in tasks of their own; `heard` is told how far the notices were
/// followed.
pub(super) fn follow(
    node: &Node,
    cache: &Arc<dyn Cache>,
    positions: Positions,
    heard: channel::Sender<ControlPosition>,
    tasks: &mut JoinSet<()>,
) {
    let reached = heard.subscribe();
    let Positions {
        journals, former, ..
    } = positions;
    let stale = Arc::new(Notify::new());
    let both = || (node.clone(), Arc::clone(cache));
    let (it, shared) = both();
    tasks.spawn(watch::beat(it, shared, Arc::clone(&stale)));
    tasks.spawn(health::cache_settings(Arc::clone(cache)));
    let (it, shared) = both();
    tasks.spawn(watch::replay(it, shared));
    let (it, shared) = both();
    tasks.spawn(watch::tell_stats(it, shared));
    let (it, shared) = both();
    tasks.spawn(watch::refill(it, shared, Arc::clone(&stale)));
    let (it, shared) = both();
    tasks.spawn(mirror::mirror(it, shared, reached, former));
    let (it, shared) = both();
    tasks.spawn(mirror::sweep(it, shared));
    let (it, shared) = both();
    tasks.spawn(notices::follow(it, shared, heard, stale));
    let (it, shared) = both();
    tasks.spawn(peers::follow_all(it, shared, journals));
}

/// Loads the registry again, as a reload asks: from the cache, or from storage while the cache
/// does not have all of it.
pub(super) async fn reload(node: &Node, cache: &dyn Cache) -> Result<()> {
    let origin = origin::of(node, cache).await?;
    if origin.is_usable() {
        notices::load_registry(node, cache, Registered::Again).await?;
    } else {
        tracing::info!("the registry is loaded from storage, and not from the cache: {origin}");
        if origin == Origin::Unfollowed {
            // The node that mirrors fills it again, and tells all others.
            cache.forget_mirrored().await?;
        }
        load::registry(node, Registered::Again).await?;
    }
    Ok(())
}

/// Whether the cache has all peers, and every batch that storage has: then its peers are at least
/// as new as storage's.
async fn has_peers(cache: &dyn Cache, applied: &HashMap<String, u64>) -> Result<bool, LoadError> {
    if !cache.has_all_peers().await? {
        return Ok(false);
    }
    for (node, applied) in applied {
        if cache.last_kept(node).await? < *applied {
            return Ok(false);
        }
    }
    Ok(true)
}
