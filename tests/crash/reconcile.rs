//! Holds storage to what clients announced, user by user.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use data_encoding::HEXUPPER;

use crate::client::{Client, Range};
use crate::harness::database::SiteDatabase;
use crate::harness::load::{TORRENTS, multipliers};
use crate::stage::Stage;

/// Seconds by which either end of a stretch of seed time may be off: nodes count whole ones, each
/// by its own clock.
const SECONDS_OFF: i64 = 1;

/// Stories that a failure prints.
const STORIES_MAX: usize = 3;

/// Log lines of a panic or of lost batches, which no single fault may cause.
const LOSSES: [&str; 4] = [
    "panicked",
    "batch is lost",
    "are missing",
    "not kept any more",
];

/// What storage must have of one user and torrent, by what clients announced.
#[derive(Default)]
pub struct Wanted {
    /// Before multipliers, up and down.
    pub moved: [Range; 2],
    /// With multipliers, up and down.
    credit: [Range; 2],
    snatches: Range,
    /// Unix seconds in which a client of the user seeded it, and in which one may have been taken
    /// for a seeder.
    pub seeded: BTreeSet<i64>,
    pub maybe_seeded: BTreeSet<i64>,
}

/// What clients announced, and the database that must agree.
pub struct Books<'a> {
    pub database: &'a SiteDatabase,
    pub stage: &'a Stage,
    pub clients: &'a [Client],
    pub wanted: BTreeMap<(usize, usize), Wanted>,
}

/// The lines of a node's log that tell of a loss.
pub fn losses(node: &str, log: &str) -> Vec<String> {
    let is_loss = |line: &&str| LOSSES.iter().any(|loss| line.contains(loss));
    let lines = log.lines().filter(is_loss);
    lines.map(|line| format!("{node}: {line}")).collect()
}

// === impl Books ===

impl<'a> Books<'a> {
    pub fn new(database: &'a SiteDatabase, stage: &'a Stage, clients: &'a [Client]) -> Self {
        Self {
            database,
            stage,
            clients,
            wanted: wanted(clients),
        }
    }

