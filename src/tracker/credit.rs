//! Credit: from the totals that clients report to the bytes that users gain (rules A1 to A10).
//! Plain arithmetic on an account, with the time passed in.
//!
//! The credit is this node's expectation only: `storage::settle` settles what was reported against
//! its row, with multipliers (rule A8b). A node keeps the bases to tell sessions apart, and passes on
//! stretches of reports. Several machines that report under one peer id are told apart in
//! `machines`.

use crate::accounting::machines::MachineId;
use crate::accounting::sessions::{DIP_SECONDS, Point, Settled, Stretch, limit};
use crate::base::addr::{Compact4, Compact6, Endpoint};
use crate::base::clock::Seconds;
use crate::swarm::{Account, Family, Owed, UserHistory};
use crate::tracker::machines::{self, Shared};

/// The totals of one announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceReport {
    pub uploaded: Option<u64>,
    pub downloaded: Option<u64>,
    /// The Unix time of the announce, if it is `event=started`: totals may begin again.
    pub started: Option<i64>,
    /// The endpoint of the announce, and those that the record had until then.
    pub sender: Endpoint,
    pub held: (Option<Compact4>, Option<Compact6>),
    /// The journal has no room and an earlier report is still owed: a report that begins a
    /// session is not accepted now, because the two can't be journaled as one.
    pub is_held_back: bool,
    /// The journal has room for this report.
    pub has_room: bool,
}

/// What an announce adds, before multipliers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accrual {
    pub uploaded: u64,
    pub downloaded: u64,
    /// Seconds.
    pub seed_time: u32,
    /// A total grew faster than any line; it was not credited (rule A7).
    pub implausible: bool,
    /// A base went down: it must be durable before later bytes are acknowledged.
    pub base_lowered: bool,
    /// What is passed on of each total; times are of the monotonic clock, in seconds.
    pub up: Option<Stretch>,
    pub down: Option<Stretch>,
    /// The machine that it is from, if there are several.
    pub machine: Option<MachineId>,
}

/// The effect of a report on one counter, and what is passed on of it.
#[derive(Clone, Copy, Default)]
struct Step {
    settled: Settled,
    /// A session began: the base is what was reported.
    has_begun: bool,
    stretch: Option<Stretch>,
}

/// Brings an account up to date with a report; returns what is to be credited.
///
/// `seeding_for_max` is the most seconds of seeding that one announce may add, if the peer was
/// seeding before it; `max_rate` is in bytes a second.
pub fn update_account(
    account: &mut Account,
    report: AnnounceReport,
    seeding_for_max: Option<u32>,
    max_rate: u64,
    now: Seconds,
) -> Accrual {
    let (machine, up, down) = match machines::settle(account, &report, max_rate, now) {
        Some(Shared::Settled(id, up, down)) => {
            let step = |settled, reported: Option<u64>| Step {
                settled,
                has_begun: false,
                stretch: reported
                    .map(|total| Stretch::at(point(total, now), report.started.is_some())),
            };
            let up = step(up, report.uploaded);
            (Some(id), up, step(down, report.downloaded))
        }
        Some(Shared::NotCounted) => (None, Step::default(), Step::default()),
        None => {
            let (up, down) = settle(account, &report, max_rate, now);
            (None, up, down)
        }
    };
    let elapsed = now.since(account.last_announce);
    let accrual = Accrual {
        uploaded: up.settled.bytes,
        downloaded: down.settled.bytes,
        seed_time: seeding_for_max.map_or(0, |max| elapsed.min(max)),
        implausible: up.settled.implausible || down.settled.implausible,
        base_lowered: up.has_begun || down.has_begun,
        up: up.stretch,
        down: down.stretch,
        machine,
    };
    // The second announce of a pair, in the same second, says nothing about the speed.
    if elapsed > 0 {
        account.speed_up = speed(accrual.uploaded, elapsed);
        account.speed_down = speed(accrual.downloaded, elapsed);
    }
    account.uploaded = account.uploaded.saturating_add(accrual.uploaded);
    account.downloaded = account.downloaded.saturating_add(accrual.downloaded);
    account.seed_time = account.seed_time.saturating_add(accrual.seed_time);
    account.announces = account.announces.saturating_add(1);
    account.last_announce = now;
    accrual
}

