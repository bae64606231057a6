//! Bounds of the seed time of users, from their reports.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mika::base::ids::{PeerId, TorrentId, UserId};
use mika::wire::Event;

use super::model::Report;
use super::world::{TTL, TTL_SLACK};

/// In which order storage gets what nodes pass on, and by which clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    /// Nothing holds a node up while others go on, so nothing arrives late.
    pub is_kept: bool,
    /// A node's time may leap while it runs, because it knows no clock but its host's.
    pub may_leap: bool,
    /// Seconds by which the times of two nodes may differ.
    pub apart: u64,
}

/// What a user did with a torrent.
type Key = (UserId, TorrentId);

/// Seconds from one report of a seeding client to its next.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    peer_id: PeerId,
    from: u64,
    until: u64,
    /// It must not be lost.
    is_certain: bool,
}

/// The seconds in which a client was seeding, as far as a node can know that received these reports, or some
/// of them: from one of them to the next, and beyond a stop that another process received.
pub fn most(reports: &[Report]) -> BTreeSet<u64> {
    let mut seconds = BTreeSet::new();
    for (at, report) in reports.iter().enumerate().filter(|(_, it)| it.is_seeding) {
        let limit = report.noted + Duration::from_secs(TTL + TTL_SLACK);
        let later = reports[at + 1..]
            .iter()
            .take_while(|later| later.noted <= limit);
        let later =
            later.filter(|later| report.event != Event::Stopped || later.process != report.process);
        if let Some(last) = later.last() {
            seconds.extend(report.at.as_secs()..last.at.as_secs());
        }
    }
    seconds
}

/// Seconds by which a node noted more than passed between two reports of a client, because its clock was wrong while
/// it did not run.
pub fn stretched(reports: &[Report]) -> u64 {
    let pairs = reports.windows(2).map(|pair| {
        let passed = pair[1].at.saturating_sub(pair[0].at);
        let noted = pair[1].noted.saturating_sub(pair[0].noted);
        (noted, noted.saturating_sub(passed))
    });
    let is_in_time =
        |(noted, _): &(Duration, Duration)| *noted <= Duration::from_secs(TTL + TTL_SLACK);
    let more = pairs
        .filter(is_in_time)
        .map(|(_, more)| more.as_secs_f64().ceil() as u64);
    more.sum()
}

/// Seconds by which seed time of a client may be too long because the clock of a node alone leapt, and the node was
/// restarted before the client announced by its new time: what it knows of it is older, then.
pub fn leapt(reports: &[Report]) -> u64 {
    let mut seconds = 0;
    for (at, pair) in reports.windows(2).enumerate() {
        let (first, next) = (&pair[0], &pair[1]);
        let passed = next.noted.saturating_sub(first.noted).as_secs();
        let leap = (next.unix - first.unix).saturating_sub_unsigned(passed);
        let limit = first.unix + (TTL + TTL_SLACK).cast_signed();
        let mut later = reports[at + 1..].iter().take_while(|it| it.unix <= limit);
        let known = later.find(|it| it.is_durable || it.process != first.process);
        // Less is by rounding.
        if leap >= 2 && known.is_some_and(|it| it.process != first.process) {
            seconds += leap.cast_unsigned();
        }
    }
    seconds
}

/// For how long each user seeded each torrent at least: what one process received of a client and its next report,
/// of which the latter must not be lost. Late reports of several nodes may lie between two stretches that are not
/// connected, and are lost then, as is what a client reports after several of them by others; and where a clock leaps,
/// what another client of the user may have reported is.
pub fn least(
    reports: &BTreeMap<(UserId, TorrentId, PeerId), Vec<Report>>,
    order: &Order,
) -> BTreeMap<Key, u64> {
    let mut processes: BTreeMap<Key, BTreeSet<u32>> = BTreeMap::new();
    let mut peers: BTreeMap<Key, u32> = BTreeMap::new();
    let mut stretches: BTreeMap<Key, Vec<Stretch>> = BTreeMap::new();
    for ((user, torrent, peer_id), reports) in reports {
        let key = (*user, *torrent);
        let heard_by = reports.iter().map(|report| report.process);
        processes.entry(key).or_default().extend(heard_by);
        *peers.entry(key).or_default() += 1;
        let seeding = reports.windows(2).filter(|pair| pair[0].is_seeding);
        stretches
            .entry(key)
            .or_default()
            .extend(seeding.map(|pair| Stretch {
                peer_id: *peer_id,
                from: pair[0].noted.as_secs(),
                until: pair[1].noted.as_secs(),
                is_certain: is_certain(pair) && is_clear(&pair[0], reports),
            }));
    }
    let least = |(key, stretches): (Key, Vec<Stretch>)| {
        let is_one = processes[&key].len() == 1;
        let is_in_order = order.is_kept || is_one;
        let is_steady = !order.may_leap || peers[&key] == 1;
        if !is_in_order || !is_steady {
            return (key, 0);
        }
        let certain = || stretches.iter().filter(|it| it.is_certain);
        let counted = |it: &Stretch| it.from.max(floor(it, &stretches)) + 1..it.until;
        let seconds: BTreeSet<u64> = certain().flat_map(counted).collect();
        // Each report of another process may be of another second.
        let pairs = certain().count() as u64;
        let apart = if is_one { 0 } else { order.apart * pairs };
        (key, (seconds.len() as u64).saturating_sub(apart))
    };
    stretches.into_iter().map(least).collect()
}

/// The time before which nothing of a stretch counts: storage knows one gap only. So it is where other clients of the
/// user reported something after it that is not connected with what they reported before.
fn floor(stretch: &Stretch, all: &[Stretch]) -> u64 {
    let reported = || all.iter().filter(|it| it.until <= stretch.until);
    let goes_on =
        |one: &Stretch, next: &Stretch| one.peer_id == next.peer_id && one.until == next.from;
    let is_gap = |one: &&Stretch| {
        let is_after = |it: &Stretch| it.from >= one.until && !goes_on(one, it);
        let is_over = |it: &Stretch| it.from < one.until && it.until > one.until;
        let bridges = |it: &Stretch| it.is_certain && (is_over(it) || goes_on(one, it));
        reported().any(is_after) && !reported().any(|it| it.until < stretch.until && bridges(it))
    };
    let gaps = reported()
        .filter(|it| it.until < stretch.until && it.peer_id != stretch.peer_id)
        .filter(is_gap);
    gaps.map(|it| it.until).max().unwrap_or(0)
}

/// Whether no other machine with the same peer id reported the opposite (seeding or not) at the same time: the node may
/// have received the two in the other order.
fn is_clear(report: &Report, all: &[Report]) -> bool {
    let is_close = |other: &&Report| other.at.abs_diff(report.at) < Duration::from_secs(1);
    all.iter()
        .filter(is_close)
        .all(|other| other.is_seeding == report.is_seeding)
}

/// Whether what lies between two reports in a row is seed time that must not be lost.
fn is_certain(pair: &[Report]) -> bool {
    let (first, next) = (&pair[0], &pair[1]);
    let is_there = first.is_seeding && first.event != Event::Stopped;
    let gap = next.at.saturating_sub(first.at);
    is_there
        && first.process == next.process
        && gap < Duration::from_secs(TTL - 1)
        && next.is_promised()
}
