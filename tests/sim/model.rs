//! What clients really did, and the bounds of their users' credit: independent of the tracker's code.
//!
//! A *life* is a stretch in which one client's totals only grew. It gains what it moved between two of its
//! reports: at least between those that were durable when their replies went, at most between any that were sent.
//! Where every report was acknowledged the two are the same, and so is the credit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mika::base::ids::{PeerId, TorrentId, UserId};
use mika::change::PeerKey;
use mika::wire::Event;

use super::seedtime::{self, Order};
use super::storage::{LateReports, Tables};
use super::sums;
use super::world::Key;

/// After so long without `started`, a client that reports less than before is taken at its word (rule A3), and a
/// second more for times that are whole seconds.
const DIP: Duration = Duration::from_secs(62);

/// Of reports closer together than this, nodes may disagree which was the last.
const APART: Duration = Duration::from_secs(5);

/// Seconds by which seed time may be rounded for each report's node, and for each life.
const ROUNDING: u64 = 2;

/// A number of [`Model::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LifeId(usize);

/// A number of [`Model::decide`].
#[derive(Clone, Copy, Debug)]
pub struct ReportId(LifeId, usize);

/// The reports of each peer.
pub type Reports = BTreeMap<(UserId, TorrentId, PeerId), Vec<Report>>;

/// What is known of a life from its begin.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    pub client: u32,
    pub user: u32,
    pub torrent: u32,
    pub peer_id: PeerId,
    /// The totals that it began with, which were never reported.
    pub up: u64,
    pub down: u64,
    /// It began without `started`, with less than was reported under its peer id before.
    pub is_silent: bool,
    /// It has two addresses, and may leave with one of them only.
    pub is_dual: bool,
    /// Another machine has its peer id, too.
    pub is_copied: bool,
}

struct Life {
    birth: Birth,
    reports: Vec<Report>,
}

/// One announce that a node decided, whatever became of its reply.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub at: Duration,
    /// The time that its node noted: a node alone with a wrong clock may take it for another one.
    pub noted: Duration,
    /// Unix time of its node.
    pub unix: i64,
    pub up: u64,
    pub down: u64,
    /// Thousandths by which its bytes count, up and down.
    pub factors: (u32, u32),
    pub is_seeding: bool,
    pub event: Event,
    /// The process that decided it.
    pub process: u32,
    /// It was durable when the reply went, or soon after.
    pub is_durable: bool,
    /// The reply reached the client.
    pub is_answered: bool,
}

#[derive(Default)]
pub struct Model {
    lives: Vec<Life>,
    /// Why something may be lost that was acknowledged: promises that the run has not kept either.
    pub excuse: Option<&'static str>,
    /// In which order storage gets what nodes pass on.
    pub order: Order,
}

/// From a least to a most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub least: u64,
    pub most: u64,
}

/// What is due to a user for one torrent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Due {
    pub up: Bounds,
    pub down: Bounds,
    pub seed_time: Bounds,
    /// 0 or 1.
    pub snatch: Bounds,
}

/// What is wrong, and for which user.
#[derive(Clone, Debug)]
pub struct Wrong {
    pub users: Vec<u32>,
    pub what: String,
}

// === impl Model ===

impl Model {
    /// The life of a client that has none yet.
    pub const NONE: LifeId = LifeId(usize::MAX);

    pub fn new(order: Order) -> Self {
        Self {
            order,
            ..Self::default()
        }
    }

    /// All reports of each peer, in the order in which they were decided.
    pub fn reports(&self) -> Reports {
        let mut reports = Reports::new();
        for Life {
            birth,
            reports: of_life,
        } in &self.lives
        {
            let key = (UserId(birth.user), TorrentId(birth.torrent), birth.peer_id);
            reports.entry(key).or_default().extend(of_life);
        }
        for reports in reports.values_mut() {
            reports.sort_by_key(|report| report.at);
        }
        reports
    }

    pub fn begin(&mut self, birth: Birth) -> LifeId {
        self.lives.push(Life {
            birth,
            reports: Vec::new(),
        });
        LifeId(self.lives.len() - 1)
    }

    pub fn decide(&mut self, life: LifeId, report: Report) -> ReportId {
        let reports = &mut self.lives[life.0].reports;
        reports.push(report);
        ReportId(life, reports.len() - 1)
    }

