//! Following the notices of the cache, which say what nodes have to read again of the registry.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::{InfoHash, UserId};
use crate::cache::{Cache, CacheError, ControlPosition, Generation, Notice};
use crate::registry::{RegistryChange, Whitelist};
use crate::sync::load::{self, LoadPass, check_whole};
use crate::sync::origin::Origin;
use crate::sync::{Replica, SyncError, read_rows};
use crate::telemetry::events::{Events, LiveEvent};

use super::Notices;

/// How long a read waits for the next notice.
const WAIT: Duration = Duration::from_secs(1);

/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows the notices from the position in `position_tx` on, and keeps that position up to date; runs
/// until cancelled.
pub(super) async fn run(replica: Replica, notices: Notices) {
    let mut position = notices.position_tx.borrow().clone();
    let mut generation = replica.hooks.cache_generation();
    loop {
        // A cache that was restarted may have lost notices, too.
        let is_restarted = generation.has_changed().unwrap_or(false);
        match notices.step(&replica, &position, is_restarted).await {
            Ok(next) => {
                if is_restarted {
                    generation.mark_unchanged();
                }
                position.clone_from(&next);
                notices.position_tx.send_replace(next);
            }
            Err(error) => {
                // This waits for the cache nearly all the time, so it is the first to notice.
                if matches!(error, SyncError::Cache(CacheError::Away(_))) {
                    replica.hooks.on_cache_disconnected();
                }
                tracing::debug!(%error, "the notices of the cache can't be followed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

// === impl Notices ===

impl Notices {
    /// Follows the next notices; returns the position after them.
    async fn step(
        &self,
        replica: &Replica,
        position: &ControlPosition,
        is_restarted: bool,
    ) -> Result<ControlPosition, SyncError> {
        let cache = &self.cache;
        if is_restarted {
            let _turn = replica.turn.lock().await;
            let position = cache.control_position().await?;
            load_if_complete(replica, &**cache).await?;
            // Of the notices up to there, which are skipped, one may have asked for peers.
            self.wakers.peers.notify_one();
            return Ok(position);
        }
        let generation = cache.ping().await?;
        let (notices, next) = cache.control(Some(position), WAIT).await?;
        if notices.is_empty() {
            return Ok(next);
        }
        let _turn = replica.turn.lock().await;
        self.apply(replica, &notices, generation).await?;
        self.log.add(&notices);
        Ok(next)
    }

    async fn apply(
        &self,
        replica: &Replica,
        notices: &[Notice],
        generation: Generation,
    ) -> Result<(), SyncError> {
        let mut changes = Changes::default();
        for notice in notices {
            publish_event(&replica.events, notice);
            match notice {
                Notice::User(id) => drop(changes.users.insert(*id)),
                Notice::Torrent(info_hash) => drop(changes.torrents.insert(*info_hash)),
                Notice::Whitelist => changes.whitelist = true,
                Notice::Registry => changes.everything = true,
                Notice::PeersBy(journal) if replica.hooks.journal() == journal => {}
                Notice::Peers | Notice::PeersBy(_) => self.wakers.peers.notify_one(),
                Notice::Node => self.wakers.nodes.notify_one(),
                Notice::SnatchesWiped => replica.hooks.wipe_snatches(),
            }
            let is_of_nodes = matches!(notice, Notice::Peers | Notice::PeersBy(_) | Notice::Node);
            changes.count += usize::from(!is_of_nodes);
        }
        if changes.everything {
            return load_if_complete(replica, &*self.cache).await;
        }
        match changes.apply(replica, &self.cache, generation).await {
            // The node that fills the cache publishes it when it is complete.
            Err(SyncError::Cache(CacheError::Restarted(_))) => return Ok(()),
            applied => applied?,
        }
        if changes.count > 0 {
            tracing::info!(
                changes = changes.count,
                users = changes.users.len(),
                torrents = changes.torrents.len(),
                whitelist = u8::from(changes.whitelist),
                "registry changed"
            );
        }
        Ok(())
    }
}

/// What some notices say has changed.
#[derive(Default)]
struct Changes {
    count: usize,
    users: HashSet<UserId>,
    torrents: HashSet<InfoHash>,
    whitelist: bool,
    everything: bool,
}

// === impl Changes ===

impl Changes {
    /// Reads the rows, and applies them.
    async fn apply(
        &self,
        replica: &Replica,
        cache: &Arc<dyn Cache>,
        generation: Generation,
    ) -> Result<(), SyncError> {
        self.apply_users(replica, cache, generation).await?;
        self.apply_torrents(replica, cache, generation).await?;
        if self.whitelist {
            let clients = cache.whitelist().await?;
            check_whole(&**cache, generation).await?;
            let whitelist = RegistryChange::Whitelist(Whitelist::new(&clients));
            replica.registry.apply(whitelist);
        }
        Ok(())
    }

    async fn apply_users(
        &self,
        replica: &Replica,
        cache: &Arc<dyn Cache>,
        generation: Generation,
    ) -> Result<(), SyncError> {
        let ids: Vec<UserId> = self.users.iter().copied().collect();
        let read = |id| {
            let cache = Arc::clone(cache);
            async move { cache.user(id).await }
        };
        let mut gone = Vec::new();
        for (id, row) in read_rows(&ids, read).await? {
            match row {
                Some(row) => replica.registry.apply(RegistryChange::User(row.user)),
                None => gone.push(id),
            }
        }
        if !gone.is_empty() {
            check_whole(&**cache, generation).await?;
        }
        for id in gone {
            replica.registry.apply(RegistryChange::UserGone(id));
        }
        Ok(())
    }

    /// Applies all torrents at once, so that a hash that moves from one to another is recognized.
    async fn apply_torrents(
        &self,
        replica: &Replica,
        cache: &Arc<dyn Cache>,
        generation: Generation,
    ) -> Result<(), SyncError> {
        let hashes: Vec<InfoHash> = self.torrents.iter().copied().collect();
        let read = |info_hash| {
            let cache = Arc::clone(cache);
            async move { cache.torrent(info_hash).await }
        };
        let (mut changed, mut absent) = (Vec::new(), Vec::new());
        for (info_hash, row) in read_rows(&hashes, read).await? {
            match row {
                Some(row) => changed.push(row.torrent),
                None => absent.push(info_hash),
            }
        }
        if !absent.is_empty() {
            check_whole(&**cache, generation).await?;
        }
        let mut gone = Vec::new();
        for info_hash in absent {
            if let Some(torrent) = replica.registry.torrent(&info_hash)
                && torrent.canonical == info_hash
            {
                gone.push(torrent.id);
            }
        }
        let pass = LoadPass::Again;
        replica.hooks.apply_torrents(changed, gone, pass).await?;
        Ok(())
    }
}

fn publish_event(events: &Events, notice: &Notice) {
    events.publish(match notice {
        Notice::Peers | Notice::PeersBy(_) | Notice::Node => return,
        Notice::User(id) => LiveEvent::User(*id),
        Notice::Torrent(info_hash) => LiveEvent::Torrent(None, Some(*info_hash)),
        Notice::Whitelist => LiveEvent::Whitelist,
        Notice::Registry | Notice::SnatchesWiped => LiveEvent::Registry,
    });
}

/// A registry that is not complete would refuse everybody, and so would another database's: the
/// node that fills the cache publishes it when it is complete.
async fn load_if_complete(replica: &Replica, cache: &dyn Cache) -> Result<(), SyncError> {
    match Origin::find(&*replica.storage, cache).await? {
        // Without a feed, a notice of the whole registry says that it was filled a moment ago.
        Origin::Cache(_) | Origin::Unfollowed => {
            load::from_cache(replica, cache, LoadPass::Again).await?;
        }
        Origin::Evicted => drop(load::from_storage(replica, LoadPass::Again).await?),
        Origin::Incomplete | Origin::Foreign | Origin::Behind => {}
    }
    Ok(())
}
