//! Statistics over all swarms.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use parking_lot::MutexGuard;

use crate::base::ids::InfoHash;
use crate::change::SwarmCounts;
use crate::swarm::{Cursor, FamilyCounts, PeerCounts, SHARDS, Swarms, Visit};
use crate::tracker::{ByMode, Tracker, by_mode};

/// Swarms that are counted before the lock is released for a moment.
const COUNTED_AT_ONCE: usize = 256;

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
    /// Numbers of swarms, seeders and leechers.
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

/// Visits one item a swarm, until it pauses.
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
