//! From a peer's identity to its place in an array, for swarms too large to scan.
//!
//! One array of 32-bit slots with linear probing. A slot holds a place
//! and, in the bits that no place needs, some of the hash, so that a look-up mostly reads one
//! cache line of the index and the right element: two cache misses in a large swarm.

use std::hash::{BuildHasher, Hash};
use std::sync::LazyLock;

use crate::base::hash::QualityRandomState;
use crate::base::memory::lasting_len;

/// Arrays up to this length are scanned and need no index.
pub const SEARCH_MAX: usize = 16;

/// Seeded at random by each process, because clients choose what is hashed.
static HASHER: LazyLock<QualityRandomState> = LazyLock::new(QualityRandomState::default);

/// The hash of a key, for [`Index`]. Its upper bits must be good for consecutive keys, such as the ids of users:
/// foldhash's fast variant clusters these under one seed in twenty.
pub fn hash_of(key: impl Hash) -> u64 {
    HASHER.hash_one(key)
}

/// Places by the hash of a key. The keys themselves stay in the array.
#[derive(Debug, Default)]
pub struct Index {
    slots: Box<[u32]>,
    len: usize,
    /// Slots that are not empty: those in use, and tombstones.
    taken: usize,
}

/// What a slot holds below the hash: one of these, or a place plus [`PLACES`].
const EMPTY: u32 = 0;
/// A tombstone: a search goes on past it.
const TOMBSTONE: u32 = 1;
const PLACES: u32 = 2;

/// Three of four slots are taken before the array grows.
const FULL: (usize, usize) = (3, 4);

const SLOTS_MIN: usize = 32;

impl Index {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Slots, in use or not.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The place that `matches`, among those with that hash.
    pub fn find(&self, hash: u64, mut matches: impl FnMut(usize) -> bool) -> Option<usize> {
        let tag = self.tag(hash);
        let below = !self.tag(u64::MAX);
        let found = self.search(hash, |slot| {
            let place = slot & below;
            slot & !below == tag && place >= PLACES && matches((place - PLACES) as usize)
        });
        found.map(|at| (self.slots[at] & below) as usize - PLACES as usize)
    }

    /// Prefetches the slot where a look-up begins.
    pub fn prefetch(&self, hash: u64) -> usize {
        self.slots
            .get(self.home(hash))
            .map_or(0, |&slot| slot as usize)
    }

    /// Adds a place. `hash_at` returns the hash of any place that is in the index.
    pub fn insert(&mut self, hash: u64, place: usize, hash_at: impl Fn(usize) -> u64) {
        if (self.taken + 1) * FULL.1 > self.slots.len() * FULL.0 {
            self.rebuild(hash_at);
        }
        self.add(hash, place);
    }

    /// Moves an entry from place `from` to `to`.
    pub fn moved(&mut self, hash: u64, from: usize, to: usize) {
        if let Some(at) = self.slot_of(hash, from) {
            self.slots[at] = self.slot(hash, to);
        }
    }

    pub fn remove(&mut self, hash: u64, place: usize) {
        let Some(mut at) = self.slot_of(hash, place) else {
            return;
        };
        self.len -= 1;
        self.slots[at] = TOMBSTONE;
        // Every search ends at an empty slot, so tombstones before it are needless.
        if self.slots[self.next(at)] == EMPTY {
            while self.slots[at] == TOMBSTONE {
                self.slots[at] = EMPTY;
                self.taken -= 1;
                at = at.checked_sub(1).unwrap_or(self.slots.len() - 1);
            }
        }
    }

    fn rebuild(&mut self, hash_at: impl Fn(usize) -> u64) {
        let below = !self.tag(u64::MAX);
        let slots = vec![EMPTY; lasting_len::<u32>(((self.len + 1) * 2).max(SLOTS_MIN))];
        let old = std::mem::replace(&mut self.slots, slots.into());
        (self.len, self.taken) = (0, 0);
        for place in old
            .iter()
            .map(|slot| slot & below)
            .filter(|&place| place >= PLACES)
        {
            let place = (place - PLACES) as usize;
            self.add(hash_at(place), place);
        }
    }

