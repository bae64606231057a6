//! Several machines that report under one user, torrent and peer id: a copied client folder (rule A3).
//!
//! A total below the base that comes from another endpoint than the live one is not the same client
//! starting over. From then on the base of the record is the largest total that any of the machines
//! reported, and never goes down; and what the last two of them reported is kept for each. A machine that
//! is known gains the growth of its own totals, any other one only what is above the base. So all of
//! them together never gain more than they show, in whatever order they come.

use crate::clock::Seconds;
use crate::swarm::{Account, Family, Machine, Session, Sessions};
use crate::tracker::credit::{DIP_SECONDS, Report, Step, limit};

/// One counter of one machine.
struct Counter<'a> {
    /// What the machine reported last; [`Account::UNREPORTED`] if it is not known.
    own: &'a mut u64,
    /// The most that any machine reported.
    highest: &'a mut u64,
    own_limit: u64,
    highest_limit: u64,
    /// A lower total begins again, and is no report that arrives late.
    may_lower: bool,
}

/// Both counters of a report, where several machines share the record; none where there is one only.
pub(super) fn settle(
    account: &mut Account,
    report: &Report,
    max_rate: u64,
    now: Seconds,
) -> Option<(Step, Step)> {
    let sessions = account.sessions.or_else(|| begin(account, report))?;
    let family = Family::of(report.sender);
    if family != sessions.family {
        // It may be the other family of a machine that gains there.
        let is_credited_there = report.held_in(sessions.family).is_some();
        if !is_credited_there {
            account.sessions = None;
        }
        return is_credited_there.then_some((Step::Kept, Step::Kept));
    }
    let machine = Machine::at(report.sender);
    let (mut own, other) = take(&sessions, machine, now);
    let before = (own.up, own.down);
    let own_limit = limit(max_rate, own.at, now);
    let highest_limit = limit(max_rate, account.base_at, now);
    let may_lower = report.started || now.since(own.at) >= DIP_SECONDS;
    let highest = (account.base_up, account.base_down);
    let count = |own, highest, reported| {
        let mut counter = Counter {
            own,
            highest,
            own_limit,
            highest_limit,
            may_lower,
        };
        counter.step(reported)
    };
    let up = count(&mut own.up, &mut account.base_up, report.uploaded);
    let down = count(&mut own.down, &mut account.base_down, report.downloaded);
    if before != (own.up, own.down) || may_lower {
        own.at = now;
    }
    if highest != (account.base_up, account.base_down) {
        account.base_at = now;
    }
    (account.dip_up, account.dip_down) = (None, None);
    account.sessions = Some(Sessions {
        family,
        latest: own,
        other,
    });
    Some((up, down))
}

/// What a report from another endpoint than the live one makes of a record, if a total is below its base.
fn begin(account: &Account, report: &Report) -> Option<Sessions> {
    let is_lower = |base: u64, total: Option<u64>| {
        base != Account::UNREPORTED && total.is_some_and(|total| total < base)
    };
    let is_any_lower = is_lower(account.base_up, report.uploaded)
        || is_lower(account.base_down, report.downloaded);
    let family = Family::of(report.sender);
    let held = report.held_in(family)?;
    (is_any_lower && held != report.sender).then(|| Sessions {
        family,
        latest: Session {
            machine: Machine::at(held),
            up: account.base_up,
            down: account.base_down,
            at: account.base_at,
        },
        other: None,
    })
}

/// What is known of a machine, and of the latest other one.
fn take(sessions: &Sessions, machine: Machine, now: Seconds) -> (Session, Option<Session>) {
    if sessions.latest.machine == machine {
        return (sessions.latest, sessions.other);
    }
    let known = sessions.other.filter(|other| other.machine == machine);
    let unknown = Session {
        machine,
        up: Account::UNREPORTED,
        down: Account::UNREPORTED,
        at: now,
    };
    (known.unwrap_or(unknown), Some(sessions.latest))
}

// === impl Counter ===

