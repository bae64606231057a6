//! Both totals of one client, and the machines that share its peer id if there are several.

use super::machines::{Announced, Highest, Machine, MachineId, Machines, NO_TOTAL};
use super::sessions::{Point, ReportSource, Session, Sessions, Settled, Stretch};

/// Seconds without reports by one family, after which the other family may identify the machines.
const FAMILY_SECONDS: i64 = 2 * 3600;

/// What reports of one client are settled against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerAccount {
    pub up: Sessions,
    pub down: Sessions,
    pub machines: Option<Machines>,
}

/// A client's report of both totals.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    pub up: Option<Stretch>,
    pub down: Option<Stretch>,
    /// The `started` that began the session of each total, where the node knows one.
    pub starts: [Option<Point>; 2],
    /// The machine that it is from, if there are several.
    pub machine: Option<MachineId>,
    pub by: ReportSource,
}

impl PeerAccount {
    /// A client of which only the last totals were kept; [`NO_TOTAL`] for one that was not
    /// reported. `at` is a Unix time in seconds.
    pub fn known(up: u64, down: u64, at: i64) -> Self {
        let known = |total| match total {
            NO_TOTAL => Sessions::default(),
            _ => Sessions::known(total, at),
        };
        Self {
            up: known(up),
            down: known(down),
            machines: None,
        }
    }

    /// Takes a report into account; `max_rate` is in bytes a second (rule A7).
    pub fn settle(&mut self, totals: &Totals, max_rate: u64) -> (Settled, Settled) {
        if let Some(machine) = totals.machine {
            return self.settle_machine(totals, machine, max_rate);
        }
        let settle = |sessions: &mut Sessions, stretch: Option<Stretch>, start: Option<Point>| {
            let Some(stretch) = stretch else {
                return Settled::default();
            };
            match start {
                Some(start) => sessions.settle_in(start, &stretch, totals.by, max_rate),
                None => sessions.settle(&stretch, totals.by, max_rate),
            }
        };
        let [start_up, start_down] = totals.starts;
        let before = (self.bases(), self.base_at());
        let settled = (
            settle(&mut self.up, totals.up, start_up),
            settle(&mut self.down, totals.down, start_down),
        );
        // A late report may begin a session below what machines have been credited since.
        if let (Some(_), ((up, down), Some(at))) = (self.machines, before) {
            raise(&mut self.up, up, at);
            raise(&mut self.down, down, at);
        }
        // Which machine moved these bytes is unknown, so the totals of each are no longer a base.
        if settled.0.bytes > 0 || settled.1.bytes > 0 {
            let last_seen = self.base_at().unwrap_or(i64::MIN);
            self.machines = self
                .machines
                .and_then(|machines| machines.without_totals(last_seen));
        }
        settled
    }

    fn settle_machine(
        &mut self,
        totals: &Totals,
        id: MachineId,
        max_rate: u64,
    ) -> (Settled, Settled) {
        let to = |stretch: Option<Stretch>| stretch.map(|stretch| stretch.to);
        let Some(at) = to(totals.up).or(to(totals.down)).map(|point| point.at) else {
            return (Settled::default(), Settled::default());
        };
        let mut machines = match self.machines {
            Some(machines) if machines.is_v6 == id.is_v6 => machines,
            // It may be the other family of a machine that is credited already.
            Some(machines) if at - machines.latest.at < FAMILY_SECONDS => {
                return (Settled::default(), Settled::default());
            }
            _ => Machines {
                is_v6: id.is_v6,
                latest: Machine {
                    id: id.hash,
                    up: NO_TOTAL,
                    down: NO_TOTAL,
                    at,
                },
                other: None,
            },
        };
        let started = |stretch: Option<Stretch>| stretch.is_some_and(|stretch| stretch.started);
        let report = Announced {
            id: id.hash,
            up: to(totals.up).map(|point| point.total),
            down: to(totals.down).map(|point| point.total),
            started: started(totals.up) || started(totals.down),
            at,
        };
        let (mut up, mut down) = (base(&self.up), base(&self.down));
        let mut highest = Highest {
            up: &mut up,
            down: &mut down,
            at: self.base_at().unwrap_or(at),
        };
        let settled = machines.settle(&report, &mut highest, max_rate);
        raise(&mut self.up, up, at);
        raise(&mut self.down, down, at);
        // A lower total is that of another machine, not of this one starting over.
        (self.up.dip, self.down.dip) = (None, None);
        self.machines = Some(machines);
        settled
    }

    /// The bases of both totals, in bytes; [`NO_TOTAL`] for one that was never reported.
    pub fn bases(&self) -> (u64, u64) {
        (base(&self.up), base(&self.down))
    }

    /// Unix time at which one of the bases was reported last.
    pub fn base_at(&self) -> Option<i64> {
        let last = |sessions: &Sessions| sessions.current.map(|session| session.last);
        last(&self.up).max(last(&self.down))
    }
}

