//! Several machines that report under one user, torrent and peer id: a copied client folder
//! (rule A3).
//!
//! The base of such a record is the largest total that any of the machines reported, and never
//! goes down; the totals of the last two machines are kept as well. A known machine is credited
//! the growth of its own totals, any other one only what is above the base. So together
//! they are never credited more than they report, whatever the order: a report that is older than others
//! never becomes the starting point of a machine, because bytes after it may have been credited already.

use super::sessions::{DIP_SECONDS, Settled, limit};

/// The base of a total that was not reported yet. No larger total can be reported, so nothing
/// is ever credited against it.
pub const NO_TOTAL: u64 = i64::MAX as u64;

/// Identifies one of several machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineId {
    /// The family of its endpoint is IPv6.
    pub is_v6: bool,
    /// A hash of its endpoint, the same on every node.
    pub hash: u32,
}

/// The last report of one of several machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// A hash of its endpoint, the same on every node.
    pub id: u32,
    /// Totals in bytes, or [`NO_TOTAL`].
    pub up: u64,
    pub down: u64,
    /// When they were reported, in seconds.
    pub at: i64,
}

/// The machines that share a peer id, by their endpoints in one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machines {
    /// The family is IPv6.
    pub is_v6: bool,
    /// The machine that reported last, and the latest other one.
    pub latest: Machine,
    pub other: Option<Machine>,
}

/// The largest totals of any machine: the base of their record.
#[derive(Debug)]
pub struct Highest<'a> {
    /// Bytes, or [`NO_TOTAL`].
    pub up: &'a mut u64,
    pub down: &'a mut u64,
    /// When one of them rose last, in seconds.
    pub at: i64,
}

/// A report of one of the machines.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    pub id: u32,
    /// Bytes.
    pub up: Option<u64>,
    pub down: Option<u64>,
    /// `event=started`: totals may begin again.
    pub started: bool,
    /// Seconds.
    pub at: i64,
}

/// One counter of one machine.
struct Counter<'a> {
    own: &'a mut u64,
    highest: &'a mut u64,
    own_limit: u64,
    highest_limit: u64,
    /// A lower total is a new beginning, not a late report.
    may_reset: bool,
    /// No newer report is known, so the total of an unknown machine may become its starting point.
    may_adopt: bool,
}

// === impl Machines ===

impl Machines {
    /// Several machines of which nothing else is known; `at` in seconds.
    pub fn unknown(is_v6: bool, at: i64) -> Self {
        Self {
            is_v6,
            latest: Machine {
                id: 0,
                up: NO_TOTAL,
                down: NO_TOTAL,
                at,
            },
            other: None,
        }
    }

    /// Forgets the totals, after bytes were credited to an unknown machine. Keeps when each machine
    /// reported last, to recognize late reports; returns none if nothing was reported after `last_seen`
    /// (seconds).
    pub fn without_totals(self, last_seen: i64) -> Option<Self> {
        let forget = |machine: Machine| Machine {
            up: NO_TOTAL,
            down: NO_TOTAL,
            ..machine
        };
        (self.last_seen() > last_seen).then(|| Self {
            latest: forget(self.latest),
            other: self.other.map(forget),
            ..self
        })
    }

    /// Time of the latest report of any of them, in seconds.
    fn last_seen(&self) -> i64 {
        let other = self.other.map_or(i64::MIN, |other| other.at);
        self.latest.at.max(other)
    }

    /// Settles both totals of a report; `max_rate` is in bytes a second.
    pub fn settle(
        &mut self,
        report: &Announced,
        highest: &mut Highest<'_>,
        max_rate: u64,
    ) -> (Settled, Settled) {
        let may_adopt = report.at >= self.last_seen().max(highest.at);
        let (mut own, other) = self.take(report);
        let before = (own.up, own.down);
        // A `started` that arrives late, or through two nodes, begins nothing.
        let passed = report.at - own.at;
        let may_reset = (report.started && passed > 0) || passed >= DIP_SECONDS;
        let limits = [own.at, highest.at].map(|since| limit(report.at - since, max_rate));
        let count = |own, highest, reported| {
            let mut counter = Counter {
                own,
                highest,
                own_limit: limits[0],
                highest_limit: limits[1],
                may_reset,
                may_adopt,
            };
            counter.step(reported)
        };
        let up = count(&mut own.up, highest.up, report.up);
        let down = count(&mut own.down, highest.down, report.down);
        if before != (own.up, own.down) || may_reset {
            own.at = report.at.max(own.at);
        }
        if own.is_known() {
            (self.latest, self.other) = (own, other);
        }
        (up, down)
    }

    /// What is known of the machine that reports, and of the latest other one.
    fn take(&self, report: &Announced) -> (Machine, Option<Machine>) {
        if self.latest.id == report.id {
            return (self.latest, self.other);
        }
        let mut latest = self.latest;
        let known = self.other.filter(|other| other.id == report.id);
        if known.is_none() {
            latest.at = self.last_seen();
        }
        let unknown = Machine {
            id: report.id,
            up: NO_TOTAL,
            down: NO_TOTAL,
            at: report.at,
        };
        (known.unwrap_or(unknown), Some(latest))
    }
}

// === impl Machine ===

impl Machine {
    fn is_known(&self) -> bool {
        self.up != NO_TOTAL || self.down != NO_TOTAL
    }
}

// === impl Counter ===

impl Counter<'_> {
    fn step(&mut self, reported: Option<u64>) -> Settled {
        let Some(reported) = reported else {
            return Settled::default();
        };
        if *self.highest == NO_TOTAL {
            (*self.own, *self.highest) = (reported, reported);
            return Settled::default();
        }
        let is_known = *self.own != NO_TOTAL;
        let (from, limit) = if is_known {
            (*self.own, self.own_limit)
        } else {
            (*self.highest, self.highest_limit)
        };
        if reported >= from {
            *self.own = reported;
            *self.highest = reported.max(*self.highest);
            return Settled::of(reported - from, limit);
        }
        if is_known && self.may_reset || !is_known && self.may_adopt {
            *self.own = reported;
        }
        Settled::default()
    }
}
