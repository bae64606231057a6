//! The endpoints that a reply has already: a small hash table, reused from reply to reply.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use crate::base::hash::RandomState;

/// Places of endpoints by their hash, with open addressing; half of the slots stay empty.
#[derive(Debug, Default)]
pub struct Distinct {
    slots: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

/// The lower bits of the fast variant are good, and clients, which choose endpoints, can't know its seed.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

impl Distinct {
    /// Empties the table and makes room for up to `max` endpoints.
    pub fn clear(&mut self, max: usize) {
        self.slots.clear();
        self.slots.resize((2 * max).next_power_of_two(), EMPTY);
    }

    /// Adds an endpoint to those in `list`, which holds endpoints of that length only; false if it is there already.
    pub fn add(&mut self, endpoint: &[u8], list: &mut Vec<u8>) -> bool {
        let mask = self.slots.len() - 1;
        let mut slot = HASHER.hash_one(endpoint) as usize & mask;
        while self.slots[slot] != EMPTY {
            let start = self.slots[slot] as usize * endpoint.len();
            if list.get(start..start + endpoint.len()) == Some(endpoint) {
                return false;
            }
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = (list.len() / endpoint.len()) as u32;
        list.extend_from_slice(endpoint);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_added_once() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut distinct = Distinct::default();
        for max in [0, 1, 50, 200] {
            distinct.clear(max);
            let (mut list, mut known) = (Vec::new(), std::collections::HashSet::new());
            for _ in 0..5 * max {
                let endpoint = [9, 9, 9, 9, 0, rng.u8(..)];
                if known.len() < max {
                    assert_eq!(distinct.add(&endpoint, &mut list), known.insert(endpoint));
                }
            }
            assert_eq!(list.len(), 6 * known.len());
        }
    }
}
