//! Random draws of places in a swarm, whose peers the caller hands out if they are eligible: uniform, without
//! replacement, independent for each request.

use crate::swarm::distinct::Distinct;

/// Ranges up to this size, or up to four times what is wanted, are shuffled; larger ones are sampled.
const SHUFFLE_MAX: usize = 1024;

/// The most peers that one selection may ask for: keeps every shuffled place within 16 bits.
pub const WANT_MAX: usize = 10_000;

/// Randomness and reusable memory for selections.
pub struct Selector {
    rng: fastrand::Rng,
    order: Vec<u16>,
    /// The places drawn already: a hash set with open addressing, whose length is a power of two.
    drawn: Vec<u32>,
    /// Places to offer next.
    places: Vec<u32>,
    /// The endpoints handed out, where one may come up twice.
    distinct: Distinct,
}

impl Selector {
    pub fn new(rng: fastrand::Rng) -> Self {
        Self {
            rng,
            order: Vec::with_capacity(SHUFFLE_MAX),
            drawn: Vec::new(),
            places: Vec::new(),
            distinct: Distinct::default(),
        }
    }

    /// An empty set of endpoints, with room for one selection; return it with [`Self::give_back`].
    pub fn take_distinct(&mut self, want: usize) -> Distinct {
        let mut distinct = std::mem::take(&mut self.distinct);
        distinct.clear(want.min(WANT_MAX));
        distinct
    }

    pub fn give_back(&mut self, distinct: Distinct) {
        self.distinct = distinct;
    }

    pub fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.rng
    }

    /// Offers random places of `0..size` to `take`, each at most once, until `want` of them were taken
    /// (`take` returned true) or none is left (rule W9).
    ///
    /// Of a large range at most `4 × want + 64` places are offered, so that the cost depends
    /// on `want` alone even where hardly any peer is eligible.
    pub fn select(&mut self, size: usize, want: usize, mut take: impl FnMut(usize) -> bool) {
        let want = want.min(WANT_MAX);
        if want == 0 {
            return;
        }
        if size <= want {
            (0..size).for_each(|place| {
                take(place);
            });
        } else if size <= SHUFFLE_MAX.max(4 * want) {
            self.shuffle(size, want, take);
        } else {
            self.sample(size, want, take);
        }
    }

    /// A Fisher-Yates shuffle that stops when enough places were taken.
    fn shuffle(&mut self, size: usize, mut want: usize, mut take: impl FnMut(usize) -> bool) {
        self.order.clear();
        self.order.extend(0..size as u16);
        let mut start = 0;
        while start < size && want > 0 {
            // All draws before the first offer, so that the cache misses of `take` overlap.
            let end = size.min(start + want);
            for next in start..end {
                let drawn = self.rng.u32(next as u32..size as u32);
                self.order.swap(next, drawn as usize);
            }
            want -= self.order[start..end]
                .iter()
                .filter(|&&place| take(usize::from(place)))
                .count();
            start = end;
        }
    }

    /// Random places without repetition; repetitions are rare in a range this large.
    fn sample(&mut self, size: usize, mut want: usize, mut take: impl FnMut(usize) -> bool) {
        let mut offers = (4 * want + 64).min(size / 2);
        let slots = (2 * offers).next_power_of_two();
        self.drawn.clear();
        self.drawn.resize(slots, u32::MAX);
        while offers > 0 && want > 0 {
            let number = want.min(offers);
            self.places.clear();
            while self.places.len() < number {
                let place = self.rng.u32(..size as u32);
                if self.mark(place) {
                    self.places.push(place);
                }
            }
            want -= self
                .places
                .iter()
                .filter(|&&place| take(place as usize))
                .count();
            offers -= number;
        }
    }

    /// Remembers a place; false if it was drawn before.
    fn mark(&mut self, place: u32) -> bool {
        let mask = self.drawn.len() - 1;
        let mut slot = (place.wrapping_mul(0x9e37_79b1) >> 7) as usize & mask;
        while self.drawn[slot] != u32::MAX {
            if self.drawn[slot] == place {
                return false;
            }
            slot = (slot + 1) & mask;
        }
        self.drawn[slot] = place;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(size: usize, want: usize, rounds: usize) -> Vec<u32> {
        let mut selector = Selector::new(fastrand::Rng::with_seed(1));
        let mut counts = vec![0; size];
        for _ in 0..rounds {
            let mut seen = std::collections::HashSet::new();
            selector.select(size, want, |place| {
                assert!(seen.insert(place), "{place} twice");
                counts[place] += 1;
                true
            });
            assert_eq!(seen.len(), want.min(size));
        }
        counts
    }

    #[test]
    fn selection_is_uniform_in_ranges_of_every_kind() {
        // 4000 draws of 50: each place is expected 4000 × 50 / size times.
        for size in [60, 1000, 1025, 5000] {
            let probability = 50.0 / size as f64;
            let expected = 4000.0 * probability;
            let sigma = (4000.0 * probability * (1.0 - probability)).sqrt();
            for count in draws(size, 50, 4000) {
                let off = (f64::from(count) - expected).abs();
                assert!(off <= 6.0 * sigma, "{size}: {count} instead of {expected}");
            }
        }
    }

    #[test]
    fn pairs_are_drawn_independently() {
        // Contiguous runs would give each place its fair share, and its neighbour with it.
        let mut selector = Selector::new(fastrand::Rng::with_seed(2));
        let mut together = 0;
        for _ in 0..4000 {
            let mut drawn = [false; 1000];
            selector.select(1000, 50, |place| {
                drawn[place] = true;
                true
            });
            together += (0..999)
                .filter(|&place| drawn[place] && drawn[place + 1])
                .count();
        }
        let expected = 4000.0 * 999.0 * (50.0 / 1000.0) * (49.0 / 999.0);
        assert!(
            (together as f64 - expected).abs() < 6.0 * expected.sqrt() * 1.5,
            "{together} of {expected}"
        );
    }

    #[test]
    fn places_that_are_not_taken_do_not_count() {
        let mut selector = Selector::new(fastrand::Rng::with_seed(3));
        let mut taken = Vec::new();
        selector.select(100, 10, |place| {
            let odd = place % 2 == 1;
            if odd {
                taken.push(place);
            }
            odd
        });
        assert_eq!(taken.len(), 10);
        let mut offered = 0;
        selector.select(1_000_000, 50, |_| {
            offered += 1;
            false
        });
        assert_eq!(offered, 4 * 50 + 64);
        selector.select(5, 0, |_| panic!("nothing was wanted"));
    }
}
