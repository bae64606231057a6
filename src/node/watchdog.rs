//! Watches whether the worker threads still run their loops. A thread that hangs is logged; and the service
//! manager, which restarts a process that hangs, gets keep-alives only while no thread hangs.
//!
//! The main thread is covered as well: if it hangs, the manager gets no keep-alives.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::telemetry::notify;
use crate::telemetry::pulse::Pulse;

/// How often the workers are checked.
const PERIOD: Duration = Duration::from_secs(1);

/// A worker runs its loop at least once a second, so one that has not done so for this long hangs: in a
/// lock, in an endless loop, or writing to a log pipe that nobody reads.
const HANGS_AFTER: Duration = Duration::from_secs(5);

/// One worker thread, and when it was last seen running.
pub(super) struct Watched {
    name: String,
    pulse: Pulse,
    beats: u64,
    /// When its loop was last seen to have run; none until the first check.
    last_seen_running: Option<Instant>,
    hangs: bool,
}

/// Watches those threads; runs until cancelled.
pub(super) async fn watch(mut workers: Vec<Watched>) {
    let alive_period = notify::alive_period();
    let mut ticks = tokio::time::interval(alive_period.map_or(PERIOD, |period| period.min(PERIOD)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut notified_at: Option<Instant> = None;
    loop {
        let now = ticks.tick().await;
        // Checks all of them, even after one that hangs.
        let mut is_well = true;
        for worker in &mut workers {
            is_well &= !worker.check(now);
        }
        let Some(period) = alive_period else {
            continue;
        };
        if is_well && notified_at.is_none_or(|at| now - at >= period) {
            notify::alive();
            notified_at = Some(now);
        }
    }
}

impl Watched {
    pub fn new(name: &str, pulse: &Pulse) -> Self {
        Self {
            name: name.to_owned(),
            pulse: pulse.clone(),
            beats: 0,
            last_seen_running: None,
            hangs: false,
        }
    }

    /// Logs when it starts or stops hanging; returns whether it hangs.
    fn check(&mut self, now: Instant) -> bool {
        let (beats, name) = (self.pulse.beats(), &self.name);
        let last_seen_running = match self.last_seen_running {
            Some(last_seen_running) if beats == self.beats => last_seen_running,
            _ => now,
        };
        (self.beats, self.last_seen_running) = (beats, Some(last_seen_running));
        let hangs = now - last_seen_running >= HANGS_AFTER;
        if hangs && !self.hangs {
            let seconds = HANGS_AFTER.as_secs();
            tracing::error!(
                worker = name,
                "a worker thread has done nothing for {seconds} s: it hangs"
            );
        } else if self.hangs && !hangs {
            tracing::info!(worker = name, "the worker thread runs again");
        }
        self.hangs = hangs;
        hangs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_hangs_once_it_has_not_run_for_some_seconds() {
        let start = Instant::now();
        let pulse = Pulse::default();
        let mut worker = Watched::new("http-0", &pulse);
        let mut hangs = |seconds| worker.check(start + Duration::from_secs(seconds));
        // The first check counts as a beat, however late it is.
        assert!(!hangs(100));
        assert!(!hangs(104));
        assert!(hangs(105));
        assert!(hangs(900));
        pulse.beat();
        assert!(!hangs(901));
        assert!(!hangs(905));
        pulse.beat();
        assert!(!hangs(907));
        assert!(!hangs(911));
        assert!(hangs(912));
    }
}
