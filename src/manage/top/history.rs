//! Rates of the last minutes, from monotonic totals.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::view::TrackerStats;

/// Samples kept: the columns of the widest window.
const KEPT: usize = 512;

/// Rates per second between two samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    pub udp: f64,
    pub http: f64,
    pub https: f64,
    pub refusals: f64,
    /// Refusals by reason.
    pub reasons: BTreeMap<String, f64>,
    /// The age of the journal's oldest change, in seconds.
    pub age: f64,
}

/// The rates so far, the oldest first.
#[derive(Default)]
pub struct RateHistory {
    last: Option<(Duration, TrackerStats)>,
    rates: VecDeque<Rates>,
}

// === impl RateHistory ===

impl RateHistory {
    /// Adds the figures received at `at`.
    pub fn push(&mut self, at: Duration, stats: &TrackerStats) {
        if let Some((before, last)) = &self.last {
            let seconds = at.saturating_sub(*before).as_secs_f64();
            if stats.uptime < last.uptime {
                self.rates.clear(); // restarted, and counts from 0
            } else if seconds > 0.0 {
                self.rates.push_back(Rates::between(last, stats, seconds));
            }
        }
        if self.rates.len() > KEPT {
            self.rates.pop_front();
        }
        self.last = Some((at, stats.clone()));
    }

    pub fn now(&self) -> Option<&Rates> {
        self.rates.back()
    }

    /// The last `count` values of one rate, in thousandths because bars take whole numbers.
    pub fn bars(&self, count: usize, of: fn(&Rates) -> f64) -> Vec<u64> {
        let from = self.rates.len().saturating_sub(count);
        let rates = self.rates.range(from..);
        rates.map(|rates| (of(rates) * 1000.0) as u64).collect()
    }
}

// === impl Rates ===

impl Rates {
    fn between(before: &TrackerStats, now: &TrackerStats, seconds: f64) -> Self {
        let per = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        let reason = |(reason, total): (&String, &u64)| {
            let earlier = before.refusals.get(reason).copied().unwrap_or(0);
            (reason.clone(), per(earlier, *total))
        };
        Self {
            udp: per(before.announces.udp, now.announces.udp),
            http: per(before.announces.http, now.announces.http),
            https: per(before.announces.https, now.announces.https),
            refusals: per(before.refused(), now.refused()),
            reasons: now.refusals.iter().map(reason).collect(),
            age: now.journal.age as f64,
        }
    }
}