    pub fn set_durable(&mut self, report: ReportId) {
        self.lives[report.0.0].reports[report.1].is_durable = true;
    }

    pub fn set_answered(&mut self, report: ReportId) {
        self.lives[report.0.0].reports[report.1].is_answered = true;
    }

    /// Whether several machines have that peer id.
    pub fn is_copied(&self, peer_id: PeerId) -> bool {
        let mut lives = self.lives.iter();
        lives.any(|life| life.birth.peer_id == peer_id && life.birth.is_copied)
    }

    /// Whether a client with that peer id has two addresses.
    pub fn is_dual(&self, peer_id: PeerId) -> bool {
        let mut lives = self.lives.iter();
        lives.any(|life| life.birth.peer_id == peer_id && life.birth.is_dual)
    }

    /// A second machine has that peer id from now on.
    pub fn set_copied(&mut self, peer_id: PeerId) {
        for life in &mut self.lives {
            if life.birth.peer_id == peer_id {
                life.birth.is_copied = true;
            }
        }
    }

    /// What is due, by user and torrent.
    pub fn due(&self, late: &LateReports) -> BTreeMap<(UserId, TorrentId), Due> {
        let mut due: BTreeMap<(UserId, TorrentId), Due> = BTreeMap::new();
        for (key, (up, down)) in self.gains(late) {
            let due = due.entry((key.user, key.torrent)).or_default();
            due.up.add(up);
            due.down.add(down);
        }
        for life in &self.lives {
            let key = (UserId(life.birth.user), TorrentId(life.birth.torrent));
            let due = due.entry(key).or_default();
            due.seed_time.most += ROUNDING;
            let completed = life.reports.iter().filter(|report| report.completes());
            due.snatch.most = due.snatch.most.max(completed.clone().count().min(1) as u64);
            let certain = completed.filter(|report| report.is_promised());
            due.snatch.least = due.snatch.least.max(certain.count().min(1) as u64);
        }
        let mut seconds: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
        let reports = self.reports();
        for ((user, torrent, _), reports) in &reports {
            let seconds = seconds.entry((*user, *torrent)).or_default();
            seconds.extend(seedtime::most(reports));
            if let Some(due) = due.get_mut(&(*user, *torrent)) {
                due.seed_time.most += seedtime::leapt(reports) + seedtime::stretched(reports);
            }
        }
        for (key, least) in seedtime::least(&reports, &self.order) {
            if let Some(due) = due.get_mut(&key) {
                due.seed_time.least = least;
            }
        }
        for (key, seconds) in seconds {
            if let Some(due) = due.get_mut(&key) {
                due.seed_time.most += seconds.len() as u64;
            }
        }
        due
    }

    /// What each peer gained, up and down. Of a life whose `started` came `late`, what the lives before it had
    /// above its begin may be lost.
    fn gains(&self, late: &LateReports) -> BTreeMap<PeerKey, (Bounds, Bounds)> {
        let mut gains: BTreeMap<PeerKey, (Bounds, Bounds)> = BTreeMap::new();
        let mut known: BTreeMap<PeerKey, (u64, u64)> = BTreeMap::new();
        for life in &self.lives {
            let Life { birth, reports } = life;
            if reports.is_empty() {
                continue;
            }
            let key = PeerKey {
                user: UserId(birth.user),
                torrent: TorrentId(birth.torrent),
                peer_id: birth.peer_id,
            };
            // Where an earlier life is known, this one may go on from its totals, and from those that
            // the earlier one last reported, if it had more than that.
            let before = known.get(&key).copied();
            let begin =
                |total: u64, before: Option<u64>| before.map_or(u64::MAX, |it| it.min(total));
            let gain = gains.entry(key).or_default();
            let (up, down) = (
                begin(birth.up, before.map(|it| it.0)),
                begin(birth.down, before.map(|it| it.1)),
            );
            let lost = life.lost(key, before.unwrap_or_default(), late);
            let is_late = |total| late.has_up(key, total);
            gain.0
                .add(life.gain(up, |report| report.up, is_late).less(lost.0));
            let is_late = |total| late.has_down(key, total);
            gain.1
                .add(life.gain(down, |report| report.down, is_late).less(lost.1));
            let last = |total: fn(&Report) -> u64| reports.iter().map(total).max().unwrap_or(0);
            known.insert(key, (last(|report| report.up), last(|report| report.down)));
        }
        for (key, gain) in &mut gains {
            if self.is_copied(key.peer_id) && self.is_dual(key.peer_id) {
                gain.0.most += self.apart(key, |report| report.up);
                gain.1.most += self.apart(key, |report| report.down);
            }
        }
        gains
    }

