//! Changes of torrents while clients announce: a torrent keeps what is known of it, and gets no peers
//! of another torrent.
//!
//! Swarms are kept by info hash, records by torrent. When a torrent gets another hash, its records
//! are loaded from storage. Its peers are not: clients of the old hash have another torrent file.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::base::clock::Clock;
use crate::base::ids::{InfoHash, TorrentId};
use crate::cache::Generation;
use crate::journal;
use crate::node::load::known_history;
use crate::registry::{Hashes, Registry, RegistryChange, Torrent};
use crate::storage::{Storage, StorageError};
use crate::sync::{LoadPass, NodeHooks};
use crate::tracker::{Mode, Tracker};

/// How long to wait until storage has what is on its way there.
const APPLY_PATIENCE: Duration = Duration::from_secs(10);

/// Applies changes of torrents to the registry and the swarms.
pub(super) struct TorrentUpdater {
    pub tracker: Arc<Tracker>,
    pub registry: Arc<Registry>,
    pub storage: Arc<dyn Storage>,
    pub journal: journal::JournalHandle,
    pub clock: Clock,
}

/// What a change does to a torrent's swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SwarmFate {
    /// Nothing.
    Stays,
    /// It was not registered, or had other hashes: its records come from storage. Its peers return, too,
    /// if `is_same_swarm`; else only their accounts do.
    Returns { is_same_swarm: bool },
}

#[async_trait]
impl NodeHooks for TorrentUpdater {
    fn is_public(&self) -> bool {
        self.tracker.mode() == Mode::Public
    }

    fn journal(&self) -> &str {
        self.journal.name()
    }

    async fn apply_torrents(
        &self,
        mut changed: Vec<Torrent>,
        mut gone: Vec<TorrentId>,
        pass: LoadPass,
    ) -> Result<(), StorageError> {
        // A torrent whose hash moved is named twice.
        changed.sort_unstable_by_key(|torrent| torrent.id);
        changed.dedup_by_key(|torrent| torrent.id);
        let ids: HashSet<TorrentId> = changed.iter().map(|torrent| torrent.id).collect();
        gone.retain(|id| !ids.contains(id));
        let is_public = self.is_public();
        if !is_public && pass == LoadPass::Again {
            return self.apply_private(changed, gone).await;
        }
        for id in gone {
            if let Some(hashes) = self.registry.hashes(id)
                && is_public
            {
                for hash in hashes.iter() {
                    self.tracker.forget_snatches(&hash);
                }
            }
            self.registry.apply(RegistryChange::TorrentGone(id));
        }
        for torrent in changed {
            if self.registry.canonical(torrent.id) != Some(torrent.info_hash) {
                let (info_hash, snatches) = (torrent.info_hash, torrent.snatches);
                self.tracker.restore_snatches(info_hash, snatches);
            }
            self.registry.apply(RegistryChange::Torrent(torrent));
        }
        Ok(())
    }

    fn wipe_snatches(&self) {
        self.tracker.wipe_snatches();
    }

    async fn all_applied(&self) {
        self.journal.all_applied().await;
    }

    fn cache_generation(&self) -> watch::Receiver<Generation> {
        self.journal.generation()
    }

    fn on_cache_disconnected(&self) {
        self.journal.on_cache_disconnected();
    }
}

impl TorrentUpdater {
    async fn apply_private(
        &self,
        mut changed: Vec<Torrent>,
        gone: Vec<TorrentId>,
    ) -> Result<(), StorageError> {
        let renumbered = self.renumbered(&changed).await?;
        for torrent in changed.extract_if(.., |torrent| renumbered.contains(&torrent.id)) {
            self.registry.renumber(torrent);
        }
        let changed: Vec<(Torrent, SwarmFate)> = changed
            .into_iter()
            .map(|torrent| {
                let fate = self.fate(&torrent);
                (torrent, fate)
            })
            .collect();
        let returning: Vec<TorrentId> = changed
            .iter()
            .filter(|(_, fate)| *fate != SwarmFate::Stays)
            .map(|(torrent, _)| torrent.id)
            .collect();
        let leaving = self.take_out(&changed, &gone);
        let mut with_records = HashSet::new();
        if !returning.is_empty() {
            if !leaving.is_empty() {
                // What is still on its way to storage belongs to the records that return, too.
                self.settle().await;
            }
            with_records.extend(self.storage.with_records(&returning).await?);
            if leaving.is_empty() && !with_records.is_empty() {
                self.settle().await;
            }
        }
        // From here on storage is right: if an old hash comes back, so does what storage has then.
        for hash in &leaving {
            self.tracker.forget(hash);
        }
        let mut moved = HashSet::new();
        for (torrent, fate) in changed {
            if let SwarmFate::Returns { is_same_swarm } = fate {
                let (info_hash, snatches) = (torrent.info_hash, torrent.snatches);
                self.tracker.restore_snatches(info_hash, snatches);
                if with_records.contains(&torrent.id) {
                    self.restore(&torrent, is_same_swarm).await?;
                    moved.insert(self.tracker.shard_of(&info_hash));
                }
            }
            self.registry.apply(RegistryChange::Torrent(torrent));
        }
        // Departures are journaled at once, and not at the next regular sweep.
        self.sweep(moved);
        self.tracker.follow_early(self.clock.now());
        Ok(())
    }