    /// Adds a place where there is room for it.
    fn add(&mut self, hash: u64, place: usize) {
        let free = self.search(hash, |slot| slot <= TOMBSTONE);
        if let Some(at) = free {
            self.taken += usize::from(self.slots[at] == EMPTY);
            self.len += 1;
            self.slots[at] = self.slot(hash, place);
        }
    }

    fn slot_of(&self, hash: u64, place: usize) -> Option<usize> {
        let wanted = self.slot(hash, place);
        self.search(hash, |slot| slot == wanted)
    }

    /// The first slot that `matches`, from the home of that hash to the first empty one.
    fn search(&self, hash: u64, mut matches: impl FnMut(u32) -> bool) -> Option<usize> {
        let mut at = self.home(hash);
        loop {
            let slot = *self.slots.get(at)?;
            if matches(slot) {
                return Some(at);
            }
            if slot == EMPTY {
                return None;
            }
            at = self.next(at);
        }
    }

    /// Where a search begins, by the upper half of the hash.
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.slots.len() as u64) >> 32) as usize
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() {
            0
        } else {
            at + 1
        }
    }

    fn slot(&self, hash: u64, place: usize) -> u32 {
        self.tag(hash) | (place as u32 + PLACES)
    }

    /// The lower half of the hash, in the bits of a slot that no place needs.
    fn tag(&self, hash: u64) -> u32 {
        let bits = usize::BITS - (self.slots.len() + PLACES as usize).leading_zeros();
        (hash as u32).checked_shl(bits).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Index {
        fn check(&self) {
            let in_use = self.slots.iter().filter(|&&slot| slot > TOMBSTONE).count();
            let gone = self.slots.iter().filter(|&&slot| slot == TOMBSTONE).count();
            assert_eq!((in_use, in_use + gone), (self.len, self.taken));
            assert!(self.taken * FULL.1 <= self.slots.len() * FULL.0);
        }
    }

    #[test]
    fn an_index_finds_what_an_array_holds_while_it_changes() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut index, mut keys) = (Index::default(), Vec::new());
        for round in 0..60_000 {
            // It fills, empties, and fills again; some keys come several times.
            let grows = (round / 10_000) % 2 == 0;
            let key = rng.u32(..3000);
            if rng.u8(..10) < if grows { 7 } else { 3 } {
                keys.push(key);
                let place = keys.len() - 1;
                index.insert(hash_of(key), place, |place| hash_of(keys[place]));
            } else if !keys.is_empty() {
                let place = rng.usize(..keys.len());
                index.remove(hash_of(keys[place]), place);
                keys.swap_remove(place);
                if let Some(moved) = keys.get(place) {
                    index.moved(hash_of(moved), keys.len(), place);
                }
            }
            let found = index.find(hash_of(key), |place| keys[place] == key);
            assert_eq!(found.is_some(), keys.contains(&key));
            assert_eq!(index.len(), keys.len());
            if round % 97 == 0 {
                index.check();
            }
        }
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(index.find(hash_of(key), |it| it == place), Some(place));
        }
    }

    #[test]
    fn look_ups_stay_short_and_memory_small() {
        let mut index = Index::default();
        for place in 0..20_000_usize {
            index.insert(hash_of(place), place, hash_of);
        }
        let far = |place: usize| {
            let at = index.slot_of(hash_of(place), place).unwrap();
            (at + index.slots.len() - index.home(hash_of(place))) % index.slots.len()
        };
        assert!((0..20_000).map(far).sum::<usize>() < 20_000 * 3);
        assert!(index.capacity() <= 2 * 20_000 + SLOTS_MIN);
        let others = |index: &Index| {
            let looked_at = std::cell::Cell::new(0);
            for key in 20_000..40_000_usize {
                let looked = |_| {
                    looked_at.set(looked_at.get() + 1);
                    false
                };
                assert_eq!(index.find(hash_of(key), looked), None);
            }
            looked_at.get()
        };
        // A look-up compares keys only where that many bits of two hashes are the same.
        assert!(others(&index) < 20);
        (0..20_000).for_each(|place| index.remove(hash_of(place), place));
        assert_eq!((index.len, index.taken), (0, 0));
    }
}