    /// The largest difference between totals of machines that share a peer id. While one of them is known by one
    /// address family only, another one that uses the other family can't be told from it, so that much may count once
    /// more (rule A3).
    fn apart(&self, key: &PeerKey, total: fn(&Report) -> u64) -> u64 {
        let is_of = |life: &&Life| {
            let Birth { user, torrent, .. } = life.birth;
            (UserId(user), TorrentId(torrent), life.birth.peer_id)
                == (key.user, key.torrent, key.peer_id)
        };
        let lives = self.lives.iter().filter(is_of);
        let totals = lives.flat_map(|life| life.reports.iter().map(total));
        let (least, most) = totals.fold((u64::MAX, 0), |(least, most), total| {
            (least.min(total), most.max(total))
        });
        most.saturating_sub(least)
    }

    /// Present and departed clients, by the last report of each, if it was made `before`. Left out are
    /// all of whom nodes may think otherwise: without a reply to that report, or silent since before the limits,
    /// of the time that it was made, and of the time that its node noted.
    pub fn presence(&self, limits: [Duration; 2], before: Duration) -> BTreeMap<Key, bool> {
        let mut presence = BTreeMap::new();
        let mut reports: BTreeMap<Key, Vec<&Report>> = BTreeMap::new();
        let mut latest: BTreeMap<u32, &Birth> = BTreeMap::new();
        for Life { birth, reports: of } in &self.lives {
            let key = (birth.user, birth.torrent, birth.peer_id);
            reports.entry(key).or_default().extend(of);
            if !of.is_empty() {
                latest.insert(birth.client, birth);
            }
        }
        for birth in latest.into_values().filter(|birth| !birth.is_copied) {
            let key = (birth.user, birth.torrent, birth.peer_id);
            let of = &reports[&key];
            let Some(last) = of.iter().max_by_key(|report| report.at) else {
                continue;
            };
            let is_there = last.event != Event::Stopped;
            let differs = |report: &&Report| (report.event != Event::Stopped) != is_there;
            let is_close = |report: &&&Report| report.at + APART > last.at;
            let is_unclear = of
                .iter()
                .copied()
                .filter(|it| is_close(&it))
                .any(|it| differs(&it));
            let may_be_otherwise = if is_there {
                last.at < limits[0] || last.noted < limits[1]
            } else {
                birth.is_dual
            };
            let is_in_time = last.at <= before && last.is_promised();
            if is_in_time && !is_unclear && !may_be_otherwise {
                presence.insert(key, is_there);
            }
        }
        presence
    }

    /// No announce counts twice.
    fn announces(&self, tables: &Tables) -> Vec<Wrong> {
        let mut decided: BTreeMap<u32, u64> = BTreeMap::new();
        for life in &self.lives {
            *decided.entry(life.birth.user).or_default() += life.reports.len() as u64;
        }
        let mut wrong = Vec::new();
        for (id, row) in &tables.users {
            let (found, most) = (
                row.totals.announces,
                decided.get(&id.0).copied().unwrap_or(0),
            );
            if found > most {
                wrong.push(Wrong {
                    users: vec![id.0],
                    what: format!("user {}: {found} announces are counted, of {most}", id.0),
                });
            }
        }
        wrong
    }

