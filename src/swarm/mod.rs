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
mod table;

use parking_lot::{Mutex, MutexGuard};

use crate::ids::InfoHash;

pub use classes::{Counts, Role};
pub use private::{Client, Family, Peer, PrivateSwarm, Request};
pub use public::{Before, ClientTag, Eligibility, PublicSwarm};
pub use records::{Account, History, Owed};
pub use select::{Selector, WANT_MAX};
pub use table::{Cursor, Key, Table, Visit};

/// Shards: enough that workers seldom meet in one, and that the sweep of one is short. A fuzzer,
/// which makes a tracker for each run and sweeps all of it, has few.
pub const SHARDS: usize = if cfg!(fuzzing) { 4 } else { 1024 };

/// The swarms whose info hashes fall into one shard.
pub type Shard<S> = Table<S>;

/// All swarms of one kind, by info hash.
pub struct Swarms<S> {
    shards: Box<[Padded<S>]>,
}

/// A cache line of its own, so that workers don't pull it from each other.
#[repr(align(64))]
struct Padded<S>(Mutex<Shard<S>>);

// === impl Swarms ===

impl<S> Default for Swarms<S> {
    fn default() -> Self {
        let shard = |_| Padded(Mutex::default());
        Self {
            shards: (0..SHARDS).map(shard).collect(),
        }
    }
}

impl<S> Swarms<S> {
    /// The number of the shard where a torrent's swarm is kept.
    pub fn shard_of(&self, info_hash: &InfoHash) -> usize {
        Key::from(info_hash).shard()
    }

    pub fn lock(&self, shard: usize) -> MutexGuard<'_, Shard<S>> {
        self.shards[shard].0.lock()
    }
}
