//! Swarms in the cache, and the journals of other nodes, which say how these change.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::base::clock::Now;
use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::base::thread::on_thread;
use crate::cache::{
    Cache, CacheError, Generation, Membership, NodeReport, Replayed, STOPPED, SharedPeer,
};
use crate::change::{Batch, Change, Member, packed};
use crate::node::Node;
use crate::node::load::readers;
use crate::node::shared::unreadable::UnreadableJournals;
use crate::tracker::{Mode, Tracker};

/// Torrents whose peers are read or written at once.
const TORRENTS_AT_ONCE: usize = 2000;

/// How many times users' sets that keep changing are written; the nodes that change them write them, too.
const SET_TRIES: u32 = 5;

/// Shards whose peers are held at once while they are written.
const SHARDS_AT_ONCE: usize = 16;

/// Batches read at once.
const BATCHES_AT_ONCE: u32 = 20;

/// How long a read waits for another node's next batch.
const WAIT: Duration = Duration::from_secs(1);

/// The pause after a read that found something: batches that come meanwhile are read together, so that many nodes that
/// write often don't wake this one as often for each of them.
const POOL: Duration = Duration::from_millis(10);

/// A read that found so many batches may have left some.
const POOLED_MAX: u64 = 4;

/// How often the list of nodes is read, and the pause after a failure.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Rounds that a journal is still followed after it went off the list.
const ROUNDS_AFTER_LEAVE: u32 = 60;

/// Rounds without a heartbeat after which a journal is not followed any more, until there is one.
const ROUNDS_SILENT: u32 = 600;

/// [`load`] at the start: the torrents of a private tracker are read by several threads, if the cache has readers for
/// that.
pub(super) async fn load_first(node: &Node, cache: &dyn Cache) -> Result<(), CacheError> {
    let torrents = Arc::new(node.registry.info_hashes());
    let readers = readers(torrents.len(), || cache.reader());
    if node.tracker.mode() == Mode::Public || readers.is_empty() {
        return load(node, cache).await;
    }
    let next = Arc::new(AtomicUsize::new(0));
    let work = readers.into_iter().map(|cache| {
        let (node, torrents, next) = (node.clone(), Arc::clone(&torrents), Arc::clone(&next));
        let work = move || async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(torrents) = torrents.chunks(TORRENTS_AT_ONCE).nth(number) else {
                    return Ok(());
                };
                adopt(&node, cache.peers(torrents).await?);
            }
        };
        async move { on_thread("loader", work).await.unwrap_or_else(has_ended) }
    });
    try_join_all(work).await.map(drop)
}

fn has_ended<T>(error: std::io::Error) -> Result<T, CacheError> {
    let text = format!("a thread that reads the cache has ended: {error}");
    Err(CacheError::Broken(text))
}

/// Adopts the peers of all torrents, but for those of which this node has newer records.
pub(super) async fn load(node: &Node, cache: &dyn Cache) -> Result<(), CacheError> {
    match node.tracker.mode() {
        Mode::Private => {
            let torrents = node.registry.info_hashes();
            for torrents in torrents.chunks(TORRENTS_AT_ONCE) {
                adopt(node, cache.peers(torrents).await?);
            }
        }
        Mode::Public => {
            let mut cursor = Some(0);
            while let Some(at) = cursor {
                let scan = cache.swarms(at).await?;
                cursor = scan.next;
                adopt(node, cache.peers(&scan.rows).await?);
            }
        }
    }
    Ok(())
}

fn adopt(node: &Node, swarms: Vec<(InfoHash, Vec<SharedPeer>)>) {
    let now = node.clock.now();
    for (info_hash, peers) in swarms {
        let torrent = node.registry.torrent(&info_hash);
        for peer in peers {
            match (peer, &torrent) {
                (SharedPeer::Guest { address, record }, _) => {
                    node.tracker.follow_guest(info_hash, address, &record, now);
                }
                (SharedPeer::Member(member), Some(_)) => {
                    node.tracker.follow_member(info_hash, &member, now);
                }
                // Of a torrent that is gone, or can't be used now.
                (SharedPeer::Member(_), None) => {}
            }
        }
    }
}

