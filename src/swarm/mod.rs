//! The swarms: who is there. Memory only: no I/O, no clock, no rule about who may take part.
//!
//! [`Swarms`] holds them in shards by info hash. A shard's lock is the only lock of the
//! announce path that a writer holds for longer than one look-up.

mod classes;
mod index;
mod private;
mod public;
mod records;
mod select;

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};

use crate::ids::InfoHash;

pub use classes::{Counts, Role};
pub use private::{Client, Family, Peer, PrivateSwarm, Request};
pub use public::{Before, ClientTag, Eligibility, PublicSwarm};
pub use records::{Account, History, Owed};
pub use select::{Selector, WANT_MAX};

/// Shards: enough that workers seldom meet in one, and that the sweep of one is short.
pub const SHARDS: usize = 1024;

/// The swarms whose info hashes fall into one shard.
pub type Shard<S> = HashMap<InfoHash, S, RandomState>;

/// All swarms of one kind, by info hash.
pub struct Swarms<S> {
    shards: Box<[Mutex<Shard<S>>]>,
    /// Seeded anew by each process: strangers choose info hashes.
    hasher: RandomState,
}

// === impl Swarms ===

impl<S> Default for Swarms<S> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl<S> Swarms<S> {
    /// The number of the shard where a torrent's swarm is kept.
    pub fn shard_of(&self, info_hash: &InfoHash) -> usize {
        // The upper bits: the lower ones choose the place within the shard's map.
        (self.hasher.hash_one(info_hash) >> 48) as usize % SHARDS
    }

    pub fn lock(&self, shard: usize) -> MutexGuard<'_, Shard<S>> {
        self.shards[shard].lock()
    }
}
