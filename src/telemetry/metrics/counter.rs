//! A sharded counter.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// Lanes of a counter: threads that count at the same time seldom share one.
pub(super) const LANES: usize = 16;

/// A number that only grows, cheap to add to from many threads.
#[derive(Default)]
pub struct Counter {
    lanes: [Lane; LANES],
}

/// Padded to its own cache line against false sharing.
type Lane = CachePadded<AtomicU64>;

impl Counter {
    pub fn add(&self, number: u64) {
        self.lanes[lane()].fetch_add(number, Ordering::Relaxed);
    }

    pub fn increment(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        let lanes = self.lanes.iter();
        lanes.map(|lane| lane.load(Ordering::Relaxed)).sum()
    }
}

/// The lane of this thread.
pub(super) fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LANE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % LANES);
    }
    LANE.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_together() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| counter.add(25));
            }
        });
        assert_eq!(counter.get(), 1000);
    }
}