/// Both counters of a report, where there is one machine.
fn settle(
    account: &mut Account,
    report: &AnnounceReport,
    max_rate: u64,
    now: Seconds,
) -> (Step, Step) {
    let (shared_at, last) = (account.base_at, account.last_announce);
    let step = |base: &mut u64,
                start: &mut Option<Point>,
                dip: &mut Option<Seconds>,
                reported: Option<u64>| {
        // The other counter's dip holds `base_at` back, but not this counter's base.
        let base_at = if dip.is_some() {
            shared_at
        } else {
            shared_at.max(last)
        };
        let mut counter = Counter {
            base,
            base_at,
            start,
            dip,
            limit: limit(i64::from(now.0) - i64::from(base_at.0), max_rate),
        };
        reported.map_or_else(Step::default, |total| counter.step(total, report, now))
    };
    let up = step(
        &mut account.base_up,
        &mut account.start_up,
        &mut account.dip_up,
        report.uploaded,
    );
    let down = step(
        &mut account.base_down,
        &mut account.start_down,
        &mut account.dip_down,
        report.downloaded,
    );
    // In a dip the base is still that of the report before it, and so is its time.
    if account.dip_up.is_none() && account.dip_down.is_none() {
        account.base_at = now;
    }
    (up, down)
}

/// One counter of an account.
struct Counter<'a> {
    base: &'a mut u64,
    base_at: Seconds,
    start: &'a mut Option<Point>,
    dip: &'a mut Option<Seconds>,
    limit: u64,
}

fn point(total: u64, at: Seconds) -> Point {
    Point {
        total,
        at: at.0.into(),
    }
}

fn speed(bytes: u64, seconds: u32) -> u32 {
    u32::try_from(bytes / u64::from(seconds)).unwrap_or(u32::MAX)
}

/// When a download counts as a hit and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HnrRules {
    /// Seconds of seeding that are owed.
    pub threshold: u32,
    /// Downloads up to this many bytes don't count.
    pub min_bytes: u64,
}

/// Adds to a user's history; seed time that reaches the threshold clears the mark.
pub fn remember(history: &mut UserHistory, accrual: &Accrual, rules: HnrRules) {
    history.downloaded = history.downloaded.saturating_add(accrual.downloaded);
    history.seed_time = history.seed_time.saturating_add(accrual.seed_time);
    if history.seed_time >= rules.threshold {
        history.hnr = false;
    }
}

/// Marks a user whose last client has left the swarm too early.
pub fn leave(history: &mut UserHistory, rules: HnrRules) {
    history.hnr |= history.downloaded > rules.min_bytes && history.seed_time < rules.threshold;
}

// === impl AnnounceReport ===

impl AnnounceReport {
    /// The endpoint that the record's client had in that family.
    pub(super) fn held_in(&self, family: Family) -> Option<Endpoint> {
        match family {
            Family::V4 => self.held.0.map(Endpoint::V4),
            Family::V6 => self.held.1.map(Endpoint::V6),
        }
    }
}

// === impl Counter ===

impl Counter<'_> {
    /// One counter of a report, independent of the other one: at or above its base (rule A2), of which the same
    /// total gains nothing after any silence (rule A5), or below it (rule A3).
    fn step(&mut self, reported: u64, report: &AnnounceReport, now: Seconds) -> Step {
        let reported_now = point(reported, now);
        let start = report.started.map(|at| Point {
            total: reported,
            at,
        });
        if *self.base == Account::NO_TOTAL {
            *self.start = start;
            // Storage may know the client and continue from its base, unless the total is below it (rule A2).
            return self.begin(reported_now, false);
        }
        if reported >= *self.base {
            // Without room the report is owed, and what is owed is journaled later as one stretch of one
            // session.
            if report.has_room {
                *self.start = start.or(*self.start);
            }
            let from = point(*self.base, self.base_at);
            *self.base = reported;
            *self.dip = None;
            return Step {
                settled: Settled::of(reported - from.total, self.limit),
                has_begun: false,
                stretch: Some(Stretch {
                    from,
                    to: reported_now,
                    started: false,
                }),
            };
        }
        if report.is_held_back {
            return Step::default();
        }
        let dipped_for = self.dip.map_or(0, |since| now.since(since));
        if start.is_some() || i64::from(dipped_for) >= DIP_SECONDS {
            // Without a `started` the beginning of the new session is unknown.
            *self.start = start;
            return self.begin(reported_now, true);
        }
        self.dip.get_or_insert(now);
        Step {
            stretch: Some(Stretch::at(reported_now, false)),
            ..Step::default()
        }
    }

    /// A session begins.
    fn begin(&mut self, at: Point, started: bool) -> Step {
        *self.base = at.total;
        *self.dip = None;
        Step {
            has_begun: true,
            stretch: Some(Stretch::at(at, started)),
            ..Step::default()
        }
    }
}

