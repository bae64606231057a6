//! Looks whether the worker threads still turn. One that hangs is told in the log; and the service
//! manager, which restarts what hangs, is told that all is well only as long as it is.
//!
//! The main thread is looked after as well: if it hangs, nobody tells the manager anything.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::telemetry::notify;
use crate::telemetry::pulse::Pulse;

/// How often the workers are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// A worker turns at least once a second, so one that has not for so long hangs: in a lock, in a
/// loop, or writing a log that nobody takes.
const HANGS_AFTER: Duration = Duration::from_secs(5);

/// One worker thread, and when it was last seen to turn.
pub(super) struct Watched {
    name: String,
    pulse: Pulse,
    beats: u64,
    /// None until it is looked at.
    turned: Option<Instant>,
    hangs: bool,
}

/// Watches those threads, for ever.
pub(super) async fn watch(mut workers: Vec<Watched>) {
    let alive_period = notify::alive_period();
    let mut ticks = tokio::time::interval(alive_period.map_or(PERIOD, |it| it.min(PERIOD)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Option<Instant> = None;
    loop {
        let now = ticks.tick().await;
        // All of them are looked at, also after one that hangs.
        let hanging = workers.iter_mut().map(|worker| worker.look(now));
        let is_well = hanging.filter(|&hangs| hangs).count() == 0;
        let Some(period) = alive_period else {
            continue;
        };
        if is_well && told.is_none_or(|told| now - told >= period) {
            notify::alive();
            told = Some(now);
        }
    }
}

// === impl Watched ===

impl Watched {
    pub fn new(name: &str, pulse: &Pulse) -> Self {
        Self {
            name: name.to_owned(),
            pulse: pulse.clone(),
            beats: 0,
            turned: None,
            hangs: false,
        }
    }

    /// Whether it hangs.
    fn look(&mut self, now: Instant) -> bool {
        let (beats, name) = (self.pulse.beats(), &self.name);
        let turned = match self.turned {
            Some(turned) if beats == self.beats => turned,
            _ => now,
        };
        (self.beats, self.turned) = (beats, Some(turned));
        let hangs = now - turned >= HANGS_AFTER;
        if hangs && !self.hangs {
            let seconds = HANGS_AFTER.as_secs();
            tracing::error!(
                worker = name,
                "a worker thread has done nothing for {seconds} s: it hangs"
            );
        } else if self.hangs && !hangs {
            tracing::info!(worker = name, "the worker thread goes on");
        }
        self.hangs = hangs;
        hangs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_hangs_once_it_has_not_turned_for_some_seconds() {
        let start = Instant::now();
        let pulse = Pulse::default();
        let mut worker = Watched::new("http-0", &pulse);
        let mut hangs = |seconds| worker.look(start + Duration::from_secs(seconds));
        // However late it is looked at first.
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