/// Applies the journals of all nodes, which may be newer than the peers that were loaded, and brings the
/// cache's peers up to date. `is_from_cache`: whether the peers were loaded from there. Returns the last batch of
/// each journal.
pub(super) async fn overlay(
    node: &Node,
    cache: &dyn Cache,
    applied: &HashMap<String, u64>,
    is_from_cache: bool,
) -> Result<HashMap<String, u64>, CacheError> {
    let mut names: HashSet<String> = applied.keys().cloned().collect();
    names.extend(cache.nodes().await?.into_iter().map(|(name, _)| name));
    let replayed: HashMap<String, Replayed> = cache.replayed().await?.into_iter().collect();
    let mut positions = HashMap::new();
    for name in names {
        let counted = applied.get(&name).copied().unwrap_or(0);
        let written = replayed.get(&name).map_or(0, |noted| noted.number);
        // The peers of noted batches are in the cache, and so here only if they were loaded from there.
        let mut after = if is_from_cache {
            written.min(counted)
        } else {
            0
        };
        while let Some(last) = overlay_next(node, cache, &name, after, counted).await? {
            after = last;
        }
        positions.insert(name, after.max(counted));
    }
    Ok(positions)
}

/// Applies the next batches of one journal. Returns the number of the last one; none at the end, and
/// where the journal can't be read: the peers of the cache have most of what follows, and one node must
/// not keep others from starting.
async fn overlay_next(
    node: &Node,
    cache: &dyn Cache,
    journal: &str,
    after: u64,
    counted: u64,
) -> Result<Option<u64>, CacheError> {
    let batches = match cache
        .kept(journal, after, BATCHES_AT_ONCE, Duration::ZERO)
        .await
    {
        Ok(batches) => batches,
        Err(CacheError::Broken(problem)) => {
            tracing::warn!(journal, problem, "a journal can't be read to its end");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    for batch in &batches {
        apply(node, batch, batch.number <= counted, node.clock.now());
    }
    cache.put_peers_of(&batches).await?;
    Ok(batches.last().map(|last| last.number))
}

/// Gives the cache all private peers of this node, except those of which it has a newer record;
/// these are adopted. Also the sets of their users, and the counters of all swarms. Public
/// swarms fill again by themselves. Returns the generation that has got them.
pub(super) async fn upload(node: &Node, cache: &dyn Cache) -> Result<Generation, CacheError> {
    // Emptying the cache from now on is noticed, also if that happened just before.
    let generation = cache.begin_epoch().await?;
    let shards: Vec<usize> = (0..Tracker::SHARDS).collect();
    for shards in shards.chunks(SHARDS_AT_ONCE) {
        upload_shards(node, cache, shards).await?;
        for &shard in shards {
            let counts = node.tracker.counts_to_write(shard, node.clock.now());
            cache.put_counts(&counts).await?;
        }
    }
    Ok(generation)
}

/// Gives the cache the peers of some shards and the sets of their users. A batch may have written newer sets meanwhile,
/// which these have overwritten. Batches write records first, so after the sets the records of the cache are looked at: if one
/// of them, or a peer here, says otherwise than the sets that were written, these are written again.
async fn upload_shards(node: &Node, cache: &dyn Cache, shards: &[usize]) -> Result<(), CacheError> {
    let mut written = HashSet::new();
    for round in 0..SET_TRIES {
        let now = node.clock.now();
        let mut swarms: Vec<_> = shards
            .iter()
            .flat_map(|shard| node.tracker.members(*shard, now))
            .collect();
        let mut news = memberships(node, &swarms);
        news.retain(|membership| !written.contains(membership));
        if round > 0 {
            let changed: HashSet<TorrentId> = news.iter().map(|it| it.torrent).collect();
            swarms.retain(|(info_hash, _)| {
                let torrent = node.registry.torrent(info_hash);
                torrent.is_some_and(|torrent| changed.contains(&torrent.id))
            });
        }
        if swarms.is_empty() {
            break;
        }
        cache.put_memberships(&news).await?;
        written.extend(news);
        // Bases must not be ahead of the batches that they came with.
        node.journal.all_durable().await;
        give(node, cache, &swarms).await?;
    }
    Ok(())
}

/// Where the torrents of these peers belong in the sets of their users: of several clients of one
/// user, the one that announced last decides.
fn memberships(node: &Node, swarms: &[(InfoHash, Vec<Member>)]) -> Vec<Membership> {
    let mut memberships = Vec::new();
    for (info_hash, members) in swarms {
        let Some(torrent) = node.registry.torrent(info_hash) else {
            continue;
        };
        let mut latest: HashMap<UserId, &Member> = HashMap::new();
        for member in members {
            let known = latest.entry(member.user).or_insert(member);
            if member.record.last_announce > known.record.last_announce {
                *known = member;
            }
        }
        memberships.extend(latest.into_iter().map(|(user, member)| {
            Membership::of(user, torrent.id, &member.record, &member.standing)
        }));
    }
    memberships
}

async fn give(
    node: &Node,
    cache: &dyn Cache,
    swarms: &[(InfoHash, Vec<Member>)],
) -> Result<(), CacheError> {
    for swarms in swarms.chunks(TORRENTS_AT_ONCE) {
        let torrents: Vec<InfoHash> = swarms.iter().map(|(info_hash, _)| *info_hash).collect();
        let theirs = cache.peers(&torrents).await?;
        cache.put_peers(&newer_ones(swarms, &theirs)).await?;
        adopt(node, theirs);
    }
    Ok(())
}

/// Those of our peers of which they have no record, or an older one.
fn newer_ones(
    ours: &[(InfoHash, Vec<Member>)],
    theirs: &[(InfoHash, Vec<SharedPeer>)],
) -> Vec<(InfoHash, Vec<SharedPeer>)> {
    let mut known = HashMap::new();
    for (info_hash, peers) in theirs {
        for peer in peers {
            if let SharedPeer::Member(member) = peer {
                known.insert((info_hash, member.user, member.peer_id), &member.record);
            }
        }
    }
    let is_ours = |info_hash, member: &Member| {
        let theirs = known.get(&(info_hash, member.user, member.peer_id));
        theirs.is_none_or(|theirs| member.record.age().is_newer_than(theirs.age()))
    };
    let mut newer = Vec::new();
    for (info_hash, members) in ours {
        let peers: Vec<SharedPeer> = members
            .iter()
            .filter(|member| is_ours(info_hash, member))
            .cloned()
            .map(SharedPeer::Member)
            .collect();
        if !peers.is_empty() {
            newer.push((*info_hash, peers));
        }
    }
    newer
}

/// Moves the journals of the cache up to the batches that storage has applied: the cache has their peers
/// now, and the next start sees that by these numbers. Returns whether there were any: other nodes get what these
/// batches had from the cache only.
pub(super) async fn catch_up(
    cache: &dyn Cache,
    applied: &HashMap<String, u64>,
) -> Result<bool, CacheError> {
    let generation = cache.ping().await?;
    let mut is_any = false;
    for (name, &applied) in applied {
        if cache.last_kept(name).await? < applied {
            let nothing = Batch::new(name.clone(), applied, Vec::new());
            cache.keep(generation, &[Arc::new(nothing)]).await?;
            cache.trim_journal(name, Some(applied)).await?;
            is_any = true;
        }
    }
    Ok(is_any)
}

/// A journal of the cache's list, as it is followed.
struct FollowedJournal {
    /// None once it has been silent for long.
    task: Option<AbortOnDrop>,
    /// The last heartbeat of its process; none while it is not on the list.
    sign: Option<String>,
    /// Rounds for which that has not changed.
    rounds: u32,
}

/// Follows every other journal that grows, until it is dropped. `joined` is notified when a node starts.
pub(super) async fn follow_all(
    node: Node,
    cache: Arc<dyn Cache>,
    positions: HashMap<String, u64>,
    joined: Arc<Notify>,
) {
    // Without the notes, ended journals are followed as well, for nothing.
    let replayed = cache.replayed().await.unwrap_or_default();
    let ended: HashSet<String> = replayed
        .into_iter()
        .filter(|(name, noted)| positions.get(name) >= Some(&noted.number))
        .map(|(name, _)| name)
        .collect();
    // Kept also of journals that left: what they had before they come back is not counted again.
    let positions = Arc::new(Mutex::new(positions));
    let unreadable = Arc::new(UnreadableJournals::default());
    let mut followed: HashMap<String, FollowedJournal> = HashMap::new();
    loop {
        if let Ok(nodes) = cache.nodes().await {
            let mut signs: HashMap<String, String> = nodes.into_iter().collect();
            signs.remove(node.journal.name());
            cache.pack_guests(read_packed(&signs));
            let behind = behind(&signs, &positions.lock());
            node.metrics
                .journals_behind
                .store(behind, Ordering::Relaxed);
            followed.retain(|name, journal| journal.look(signs.remove(name)));
            for (name, sign) in signs {
                let journal = FollowedJournal {
                    task: None,
                    sign: Some(sign),
                    rounds: if ended.contains(&name) {
                        ROUNDS_SILENT
                    } else {
                        0
                    },
                };
                followed.insert(name, journal);
            }
            for (name, journal) in &mut followed {
                journal.follow(|| {
                    let (positions, unreadable) = (Arc::clone(&positions), Arc::clone(&unreadable));
                    let cache = Arc::clone(&cache);
                    follow(node.clone(), cache, name.clone(), positions, unreadable)
                });
            }
        }
        // Without a notification, a node whose notice was lost is found at the next look.
        let _ = timeout(LOOK_PERIOD, joined.notified()).await;
    }
}

/// How many batches of other nodes have not been followed yet, by what these reported with their heartbeats.
fn behind(signs: &HashMap<String, String>, positions: &HashMap<String, u64>) -> u64 {
    let of_one = |(journal, sign): (&String, &String)| {
        let position = positions.get(journal).copied().unwrap_or(0);
        let sent = NodeReport::of(sign).sent.unwrap_or(0);
        sent.saturating_sub(position)
    };
    signs.iter().map(of_one).sum()
}

/// Whether all other nodes read public peers in packed form. Those that have stopped read nothing.
fn read_packed(signs: &HashMap<String, String>) -> bool {
    let reads = |sign: &String| NodeReport::of(sign).packed >= Some(packed::VERSION.into());
    signs.values().filter(|sign| *sign != STOPPED).all(reads)
}

impl FollowedJournal {
    /// Notes a heartbeat; returns false if the journal has been off the list for long.
    fn look(&mut self, sign: Option<String>) -> bool {
        if self.sign == sign {
            self.rounds = self.rounds.saturating_add(1);
        } else {
            (self.sign, self.rounds) = (sign, 0);
        }
        self.sign.is_some() || self.rounds < ROUNDS_AFTER_LEAVE
    }

    /// Follows it, unless its process has long been silent: each task takes a connection to the cache.
    fn follow<F: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce() -> F) {
        if self.rounds >= ROUNDS_SILENT {
            self.task = None;
        } else if self.task.as_ref().is_none_or(|task| task.0.is_finished()) {
            self.task = Some(AbortOnDrop(tokio::spawn(task())));
        }
    }
}

/// Follows the journal of one node; runs until cancelled.
async fn follow(
    node: Node,
    cache: Arc<dyn Cache>,
    name: String,
    positions: Arc<Mutex<HashMap<String, u64>>>,
    unreadable: Arc<UnreadableJournals>,
) {
    let mut after = positions.lock().get(&name).copied().unwrap_or(0);
    loop {
        match step(&node, &*cache, &name, after).await {
            Ok(next) => {
                let found = next - std::mem::replace(&mut after, next);
                positions.lock().insert(name.clone(), after);
                if (1..POOLED_MAX).contains(&found) {
                    tokio::time::sleep(POOL).await;
                }
            }
            Err(error) => {
                unreadable.log(&name, &error, node.clock.now().mono);
                tokio::time::sleep(LOOK_PERIOD).await;
            }
        }
    }
}

/// Applies the next batches of a node; returns the number of the last. If some were dropped before
/// they were read, because this node was paused or cut off, their changes are in the peers of the
/// cache.
async fn step(node: &Node, cache: &dyn Cache, name: &str, after: u64) -> Result<u64, CacheError> {
    let mut batches = cache.kept(name, after, BATCHES_AT_ONCE, WAIT).await?;
    let mut last = after;
    if batches.is_empty() {
        last = last.max(cache.last_kept(name).await?);
        if last == after {
            return Ok(after);
        }
        // One that came a moment ago is still there.
        batches = cache
            .kept(name, after, BATCHES_AT_ONCE, Duration::ZERO)
            .await?;
    }
    last = batches.last().map_or(last, |batch| batch.number);
    if batches.first().map(|first| first.number) != Some(after + 1) {
        tracing::warn!(
            node = name,
            "missed changes of another node; loading its peers again"
        );
        load(node, cache).await?;
    }
    let now = node.clock.now();
    for batch in &batches {
        apply(node, batch, false, now);
    }
    Ok(last)
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Applies one batch of another node.
fn apply(node: &Node, batch: &Batch, is_counted: bool, now: Now) {
    for change in &batch.changes {
        match change {
            // Also of a torrent that this node does not know yet: its notice may be on its way.
            Change::Peer(change) => node.tracker.follow_peer(change, is_counted, now),
            Change::Snatches { info_hash, count } if !is_counted => {
                node.tracker.follow_snatches(*info_hash, *count);
            }
            Change::Snatches { .. } => {}
            Change::Guest(guest) => {
                node.tracker
                    .follow_guest(guest.info_hash, guest.address, &guest.record, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_that_were_sent_and_not_followed_are_counted() {
        let sign = |sent| format!("host boot ns 1 2 3 sent={sent}");
        let signs: HashMap<String, String> = [
            ("a#1", sign(10)),
            ("b#1", sign(3)),
            ("c#1", sign(5)),
            ("earlier#1", "host boot ns 1 2 3".into()),
        ]
        .map(|(journal, sign)| (journal.to_owned(), sign))
        .into();
        let positions = [("a#1", 4), ("b#1", 9), ("earlier#1", 7)];
        let positions = positions.map(|(journal, last)| (journal.to_owned(), last));
        assert_eq!(behind(&signs, &positions.into()), 6 + 5);
    }

    #[test]
    fn public_peers_are_packed_once_every_running_node_reads_that() {
        let all = |signs: &[&str]| {
            let sign = |(number, sign): (usize, &&str)| (format!("n#{number}"), (*sign).to_owned());
            read_packed(&signs.iter().enumerate().map(sign).collect())
        };
        let (reads, earlier) = (
            "host boot ns 1 2 3 sent=1 packed=1",
            "host boot ns 1 2 3 sent=1",
        );
        assert!(all(&[]) && all(&[reads, reads, STOPPED]));
        assert!(all(&["host boot ns 1 2 3 packed=2"]), "of a later version");
        assert!(!all(&[reads, earlier]));
        assert!(!all(&["host boot ns 1 2 3"]) && !all(&["host boot ns 1 2 3 packed=0"]));
    }
}