    /// Waits until storage has what was queued before the call, at most for [`APPLY_PATIENCE`]. What it
    /// does not have by then is settled when it arrives, against the rows of the same clients; until they
    /// announce, this node shows older figures of them.
    async fn settle(&self) {
        let applied = self.journal.all_applied();
        if tokio::time::timeout(APPLY_PATIENCE, applied).await.is_err() {
            tracing::warn!(
                "storage does not take the journal: torrents that changed go on from what it has"
            );
        }
    }

    /// The torrents that only got another id: their records have it, too, while a torrent that was
    /// deleted and uploaded again has no records. Their swarms stay as they are.
    async fn renumbered(&self, changed: &[Torrent]) -> Result<HashSet<TorrentId>, StorageError> {
        let ids: HashSet<TorrentId> = changed.iter().map(|torrent| torrent.id).collect();
        let has_swarm_of_another = |torrent: &&Torrent| {
            let owner = self.registry.swarm_owner(&torrent.info_hash);
            self.before(torrent.id).is_none() && owner.is_some_and(|owner| !ids.contains(&owner))
        };
        let candidates: Vec<TorrentId> = changed
            .iter()
            .filter(has_swarm_of_another)
            .map(|torrent| torrent.id)
            .collect();
        if candidates.is_empty() {
            return Ok(HashSet::new());
        }
        // What is still on its way to storage under the old id is recorded under the new one.
        self.settle().await;
        let with_records = self.storage.with_records(&candidates).await?;
        Ok(with_records.into_iter().collect())
    }

    /// What a change of a torrent's hashes does to its swarm (rule W14).
    fn fate(&self, torrent: &Torrent) -> SwarmFate {
        let new = Hashes::of(torrent);
        let before = self.before(torrent.id);
        // Peers that announced by a hash that the torrent lost can't be told from the others.
        let is_same_swarm =
            before.is_some_and(|(old, _)| old.iter().all(|hash| new.contains(&hash)));
        let is_where_it_was =
            before.is_some_and(|(old, is_registered)| is_registered && old.first == new.first);
        if is_same_swarm && is_where_it_was {
            SwarmFate::Stays
        } else {
            SwarmFate::Returns { is_same_swarm }
        }
    }

    /// The hashes that a torrent has, or had while it was registered, and whether it still is.
    fn before(&self, torrent: TorrentId) -> Option<(Hashes, bool)> {
        let registered = self.registry.hashes(torrent).map(|hashes| (hashes, true));
        registered.or_else(|| Some((self.registry.former_hashes(torrent)?, false)))
    }

    /// Takes torrents out of the registry that are gone or are to return: they are refused until
    /// they are whole again. Returns the hashes whose swarms, as they are now, are to be forgotten.
    fn take_out(&self, changed: &[(Torrent, SwarmFate)], gone: &[TorrentId]) -> HashSet<InfoHash> {
        let mut leaving = HashSet::new();
        let mut out: HashSet<TorrentId> = gone.iter().copied().collect();
        for (torrent, fate) in changed {
            let new = Hashes::of(torrent);
            let old = self.before(torrent.id);
            if *fate != SwarmFate::Stays
                && let Some((old, is_registered)) = old
                && (is_registered || old.first != new.first)
            {
                leaving.insert(old.first);
                out.insert(torrent.id);
            }
            for hash in new.iter() {
                // The swarm of a torrent that is gone, or that is about to get another hash.
                if let Some(owner) = self.registry.swarm_owner(&hash)
                    && owner != torrent.id
                {
                    leaving.insert(hash);
                    out.insert(owner);
                }
            }
        }
        let shards: HashSet<usize> = out
            .iter()
            .filter_map(|id| self.registry.canonical(*id))
            .map(|hash| self.tracker.shard_of(&hash))
            .collect();
        // What their peers owe the journal goes there while it is known whose it is.
        self.sweep(shards);
        for id in out {
            self.registry.apply(RegistryChange::TorrentGone(id));
        }
        leaving
    }

    fn sweep(&self, shards: HashSet<usize>) {
        let now = self.clock.now();
        for shard in shards {
            self.tracker.sweep(shard, now);
        }
    }

    /// Restores what storage has of a torrent.
    async fn restore(&self, torrent: &Torrent, is_same_swarm: bool) -> Result<(), StorageError> {
        let (histories, peers) = self.storage.records_of(torrent.id).await?;
        for row in &histories {
            let known = known_history(row);
            self.tracker.restore_history(torrent.info_hash, &known);
        }
        let now = self.clock.now();
        for row in &peers {
            let (info_hash, key, record) = (torrent.info_hash, &row.key, &row.record);
            self.tracker
                .restore_peer(info_hash, key, record, is_same_swarm, now);
        }
        Ok(())
    }
}
