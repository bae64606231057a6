//! Registering torrents while clients announce: what is known of each goes on with it, and no torrent
//! gets the peers of another one.
//!
//! Swarms are kept by info hash, records by torrent. When a torrent gets another hash, its records
//! go over from storage. Who is there does not: clients of the old hash have another torrent file.

use std::collections::HashSet;
use std::time::Duration;

use crate::base::ids::{InfoHash, TorrentId};
use crate::node::Node;
use crate::node::load::{Registered, known_history};
use crate::registry::{Hashes, RegistryChange, Torrent};
use crate::storage::StorageError;
use crate::tracker::Mode;

/// How long storage may take to have what is on its way there.
const APPLY_PATIENCE: Duration = Duration::from_secs(10);

/// How a torrent goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// As it is, in its swarm.
    Stays,
    /// It was not registered, or under other hashes: its records come from storage. Its peers are still
    /// those of the same torrent if `is_same_swarm`.
    Returns { is_same_swarm: bool },
}

/// Applies changes of torrents to the registry: those that were added or changed, and those that are
/// gone from it. All that are known to have changed belong into one call, because hashes may
/// move from one torrent to another.
pub(super) async fn follow(
    node: &Node,
    mut changed: Vec<Torrent>,
    mut gone: Vec<TorrentId>,
    when: Registered,
) -> Result<(), StorageError> {
    // A hash that moved tells of its torrent twice.
    changed.sort_unstable_by_key(|torrent| torrent.id);
    changed.dedup_by_key(|torrent| torrent.id);
    let ids: HashSet<TorrentId> = changed.iter().map(|torrent| torrent.id).collect();
    gone.retain(|id| !ids.contains(id));
    if node.tracker.mode() == Mode::Private && when == Registered::Again {
        return follow_private(node, changed, gone).await;
    }
    for id in gone {
        if let Some(hashes) = node.registry.hashes(id)
            && node.tracker.mode() == Mode::Public
        {
            for hash in hashes.iter() {
                node.tracker.forget_snatches(&hash);
            }
        }
        node.registry.apply(RegistryChange::TorrentGone(id));
    }
    for torrent in changed {
        if node.registry.canonical(torrent.id) != Some(torrent.info_hash) {
            let (info_hash, snatches) = (torrent.info_hash, torrent.snatches);
            node.tracker.restore_snatches(info_hash, snatches);
        }
        node.registry.apply(RegistryChange::Torrent(torrent));
    }
    Ok(())
}

async fn follow_private(
    node: &Node,
    mut changed: Vec<Torrent>,
    gone: Vec<TorrentId>,
) -> Result<(), StorageError> {
    let renumbered = renumbered(node, &changed).await?;
    for torrent in changed.extract_if(.., |torrent| renumbered.contains(&torrent.id)) {
        node.registry.apply(RegistryChange::Torrent(torrent));
    }
    let changed: Vec<(Torrent, Course)> = changed
        .into_iter()
        .map(|torrent| {
            let course = course(node, &torrent);
            (torrent, course)
        })
        .collect();
    let returning = changed
        .iter()
        .filter(|(_, course)| *course != Course::Stays);
    let returning: Vec<&Torrent> = returning.map(|(torrent, _)| torrent).collect();
    let leaving = leave(node, &changed, &gone);
    let ids: Vec<TorrentId> = returning.iter().map(|torrent| torrent.id).collect();
    let mut with_records = HashSet::new();
    if !ids.is_empty() {
        if !leaving.is_empty() {
            // What is still on its way to storage belongs to them, too.
            settle(node).await;
        }
        with_records.extend(node.storage.with_records(&ids).await?);
        if leaving.is_empty() && !with_records.is_empty() {
            settle(node).await;
        }
    }
    // From here on storage knows best: should an old hash come back, so does what is there then.
    for hash in &leaving {
        node.tracker.forget(hash);
    }
    let mut moved = HashSet::new();
    for (torrent, course) in changed {
        if let Course::Returns { is_same_swarm } = course {
            let (info_hash, snatches) = (torrent.info_hash, torrent.snatches);
            node.tracker.restore_snatches(info_hash, snatches);
            if with_records.contains(&torrent.id) {
                take_up(node, &torrent, is_same_swarm).await?;
                moved.insert(node.tracker.shard_of(&info_hash));
            }
        }
        node.registry.apply(RegistryChange::Torrent(torrent));
    }
    // That nobody is there is journaled at once, and not when the sweep comes by.
    sweep(node, moved);
    Ok(())
}

