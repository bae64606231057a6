//! The one place that reads a clock. Everything else takes [`Now`] as an argument.

use std::sync::atomic::{AtomicI64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// A moment on the monotonic clock, in whole seconds.
///
/// The process starts at [`Seconds::START`] and not at 0, so that moments before
/// the start (a peer's last announce to the process before this one) have a value too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seconds(pub u32);

/// The present, as both clocks tell it.
///
/// Expiry, speeds and seed time use `mono`, which no step of the wall clock can
/// change (rules A7, W10); `unix` is what is shown and kept across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub mono: Seconds,
    /// Seconds since 1970 by the wall clock.
    pub unix: i64,
}

/// The source of [`Now`].
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Whole seconds of the system's monotonic clock.
    started: i64,
    /// Unix time less the monotonic time of this clock. Read once, because the seconds of both
    /// begin at different moments: a time that is converted back and forth must stay the same.
    offset: &'static AtomicI64,
    /// Where it reads the time, if not from the system.
    #[cfg(feature = "contract")]
    source: Option<&'static dyn TimeSource>,
}

/// A time of its own for a clock, as tests have it (feature `contract`).
#[cfg(feature = "contract")]
pub trait TimeSource: std::fmt::Debug + Sync {
    /// Whole seconds of the monotonic clock, which began at any moment, and of Unix time.
    fn read(&self) -> (i64, i64);
}

/// Measures how long something takes, by the monotonic clock: reading it costs some 25 ns.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    /// Nanoseconds since some moment.
    started: u64,
}

/// Seconds by which the wall clock may differ from what is expected before it has been set.
const STEP: u64 = 2;

// === impl Seconds ===

impl Seconds {
    /// When the process started: 34 years after the zero of this scale.
    pub const START: Self = Self(1 << 30);

    /// Seconds from `earlier` to `self`; 0 if `earlier` is later.
    pub fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `seconds` after this one.
    pub fn plus(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

// === impl Now ===

impl Now {
    /// The wall-clock time of a moment on the monotonic clock.
    pub fn to_unix(self, moment: Seconds) -> i64 {
        self.unix - (i64::from(self.mono.0) - i64::from(moment.0))
    }

    /// The monotonic moment of a wall-clock time; one in the future becomes now.
    pub fn to_mono(self, unix: i64) -> Seconds {
        let ago = self.unix.saturating_sub(unix).max(0);
        let mono = i64::from(self.mono.0).saturating_sub(ago).max(0);
        Seconds(u32::try_from(mono).unwrap_or(0))
    }
}

// === impl Stopwatch ===

impl Stopwatch {
    pub fn start() -> Self {
        Self {
            started: nanoseconds(),
        }
    }

    /// Nanoseconds since the start.
    pub fn elapsed(self) -> u64 {
        nanoseconds().saturating_sub(self.started)
    }
}

fn nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64).saturating_mul(1_000_000_000) + time.tv_nsec as u64
}

/// Whole seconds of both clocks of the system. The coarse ones, which go by ticks of some
/// milliseconds: seconds are asked for, and twice for every announce.
fn system_time() -> (i64, i64) {
    let mono = clock_gettime(ClockId::MonotonicCoarse).tv_sec;
    (mono, clock_gettime(ClockId::RealtimeCoarse).tv_sec)
}

// === impl Clock ===

impl Clock {
    /// A clock that starts now. Its few bytes are never given back.
    pub fn start() -> Self {
        let (mono, unix) = system_time();
        let offset = unix - i64::from(Seconds::START.0);
        Self {
            started: mono,
            offset: Box::leak(Box::new(AtomicI64::new(offset))),
            #[cfg(feature = "contract")]
            source: None,
        }
    }

    /// A clock that starts now and goes by `source`.
    #[cfg(feature = "contract")]
    pub fn start_by(source: &'static dyn TimeSource) -> Self {
        let (started, unix) = source.read();
        let offset = unix - i64::from(Seconds::START.0);
        Self {
            started,
            offset: Box::leak(Box::new(AtomicI64::new(offset))),
            source: Some(source),
        }
    }

    /// The present by both clocks.
    pub fn now(&self) -> Now {
        #[cfg(not(feature = "contract"))]
        let (mono, wall) = system_time();
        #[cfg(feature = "contract")]
        let (mono, wall) = self.source.map_or_else(system_time, TimeSource::read);
        let elapsed = mono - self.started;
        let mono = Seconds::START.plus(u32::try_from(elapsed).unwrap_or(u32::MAX));
        let expected = i64::from(mono.0) + self.offset.load(Ordering::Relaxed);
        if wall.abs_diff(expected) <= STEP {
            let unix = expected;
            return Now { mono, unix };
        }
        // Somebody set the wall clock.
        self.offset
            .store(wall - i64::from(mono.0), Ordering::Relaxed);
        Now { mono, unix: wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopwatch_measures_what_passes() {
        let watch = Stopwatch::start();
        std::thread::sleep(std::time::Duration::from_millis(3));
        let first = watch.elapsed();
        assert!(first >= 3_000_000);
        assert!(watch.elapsed() >= first);
    }

    #[test]
    fn times_before_the_start_survive_the_way_through_unix_time() {
        let now = Now {
            mono: Seconds::START.plus(10),
            unix: 1_800_000_000,
        };
        let earlier = now.to_mono(1_799_990_000);
        assert_eq!(now.mono.since(earlier), 10_000);
        assert_eq!(now.to_unix(earlier), 1_799_990_000);
        assert_eq!(now.to_mono(1_900_000_000), now.mono);
    }
}