    /// What differs.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = self.wrong_clients();
        wrong.extend(self.wrong_users());
        wrong
    }

    /// Bytes client by client, with the stories of the first that are wrong.
    fn wrong_clients(&self) -> Vec<String> {
        let rows = self.peers();
        let mut wrong = Vec::new();
        for client in self.clients {
            let id = HEXUPPER.encode(&client.peer_id);
            let [up, down, _] = rows.get(&id).copied().unwrap_or_default();
            if client.owed[0].has(up) && client.owed[1].has(down) {
                continue;
            }
            let mut text = format!(
                "user {} torrent {} client {id}: credited {up} up and {down} down, announced {:?}",
                client.user, client.torrent, client.owed
            );
            if wrong.len() < STORIES_MAX {
                text = format!("{text}\n{}", self.stage.story_of(client));
            }
            wrong.push(text);
        }
        wrong
    }

    /// What storage has of each peer: bytes up and down, and whether it is active.
    pub fn peers(&self) -> HashMap<String, [u64; 3]> {
        let id = self.database.hex("peer_id");
        let active = "CASE WHEN active THEN 1 ELSE 0 END";
        let sql = format!("SELECT {id}, uploaded, downloaded, {active} FROM peers");
        let table = self.database.sql(&sql);
        let rows = table.lines().map(|line| {
            let (id, numbers) = line.split_once('\t').expect("four columns");
            let numbers = numbers.split('\t').map(|it| it.parse().expect("a number"));
            let numbers: Vec<u64> = numbers.collect();
            (id.to_owned(), numbers.try_into().expect("three numbers"))
        });
        rows.collect()
    }

    /// Clients that are peers in storage, though they stopped.
    pub fn active(&self) -> Vec<&Client> {
        let rows = self.peers();
        let is_active = |it: &&Client| {
            let row = rows.get(&HEXUPPER.encode(&it.peer_id));
            row.is_some_and(|[_, _, is_active]| *is_active > 0)
        };
        self.clients.iter().filter(is_active).collect()
    }

    /// Credit, snatches and seed time user by user, and snatches torrent by torrent.
    fn wrong_users(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |what: String, found: u64, range: Range| {
            if !range.has(found) {
                wrong.push(format!("{what}: found {found}, wanted {range:?}"));
            }
        };
        let users: BTreeSet<usize> = self.wanted.keys().map(|(user, _)| *user).collect();
        for user in users {
            let of_user = || self.wanted.iter().filter(|((it, _), _)| *it == user);
            let sum = |of: fn(&Wanted) -> Range| of_user().map(|(_, it)| of(it)).sum::<Range>();
            let [up, down, snatches, seed_time] = self.row(
                "uploaded, downloaded, snatches, seed_time",
                &format!("users WHERE username = 'user {user}'"),
            );
            check(format!("user {user} up"), up, sum(|it| it.credit[0]));
            check(format!("user {user} down"), down, sum(|it| it.credit[1]));
            check(
                format!("user {user} snatches"),
                snatches,
                sum(|it| it.snatches),
            );
            let seeded = sum(|it| Range::up_to(it.maybe_seeded.len() as u64));
            check(format!("user {user} seed time"), seed_time, seeded);
        }
        for torrent in 0..TORRENTS {
            let of_torrent = self.wanted.iter().filter(|((_, it), _)| *it == torrent);
            let range = of_torrent.map(|(_, it)| it.snatches).sum();
            let rows = format!("torrents WHERE release_name = 'torrent {torrent}'");
            let [snatches] = self.row("snatches", &rows);
            check(format!("torrent {torrent} snatches"), snatches, range);
        }
        wrong
    }

    fn row<const N: usize>(&self, columns: &str, rows: &str) -> [u64; N] {
        let sql = format!("SELECT {columns} FROM {rows}");
        self.database.row::<N>(&sql).map(i64::cast_unsigned)
    }
}

/// What storage must have of each user and torrent.
fn wanted(clients: &[Client]) -> BTreeMap<(usize, usize), Wanted> {
    let mut all: BTreeMap<_, Wanted> = BTreeMap::new();
    for client in clients {
        let wanted = all.entry((client.user, client.torrent)).or_default();
        let (up, down) = multipliers(client.torrent);
        for (sum, owed) in wanted.moved.iter_mut().zip(client.owed) {
            *sum = [*sum, owed].into_iter().sum();
        }
        for ((sum, owed), multiplier) in wanted.credit.iter_mut().zip(client.owed).zip([up, down]) {
            *sum = [*sum, owed.times(multiplier.into())].into_iter().sum();
        }
        if let Some(is_sure) = client.completed {
            wanted.snatches.high = 1;
            wanted.snatches.low |= u64::from(is_sure);
        }
        let around = |&(from, until): &(i64, i64)| from - SECONDS_OFF..until + SECONDS_OFF;
        wanted.seeded.extend(client.seeded.iter().flat_map(around));
        let both = client.seeded.iter().chain(&client.away);
        wanted.maybe_seeded.extend(both.flat_map(around));
    }
    all
}

// === impl Range ===

impl Range {
    fn up_to(high: u64) -> Self {
        Self { low: 0, high }
    }

    fn times(self, factor: u64) -> Self {
        Self {
            low: self.low * factor,
            high: self.high * factor,
        }
    }

    pub fn has(self, number: u64) -> bool {
        (self.low..=self.high).contains(&number)
    }
}

impl std::iter::Sum for Range {
    fn sum<I: Iterator<Item = Self>>(ranges: I) -> Self {
        ranges.fold(Self::default(), |sum, it| Self {
            low: sum.low + it.low,
            high: sum.high + it.high,
        })
    }
}
