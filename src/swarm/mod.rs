//! The swarms: who is there. Memory only: no I/O, no clock, no rule about who may take part.
//!
//! [`Swarms`] holds them in shards by info hash. A shard's lock is the only lock of the
//! announce path that a writer holds for longer than one look-up.

mod classes;
mod crowd;
mod distinct;
mod index;
mod member;
mod pieces;
mod private;
mod public;
mod records;
mod select;
mod table;

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use crate::base::addr::Endpoint;
use crate::base::ids::InfoHash;

use self::public::Way;

pub use classes::{Counts, Families, Role};
pub use member::{Before, ClientTag, LIFE_MAX};
pub use private::{Client, Family, Peer, PrivateSwarm, Request, Whereabouts};
pub use public::{Eligibility, Presence, PublicShard, PublicSwarm, TooManyPeers};
pub use records::{Account, History, Owed};
pub use select::{Selector, WANT_MAX};
pub use table::{Cursor, Key, Table, Visit};

/// Shards: enough that workers seldom meet in one, and that the sweep of one is short. A fuzzer,
/// which makes a tracker for each run and sweeps all of it, has few.
pub const SHARDS: usize = if cfg!(fuzzing) { 4 } else { 1024 };

/// Shards that are locked together to read from them: about as many reads as a core has under way.
const TOUCH_AT_ONCE: usize = 16;

/// The private swarms whose info hashes fall into one shard.
pub type PrivateShard = Table<PrivateSwarm>;

/// All swarms of one kind, in shards by info hash.
pub struct Swarms<S> {
    /// Each on a cache line of its own, so that workers don't contend for it.
    shards: Box<[CachePadded<Mutex<S>>]>,
}

// === impl Swarms ===

impl<S: Default> Default for Swarms<S> {
    fn default() -> Self {
        let shard = |_| CachePadded::new(Mutex::default());
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

    pub fn lock(&self, shard: usize) -> MutexGuard<'_, S> {
        self.shards[shard].lock()
    }
}

impl Swarms<PublicShard> {
    /// Reads some of the memory that announces of these torrents and peers will need. The reads of
    /// one announce wait for each other; those of several don't, so a batch is decided sooner when
    /// all of theirs were begun together.
    ///
    /// What is locked at the moment is left out.
    pub fn touch(&self, announces: &[(InfoHash, Endpoint)]) {
        for announces in announces.chunks(TOUCH_AT_ONCE) {
            // Locked before the first read, because taking a lock waits for all reads before it.
            let shards: [_; TOUCH_AT_ONCE] = std::array::from_fn(|at| {
                let (info_hash, endpoint) = announces.get(at)?;
                let key = Key::from(info_hash);
                let shard = self.shards[key.shard()].try_lock()?;
                Some((shard, key, *endpoint))
            });
            let shards = || shards.iter().flatten();
            let mut sum: usize = shards().map(|(shard, key, _)| shard.touch(key)).sum();
            std::hint::black_box(sum);
            let mut ways = shards().map(|(shard, key, endpoint)| shard.way_to(*key, *endpoint));
            let ways: [_; TOUCH_AT_ONCE] = std::array::from_fn(|_| ways.next().flatten());
            for read in Way::READS {
                sum += ways.iter().flatten().map(read).sum::<usize>();
                std::hint::black_box(sum);
            }
        }
    }
}
