//! The totals of a user in storage must add up.

use mika::base::ids::{TorrentId, UserId};
use mika::storage::settle::HeldHistory;

use super::model::{Bounds, Reports, Wrong};
use super::storage::Tables;

/// Totals of users and torrents are the sums of what users did, by the multipliers that were in force.
pub fn check(tables: &Tables, reports: &Reports) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for id in tables.users.keys() {
        let differs = of_user(*id, tables, reports).into_iter();
        let differs = differs.filter(|(_, bounds, total)| !bounds.has(*total));
        wrong.extend(differs.map(|(what, bounds, total)| Wrong {
            users: vec![id.0],
            what: format!("user {}: {what} is {total}, and should be {bounds}", id.0),
        }));
    }
    for (id, row) in &tables.torrents {
        let users = || tables.histories.iter().filter(|(key, _)| key.0 == *id);
        let snatched = users().filter(|(_, it)| it.completed_at.is_some());
        let (snatches, counted) = (snatched.count() as u64, row.torrent.snatches);
        if u64::from(counted) != snatches {
            wrong.push(Wrong {
                users: users().map(|(key, _)| key.1.0).collect(),
                what: format!("torrent {}: {counted} snatches, by {snatches} users", id.0),
            });
        }
    }
    wrong
}

/// What the totals of a user should be, and what they are.
fn of_user(id: UserId, tables: &Tables, reports: &Reports) -> Vec<(&'static str, Bounds, u64)> {
    let histories = || tables.histories.iter().filter(move |(key, _)| key.1 == id);
    let sum = |of: fn(&HeldHistory) -> u64| {
        let sum = histories().map(|(_, done)| of(done)).sum();
        Bounds {
            least: sum,
            most: sum,
        }
    };
    let up = histories().map(|(key, done)| (key.0, done.uploaded));
    let down = histories().map(|(key, done)| (key.0, done.downloaded));
    let totals = tables.users.get(&id).map(|row| row.totals);
    let totals = totals.unwrap_or_default();
    vec![
        ("uploaded", factored(id, up, reports, true), totals.uploaded),
        (
            "downloaded",
            factored(id, down, reports, false),
            totals.downloaded,
        ),
        ("seed time", sum(|it| it.seed_time), totals.seed_time),
        (
            "snatches",
            sum(|it| it.completed_at.is_some().into()),
            totals.snatches,
        ),
    ]
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
