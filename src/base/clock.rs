//! The one place that reads a clock. Everything else takes [`Now`] as an argument.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// A moment on the monotonic clock, in whole seconds.
///
/// The process starts at [`Seconds::START`] and not at 0, so that moments before the start (a peer's last
/// announce to the previous process) have a value, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seconds(pub u32);

/// The present by both clocks.
///
/// Expiry, speeds and seed time use `mono`, which no step of the wall clock affects (rules A7, W10); `unix`
/// is shown and stored.
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
    shared: &'static Shared,
    /// The source of the time, if not the system.
    #[cfg(feature = "contract")]
    source: Option<&'static dyn TimeSource>,
}

/// The state that all copies of a clock share.
#[derive(Debug)]
struct Shared {
    /// Unix time minus the monotonic time of this clock. Read once, because the seconds of both begin at
    /// different moments, and a conversion back and forth must return the same time. Never decreases
    /// after [`Clock::begin_at`], so that later records have no earlier time.
    offset: AtomicI64,
    /// If set, a wall clock that was set ahead is not followed until other clocks confirm it.
    is_guarded: AtomicBool,
}

/// A simulated time for a clock in tests (feature `contract`).
#[cfg(feature = "contract")]
pub trait TimeSource: std::fmt::Debug + Sync {
    /// Whole seconds of the monotonic clock, counted from any moment, and of Unix time.
    fn read(&self) -> (i64, i64);
}

/// Measures durations by the monotonic clock: reading it costs some 25 ns.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    /// Nanoseconds since some moment.
    started: u64,
}

/// Seconds by which the wall clock may be ahead of the expected time before it counts as having been set.
pub const STEP: i64 = 2;

/// Seconds by which two clocks may differ before one of them counts as wrong.
pub const APART_MAX: i64 = 300;

/// This host's wall clock (Unix time), right or wrong.
pub fn wall() -> i64 {
    system_time().1
}

/// The clock of timeouts, to measure how long an answer took.
pub fn timer() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

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

    /// Like [`Self::to_mono`], but a time in the future stays in the future.
    pub fn to_moment(self, unix: i64) -> Seconds {
        let ahead = unix.saturating_sub(self.unix).max(0);
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.to_mono(unix).plus(ahead)
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

/// Whole seconds of both clocks of the system. The coarse ones, which tick every few milliseconds, will do: only
/// seconds are needed, and for every announce.
fn system_time() -> (i64, i64) {
    let mono = clock_gettime(ClockId::MonotonicCoarse).tv_sec;
    (mono, clock_gettime(ClockId::RealtimeCoarse).tv_sec)
}

// === impl Clock ===

impl Clock {
    /// A clock that starts now. Leaks a few bytes.
    pub fn start() -> Self {
        Self::from(
            system_time(),
            #[cfg(feature = "contract")]
            None,
        )
    }

    /// A clock that starts now and reads `source`.
    #[cfg(feature = "contract")]
    pub fn start_by(source: &'static dyn TimeSource) -> Self {
        Self::from(source.read(), Some(source))
    }

    fn from(
        (started, unix): (i64, i64),
        #[cfg(feature = "contract")] source: Option<&'static dyn TimeSource>,
    ) -> Self {
        Self {
            started,
            shared: Box::leak(Box::new(Shared {
                offset: AtomicI64::new(unix - i64::from(Seconds::START.0)),
                is_guarded: AtomicBool::new(false),
            })),
            #[cfg(feature = "contract")]
            source,
        }
    }

    #[cfg_attr(not(feature = "contract"), allow(clippy::unused_self))]
    fn read(&self) -> (i64, i64) {
        #[cfg(feature = "contract")]
        if let Some(source) = self.source {
            return source.read();
        }
        system_time()
    }

    /// The wall clock that this clock reads (Unix time), right or wrong.
    pub fn wall(&self) -> i64 {
        self.read().1
    }

    /// From now on, a wall clock that is set ahead is followed only by calling [`Clock::set`].
    pub fn guard(&self) {
        self.shared.is_guarded.store(true, Ordering::Relaxed);
    }

    /// Advances to `unix` (Unix time), unless it is later already.
    pub fn set(&self, unix: i64) {
        let offset = unix - i64::from(self.mono().0);
        self.shared.offset.fetch_max(offset, Ordering::Relaxed);
    }

    /// Sets it to `unix`, even backwards: only at the start, before any time was recorded.
    pub fn begin_at(&self, unix: i64) {
        let offset = unix - i64::from(self.mono().0);
        self.shared.offset.store(offset, Ordering::Relaxed);
    }

    /// The present by both clocks. A wall clock that was set back is not followed.
    pub fn now(&self) -> Now {
        let (mono, wall) = self.read();
        let mono = self.since_start(mono);
        let unix = i64::from(mono.0) + self.shared.offset.load(Ordering::Relaxed);
        let ahead = wall - unix;
        if ahead <= STEP || self.shared.is_guarded.load(Ordering::Relaxed) {
            return Now { mono, unix };
        }
        self.set(unix + ahead);
        Now {
            mono,
            unix: unix + ahead,
        }
    }

    fn mono(&self) -> Seconds {
        self.since_start(self.read().0)
    }

    fn since_start(&self, mono: i64) -> Seconds {
        let elapsed = mono - self.started;
        Seconds::START.plus(u32::try_from(elapsed).unwrap_or(u32::MAX))
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
        assert_eq!(now.to_moment(1_800_000_100), now.mono.plus(100));
        assert_eq!(now.to_moment(1_799_990_000), earlier);
    }

    #[test]
    fn a_clock_never_goes_back() {
        let clock = Clock::start();
        let about = |unix: i64| clock.now().unix.abs_diff(unix) <= 5;
        clock.set(wall() + 100);
        assert!(about(wall() + 100), "the wall clock is behind");
        clock.set(wall() - 1000);
        assert!(about(wall() + 100));
        clock.begin_at(wall() - 100);
        assert!(about(wall()), "a small step ahead");
        clock.guard();
        for behind in [100, 100_000] {
            clock.begin_at(wall() - behind);
            assert!(about(wall() - behind), "a step has to be confirmed");
        }
        clock.set(wall());
        assert!(about(wall()));
    }
}
