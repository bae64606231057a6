//! Public torrents without peers, whose rows are removed first when room is needed.

use std::collections::BinaryHeap;

use parking_lot::MutexGuard;

use crate::base::clock::Seconds;
use crate::base::ids::InfoHash;
use crate::swarm::{Cursor, Visit};
use crate::tracker::public::PublicTracker;

/// Swarms looked at before the lock is released for a moment.
const AT_ONCE: usize = 1024;

/// From this number of snatches on, only the idle time decides which torrent is removed first.
const MANY_SNATCHES: u32 = 4;

/// A registered torrent without peers. Ordered by what is removed first: few snatches, then
/// the longest time without peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdleTorrent {
    /// Snatches up to [`MANY_SNATCHES`].
    rank: u32,
    since: Seconds,
    pub info_hash: InfoHash,
    pub snatches: u32,
}

/// The torrents to remove first, up to a number of them.
#[derive(Debug, Default)]
pub struct IdleTorrents {
    most: usize,
    /// The one to remove last is on top.
    heap: BinaryHeap<IdleTorrent>,
}

// === impl IdleTorrents ===

impl IdleTorrents {
    /// Empty, with room for `most` torrents.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            heap: BinaryHeap::new(),
        }
    }

    pub fn into_vec(self) -> Vec<IdleTorrent> {
        self.heap.into_sorted_vec()
    }

    fn offer(&mut self, torrent: IdleTorrent) {
        if self.heap.len() < self.most {
            self.heap.push(torrent);
        } else if self.heap.peek().is_some_and(|last| torrent < *last) {
            self.heap.pop();
            self.heap.push(torrent);
        }
    }
}

// === impl PublicTracker ===

impl PublicTracker {
    pub fn find_idle(&self, shard: usize, before: Seconds, found: &mut IdleTorrents) {
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let mut budget = AT_ONCE;
            let mut swarms = self.swarms.lock(shard);
            next = swarms.walk(from, |info_hash, swarm| {
                if budget == 0 {
                    return Visit::Pause;
                }
                budget -= 1;
                let snatches = swarm.snatches();
                let since = swarm.empty_since().filter(|since| *since < before);
                if let (Some(since), 1..) = (since, snatches) {
                    found.offer(IdleTorrent {
                        rank: snatches.min(MANY_SNATCHES),
                        since,
                        info_hash: *info_hash,
                        snatches,
                    });
                }
                Visit::Keep
            });
            MutexGuard::unlock_fair(swarms);
        }
    }
}
