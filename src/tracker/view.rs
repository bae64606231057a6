//! Views of swarms and statistics, for people and programs, not for clients.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use parking_lot::MutexGuard;

use crate::base::clock::{Now, Seconds};
use crate::base::ids::{InfoHash, PeerId, UserId};
use crate::change::{Member, PeerRecord, SwarmCounts};
use crate::swarm::{Cursor, FamilyCounts, Key, PeerCounts, PrivatePeer, SHARDS, Swarms, Visit};
use crate::tracker::{ByMode, IdleTorrents, Tracker, by_mode, swarm_counts};

/// Swarms that are counted before the lock is released for a moment.
const COUNTED_AT_ONCE: usize = 256;

/// A peer that is in a swarm now.
#[derive(Clone, Debug)]
pub struct LivePeer {
    pub address: SocketAddr,
    pub is_seeder: bool,
    /// Unix time.
    pub last_announce: i64,
    /// Its user and what it reported; public trackers don't keep that.
    pub account: Option<(UserId, PeerId, PeerRecord)>,
}

/// Numbers of swarms and peers, over all swarms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwarmStats {
    pub swarms: u64,
    /// Peers of each family. A private peer that is there by both counts in each.
    pub v4: Roles,
    pub v6: Roles,
}

/// Numbers of peers, each in one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    pub seeders: u64,
    pub leechers: u64,
    /// Partial seeds (BEP 21); not among the leechers here.
    pub paused: u64,
}

// === impl Tracker ===

impl Tracker {
    /// The number of shards.
    pub const SHARDS: usize = SHARDS;

    /// The shard where a torrent's swarm is kept.
    pub fn shard_of(&self, info_hash: &InfoHash) -> usize {
        Key::from(info_hash).shard()
    }

    /// The counters of that (first) info hash's swarm; zeros if there is none.
    pub fn counts(&self, info_hash: &InfoHash) -> SwarmCounts {
        let counts = by_mode!(self, tracker => tracker.counts(info_hash));
        counts.map(swarm_counts).unwrap_or_default()
    }

    /// At most `max` peers of that (first) info hash's swarm, in no particular order.
    pub fn peers(&self, info_hash: &InfoHash, max: usize, now: Now) -> Vec<LivePeer> {
        by_mode!(self, tracker => tracker.peers(info_hash, max, now))
    }

    /// The counters of all swarms of one shard.
    pub fn swarm_counts(&self, shard: usize) -> Vec<(InfoHash, SwarmCounts)> {
        by_mode!(self, tracker => tracker.swarm_counts(shard))
    }

    /// The number of private records of that user over all torrents, those of peers that left included.
    pub fn records_of(&self, user: UserId) -> u32 {
        self.private().map_or(0, |tracker| tracker.records_of(user))
    }

    /// Registered torrents, and the most there may be.
    pub fn registered_torrents(&self) -> (usize, usize) {
        let common = self.common();
        let max = common.rules.load().max_torrents;
        (common.registry.torrent_count(), max)
    }

    /// Adds public torrents of one shard that are known to have been empty since before that moment.
    pub fn find_idle(&self, shard: usize, before: Seconds, found: &mut IdleTorrents) {
        if let Some(tracker) = self.public() {
            tracker.find_idle(shard, before, found);
        }
    }

    /// All private peers of one shard, tombstones too, to restore a cache that lost them.
    /// Those that owe the journal are left out, because their bases are ahead of what it has.
    pub fn members(&self, shard: usize, now: Now) -> Vec<(InfoHash, Vec<Member>)> {
        let is_settled = |client: &PrivatePeer| client.state.owed.is_none();
        self.private().map_or_else(Vec::new, |tracker| {
            tracker.members_if(shard, now, is_settled)
        })
    }

    /// All private peers of one shard, tombstones and those that owe the journal too.
    #[cfg(feature = "contract")]
    pub fn all_members(&self, shard: usize, now: Now) -> Vec<(InfoHash, Vec<Member>)> {
        self.private()
            .map_or_else(Vec::new, |tracker| tracker.members_if(shard, now, |_| true))
    }

    /// Numbers of swarms, seeders and leechers.
    #[allow(clippy::redundant_closure_for_method_calls)] // the type depends on the mode
    pub fn totals(&self) -> (usize, u64, u64) {
        let (mut number, mut seeders, mut leechers) = (0, 0, 0);
        let add = |counts: PeerCounts| {
            number += 1;
            seeders += u64::from(counts.seeders);
            leechers += u64::from(counts.leechers);
        };
        by_mode!(self, tracker => tracker.for_each_swarm(|swarm| swarm.counts(), add));
        (number, seeders, leechers)
    }

    /// Numbers of swarms, and of peers by family and role. It looks at every swarm, which takes
    /// some tens of nanoseconds for each.
    #[allow(clippy::redundant_closure_for_method_calls)] // the type depends on the mode
    pub fn swarm_stats(&self) -> SwarmStats {
        let mut stats = SwarmStats::default();
        let add = |families: FamilyCounts| stats.add(families);
        by_mode!(self, tracker => tracker.for_each_swarm(|swarm| swarm.families(), add));
        stats
    }

    /// The `max` swarms with the most peers, the largest first. Looks at all there are, one shard
    /// at a time.
    pub fn largest(&self, max: usize) -> Vec<(InfoHash, SwarmCounts)> {
        let peers = |counts: SwarmCounts| u64::from(counts.seeders) + u64::from(counts.leechers);
        let mut heap = BinaryHeap::with_capacity(max + 1);
        for shard in 0..Self::SHARDS {
            for (info_hash, counts) in self.swarm_counts(shard) {
                let entry = Reverse((peers(counts), info_hash, counts.seeders, counts.leechers));
                let is_large = heap.len() < max || heap.peek().is_some_and(|least| entry < *least);
                if peers(counts) > 0 && is_large {
                    heap.push(entry);
                    if heap.len() > max {
                        heap.pop();
                    }
                }
            }
        }
        heap.into_sorted_vec()
            .into_iter()
            .map(|Reverse((_, info_hash, seeders, leechers))| {
                (info_hash, SwarmCounts { seeders, leechers })
            })
            .collect()
    }
}

/// Visits one item of each swarm, until it pauses.
pub(super) type Visitor<'a, T> = &'a mut dyn FnMut(T) -> Visit;

/// Passes an item of each swarm to `see`, some swarms at a time. `walk` visits the swarms of one shard.
pub(super) fn walk_all<S: Default, T>(
    swarms: &Swarms<S>,
    walk: impl Fn(&mut S, Cursor, Visitor<T>) -> Option<Cursor>,
    mut see: impl FnMut(T),
) {
    for shard in 0..SHARDS {
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let mut budget = COUNTED_AT_ONCE;
            let mut swarms = swarms.lock(shard);
            next = walk(&mut swarms, from, &mut |item| {
                if budget == 0 {
                    return Visit::Pause;
                }
                budget -= 1;
                see(item);
                Visit::Keep
            });
            MutexGuard::unlock_fair(swarms);
        }
    }
}

// === impl SwarmStats ===

impl SwarmStats {
    fn add(&mut self, families: FamilyCounts) {
        self.swarms += 1;
        self.v4.add(families.v4);
        self.v6.add(families.v6);
    }
}

// === impl Roles ===

impl Roles {
    fn add(&mut self, counts: PeerCounts) {
        self.seeders += u64::from(counts.seeders);
        self.leechers += u64::from(counts.leechers - counts.paused);
        self.paused += u64::from(counts.paused);
    }
}
