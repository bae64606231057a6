//! The census of the swarms, which is not taken again for each who asks.

use parking_lot::Mutex;

use crate::clock::Stopwatch;
use crate::tracker::{Census, Tracker};

/// A census is taken again after so many times as long as it took, so that it takes at most a
/// hundredth of one core, however often it is asked for.
const REST: u64 = 100;

/// The last census, and when it was taken.
#[derive(Default)]
pub struct Counted(Mutex<Option<Taken>>);

struct Taken {
    census: Census,
    since: Stopwatch,
    /// Nanoseconds.
    took: u64,
}

// === impl Counted ===

impl Counted {
    /// The census: a new one, or that of a moment ago if the tracker is large.
    pub fn census(&self, tracker: &Tracker) -> Census {
        let mut last = self.0.lock();
        if let Some(taken) = &*last
            && taken.since.elapsed() < taken.took.saturating_mul(REST)
        {
            return taken.census;
        }
        let watch = Stopwatch::start();
        let census = tracker.census();
        *last = Some(Taken {
            census,
            took: watch.elapsed(),
            since: Stopwatch::start(),
        });
        census
    }
}
