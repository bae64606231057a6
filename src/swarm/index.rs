//! From a peer's identity to its place in an array, for swarms too large to search through.

use std::hash::{BuildHasher, Hash};
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Arrays up to this length are searched from end to end and need no index.
pub const SEARCH_MAX: usize = 16;

/// Seeded anew by each process: strangers choose what is hashed.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The hash of a key, for [`Index`].
pub fn hash_of(key: impl Hash) -> u64 {
    HASHER.hash_one(key)
}

/// Places by the hash of a key. The keys themselves stay in the array.
#[derive(Debug, Default)]
pub struct Index {
    places: HashTable<u32>,
}

// === impl Index ===

impl Index {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn capacity(&self) -> usize {
        self.places.capacity()
    }

    /// The place for which `is_it` holds, among those with that hash.
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(usize) -> bool) -> Option<usize> {
        let found = self.places.find(hash, |&place| is_it(place as usize));
        found.map(|&place| place as usize)
    }

    /// Adds a place. `hash_at` tells the hash of any place that is in the index.
    pub fn insert(&mut self, hash: u64, place: usize, hash_at: impl Fn(usize) -> u64) {
        self.places
            .insert_unique(hash, place as u32, |&place| hash_at(place as usize));
    }

    /// What was at `from` is at `to` now.
    pub fn moved(&mut self, hash: u64, from: usize, to: usize) {
        if let Some(place) = self.places.find_mut(hash, |&place| place as usize == from) {
            *place = to as u32;
        }
    }

    pub fn remove(&mut self, hash: u64, place: usize) {
        if let Ok(entry) = self.places.find_entry(hash, |&it| it as usize == place) {
            entry.remove();
        }
    }
}