fn base(sessions: &Sessions) -> u64 {
    sessions.current.map_or(NO_TOTAL, |session| session.high)
}

/// Raises the base to at least `total`, if that was reported.
fn raise(sessions: &mut Sessions, total: u64, at: i64) {
    match &mut sessions.current {
        _ if total == NO_TOTAL => {}
        Some(current) if total > current.high => {
            current.high = total;
            current.last = current.last.max(at);
        }
        Some(_) => {}
        None => sessions.current = Some(Session::begin(Point { total, at })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_RATE: u64 = 2_500_000_000;

    /// Settles a report of both totals; returns the bytes uploaded that are credited.
    fn settle(account: &mut PeerAccount, at: i64, up: u64, machine: Option<u32>) -> u64 {
        let stretch = |total| Some(Stretch::at(Point { total, at }, false));
        let totals = Totals {
            up: stretch(up),
            down: stretch(0),
            starts: [None, None],
            machine: machine.map(|hash| MachineId { is_v6: false, hash }),
            by: ReportSource::new(1, 1),
        };
        account.settle(&totals, MAX_RATE).0.bytes
    }

    /// Random reports of machines that start at 0; some arrive late, some twice.
    #[test]
    fn machines_never_gain_more_than_they_show_in_any_order() {
        for seed in 0..5000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut totals = [0; 4];
            let machines = rng.usize(2..=totals.len());
            let mut reports = Vec::new();
            for at in (0..20).map(|step| step * 30) {
                let machine = rng.usize(..machines);
                totals[machine] += rng.u64(..1000);
                reports.push((at, totals[machine], Some(machine as u32 + 1)));
            }
            let shown: u64 = totals.iter().sum();
            for _ in 0..rng.usize(..12) {
                let late = reports.remove(rng.usize(..reports.len()));
                reports.insert(rng.usize(..=reports.len()), late);
            }
            for _ in 0..rng.usize(..12) {
                let again = *rng.choice(&reports).expect("some");
                reports.insert(rng.usize(..=reports.len()), again);
            }
            let mut account = PeerAccount::default();
            let credited: u64 = reports
                .iter()
                .map(|&(at, up, machine)| settle(&mut account, at, up, machine))
                .sum();
            assert!(
                credited <= shown,
                "seed {seed}: {credited} of {shown} by {reports:?}"
            );
        }
    }

    #[test]
    fn late_reports_of_machines_are_not_counted_again() {
        let mut account = PeerAccount::default();
        for (at, up, machine, credited) in [
            (0, 0, None, 0),
            (110, 500, Some(1), 500),
            (115, 300, Some(2), 0),
            (120, 350, Some(2), 50),
            // Late reports; the first does not name its machine.
            (60, 520, None, 20),
            (70, 100, Some(2), 0),
            (80, 200, Some(2), 0),
            (130, 360, Some(2), 0),
            (140, 400, Some(2), 40),
            (90, 10, Some(1), 0),
            (95, 400, Some(1), 0),
            (150, 530, Some(1), 10),
            (160, 540, Some(1), 10),
        ] {
            let bytes = settle(&mut account, at, up, machine);
            assert_eq!(bytes, credited, "{up} at {at}");
        }
    }

    #[test]
    fn a_late_session_does_not_lower_the_base_of_machines() {
        let mut account = PeerAccount::default();
        for (at, up, machine, credited) in [
            (0, 0, None, 0),
            (110, 1400, None, 1400),
            (190, 480, Some(1), 0),
            (200, 680, Some(1), 200),
            (230, 1000, Some(1), 320),
        ] {
            let bytes = settle(&mut account, at, up, machine);
            assert_eq!(bytes, credited, "{up} at {at}");
        }
        // The client had begun again before its peer id was seen at a second machine.
        let start = Point { total: 0, at: 150 };
        for (at, up) in [(150, 0), (165, 190)] {
            let totals = Totals {
                up: Some(Stretch::at(Point { total: up, at }, up == 0)),
                down: None,
                starts: [Some(start), None],
                machine: None,
                by: ReportSource::new(2, 1),
            };
            account.settle(&totals, MAX_RATE);
        }
        assert_eq!(account.bases().0, 1400);
        assert_eq!(settle(&mut account, 270, 1600, Some(1)), 600);
    }

    #[test]
    fn a_dip_ends_when_it_turns_out_to_be_another_machine() {
        let mut account = PeerAccount::default();
        for (at, up, machine, credited) in [
            (0, 0, None, 0),
            (10, 1000, None, 1000),
            (20, 300, None, 0),
            (30, 310, Some(2), 0),
            (40, 1100, Some(1), 100),
            (50, 330, Some(2), 20),
            // Both machines again, but the reports name none.
            (90, 330, None, 0),
            (91, 1100, None, 0),
        ] {
            let bytes = settle(&mut account, at, up, machine);
            assert_eq!(bytes, credited, "{up} at {at}");
        }
    }
}
