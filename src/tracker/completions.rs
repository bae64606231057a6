//! Downloads that completed a moment ago: a client that announces by both address families tells of
//! each twice (rule W5).

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;

use crate::clock::Seconds;
use crate::ids::{InfoHash, PeerId};
use crate::swarm::Family;

/// Completions that are remembered, some side by side; a new one takes the place of the oldest of
/// these. 256 KiB.
const ROWS: usize = if cfg!(fuzzing) { 1 << 4 } else { 1 << 13 };
const ROW_LEN: usize = 4;

/// Seconds between the announces of one completion by the two families, at most: a client tries again
/// if its first announce gets no answer.
const APART_MAX: u32 = 300;

/// The latest completions, of all public torrents.
pub(super) struct Completions {
    /// The upper half of the hash, then a bit for the family, then the moment in 31 bits.
    rows: Box<[[AtomicU64; ROW_LEN]]>,
    /// Seeded anew by each process, so that nobody can choose whom to push out.
    hasher: RandomState,
}

const IPV6: u64 = 1 << 31;

// === impl Completions ===

impl Default for Completions {
    fn default() -> Self {
        Self {
            rows: (0..ROWS).map(|_| Default::default()).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl Completions {
    /// Remembers that this client completed the torrent, as told by an announce of that family. True if
    /// it told so by the other family a moment ago.
    pub fn is_known_by_other_family(
        &self,
        info_hash: &InfoHash,
        peer_id: &PeerId,
        family: Family,
        now: Seconds,
    ) -> bool {
        if peer_id.0 == [0; 20] {
            return false; // it names nobody
        }
        let hash = self.hasher.hash_one((info_hash.0, peer_id.0));
        let family = if family == Family::V6 { IPV6 } else { 0 };
        let new = (hash & !u64::from(u32::MAX)) | family | (u64::from(now.0) & (IPV6 - 1));
        let row = &self.rows[hash as usize % ROWS];
        let age_of = |old: u64| (new as u32).wrapping_sub(old as u32) & (IPV6 as u32 - 1);
        let is_same = |old: u64| old >> 32 == new >> 32;
        // Two workers at once may forget a completion: it is then counted twice, as ever.
        let place = row
            .iter()
            .max_by_key(|place| {
                let old = place.load(Ordering::Relaxed);
                (is_same(old), age_of(old))
            })
            .unwrap_or(&row[0]);
        let old = place.swap(new, Ordering::Relaxed);
        is_same(old) && (old & IPV6) != family && age_of(old) <= APART_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_other_family_of_the_same_client_is_known_and_not_for_long() {
        let known = |first: (u8, u8, Family), second: (u8, u8, Family), after: u32| {
            let completions = Completions::default();
            let note = |(torrent, client, family): (u8, u8, Family), now: Seconds| {
                let (info_hash, peer_id) = (InfoHash([torrent; 20]), PeerId([client; 20]));
                completions.is_known_by_other_family(&info_hash, &peer_id, family, now)
            };
            let now = Seconds::START.plus(1000);
            assert!(!note(first, now));
            note(second, now.plus(after))
        };
        assert!(known((1, 1, Family::V4), (1, 1, Family::V6), 0));
        assert!(known((1, 1, Family::V6), (1, 1, Family::V4), APART_MAX));
        assert!(!known(
            (1, 1, Family::V6),
            (1, 1, Family::V4),
            APART_MAX + 1
        ));
        assert!(!known((1, 1, Family::V4), (1, 1, Family::V4), 0));
        assert!(!known((1, 1, Family::V4), (1, 2, Family::V6), 0));
        assert!(!known((1, 1, Family::V4), (2, 1, Family::V6), 0));
        assert!(!known((1, 0, Family::V4), (1, 0, Family::V6), 0));
    }
}
