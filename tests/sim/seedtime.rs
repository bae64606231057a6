//! For how long users seeded, at most and at least, as far as it was reported.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mika::ids::{PeerId, TorrentId, UserId};
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

/// The seconds in which a client was seeding, as far as anybody may think so who heard these reports of it, or some
/// of them: from one of them to the next, and beyond a stop that another process heard.
pub fn most(reports: &[Report]) -> BTreeSet<u64> {
    let mut seconds = BTreeSet::new();
    for (at, report) in reports.iter().enumerate().filter(|(_, it)| it.is_seeding) {
        let limit = report.noted + Duration::from_secs(TTL + TTL_SLACK);
        let heard = reports[at + 1..]
            .iter()
            .take_while(|later| later.noted <= limit);
        let heard =
            heard.filter(|later| report.event != Event::Stopped || later.process != report.process);
        if let Some(last) = heard.last() {
            seconds.extend(report.noted.as_secs()..last.noted.as_secs());
        }
    }
    seconds
}

/// For how long each user seeded each torrent at least: what one process heard of a client and its next report,
/// of which the latter must not be lost. Late reports of several nodes may lie between two stretches that are not
/// connected, and are lost then; and where a clock leaps, what another client of the user may have told is.
pub fn least(
    reports: &BTreeMap<(UserId, TorrentId, PeerId), Vec<Report>>,
    order: &Order,
) -> BTreeMap<Key, u64> {
    let mut processes: BTreeMap<Key, BTreeSet<u32>> = BTreeMap::new();
    let mut peers: BTreeMap<Key, u32> = BTreeMap::new();
    let mut seconds: BTreeMap<Key, BTreeSet<u64>> = BTreeMap::new();
    let mut pairs: BTreeMap<Key, u64> = BTreeMap::new();
    for ((user, torrent, _), reports) in reports {
        let key = (*user, *torrent);
        let heard_by = reports.iter().map(|report| report.process);
        processes.entry(key).or_default().extend(heard_by);
        *peers.entry(key).or_default() += 1;
        for pair in reports.windows(2).filter(|pair| is_certain(pair)) {
            let (from, until) = (pair[0].noted.as_secs() + 1, pair[1].noted.as_secs());
            seconds.entry(key).or_default().extend(from..until);
            *pairs.entry(key).or_default() += 1;
        }
    }
    let least = |(key, seconds): (Key, BTreeSet<u64>)| {
        let is_one = processes[&key].len() == 1;
        let is_in_order = order.is_kept || is_one;
        let is_steady = !order.may_leap || peers[&key] == 1;
        if !is_in_order || !is_steady {
            return (key, 0);
        }
        // Each report of another process may be of another second.
        let apart = if is_one { 0 } else { order.apart * pairs[&key] };
        (key, (seconds.len() as u64).saturating_sub(apart))
    };
    seconds.into_iter().map(least).collect()
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
