//! How many connections each network has, over all workers.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::base::addr::canonical;
use crate::base::hash::RandomState;
use crate::base::limit::Network;

/// Number of keys. Networks that share a key share one limit.
const KEYS: usize = 1 << 15;

/// Connection counts by network, without a lock.
pub(super) struct Networks {
    counts: Box<[AtomicUsize]>,
    /// Keys that were above their share when a connection was last added. There are few: at most as many
    /// as there are shares can be above theirs at once.
    above: Mutex<Vec<u32>>,
    /// Seeded at random by each process, so that nobody can choose networks whose keys collide.
    hasher: RandomState,
}

impl Default for Networks {
    fn default() -> Self {
        Self {
            counts: (0..KEYS).map(|_| AtomicUsize::new(0)).collect(),
            above: Mutex::default(),
            hasher: RandomState::default(),
        }
    }
}

impl Networks {
    /// The key of the network (a /24 or /48) that an address belongs to.
    pub fn key(&self, ip: IpAddr) -> u32 {
        let hash = self.hasher.hash_one(Network::of(canonical(ip)));
        (hash as usize % KEYS) as u32
    }

    /// Counts one more. Returns whether that is more than `share`.
    pub fn add(&self, key: u32, share: usize) -> bool {
        let is_above = self.counts[key as usize].fetch_add(1, Ordering::Relaxed) >= share;
        if is_above {
            let mut above = self.above.lock();
            if !above.contains(&key) {
                above.push(key);
            }
        }
        is_above
    }

    pub fn remove(&self, key: u32) {
        self.counts[key as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// The networks that have more than `share`, largest first.
    pub fn above(&self, share: usize) -> Vec<u32> {
        let count = |key: u32| self.counts[key as usize].load(Ordering::Relaxed);
        let mut above = self.above.lock();
        above.retain(|&key| count(key) > share);
        above.sort_unstable_by_key(|&key| std::cmp::Reverse(count(key)));
        above.clone()
    }
}
