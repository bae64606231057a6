//! Public torrents that nobody uses: those whose rows may give way to others.

use std::collections::BinaryHeap;

use parking_lot::MutexGuard;

use crate::base::clock::Seconds;
use crate::base::ids::InfoHash;
use crate::swarm::{Cursor, Visit};
use crate::tracker::{Mode, Tracker};

/// Swarms looked at before the lock is given to others.
const AT_ONCE: usize = 1024;

/// From so many snatches on, torrents give way by the time that nobody was there alone.
const MANY_SNATCHES: u32 = 4;

/// A registered torrent without peers. Those that give way first are the smaller ones: few snatches, then
/// the longest time without anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdleTorrent {
    /// Snatches up to [`MANY_SNATCHES`].
    rank: u32,
    since: Seconds,
    pub info_hash: InfoHash,
    pub snatches: u32,
}

/// The torrents that give way first, up to a number of them.
#[derive(Debug, Default)]
pub struct IdleTorrents {
    most: usize,
    /// The one that gives way last is on top.
    heap: BinaryHeap<IdleTorrent>,
}

// === impl IdleTorrents ===

impl IdleTorrents {
    /// None yet, and at most so many.
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

// === impl Tracker ===

impl Tracker {
    /// Registered torrents, and those that there may be.
    pub fn registered_torrents(&self) -> (usize, usize) {
        (
            self.registry.torrent_count(),
            self.rules.load().max_torrents,
        )
    }

    /// [`Rules::forget_torrents_after`](crate::tracker::Rules) as it is now.
    pub fn forget_torrents_after(&self) -> u32 {
        self.rules.load().forget_torrents_after
    }

    /// Adds public torrents of one shard that are known to be empty since before that moment.
    pub fn find_idle(&self, shard: usize, before: Seconds, found: &mut IdleTorrents) {
        if self.mode == Mode::Private {
            return;
        }
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let mut budget = AT_ONCE;
            let mut swarms = self.public.lock(shard);
            next = swarms.walk(from, |info_hash, swarm| {
                if budget == 0 {
                    return Visit::Pause;
                }
                budget -= 1;
                let snatches = swarm.downloaded();
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
