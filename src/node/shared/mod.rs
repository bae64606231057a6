//! A node that shares a cache with others.
//!
//! For the registry, storage is the source of truth; one node at a time mirrors its changes into the
//! cache, and every node follows the cache's notices (both in [`sync`](crate::sync)). For swarms, every
//! node follows the journals of the others (`peers`). `watch` shows that this node is alive, and notices
//! when the cache was restarted and may have lost what it was given.

mod peers;
mod unreadable;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::node::{Node, health, load, upkeep};
use crate::sync::follow::{FormerHashes, Wakers, load_first};
use crate::sync::mirror::NoticeLog;
use crate::sync::{LeaseHolder, Mirror, RegistryFollower, SyncError};

pub use watch::NodeProcess;
pub(super) use watch::{first_beat, host_of, refuse_namesake, take_leave};

/// What the tasks of a node that shares a cache start with.
pub(super) struct CacheTasks {
    cache: Arc<dyn Cache>,
    /// The last batch of each other journal that was applied.
    journals: HashMap<String, u64>,
    /// Former hashes of torrents, under which the cache may still have them.
    former: FormerHashes,
    log: Arc<NoticeLog>,
    wakers: Wakers,
    /// If the cache lacks peers of storage: the batches that storage had when they were read from there.
    lacking: Option<HashMap<String, u64>>,
}

/// Loads the registry, and the swarms: each from the cache if it is as new as storage there, else
/// from storage.
pub(super) async fn load(
    node: &Node,
    cache: &Arc<dyn Cache>,
) -> Result<(CacheTasks, RegistryFollower), SyncError> {
    // Before anything is read, so that what changes meanwhile is followed.
    let position = cache.control_position().await?;
    let applied: HashMap<String, u64> = node.storage.journals().await?.into_iter().collect();
    let loaded = load_first(&node.replica, &**cache).await?;
    let has_peers = loaded.cache_was_usable && has_peers(&**cache, &applied).await?;
    if has_peers {
        load::histories(node).await?;
        peers::load_first(node, &**cache).await?;
        let (swarms, seeders, leechers) = node.tracker.totals();
        tracing::info!(swarms, seeders, leechers, "swarms loaded from the cache");
    } else {
        load::swarms(node).await?;
    }
    let journals = peers::overlay(node, &**cache, &applied, has_peers).await?;
    load::sweep_all(node);
    let (log, wakers) = (Arc::new(NoticeLog::default()), Wakers::default());
    let follower = RegistryFollower::of_notices(
        node.replica.clone(),
        Arc::clone(cache),
        position,
        Arc::clone(&log),
        wakers.clone(),
    );
    let shared = CacheTasks {
        cache: Arc::clone(cache),
        journals,
        former: loaded.former,
        log,
        wakers,
        lacking: (!has_peers).then_some(applied),
    };
    Ok((shared, follower))
}

/// Whether the cache has all peers, and every batch that storage has: then its peers are at least
/// as new as storage's.
async fn has_peers(cache: &dyn Cache, applied: &HashMap<String, u64>) -> Result<bool, SyncError> {
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

impl CacheTasks {
    /// Starts the tasks of a node that shares a cache, but for its `follower`.
    pub fn start(self, node: &Node, follower: &RegistryFollower, tasks: &mut JoinSet<()>) {
        let Self {
            cache,
            journals,
            former,
            log,
            wakers,
            lacking,
        } = self;
        let node = || node.clone();
        let shared = || Arc::clone(&cache);
        let peers = Arc::new(AtomicU64::new(0));
        tasks.spawn(watch::beat(
            node(),
            shared(),
            Arc::clone(&wakers.peers),
            Arc::clone(&peers),
            lacking.is_none(),
        ));
        tasks.spawn(health::cache(node(), shared()));
        tasks.spawn(health::cache_settings(shared()));
        tasks.spawn(watch::replay(node(), shared()));
        tasks.spawn(watch::publish_stats(node(), shared(), peers));
        tasks.spawn(watch::refill(node(), shared(), wakers.peers, lacking));
        tasks.spawn(upkeep::prune_cache(node(), shared()));
        let follow_all = peers::follow_all(node(), shared(), journals, wakers.nodes);
        tasks.spawn(follow_all);
        if let Some(position_rx) = follower.notice_position() {
            let mirror = Mirror {
                storage: node().storage,
                cache: shared(),
            };
            let holder = LeaseHolder::new(node().replica, mirror, position_rx, log, former);
            tasks.spawn(holder.run());
        }
    }
}
