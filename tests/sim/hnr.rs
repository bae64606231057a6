//! Hit and run: which users must be marked in storage, and which must not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mika::base::ids::{PeerId, TorrentId, UserId};
use mika::storage::settle::HeldHistory;
use mika::wire::Event;

use super::model::{Model, Report, Wrong};
use super::storage::Tables;
use super::world::TTL;

/// How long after its last report a peer is gone from every node.
const GONE: Duration = Duration::from_secs(TTL + 20);

/// How long it is certainly there.
const THERE: Duration = Duration::from_secs(TTL - 2);

/// The rules in force.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Seconds of seeding that are owed.
    pub threshold: u64,
    pub min_bytes: u64,
}

/// The reports of a user's peers of one torrent.
type Peers<'a> = BTreeMap<PeerId, &'a [Report]>;

/// Marks that nothing can explain. Of a node alone, also those of users who were there all the time until `alone_at`.
pub fn check_unearned(
    model: &Model,
    tables: &Tables,
    rules: &Rules,
    alone_at: Option<Duration>,
) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let reports = model.reports();
    for (key, peers) in by_user(&reports) {
        let Some(done) = marked(tables, key).filter(|done| done.hnr) else {
            continue;
        };
        if !owes(done, rules) {
            wrong.push(say(key, done, "is marked, and owes nothing"));
        }
        if alone_at.is_some_and(|now| was_always_there(&peers, now)) {
            wrong.push(say(key, done, "is marked, and never left"));
        }
    }
    wrong
}

/// Users without a mark who left while they owed. Call it when all peers are gone. `running` are the processes that
/// have run since the last reports, and `since` is when the last of them began to serve: a node that has just
/// started does not mark silent peers, and if it is the first to expire one, no node does.
pub fn check_missing(
    model: &Model,
    tables: &Tables,
    rules: &Rules,
    running: &BTreeSet<u32>,
    since: Duration,
) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let reports = model.reports();
    for (key, peers) in by_user(&reports) {
        let Some(done) = marked(tables, key).filter(|done| !done.hnr) else {
            continue;
        };
        if owes(done, rules) && has_surely_left(model, &peers, running, since) {
            wrong.push(say(key, done, "has left, and is not marked"));
        }
    }
    wrong
}

fn by_user(
    reports: &BTreeMap<(UserId, TorrentId, PeerId), Vec<Report>>,
) -> BTreeMap<(UserId, TorrentId), Peers<'_>> {
    let mut users: BTreeMap<_, Peers<'_>> = BTreeMap::new();
    for ((user, torrent, peer_id), reports) in reports {
        let peers = users.entry((*user, *torrent)).or_default();
        peers.insert(*peer_id, reports);
    }
    users
}

fn marked(tables: &Tables, (user, torrent): (UserId, TorrentId)) -> Option<&HeldHistory> {
    tables.histories.get(&(torrent, user))
}

fn owes(done: &HeldHistory, rules: &Rules) -> bool {
    done.downloaded > rules.min_bytes && done.seed_time < rules.threshold
}

/// Whether some peer of the user was in the swarm at any time since the first report.
fn was_always_there(peers: &Peers<'_>, now: Duration) -> bool {
    let mut all: Vec<&Report> = peers.values().copied().flatten().collect();
    all.sort_by_key(|report| report.noted);
    let is_near = |pair: &[&Report]| pair[1].noted.saturating_sub(pair[0].noted) < THERE;
    let is_recent = all
        .last()
        .is_some_and(|last| now.saturating_sub(last.noted) < THERE);
    let has_stopped = all.iter().any(|report| report.event == Event::Stopped);
    !has_stopped && is_recent && all.windows(2).all(is_near)
}

/// Whether the last peer was the only one for long, and left a swarm that it was in.
fn has_surely_left(
    model: &Model,
    peers: &Peers<'_>,
    running: &BTreeSet<u32>,
    since: Duration,
) -> bool {
    let last_of = |reports: &[Report]| reports.last().copied();
    let latest = peers
        .iter()
        .filter_map(|(id, reports)| Some((*id, last_of(reports)?)));
    let Some((id, last)) = latest.max_by_key(|(_, last)| last.at) else {
        return false;
    };
    let reports = peers[&id];
    let was_there = reports.len().checked_sub(2).is_some_and(|at| {
        let before = reports[at];
        let gap = last.at.saturating_sub(before.at);
        before.event != Event::Stopped && before.process == last.process && gap < THERE
    });
    let others = peers.iter().filter(|(other, _)| **other != id);
    let mut others = others.filter_map(|(_, reports)| last_of(reports));
    let is_alone = others.all(|other| other.at + GONE < last.at);
    is_alone
        && !model.is_copied(id)
        && last.is_promised()
        && running.contains(&last.process)
        && match last.event {
            // By its other family it may still be there, until it is missed.
            Event::Stopped if model.is_dual(id) => was_there && last.at > since,
            Event::Stopped => was_there,
            _ => last.at > since,
        }
}

fn say((user, torrent): (UserId, TorrentId), done: &HeldHistory, what: &str) -> Wrong {
    let (downloaded, seed_time) = (done.downloaded, done.seed_time);
    Wrong {
        users: vec![user.0],
        what: format!(
            "user {} torrent {}: {what} ({downloaded} bytes downloaded, seeded for {seed_time} s)",
            user.0, torrent.0
        ),
    }
}
