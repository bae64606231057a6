//! What costs something to find out, and is not found out again for each who asks.

use parking_lot::Mutex;

use crate::base::clock::Stopwatch;

/// It is found out again after so many times as long as that took, so that it takes at most a
/// hundredth of one core, however often it is asked for.
const REST: u64 = 100;

/// The last answer, and when it was found.
pub struct Rested<T>(Mutex<Option<Found<T>>>);

struct Found<T> {
    answer: T,
    since: Stopwatch,
    /// Nanoseconds.
    took: u64,
}

// === impl Rested ===

impl<T> Default for Rested<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Rested<T> {
    /// A new answer, or that of a moment ago if it took long.
    pub fn get(&self, find: impl FnOnce() -> T) -> T {
        let mut last = self.0.lock();
        if let Some(found) = &*last
            && found.since.elapsed() < found.took.saturating_mul(REST)
        {
            return found.answer.clone();
        }
        let watch = Stopwatch::start();
        let answer = find();
        *last = Some(Found {
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
    fn what_took_long_is_not_found_out_again_at_once() {
        let rested = Rested::default();
        let slow = || {
            std::thread::sleep(Duration::from_millis(50));
            1
        };
        assert_eq!(rested.get(slow), 1);
        assert_eq!(rested.get(|| 2), 1, "within five seconds");
    }
}
