//! What storage has of a user must add up, whatever clients did.

use mika::ids::{TorrentId, UserId};

use super::model::{Bounds, Reports, Wrong};
use super::storage::{Done, Tables};

/// Totals of users and torrents are the sums of what users did.
pub fn check(tables: &Tables, reports: &Reports) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for (id, row) in &tables.users {
        let of_user = || tables.histories.iter().filter(|(key, _)| key.1 == *id);
        let totals = row.totals;
        let raw = |up: bool| {
            let of = move |done: &Done| {
                if up {
                    done.uploaded
                } else {
                    done.held.downloaded
                }
            };
            of_user().map(move |(key, done)| (key.0, of(done)))
        };
        for (what, up, total) in [
            ("uploaded", true, totals.uploaded),
            ("downloaded", false, totals.downloaded),
        ] {
            let bounds = factored(*id, raw(up), reports, up);
            if !(bounds.least..=bounds.most).contains(&total) {
                wrong.push(Wrong {
                    users: vec![id.0],
                    what: format!("user {}: {what} is {total}, and should be {bounds}", id.0),
                });
            }
        }
        let pairs = [
            (
                "seed time",
                totals.seed_time,
                of_user().map(|(_, it)| it.held.seed_time).sum::<u64>(),
            ),
            (
                "snatches",
                totals.snatches,
                of_user()
                    .filter(|(_, it)| it.held.completed_at.is_some())
                    .count() as u64,
            ),
        ];
        for (what, total, sum) in pairs {
            if total != sum {
                wrong.push(Wrong {
                    users: vec![id.0],
                    what: format!(
                        "user {}: {what} is {total}, and the torrents add up to {sum}",
                        id.0
                    ),
                });
            }
        }
    }
    for (id, row) in &tables.torrents {
        let users: Vec<_> = tables
            .histories
            .iter()
            .filter(|(key, _)| key.0 == *id)
            .collect();
        let snatched = users
            .iter()
            .filter(|(_, it)| it.held.completed_at.is_some());
        let snatches = snatched.count() as u64;
        if u64::from(row.torrent.snatches) != snatches {
            wrong.push(Wrong {
                users: users.iter().map(|(key, _)| key.1.0).collect(),
                what: format!(
                    "torrent {}: {} snatches, by {snatches} users",
                    id.0, row.torrent.snatches
                ),
            });
        }
    }
    wrong
}

/// What a user may have of what was credited for each torrent: a report counts by the multipliers that are in
/// force where it is decided, and the product is rounded down.
fn factored(
    user: UserId,
    raw: impl Iterator<Item = (TorrentId, u64)>,
    reports: &Reports,
    up: bool,
) -> Bounds {
    let mut bounds = Bounds::default();
    for (torrent, bytes) in raw {
        let of_both = reports
            .iter()
            .filter(|(key, _)| (key.0, key.1) == (user, torrent));
        let factors = of_both.flat_map(|(_, reports)| reports);
        let factors = factors.map(|it| u64::from(if up { it.factors.0 } else { it.factors.1 }));
        let (Some(least), Some(most)) = (factors.clone().min(), factors.clone().max()) else {
            continue;
        };
        let rounding = if (least, most) == (1000, 1000) {
            0
        } else {
            factors.count() as u64
        };
        let product = |factor| (u128::from(bytes) * u128::from(factor) / 1000) as u64;
        bounds.least += product(least).saturating_sub(rounding);
        bounds.most += product(most);
    }
    bounds
}
