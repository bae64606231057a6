//! Lanes: what many threads write at once is kept once for each lane, on cache lines of its own, so that cores do not
//! take them from each other.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// The fewest and the most lanes. Twice as many as cores: a core may have a worker for each protocol.
const MIN: usize = if cfg!(fuzzing) { 1 } else { 16 };
const MAX: usize = if cfg!(fuzzing) { 1 } else { 256 };

/// A value for each lane.
#[derive(Debug)]
pub struct Lanes<T>(Box<[CachePadded<T>]>);

impl<T: Default> Default for Lanes<T> {
    fn default() -> Self {
        let values = std::iter::repeat_with(CachePadded::<T>::default);
        Self(values.take(number()).collect())
    }
}

impl<T> Lanes<T> {
    /// That of this thread. Other threads may have it, too, where there are more than lanes.
    pub fn own(&self) -> &T {
        &self.0[own() % self.0.len()]
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|lane| &**lane)
    }
}

/// How many lanes there are.
pub fn number() -> usize {
    static NUMBER: LazyLock<usize> = LazyLock::new(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (2 * cores).next_power_of_two().clamp(MIN, MAX)
    });
    *NUMBER
}

/// The number of this thread: they count from 0, in the order in which they first come here.
fn own() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    OWN.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_lane_and_others_have_another() {
        let lanes: Lanes<AtomicUsize> = Lanes::default();
        let count = || lanes.own().fetch_add(1, Ordering::Relaxed);
        assert_eq!((count(), count()), (0, 1));
        let own: *const AtomicUsize = lanes.own();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                count();
                assert!(std::ptr::eq(lanes.own(), lanes.own()));
            });
        });
        assert!(std::ptr::eq(own, lanes.own()));
        let sum: usize = lanes.iter().map(|lane| lane.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, 3);
    }
}