    /// Compares storage with what is due.
    pub fn check(&self, tables: &Tables) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let due = self.due(&tables.late);
        for (&(user, torrent), due) in &due {
            let found = tables.histories.get(&(torrent, user)).cloned();
            let found = found.unwrap_or_default();
            let mut expect = |what: &str, bounds: Bounds, found: u64| {
                let least = if self.excuse.is_some() {
                    0
                } else {
                    bounds.least
                };
                if !(least..=bounds.most).contains(&found) {
                    let what = format!(
                        "user {} torrent {}: {what} is {found}, and should be {}",
                        user.0,
                        torrent.0,
                        Bounds { least, ..bounds }
                    );
                    wrong.push(Wrong {
                        users: vec![user.0],
                        what,
                    });
                }
            };
            expect("uploaded", due.up, found.uploaded);
            expect("downloaded", due.down, found.downloaded);
            expect("seed time", due.seed_time, found.seed_time);
            let snatches = u64::from(found.completed_at.is_some());
            expect("the snatch", due.snatch, snatches);
        }
        for (key, (up, down)) in self.gains(&tables.late) {
            let Some(row) = tables.peers.get(&key) else {
                continue;
            };
            for (what, bounds, found) in [
                ("up", up, row.held.uploaded),
                ("down", down, row.held.downloaded),
            ] {
                let least = if self.excuse.is_some() {
                    0
                } else {
                    bounds.least
                };
                if !(least..=bounds.most).contains(&found) {
                    let what = format!(
                        "user {} torrent {}: {what} of {} is {found}, and should be {}",
                        key.user.0,
                        key.torrent.0,
                        String::from_utf8_lossy(&key.peer_id.0),
                        Bounds { least, ..bounds }
                    );
                    wrong.push(Wrong {
                        users: vec![key.user.0],
                        what,
                    });
                }
            }
        }
        wrong.extend(sums::check(tables, &self.reports()));
        wrong.extend(self.announces(tables));
        wrong
    }
}

// === impl Life ===

impl Life {
    /// What may be lost of both totals at its begin, where those before it were so high.
    fn lost(&self, key: PeerKey, before: (u64, u64), late: &LateReports) -> (u64, u64) {
        let starts = self.reports.iter();
        let starts = starts.filter(|report| report.event == Event::Started);
        let mut lost = (0, 0);
        for Report { up, down, .. } in starts {
            let is_late = late.has_start(key, *up, *down);
            if is_late.0 {
                lost.0 = before.0.saturating_sub(*up).max(lost.0);
            }
            if is_late.1 {
                lost.1 = before.1.saturating_sub(*down).max(lost.1);
            }
        }
        lost
    }

    /// What it moved of one total, from `begin` on at most. Of a silent begin, what reached storage late may be lost: the
    /// later report was taken for one of the life before.
    fn gain(
        &self,
        begin: u64,
        total: impl Fn(&Report) -> u64,
        is_late: impl Fn(u64) -> bool,
    ) -> Bounds {
        let sent = self.reports.iter().map(&total);
        let (Some(first), Some(last)) = (sent.clone().min(), sent.max()) else {
            return Bounds::default();
        };
        let most = last - first.min(begin);
        if self.birth.is_copied {
            return Bounds { least: 0, most };
        }
        let has_started = |report: &Report| report.event == Event::Started && report.is_promised();
        let is_silent = self.birth.is_silent || !self.reports.iter().any(has_started);
        let promised = || self.reports.iter().filter(|report| report.is_promised());
        let begin = promised().map(|report| report.noted);
        let begin = begin.min().unwrap_or_default();
        let is_taken_at_its_word =
            |report: &Report| report.noted >= begin + DIP && !is_late(total(report));
        let counts = |report: &&Report| !is_silent || is_taken_at_its_word(report);
        let durable = || promised().filter(counts).map(&total);
        let least = durable().max().unwrap_or(0) - durable().next().unwrap_or(0);
        Bounds { least, most }
    }
}

// === impl Report ===

impl Report {
    fn completes(&self) -> bool {
        self.event == Event::Completed && self.is_seeding
    }

    /// Its reports, which must not be lost.
    pub fn is_promised(&self) -> bool {
        self.is_durable && self.is_answered
    }
}

// === impl Bounds ===

impl Bounds {
    pub fn has(&self, number: u64) -> bool {
        (self.least..=self.most).contains(&number)
    }

    /// The same, but so much may be lost.
    fn less(self, lost: u64) -> Self {
        Self {
            least: self.least.saturating_sub(lost),
            ..self
        }
    }

    fn add(&mut self, other: Self) {
        self.least += other.least;
        self.most += other.most;
    }
}

impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { least, most } = self;
        if least == most {
            write!(f, "{most}")
        } else {
            write!(f, "{least} to {most}")
        }
    }
}