// === impl Accrual ===

impl Accrual {
    /// What is owed once this announce is added to what was owed before.
    pub fn added_to(&self, owed: Option<Owed>, now: Seconds) -> Owed {
        // Bytes owed from before a `started` don't belong to the session that it began.
        let began = |stretch: Option<Stretch>, bytes: u64| {
            bytes == 0 && stretch.is_some_and(|stretch| stretch.started)
        };
        let starts =
            |stretch: Option<Stretch>| stretch.map(|stretch| Seconds(stretch.from.at as u32));
        let since = starts(self.up).into_iter().chain(starts(self.down)).min();
        let before = owed.unwrap_or_default();
        let before = match before.announces {
            0 => Owed {
                since: since.unwrap_or(now),
                began_up: began(self.up, self.uploaded),
                began_down: began(self.down, self.downloaded),
                ..before
            },
            _ => before,
        };
        Owed {
            uploaded: before.uploaded.saturating_add(self.uploaded),
            downloaded: before.downloaded.saturating_add(self.downloaded),
            seed_time: before.seed_time.saturating_add(self.seed_time),
            announces: before.announces.saturating_add(1),
            ..before
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_RATE: u64 = 2_500_000_000;

    const SENDER: Compact4 = Compact4([9, 9, 9, 1, 26, 225]);

    /// A report from where the client is all the time.
    fn report(uploaded: Option<u64>, downloaded: Option<u64>, started: bool) -> AnnounceReport {
        AnnounceReport {
            uploaded,
            downloaded,
            started: started.then_some(1_800_000_000),
            sender: Endpoint::V4(SENDER),
            held: (Some(SENDER), None),
            is_held_back: false,
            has_room: true,
        }
    }

    /// One line of a table: seconds since the line before, event started, totals reported, credit expected.
    type Line = (u32, bool, (u64, u64), (u64, u64));

    fn run(lines: &[Line]) -> Account {
        let mut now = Seconds::START;
        let (_, _, first, _) = lines[0];
        let mut it = Account::begin(first.0, first.1, now);
        for (number, &(wait, started, (up, down), expected)) in lines.iter().enumerate() {
            now = now.plus(wait);
            let report = report(Some(up), Some(down), started);
            let accrual = update_account(&mut it, report, None, MAX_RATE, now);
            assert_eq!(
                (accrual.uploaded, accrual.downloaded),
                expected,
                "line {number}"
            );
        }
        it
    }

    #[test]
    fn a_total_in_a_dip_does_not_age_the_base_of_the_other() {
        let start = Seconds::START;
        let mut it = Account::begin(100, 500, start);
        let up = |it: &mut Account, up, now| {
            let accrual =
                update_account(it, report(Some(up), Some(50), false), None, MAX_RATE, now);
            accrual.up.unwrap().from
        };
        assert_eq!(up(&mut it, 200, start.plus(10)), point(100, start));
        assert_eq!(up(&mut it, 300, start.plus(20)), point(200, start.plus(10)));
    }

    #[test]
    fn credit_follows_the_rules() {
        // A1, A2: the first report is the base, later ones credit their difference, whatever the event.
        run(&[
            (0, true, (500, 70), (0, 0)),
            (10, false, (600, 70), (100, 0)),
            (10, true, (650, 90), (50, 20)),
            (10, false, (650, 90), (0, 0)),
        ]);
        // A3: started with less begins a session.
        run(&[
            (0, true, (500, 0), (0, 0)),
            (10, true, (0, 0), (0, 0)),
            (10, false, (30, 0), (30, 0)),
        ]);
        // A3: a straggler costs nothing, and its successor credits from the old base.
        run(&[
            (0, true, (500, 0), (0, 0)),
            (10, false, (400, 0), (0, 0)),
            (1, false, (520, 0), (20, 0)),
        ]);
        // A3: a total that stays below the base for a minute begins a session.
        run(&[
            (0, true, (500, 0), (0, 0)),
            (10, false, (100, 0), (0, 0)),
            (59, false, (150, 0), (0, 0)),
            (1, false, (160, 0), (0, 0)),
            (1, false, (170, 0), (10, 0)),
        ]);
        // A3, A7: what comes after a straggler is measured from the report before it.
        run(&[
            (0, true, (0, 0), (0, 0)),
            (1800, false, (MAX_RATE * 1000, 0), (MAX_RATE * 1000, 0)),
            (1800, false, (MAX_RATE * 900, 0), (0, 0)),
            (1, false, (MAX_RATE * 2000, 0), (MAX_RATE * 1000, 0)),
        ]);
        // A3: the counters are independent.
        run(&[
            (0, true, (100, 1000), (0, 0)),
            (10, false, (200, 900), (100, 0)),
            (1, false, (300, 1100), (100, 100)),
        ]);
    }

    #[test]
    fn the_start_of_an_unknown_client_is_passed_on() {
        let no_total = Account::NO_TOTAL;
        let mut it = Account::begin(no_total, no_total, Seconds::START);
        let started = report(Some(7), Some(0), true);
        let accrual = update_account(&mut it, started, None, MAX_RATE, Seconds::START);
        let reports = |total| Some(Stretch::at(point(total, Seconds::START), false));
        assert_eq!((accrual.up, accrual.down), (reports(7), reports(0)));
        assert_eq!((it.base_up, it.base_down), (7, 0));
        let at = 1_800_000_000;
        let starts = |total| Some(Point { total, at });
        assert_eq!((it.start_up, it.start_down), (starts(7), starts(0)));
    }

    #[test]
    fn every_start_gives_a_session_its_name() {
        let mut it = Account::begin(100, 500, Seconds::START);
        let mut reported = |total, started: bool, unix| {
            let report = AnnounceReport {
                started: started.then_some(unix),
                ..report(Some(total), None, started)
            };
            update_account(&mut it, report, None, MAX_RATE, Seconds::START);
            it.start_up.map(|start| (start.total, start.at))
        };
        assert_eq!(reported(150, false, 10), None);
        assert_eq!(reported(160, true, 20), Some((160, 20)), "it goes on");
        assert_eq!(reported(170, false, 40), Some((160, 20)));
        assert_eq!(reported(30, true, 50), Some((30, 50)), "it starts over");
        let crowded = AnnounceReport {
            started: Some(60),
            has_room: false,
            ..report(Some(40), None, true)
        };
        update_account(&mut it, crowded, None, MAX_RATE, Seconds::START);
        assert_eq!(it.start_up, Some(Point { total: 30, at: 50 }), "it is owed");
    }

    #[test]
    fn no_line_is_that_fast() {
        let it = run(&[
            (0, true, (0, 0), (0, 0)),
            (10, false, (MAX_RATE * 10, 5), (MAX_RATE * 10, 5)),
            (1, false, (MAX_RATE * 11 + 1, 6), (0, 1)),
            (1, false, (MAX_RATE * 11 + 101, 6), (100, 0)),
            (4_000_000, false, (u64::MAX >> 1, 6), (0, 0)),
        ]);
        assert_eq!(it.base_up, u64::MAX >> 1);
    }

    #[test]
    fn what_is_not_reported_leaves_the_account_alone() {
        let mut it = Account::begin(10, 20, Seconds::START);
        let nothing = report(None, Some(25), true);
        let accrual = update_account(&mut it, nothing, None, MAX_RATE, Seconds::START);
        assert_eq!((accrual.uploaded, accrual.downloaded), (0, 5));
        assert_eq!(it.base_up, 10);
    }

    #[test]
    fn seed_time_counts_while_seeding_and_no_longer_than_a_peer_lives() {
        let mut it = Account::begin(0, 0, Seconds::START);
        let report = report(None, None, false);
        let mut seconds = |wait: u32, seeding: bool| {
            let now = it.last_announce.plus(wait);
            update_account(&mut it, report, seeding.then_some(3900), MAX_RATE, now).seed_time
        };
        assert_eq!(seconds(1800, false), 0);
        assert_eq!(seconds(1800, true), 1800);
        assert_eq!(seconds(100_000, true), 3900);
        assert_eq!(it.seed_time, 5700);
    }

    #[test]
    fn a_mark_comes_with_leaving_early_and_goes_with_seeding() {
        let rules = HnrRules {
            threshold: 1000,
            min_bytes: 50,
        };
        let mut history = UserHistory::new(crate::base::ids::UserId(1));
        let down = |downloaded, seed_time| Accrual {
            downloaded,
            seed_time,
            ..Accrual::default()
        };
        remember(&mut history, &down(50, 0), rules);
        leave(&mut history, rules);
        assert!(!history.hnr, "not more than the free bytes");
        remember(&mut history, &down(1, 999), rules);
        leave(&mut history, rules);
        assert!(history.hnr);
        remember(&mut history, &down(0, 1), rules);
        assert!(!history.hnr);
        leave(&mut history, rules);
        assert!(!history.hnr);
    }
}
