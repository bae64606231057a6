//! The swarms: the peers of each torrent. Memory only: no I/O, no clock, no rule about who may take part.
//!
//! [`Swarms`] holds them in shards by info hash. A shard's lock is the only lock of the
//! announce path that a writer holds for longer than one look-up. A swarm is kept in one of two layouts,
//! small or large; both keep every byte that they can save, because there are millions of peers:
//!
//! ```text
//! Swarms ─▶ shard (a lock) ─▶ SwarmTable: slots in order of hash, each | hash 4 | info hash 20 | the swarm |
//!
//! public, PublicStore, 16 bytes in its slot:
//!   Small   one IPv4 peer in the slot itself, or a run of the shard's pool:
//!           | v4 | v4 | v4 |  free  |   v6    |   v6    |      a peer is 12 bytes (IPv4) or 24 (IPv6): `public/peer.rs`
//!   Large   a PeerSet for each family:
//!           | leechers | paused | seeders | the same without port |      Vec in order of class: `classes.rs`
//!           by_endpoint, by_client                                       Index: hash ─▶ place
//!
//! private, PrivateStore, 16 bytes in its slot:
//!   Small   one PeerBlock:
//!           | snatches 4 | entries 1 | lengths | tags | entries | slack |      an entry is 30 bytes and its numbers
//!   Large   PeerBlocks of 32 entries, in order of class as well:                     as varints: `private/packed.rs`
//!           | leechers: v4, both, v6, no port | paused: the same | seeders: the same | tombstones, histories |
//!           by_user                                                      Index: hash ─▶ place
//! ```

mod chunked_vec;
mod class_bounds;
mod classes;
mod distinct;
mod draw;
mod index;
mod private;
mod public;
mod records;
mod table;

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use crate::base::addr::Endpoint;
use crate::base::ids::InfoHash;
use crate::base::lock::LockWaits;

use self::public::PrefetchPath;

pub use classes::{FamilyCounts, PeerCounts, Role};
pub use draw::{Selector, WANT_MAX};
pub use private::{Family, PeerLocation, PeerState, PrivatePeer, PrivateSwarm, Request};
pub use public::{
    Before, ClientTag, Eligibility, LIFE_MAX, Presence, PublicShard, PublicSwarm, TooManyPeers,
};
pub use records::{Account, Owed, UserHistory};
pub use table::{Cursor, Key, SwarmTable, Visit};

/// Shards: enough that workers rarely contend for one, and that the sweep of one is short. Few for a fuzzer,
/// which creates and sweeps a tracker for each run.
pub const SHARDS: usize = if cfg!(fuzzing) { 4 } else { 1024 };

/// Shards that are locked together for a prefetch: about the number of reads that a core has in flight.
const PREFETCH_AT_ONCE: usize = 16;

/// The private swarms whose info hashes fall into one shard.
pub type PrivateShard = SwarmTable<PrivateSwarm>;

/// All swarms of one kind, in shards by info hash.
pub struct Swarms<S> {
    /// Each on a cache line of its own, so that workers don't contend for it.
    shards: Box<[CachePadded<Mutex<S>>]>,
    waits: LockWaits,
}

impl<S: Default> Default for Swarms<S> {
    fn default() -> Self {
        let shard = |_| CachePadded::new(Mutex::default());
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            waits: LockWaits::default(),
        }
    }
}

impl<S> Swarms<S> {
    /// The number of the shard where a torrent's swarm is kept.
    pub fn shard_of(&self, info_hash: &InfoHash) -> usize {
        Key::from(info_hash).shard()
    }

    pub fn lock(&self, shard: usize) -> MutexGuard<'_, S> {
        self.waits.lock(&self.shards[shard])
    }

    /// Waits for the shards.
    pub fn waits(&self) -> &LockWaits {
        &self.waits
    }
}

impl Swarms<PublicShard> {
    /// Prefetches some of the memory that announces of these torrents and peers will need. The reads of
    /// one announce depend on each other; those of several don't, so a batch is decided sooner when
    /// their reads overlap.
    ///
    /// Shards that are locked at the moment are left out.
    pub fn prefetch(&self, announces: &[(InfoHash, Endpoint)]) {
        for announces in announces.chunks(PREFETCH_AT_ONCE) {
            // Locked before the first read, because taking a lock waits for all reads before it.
            let shards: [_; PREFETCH_AT_ONCE] = std::array::from_fn(|at| {
                let (info_hash, endpoint) = announces.get(at)?;
                let key = Key::from(info_hash);
                let shard = self.shards[key.shard()].try_lock()?;
                Some((shard, key, *endpoint))
            });
            let shards = || shards.iter().flatten();
            let mut sum: usize = shards()
                .map(|(shard, key, _)| shard.prefetch_slots(key))
                .sum();
            std::hint::black_box(sum);
            let mut paths =
                shards().map(|(shard, key, endpoint)| shard.prefetch_path(*key, *endpoint));
            let paths: [_; PREFETCH_AT_ONCE] = std::array::from_fn(|_| paths.next().flatten());
            for read in PrefetchPath::PREFETCH_READS {
                sum += paths.iter().flatten().map(read).sum::<usize>();
                std::hint::black_box(sum);
            }
        }
    }
}