impl Counter<'_> {
    fn step(&mut self, reported: Option<u64>) -> Step {
        let Some(reported) = reported else {
            return Step::Kept;
        };
        if *self.highest == Account::UNREPORTED {
            (*self.own, *self.highest) = (reported, reported);
            return Step::Lowered;
        }
        let is_known = *self.own != Account::UNREPORTED;
        let (from, limit) = if is_known {
            (*self.own, self.own_limit)
        } else {
            (*self.highest, self.highest_limit)
        };
        if reported >= from {
            *self.own = reported;
            *self.highest = reported.max(*self.highest);
            return Step::gained(reported - from, limit);
        }
        if !is_known || self.may_lower {
            *self.own = reported;
        }
        Step::Kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Compact4, Compact6, Endpoint};
    use crate::tracker::credit;

    const MB: u64 = 1_000_000;
    const MAX_RATE: u64 = 2_500_000_000;

    /// A record, and where its client is.
    struct Record {
        account: Account,
        held: (Option<Compact4>, Option<Compact6>),
        now: Seconds,
        credited: u64,
    }

    fn v4(machine: u8) -> Endpoint {
        Endpoint::V4(Compact4([9, 9, 9, machine, 26, machine]))
    }

    fn v6(machine: u8) -> Endpoint {
        let mut bytes = [machine; 18];
        bytes[0] = 0x2a;
        Endpoint::V6(Compact6(bytes))
    }

    impl Record {
        fn new() -> Self {
            Self {
                account: Account::begin(0, 0, Seconds::START),
                held: (None, None),
                now: Seconds::START,
                credited: 0,
            }
        }

        /// Announces after `wait` seconds; returns the bytes credited.
        fn report(&mut self, wait: u32, sender: Endpoint, total: u64, started: bool) -> u64 {
            self.now = self.now.plus(wait);
            let report = Report {
                uploaded: Some(total),
                downloaded: Some(0),
                started,
                sender,
                held: self.held,
            };
            let accrual = credit::account(&mut self.account, report, None, MAX_RATE, self.now);
            match sender {
                Endpoint::V4(it) => self.held.0 = Some(it),
                Endpoint::V6(it) => self.held.1 = Some(it),
            }
            self.credited += accrual.uploaded;
            accrual.uploaded
        }
    }

    #[test]
    fn two_machines_with_one_peer_id_gain_what_they_show_together() {
        let mut it = Record::new();
        it.report(0, v4(1), 0, true);
        it.report(900, v4(1), 10 * MB, false);
        assert_eq!(it.report(5, v4(2), 0, true), 0);
        assert_eq!(it.report(900, v4(1), 11 * MB, false), MB);
        assert_eq!(it.report(900, v4(2), MB, false), MB);
        assert_eq!(it.report(900, v4(1), 12 * MB, false), MB);
        assert_eq!(it.credited, 13 * MB);
    }

    #[test]
    fn a_client_that_starts_over_at_another_endpoint_gains_all_from_then_on() {
        for event in [true, false] {
            let mut it = Record::new();
            it.report(0, v4(1), 0, true);
            it.report(900, v4(1), 10 * MB, false);
            assert_eq!(it.report(5, v4(2), 0, event), 0);
            assert_eq!(it.report(30, v4(2), 3 * MB, false), 3 * MB);
            assert_eq!(it.report(1800, v4(2), 30 * MB, false), 27 * MB);
            // Where it starts over in its place, too.
            assert_eq!(it.report(5, v4(2), 0, true), 0);
            assert_eq!(it.report(1800, v4(2), 2 * MB, false), 2 * MB);
            assert_eq!(it.report(1800, v4(3), MB, true), 0);
            assert_eq!(it.report(1800, v4(3), 2 * MB, false), MB);
        }
    }

    #[test]
    fn a_client_of_two_families_gains_once_after_it_started_over_elsewhere() {
        let mut it = Record::new();
        for sender in [v4(1), v6(1)] {
            it.report(0, sender, 0, true);
        }
        for sender in [v4(1), v6(1)] {
            it.report(60, sender, 10 * MB, false);
        }
        for sender in [v6(2), v4(2)] {
            assert_eq!(it.report(0, sender, 0, true), 0);
        }
        it.report(60, v4(2), 5 * MB, false);
        it.report(0, v6(2), 5 * MB, false);
        assert_eq!(it.credited, 15 * MB);
        // The family whose totals count is gone: the other one takes over within two announces.
        it.held.1 = None;
        it.report(1800, v4(2), 6 * MB, false);
        it.report(1800, v4(2), 7 * MB, false);
        assert_eq!(it.report(1800, v4(2), 8 * MB, false), MB);
    }

    #[test]
    fn a_late_report_of_one_of_the_machines_costs_nothing() {
        let mut it = Record::new();
        it.report(0, v4(1), 10 * MB, true);
        it.report(5, v4(2), 0, true);
        it.report(900, v4(2), 5 * MB, false);
        assert_eq!(it.report(1, v4(2), 4 * MB, false), 0);
        assert_eq!(it.report(1, v4(2), 6 * MB, false), MB);
    }

    /// Machines at random, each of which starts at 0 and again now and then.
    #[test]
    fn machines_never_gain_more_than_they_show_and_one_alone_gains_all() {
        for seed in 0..2000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let machines = rng.usize(1..=5);
            let mut totals = vec![None; machines];
            let (mut it, mut shown) = (Record::new(), 0);
            for _ in 0..60 {
                let machine = rng.usize(..machines);
                let started = totals[machine].is_none() || rng.u8(..10) == 0;
                let total = if started {
                    0
                } else {
                    let grown = if rng.bool() { rng.u64(..1000) } else { 0 };
                    shown += grown;
                    totals[machine].unwrap_or(0) + grown
                };
                totals[machine] = Some(total);
                let wait = [0, 1, 59, 60, 900, 1800, 100_000][rng.usize(..7)];
                it.report(wait, v4(machine as u8 + 1), total, started);
                assert!(it.credited <= shown, "seed {seed}");
            }
            assert!(machines > 1 || it.credited == shown, "seed {seed}");
        }
    }
}
