//! A sharded counter.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::lanes::Lanes;

/// A number that only grows, cheap to add to from many threads.
#[derive(Default)]
pub struct Counter {
    lanes: Lanes<AtomicU64>,
}

impl Counter {
    pub fn add(&self, number: u64) {
        self.lanes.own().fetch_add(number, Ordering::Relaxed);
    }

    pub fn increment(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        let lanes = self.lanes.iter();
        lanes.map(|lane| lane.load(Ordering::Relaxed)).sum()
    }
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
