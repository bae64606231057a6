//! A sharded histogram of durations with fixed buckets.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::lanes::Lanes;

/// The upper bounds of the buckets in nanoseconds. Longer durations have a bucket of their own.
pub const BOUNDS: [u64; 22] = {
    let mut bounds = MICROSECONDS;
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] *= 1000;
        at += 1;
    }
    bounds
};

/// The bounds: 1-2-5 from a microsecond to ten seconds.
const MICROSECONDS: [u64; 22] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// Durations, cheap to add to from many threads.
#[derive(Default)]
pub struct Histogram {
    lanes: Lanes<Lane>,
}

#[derive(Default)]
struct Lane {
    buckets: [AtomicU64; BUCKETS],
    /// Nanoseconds.
    sum: AtomicU64,
}

/// The contents of a histogram at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The count of each bucket; the last is beyond all bounds.
    pub buckets: [u64; BUCKETS],
    /// Nanoseconds.
    pub sum: u64,
}

// === impl Histogram ===

impl Histogram {
    /// Adds one duration.
    pub fn observe(&self, nanoseconds: u64) {
        self.observe_each(nanoseconds, 1);
    }

    /// Adds `number` equal durations.
    pub fn observe_each(&self, nanoseconds: u64, number: u64) {
        let bucket = BOUNDS.partition_point(|&bound| bound < nanoseconds);
        let lane = self.lanes.own();
        lane.buckets[bucket].fetch_add(number, Ordering::Relaxed);
        let sum = nanoseconds.saturating_mul(number);
        lane.sum.fetch_add(sum, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot::default();
        for lane in self.lanes.iter() {
            for (sum, bucket) in all.buckets.iter_mut().zip(&lane.buckets) {
                *sum += bucket.load(Ordering::Relaxed);
            }
            all.sum = all.sum.wrapping_add(lane.sum.load(Ordering::Relaxed));
        }
        all
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_below_its_bound() {
        assert!(BOUNDS.is_sorted());
        for (bucket, bound) in BOUNDS.into_iter().enumerate() {
            let histogram = Histogram::default();
            histogram.observe(bound);
            histogram.observe_each(bound + 1, 3);
            let all = histogram.snapshot();
            assert_eq!((all.buckets[bucket], all.buckets[bucket + 1]), (1, 3));
            assert_eq!((all.count(), all.sum), (4, 4 * bound + 3));
        }
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_bucket() {
        let histogram = Histogram::default();
        histogram.observe(0);
        histogram.observe(u64::MAX / 2);
        let all = histogram.snapshot();
        assert_eq!((all.buckets[0], all.buckets[BUCKETS - 1]), (1, 1));
    }

    #[test]
    fn threads_observe_together() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| histogram.observe_each(1500, 10));
            }
        });
        let all = histogram.snapshot();
        assert_eq!((all.buckets[1], all.sum), (400, 600_000));
    }
}