/// Waits until storage has what was queued before the call, if it takes it. What it does not have by then
/// it settles when it comes, against the rows of the same clients: only what this node shows of them is
/// older until they announce.
async fn settle(node: &Node) {
    let applied = node.journal.all_applied();
    if tokio::time::timeout(APPLY_PATIENCE, applied).await.is_err() {
        tracing::warn!(
            "storage does not take the journal: torrents that changed go on from what it has"
        );
    }
}

/// The new ids of torrents that got another one: their records have it too, which a torrent that was
/// deleted and uploaded again has none of. Swarms go on as they are.
async fn renumbered(node: &Node, changed: &[Torrent]) -> Result<HashSet<TorrentId>, StorageError> {
    let ids: HashSet<TorrentId> = changed.iter().map(|torrent| torrent.id).collect();
    let has_swarm_of_another = |torrent: &&Torrent| {
        let owner = node.registry.swarm_owner(&torrent.info_hash);
        before(node, torrent.id).is_none() && owner.is_some_and(|owner| !ids.contains(&owner))
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
    settle(node).await;
    let with_records = node.storage.with_records(&candidates).await?;
    Ok(with_records.into_iter().collect())
}

fn course(node: &Node, torrent: &Torrent) -> Course {
    let new = Hashes::of(torrent);
    let before = before(node, torrent.id);
    // Who announced by a hash that the torrent lost is not told from the others.
    let is_same_swarm = before.is_some_and(|(old, _)| old.iter().all(|it| new.contains(&it)));
    let is_where_it_was =
        before.is_some_and(|(old, is_registered)| is_registered && old.first == new.first);
    if is_same_swarm && is_where_it_was {
        Course::Stays
    } else {
        Course::Returns { is_same_swarm }
    }
}

/// The hashes that a torrent has, or had while it was registered, and whether it still is.
fn before(node: &Node, torrent: TorrentId) -> Option<(Hashes, bool)> {
    let registered = node.registry.hashes(torrent).map(|it| (it, true));
    registered.or_else(|| Some((node.registry.former_hashes(torrent)?, false)))
}

/// Takes torrents out of the registry that are gone or are to return: they are refused until they are whole again.
/// Returns the hashes whose swarms no longer belong to whom they did.
fn leave(node: &Node, changed: &[(Torrent, Course)], gone: &[TorrentId]) -> HashSet<InfoHash> {
    let mut leaving = HashSet::new();
    let mut out: HashSet<TorrentId> = gone.iter().copied().collect();
    for (torrent, course) in changed {
        let new = Hashes::of(torrent);
        let old = before(node, torrent.id);
        if *course != Course::Stays
            && let Some((old, is_registered)) = old
            && (is_registered || old.first != new.first)
        {
            leaving.insert(old.first);
            out.insert(torrent.id);
        }
        for hash in new.iter() {
            // The swarm of a torrent that is gone, or that is about to get another hash.
            if let Some(owner) = node.registry.swarm_owner(&hash)
                && owner != torrent.id
            {
                leaving.insert(hash);
                out.insert(owner);
            }
        }
    }
    let hashes = out.iter().filter_map(|id| node.registry.canonical(*id));
    let shards: HashSet<usize> = hashes.map(|hash| node.tracker.shard_of(&hash)).collect();
    // What their peers owe the journal goes there while it is known whose it is.
    sweep(node, shards);
    for id in out {
        node.registry.apply(RegistryChange::TorrentGone(id));
    }
    leaving
}

fn sweep(node: &Node, shards: HashSet<usize>) {
    let now = node.clock.now();
    for shard in shards {
        node.tracker.sweep(shard, now);
    }
}

/// Takes up what storage has of a torrent.
async fn take_up(node: &Node, torrent: &Torrent, is_same_swarm: bool) -> Result<(), StorageError> {
    let (histories, peers) = node.storage.records_of(torrent.id).await?;
    for row in &histories {
        let known = known_history(row);
        node.tracker.restore_history(torrent.info_hash, &known);
    }
    let now = node.clock.now();
    for row in &peers {
        let (info_hash, key, record) = (torrent.info_hash, &row.key, &row.record);
        if is_same_swarm {
            node.tracker.restore_peer(info_hash, key, record, now);
        } else {
            node.tracker.restore_account(info_hash, key, record, now);
        }
    }
    Ok(())
}
