//! Splits changes into numbered batches, and merges changes of one peer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::hash::RandomState;
use crate::base::ids::InfoHash;
use crate::change::{Batch, Change, PeerKey};

/// The most changes in one batch: what one storage transaction carries.
const BATCH_MAX: usize = 10_000;

/// Splits changes into batches in order, numbered from `first`.
pub(super) fn batches(changes: Vec<Change>, journal: &str, first: u64) -> Vec<Arc<Batch>> {
    let mut changes = coalesce(changes).into_iter().peekable();
    let mut batches = Vec::new();
    while changes.peek().is_some() {
        batches.push(Arc::new(Batch::new(
            journal.to_owned(),
            first + batches.len() as u64,
            changes.by_ref().take(BATCH_MAX).collect(),
        )));
    }
    batches
}

/// Whose record a change carries.
#[derive(PartialEq, Eq, Hash)]
enum Whose {
    Peer(PeerKey),
    Guest(InfoHash, SocketAddr),
}

/// Keeps one change for each session of a peer: its latest record, with the reports of all.
///
/// It stands where the latest change was, because the swarm counters of a later change win.
fn coalesce(changes: Vec<Change>) -> Vec<Change> {
    let mut places: HashMap<Whose, usize, RandomState> = HashMap::default();
    let mut kept: Vec<Option<Change>> = Vec::with_capacity(changes.len());
    for mut change in changes {
        if let Some(whose) = whose(&change)
            && let Some(before) = places.insert(whose, kept.len())
            && kept[before]
                .as_ref()
                .is_some_and(|earlier| join(earlier, &mut change))
        {
            kept[before] = None;
        }
        kept.push(Some(change));
    }
    kept.into_iter().flatten().collect()
}

/// Merges an earlier change of a peer into a later one; false if it can't, because a session began
/// with or between them.
fn join(earlier: &Change, later: &mut Change) -> bool {
    let (Change::Peer(earlier), Change::Peer(later)) = (earlier, later) else {
        // Of a public peer, only the latest record counts.
        return true;
    };
    let joined = match (&earlier.report, &later.report) {
        // The merged report would name the new session only, and lose the bytes of the one before.
        _ if earlier.continues_session() => None,
        (Some(first), Some(second)) => first.then(second),
        _ => None,
    };
    if joined.is_some() {
        later.report = joined;
        later.credit = earlier.credit.plus(later.credit);
    }
    joined.is_some()
}

fn whose(change: &Change) -> Option<Whose> {
    match change {
        Change::Peer(change) => Some(Whose::Peer(change.key)),
        Change::Guest(guest) => Some(Whose::Guest(guest.info_hash, guest.address)),
        Change::Snatches { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::sessions::{Point, Stretch};
    use crate::base::ids::{PeerId, TorrentId, UserId};
    use crate::change::{Credit, PeerChange, PeerRecord, Report, Standing, SwarmCounts};

    fn change(user: u32, base_up: u64, up: u64, seeders: u32) -> Change {
        Change::from(PeerChange {
            key: PeerKey {
                user: UserId(user),
                torrent: TorrentId(1),
                peer_id: PeerId([1; 20]),
            },
            info_hash: InfoHash([1; 20]),
            record: PeerRecord {
                base_up,
                base_down: 0,
                start_up: None,
                start_down: None,
                dip_up: None,
                dip_down: None,
                base_at: 0,
                uploaded: base_up,
                downloaded: 0,
                left: Some(0),
                v4: None,
                v6: None,
                v4_at: None,
                v6_at: None,
                speed_up: 0,
                speed_down: 0,
                seed_time: 0,
                announces: 1,
                first_announce: 0,
                last_announce: 0,
                active: true,
                paused: false,
            },
            credit: Credit {
                up,
                announces: 1,
                ..Credit::default()
            },
            standing: Standing::default(),
            counts: SwarmCounts {
                seeders,
                leechers: 0,
            },
            report: Some(Report {
                up: Some(Stretch {
                    from: Point {
                        total: base_up - up,
                        at: 0,
                    },
                    to: Point {
                        total: base_up,
                        at: 0,
                    },
                    started: false,
                }),
                down: None,
                machine: None,
                at: 0,
                seeding_since: None,
                announces: 1,
                completed: false,
                left: false,
                multi_up: 1000,
                multi_down: 1000,
            }),
        })
    }

    #[test]
    fn changes_of_one_peer_become_one_in_the_place_of_the_latest() {
        let changes = vec![
            change(1, 10, 10, 1),
            change(2, 5, 5, 2),
            change(1, 30, 20, 3),
        ];
        let batches = batches(changes, "n", 7);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].number, 7);
        let [Change::Peer(first), Change::Peer(second)] = &batches[0].changes[..] else {
            panic!("two changes are left")
        };
        assert_eq!(first.key.user, UserId(2));
        assert_eq!((second.record.base_up, second.credit.up), (30, 30));
        assert_eq!(second.credit.announces, 2);
        assert_eq!(second.counts.seeders, 3);
        let up = second.report.and_then(|report| report.up).unwrap();
        assert_eq!((up.from.total, up.to.total), (0, 30));
    }

    #[test]
    fn a_session_that_began_has_a_change_of_its_own() {
        let mut began = change(1, 0, 0, 1);
        if let Change::Peer(change) = &mut began {
            let report = change.report.as_mut().unwrap();
            report.up.as_mut().unwrap().started = true;
        }
        let changes = vec![change(1, 10, 10, 1), began, change(1, 5, 5, 1)];
        let batches = batches(changes, "n", 1);
        let credit = |change: &Change| match change {
            Change::Peer(change) => change.credit.up,
            _ => 0,
        };
        let credits: Vec<u64> = batches[0].changes.iter().map(credit).collect();
        assert_eq!(credits, [10, 5]);
    }

    #[test]
    fn batches_are_bounded_and_numbered_without_gaps() {
        let snatches = Change::Snatches {
            info_hash: InfoHash([1; 20]),
            count: 1,
        };
        let batches = batches(vec![snatches; BATCH_MAX + 1], "n", 3);
        let numbers: Vec<u64> = batches.iter().map(|batch| batch.number).collect();
        assert_eq!(numbers, [3, 4]);
        assert_eq!(batches[1].changes.len(), 1);
        assert!(super::batches(Vec::new(), "n", 1).is_empty());
    }

    #[test]
    fn a_started_that_goes_on_has_a_change_of_its_own() {
        let started_at = |total: u64, up: u64, start: u64| {
            let mut change = change(1, total, up, 1);
            if let Change::Peer(peer) = &mut change {
                peer.record.start_up = Some(Point {
                    total: start,
                    at: 0,
                });
            }
            change
        };
        let kept = |changes: Vec<Change>| batches(changes, "n", 1)[0].changes.len();
        let goes_on = vec![change(1, 10, 10, 1), started_at(30, 20, 30)];
        assert_eq!(
            kept(goes_on.clone()),
            1,
            "all of it belongs to that `started`"
        );
        let moves_more = [goes_on, vec![started_at(50, 20, 30)]].concat();
        assert_eq!(kept(moves_more), 2);
        let moved_nothing = vec![started_at(30, 0, 30), started_at(50, 20, 30)];
        assert_eq!(kept(moved_nothing), 1);
    }
}
