//! A cache for expensive answers, whose lifetime depends on their cost.

use parking_lot::Mutex;

use crate::base::clock::Stopwatch;

/// An answer is kept for this many times the time that it took to compute, so that computing takes at
/// most a hundredth of one core, however many callers there are.
const LIFETIME_FACTOR: u64 = 100;

/// Keeps the last answer for a multiple of the time that it took.
pub struct CostLimitedCache<T>(Mutex<Option<Computed<T>>>);

struct Computed<T> {
    answer: T,
    since: Stopwatch,
    /// Nanoseconds.
    took: u64,
}

impl<T> Default for CostLimitedCache<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> CostLimitedCache<T> {
    /// The last answer while it is valid, or else a new one.
    pub fn get(&self, compute: impl FnOnce() -> T) -> T {
        let mut last = self.0.lock();
        if let Some(computed) = &*last
            && computed.since.elapsed() < computed.took.saturating_mul(LIFETIME_FACTOR)
        {
            return computed.answer.clone();
        }
        let watch = Stopwatch::start();
        let answer = compute();
        *last = Some(Computed {
            answer: answer.clone(),
            took: watch.elapsed(),
            since: Stopwatch::start(),
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_slow_answer_is_kept() {
        let cache = CostLimitedCache::default();
        let slow = || {
            std::thread::sleep(Duration::from_millis(50));
            1
        };
        assert_eq!(cache.get(slow), 1);
        assert_eq!(cache.get(|| 2), 1, "within five seconds");
    }
}
