//! Locks that count how often, and for how long, threads wait for them. A lock that is free costs what it costs
//! anyway.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use crate::base::clock::Stopwatch;

/// How often and for how long threads waited for locks of one kind.
#[derive(Debug, Default)]
pub struct LockWaits(CachePadded<Sums>);

#[derive(Debug, Default)]
struct Sums {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl LockWaits {
    /// Takes the lock; counts it if another thread has it.
    pub fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        match mutex.try_lock() {
            Some(guard) => guard,
            None => self.wait(mutex),
        }
    }

    #[cold]
    fn wait<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        let watch = Stopwatch::start();
        let guard = mutex.lock();
        let waited = watch.elapsed();
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.nanoseconds.fetch_add(waited, Ordering::Relaxed);
        guard
    }

    /// How often a lock was not free.
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// How long threads waited in all, in nanoseconds.
    pub fn nanoseconds(&self) -> u64 {
        self.0.nanoseconds.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_lock_that_is_not_free_counts() {
        let waits = LockWaits::default();
        let mutex = Mutex::new(0);
        for _ in 0..10 {
            *waits.lock(&mutex) += 1;
        }
        assert_eq!((waits.count(), waits.nanoseconds()), (0, 0));
        let held = waits.lock(&mutex);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| *waits.lock(&mutex));
            std::thread::sleep(Duration::from_millis(20));
            drop(held);
            assert_eq!(waiting.join().unwrap(), 10);
        });
        assert_eq!(waits.count(), 1);
        assert!(waits.nanoseconds() > 0);
    }
}
