//! Several machines of one user that share a peer id: how they are detected, and which of them
//! an announce is from (rule A3). Their credit is settled by `accounting::machines`.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::accounting::machines::{Announced, Highest, Machine, MachineId, Machines};
use crate::accounting::sessions::Settled;
use crate::base::addr::Endpoint;
use crate::base::clock::Seconds;
use crate::swarm::{Account, Family};
use crate::tracker::credit::AnnounceReport;

/// What the report of one of several machines adds.
pub(super) enum Shared {
    /// The id of the machine that reports, and how each of its totals was settled.
    Settled(MachineId, Settled, Settled),
    /// It may be the other family of a counted machine, or can't be passed on now.
    NotCounted,
}

pub(super) fn settle(
    account: &mut Account,
    report: &AnnounceReport,
    max_rate: u64,
    now: Seconds,
) -> Option<Shared> {
    let mut machines = account.machines.or_else(|| begin(account, report, now))?;
    let family = Family::of(report.sender);
    let counted = family_of(&machines);
    if family != counted {
        if report.held_in(counted).is_some() {
            return Some(Shared::NotCounted);
        }
        account.machines = None;
        return None;
    }
    if report.is_held_back {
        return Some(Shared::NotCounted);
    }
    let announced = Announced {
        id: hash_of(report.sender),
        up: report.uploaded,
        down: report.downloaded,
        started: report.started.is_some(),
        at: now.0.into(),
    };
    let before = (account.base_up, account.base_down);
    let mut highest = Highest {
        up: &mut account.base_up,
        down: &mut account.base_down,
        at: account.base_at.0.into(),
    };
    let (up, down) = machines.settle(&announced, &mut highest, max_rate);
    if before != (account.base_up, account.base_down) {
        account.base_at = now;
    }
    (account.dip_up, account.dip_down) = (None, None);
    (account.start_up, account.start_down) = (None, None);
    account.machines = Some(machines);
    let id = MachineId {
        is_v6: machines.is_v6,
        hash: announced.id,
    };
    Some(Shared::Settled(id, up, down))
}

/// Distinguishes machines from now on, if a total below its base comes from another endpoint than the one
/// that the record has in this family.
fn begin(account: &Account, report: &AnnounceReport, now: Seconds) -> Option<Machines> {
    let is_lower = |base: u64, total: Option<u64>| {
        base != Account::NO_TOTAL && total.is_some_and(|total| total < base)
    };
    let is_any_lower = is_lower(account.base_up, report.uploaded)
        || is_lower(account.base_down, report.downloaded);
    let family = Family::of(report.sender);
    let held = report.held_in(family)?;
    (is_any_lower && held != report.sender).then(|| Machines {
        is_v6: family == Family::V6,
        latest: Machine {
            id: hash_of(held),
            up: account.base_up,
            down: account.base_down,
            at: account.base_at.min(now).0.into(),
        },
        other: None,
    })
}

fn family_of(machines: &Machines) -> Family {
    if machines.is_v6 {
        Family::V6
    } else {
        Family::V4
    }
}

/// A hash of an endpoint, the same on every node and after a restart.
fn hash_of(endpoint: Endpoint) -> u32 {
    let mut hasher = SipHasher13::new();
    match endpoint {
        Endpoint::V4(v4) => hasher.write(&v4.0),
        Endpoint::V6(v6) => hasher.write(&v6.0),
    }
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::addr::{Compact4, Compact6, Endpoint};
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
            let report = AnnounceReport {
                uploaded: Some(total),
                downloaded: Some(0),
                started: started.then_some(1_800_000_000),
                sender,
                held: self.held,
                is_held_back: false,
                has_room: true,
            };
            let accrual =
                credit::update_account(&mut self.account, report, None, MAX_RATE, self.now);
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
            // It does so, too, if it then starts over without moving.
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
        // The counted family is gone: the other one counts within two announces.
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

    /// Random machines, each of which starts at 0, and starts over now and then.
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
