//! The memory of a shard's small swarms: one array, in which each swarm has a run.
//!
//! ```text
//! | run | run |  free  | run | free | run | run |  room to grow  |
//! ```
//!
//! A run is within one chunk of the array. It is taken from the shortest free run that is long
//! enough, or else from the end. Free runs are in a list for each length, linked through their
//! own memory. When too much is free, the shard packs the array, see [`super::shard`].

use crate::swarm::chunked_vec::ChunkedVec;

/// 12 bytes: room for an IPv4 peer, or for half of an IPv6 peer.
pub(super) type Unit = [u8; 12];

/// The most units that a run has.
pub(super) const UNITS_MAX: usize = 64;

/// Up to this many free units are not worth packing, unless all are free.
const FREE_MIN: usize = 16;

/// Units of a chunk.
const CHUNK: usize = ChunkedVec::<Unit>::CHUNK;

/// While there is only one chunk, it grows by half, plus this number of units.
const GROWTH_MIN: usize = 16;

/// The end of a list.
const NONE: u32 = u32::MAX;

/// Where a swarm's units are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    start: u32,
    len: u8,
}

/// Runs, and the free space between them.
#[derive(Debug)]
pub(super) struct Pool {
    units: ChunkedVec<Unit>,
    /// Where the room to grow begins.
    end: usize,
    /// The first free run of each length, from 1 on. Each names the next of its length.
    free: [u32; UNITS_MAX],
    /// The lengths that have a free run: bit 0 for a length of 1. A swarm that grows looks for a run with almost every
    /// peer, and looking at each list took a tenth of the time to join.
    free_lengths: u64,
    /// Units of all free runs.
    free_units: usize,
}

const _: () = assert!(UNITS_MAX <= u64::BITS as usize);

// === impl Run ===

impl Run {
    /// `start` is below 2^32: that many units are 48 GiB, in one of a thousand shards.
    fn new(start: usize, len: usize) -> Self {
        Self {
            start: start as u32,
            len: len as u8,
        }
    }

    pub fn len(self) -> usize {
        usize::from(self.len)
    }
}

// === impl Pool ===

impl Default for Pool {
    fn default() -> Self {
        Self {
            units: ChunkedVec::default(),
            end: 0,
            free: [NONE; UNITS_MAX],
            free_lengths: 0,
            free_units: 0,
        }
    }
}

impl Pool {
    /// Units of all runs that are in use.
    pub fn used(&self) -> usize {
        self.end - self.free_units
    }

    /// Whether enough is free that packing pays, given the number of swarms to look at.
    pub fn is_sparse(&self, swarms: usize) -> bool {
        self.free_units > FREE_MIN + self.end / 8 + swarms / 16
            || (self.free_units > 0 && self.used() == 0)
    }

    pub fn get(&self, run: Run) -> &[Unit] {
        &self.units.rest(run.start as usize)[..run.len()]
    }

    pub fn get_mut(&mut self, run: Run) -> &mut [Unit] {
        &mut self.units.rest_mut(run.start as usize)[..run.len()]
    }

    /// A run of `len` units, at most [`UNITS_MAX`], with arbitrary content.
    pub fn take(&mut self, len: usize) -> Run {
        let least = len.max(1);
        let long_enough = self.free_lengths >> (least - 1);
        if long_enough == 0 {
            return self.append(len);
        }
        let list = least - 1 + long_enough.trailing_zeros() as usize;
        let (start, found) = (self.free[list], list + 1);
        self.free[list] = self.next_of(start);
        if self.free[list] == NONE {
            self.free_lengths &= !(1 << list);
        }
        self.free_units -= found;
        self.give_back(Run::new(start as usize + len, found - len));
        Run::new(start as usize, len)
    }

    /// Takes back a run, which must not be used any more.
    pub fn give_back(&mut self, run: Run) {
        let Some(list) = run.len().checked_sub(1) else {
            return;
        };
        let next = std::mem::replace(&mut self.free[list], run.start);
        self.free_lengths |= 1 << list;
        self.get_mut(run)[0][..4].copy_from_slice(&next.to_le_bytes());
        self.free_units += run.len();
    }

    fn next_of(&self, start: u32) -> u32 {
        let unit = self.units.get(start as usize);
        unit.map_or(NONE, |[a, b, c, d, ..]| {
            u32::from_le_bytes([*a, *b, *c, *d])
        })
    }

    /// A run at the end of the used part.
    fn append(&mut self, len: usize) -> Run {
        let left = CHUNK - self.end % CHUNK;
        let skipped = if left < len { left } else { 0 };
        let start = self.end + skipped;
        self.end = start + len;
        if self.end > self.units.len() {
            let roomy = self.end + self.end / 2 + GROWTH_MIN;
            let is_one = roomy <= CHUNK;
            let full = self.end.next_multiple_of(CHUNK);
            self.units.resize(if is_one { roomy } else { full });
        }
        self.give_back(Run::new(start - skipped, skipped));
        Run::new(start, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Pool {
        /// Units of all runs, used or free.
        pub fn units(&self) -> usize {
            self.end
        }

        /// Runs that are in use and free ones make up all of it, without overlap.
        pub fn check(&self, used: impl IntoIterator<Item = Run>) {
            let mut is_taken = vec![false; self.end];
            let mut take = |run: Run| {
                let start = run.start as usize;
                for taken in &mut is_taken[start..start + run.len()] {
                    assert!(!*taken, "{run:?} overlaps another one");
                    *taken = true;
                }
            };
            used.into_iter()
                .filter(|run| run.len > 0)
                .for_each(&mut take);
            let mut free_units = 0;
            for len in 1..=UNITS_MAX {
                let mut start = self.free[len - 1];
                let is_noted = self.free_lengths & 1 << (len - 1) != 0;
                assert_eq!(is_noted, start != NONE, "length {len}");
                while start != NONE {
                    let len = len as u8;
                    take(Run { start, len });
                    free_units += usize::from(len);
                    start = self.next_of(start);
                }
            }
            assert_eq!(free_units, self.free_units);
            assert!(is_taken.iter().all(|&taken| taken), "units are lost");
        }
    }

    #[test]
    fn runs_are_apart_and_what_was_given_back_is_used_again() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut pool = Pool::default();
        let mut runs: Vec<(Run, u8)> = Vec::new();
        for round in 0..20_000_u32 {
            let mark = round as u8;
            if runs.len() < 300 || rng.bool() && runs.len() < 600 {
                let run = pool.take(rng.usize(..=UNITS_MAX));
                pool.get_mut(run).fill([mark; 12]);
                runs.push((run, mark));
            } else {
                let (run, mark) = runs.swap_remove(rng.usize(..runs.len()));
                assert!(pool.get(run).iter().all(|unit| *unit == [mark; 12]));
                pool.give_back(run);
            }
            if round % 61 == 0 {
                pool.check(runs.iter().map(|(run, _)| *run));
            }
        }
        // Up to 600 runs were in use at a time, on average half as long as the longest.
        assert!(pool.end < 600 * UNITS_MAX * 3 / 4, "{}", pool.end);
        assert!(pool.units.len() < pool.end + CHUNK);
        let used: usize = runs.iter().map(|(run, _)| run.len()).sum();
        assert_eq!(pool.used(), used);
        runs.drain(..).for_each(|(run, _)| pool.give_back(run));
        assert!(pool.is_sparse(runs.len()) && pool.used() == 0);
    }
}
