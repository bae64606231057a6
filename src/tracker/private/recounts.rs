//! Numbers of peers that cache and storage may have wrong.
//!
//! A change carries the counters of its swarm as its node knows them. If two nodes change a swarm at once, neither's
//! counters have the other's peer, and the one that is written last stays until the next announce. The node that
//! learns so writes the counters once more, by a change of its own, which comes after the wrong one in its journal.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use crate::base::clock::{Now, Seconds};
use crate::base::hash::RandomState;
use crate::base::ids::InfoHash;
use crate::change::PeerChange;
use crate::swarm::SHARDS;

/// Seconds within which the counters of a change are in cache and storage, and other nodes know the change.
const ARRIVES: u32 = 10;

/// The swarms of each shard whose counters were journaled, or may be wrong.
pub(super) struct Recounts(Box<[Mutex<OfShard>]>);

#[derive(Default)]
struct OfShard {
    /// When this node last wrote counters of a swarm; entries older than [`ARRIVES`] are dropped by sweeps.
    written: HashMap<InfoHash, Seconds, RandomState>,
    due: HashSet<InfoHash, RandomState>,
}

impl Default for Recounts {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Recounts {
    /// This node writes the counters of a swarm, as they are now.
    pub fn note_written(&self, shard: usize, info_hash: InfoHash, now: Now) {
        self.0[shard].lock().written.insert(info_hash, now.mono);
    }

    /// Whether it did within the last [`ARRIVES`] seconds.
    pub fn is_written(&self, shard: usize, info_hash: &InfoHash, now: Now) -> bool {
        self.0[shard].lock().is_written(info_hash, now)
    }

    /// The counters of a swarm may be wrong.
    pub fn add(&self, shard: usize, info_hash: InfoHash) {
        self.0[shard].lock().due.insert(info_hash);
    }

    /// Another node's change gave the swarm other counters. They may be wrong if this node wrote its own without
    /// that change: lately, or at any time since the change, if that is late.
    pub fn on_followed(&self, shard: usize, info_hash: InfoHash, change: &PeerChange, now: Now) {
        let mut of_shard = self.0[shard].lock();
        let is_late = now.unix - change.record.last_announce > ARRIVES.into();
        if is_late || of_shard.is_written(&info_hash, now) {
            of_shard.due.insert(info_hash);
        }
    }

    /// The swarms whose counters are to be written again.
    pub fn take(&self, shard: usize, now: Now) -> HashSet<InfoHash, RandomState> {
        let mut of_shard = self.0[shard].lock();
        of_shard
            .written
            .retain(|_, at| now.mono.since(*at) <= ARRIVES);
        // After an upload it had every swarm.
        let len = of_shard.written.len();
        of_shard.written.shrink_to(2 * len);
        std::mem::take(&mut of_shard.due)
    }
}

impl OfShard {
    fn is_written(&self, info_hash: &InfoHash, now: Now) -> bool {
        let written = self.written.get(info_hash);
        written.is_some_and(|at| now.mono.since(*at) <= ARRIVES)
    }
}
