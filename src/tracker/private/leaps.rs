//! Leaps: when the Unix time was set ahead of the monotonic time while this node ran.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use smart_default::SmartDefault;

use crate::base::clock::{Now, Seconds};

/// Storage identifies seconds by their Unix time, and after a leap those before it would have other
/// numbers. So what was counted before a leap must not be reported again.
#[derive(SmartDefault)]
pub(super) struct Leaps {
    /// Unix time less monotonic time, in seconds; it never falls.
    #[default(AtomicI64::new(i64::MIN))]
    offset: AtomicI64,
    latest: AtomicU32,
}

impl Leaps {
    /// When the latest leap was noticed, by this or an earlier call; [`Seconds`] 0 if there was none.
    pub fn latest(&self, now: Now) -> Seconds {
        let offset = now.unix - i64::from(now.mono.0);
        // Read first: writing it would take it from all other threads, with each announce of a seeder.
        if offset > self.offset.load(Ordering::Relaxed) {
            let before = self.offset.fetch_max(offset, Ordering::Relaxed);
            if before != i64::MIN && before < offset {
                self.latest.fetch_max(now.mono.0, Ordering::Relaxed);
            }
        }
        Seconds(self.latest.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_is_noticed_once() {
        let leaps = Leaps::default();
        let now = |mono, unix| Now {
            mono: Seconds(mono),
            unix,
        };
        for (mono, unix, latest) in [
            (10, 1010, 0),
            (20, 1020, 0),
            (30, 4630, 30),
            (40, 4640, 30),
            // Read before the leap, by another thread.
            (29, 1029, 30),
        ] {
            assert_eq!(leaps.latest(now(mono, unix)), Seconds(latest), "{mono}");
        }
    }
}
