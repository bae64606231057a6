//! Recently completed downloads: a client that announces by both address families reports
//! each twice (rule W5).

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::clock::Seconds;
use crate::base::hash::RandomState;
use crate::base::ids::{InfoHash, PeerId};
use crate::swarm::Family;

/// Completions that are remembered, in rows; a new one replaces the oldest of
/// its row. 256 KiB.
const ROWS: usize = if cfg!(fuzzing) { 1 << 4 } else { 1 << 13 };
const ROW_LEN: usize = 4;

/// Seconds between the announces of one completion by the two families, at most: a client tries again
/// if its first announce gets no answer.
const PAIR_SECONDS: u32 = 300;

/// The latest completions, of all public torrents.
pub(super) struct Completions {
    /// The upper half of the hash, then a bit for the family, then the moment in 31 bits.
    rows: Box<[[AtomicU64; ROW_LEN]]>,
    /// Seeded at random by each process, so that clients can't choose what they evict.
    hasher: RandomState,
}

const IPV6: u64 = 1 << 31;

impl Default for Completions {
    fn default() -> Self {
        Self {
            rows: (0..ROWS).map(|_| Default::default()).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl Completions {
    /// Whether this client's completion of the torrent was counted recently by an announce of the
    /// other family.
    pub fn is_known_by_other_family(
        &self,
        info_hash: &InfoHash,
        peer_id: &PeerId,
        family: Family,
        now: Seconds,
    ) -> bool {
        let Some((row, new)) = self.entry(info_hash, peer_id, family, now) else {
            return false;
        };
        row.iter().any(|place| {
            let old = place.load(Ordering::Relaxed);
            is_same(old, new) && (old ^ new) & IPV6 != 0 && age_of(old, new) <= PAIR_SECONDS
        })
    }

    /// Remembers that the completion was counted, as reported by an announce of that family.
    pub fn remember(&self, info_hash: &InfoHash, peer_id: &PeerId, family: Family, now: Seconds) {
        let Some((row, new)) = self.entry(info_hash, peer_id, family, now) else {
            return;
        };
        // Two workers at once may lose a completion: then the other family's is counted again.
        let place = row.iter().max_by_key(|place| {
            let old = place.load(Ordering::Relaxed);
            (is_same(old, new), age_of(old, new))
        });
        place.unwrap_or(&row[0]).store(new, Ordering::Relaxed);
    }

    /// The row and the entry of a completion; none for a peer id of zeros.
    fn entry(
        &self,
        info_hash: &InfoHash,
        peer_id: &PeerId,
        family: Family,
        now: Seconds,
    ) -> Option<(&[AtomicU64; ROW_LEN], u64)> {
        if peer_id.0 == [0; 20] {
            return None;
        }
        let hash = self.hasher.hash_one((info_hash.0, peer_id.0));
        let family = if family == Family::V6 { IPV6 } else { 0 };
        let new = (hash & !u64::from(u32::MAX)) | family | (u64::from(now.0) & (IPV6 - 1));
        Some((&self.rows[hash as usize % ROWS], new))
    }
}

/// Whether two entries are of the same client and torrent.
fn is_same(old: u64, new: u64) -> bool {
    old >> 32 == new >> 32
}

/// Seconds from one entry to the other.
fn age_of(old: u64, new: u64) -> u32 {
    (new as u32).wrapping_sub(old as u32) & (IPV6 as u32 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_other_family_of_the_same_client_is_known_and_not_for_long() {
        let known = |first: (u8, u8, Family), second: (u8, u8, Family), after: u32| {
            let completions = Completions::default();
            let ids = |torrent, client| (InfoHash([torrent; 20]), PeerId([client; 20]));
            let is_known = |(torrent, client, family): (u8, u8, Family), now: Seconds| {
                let (info_hash, peer_id) = ids(torrent, client);
                completions.is_known_by_other_family(&info_hash, &peer_id, family, now)
            };
            let now = Seconds::START.plus(1000);
            assert!(!is_known(second, now), "not before it is counted");
            let (info_hash, peer_id) = ids(first.0, first.1);
            completions.remember(&info_hash, &peer_id, first.2, now);
            is_known(second, now.plus(after))
        };
        assert!(known((1, 1, Family::V4), (1, 1, Family::V6), 0));
        assert!(known((1, 1, Family::V6), (1, 1, Family::V4), PAIR_SECONDS));
        assert!(!known(
            (1, 1, Family::V6),
            (1, 1, Family::V4),
            PAIR_SECONDS + 1
        ));
        assert!(!known((1, 1, Family::V4), (1, 1, Family::V4), 0));
        assert!(!known((1, 1, Family::V4), (1, 2, Family::V6), 0));
        assert!(!known((1, 1, Family::V4), (2, 1, Family::V6), 0));
        assert!(!known((1, 0, Family::V4), (1, 0, Family::V6), 0));
    }
}
