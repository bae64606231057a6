//! Two nodes with one Redis and one database server: one of the four is killed at a time, and is back
//! before the next. What clients are credited with is exact, whichever node they announced to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use data_encoding::HEXUPPER;
use fastrand::Rng;
use serde_json::json;

use crate::crowd::{self, Client, Range, Stage};
use crate::harness::database::Database;
use crate::harness::http::try_get;
use crate::harness::load::{TORRENTS, USERS_PER_THREAD, multipliers};
use crate::harness::redis::AOF;
use crate::harness::site::{Site, settles};
use crate::harness::{Mika, PROGRAM_DEADLINE, number, poll};
use crate::seed;

/// Milliseconds between two kills, from when all answer again.
const PAUSE: RangeInclusive<u64> = 0..=300;

/// Milliseconds that a victim stays away.
const ABSENCE: RangeInclusive<u64> = 0..=1500;

/// How long it may take until storage has all that was acknowledged.
pub const SETTLED: Duration = Duration::from_secs(40);

/// Seconds by which either end of a stretch of seed time may be off: nodes count whole ones, each
/// by its own clock.
const SECONDS_OFF: i64 = 1;

/// Stories that a failure prints.
const STORIES_MAX: usize = 3;

/// Log lines of a panic or of lost batches, which none of these kills may cause.
const LOSSES: [&str; 4] = [
    "panicked",
    "batch is lost",
    "are missing",
    "not kept any more",
];

#[derive(Clone, Copy, Debug)]
enum Victim {
    A,
    B,
    Redis,
    Database,
}

const VICTIMS: [Victim; 4] = [Victim::A, Victim::B, Victim::Redis, Victim::Database];

/// The nodes `a`, which is the site's, and `b`.
pub struct Pair {
    pub site: Site,
    pub b: Mika,
}

/// What storage must have of one user and torrent, by what clients announced.
#[derive(Default)]
struct Wanted {
    /// With multipliers, up and down.
    credit: [Range; 2],
    snatches: Range,
    /// Unix seconds in which a client of the user seeded it, and in which one may have been taken
    /// for a seeder.
    seeded: BTreeSet<i64>,
    maybe_seeded: BTreeSet<i64>,
}

#[test]
fn killing_two_nodes_and_their_servers_loses_or_doubles_no_credit() {
    endure(Database::MariaDb, &AOF, "MIKA_NODE_KILLS", 6);
}

#[test]
fn two_nodes_with_a_redis_that_forgets_everything_lose_no_credit() {
    endure(Database::MariaDb, &[], "MIKA_FORGETTING_NODE_KILLS", 6);
}

#[test]
fn killing_two_nodes_and_their_servers_loses_or_doubles_no_credit_on_postgresql() {
    endure(Database::Postgres, &AOF, "MIKA_POSTGRES_NODE_KILLS", 4);
}

#[test]
fn two_nodes_with_a_redis_that_forgets_everything_lose_no_credit_on_postgresql() {
    let variable = "MIKA_POSTGRES_FORGETTING_NODE_KILLS";
    endure(Database::Postgres, &[], variable, 2);
}

fn endure(database: Database, persistence: &[&str], variable: &str, default: u64) {
    let kills = number(variable, default);
    let threads = number("MIKA_LOAD", 4) as usize;
    let seed = seed();
    eprintln!("{variable}={kills} MIKA_LOAD={threads} MIKA_SEED={seed}");
    let mut pair = Pair::start(database, threads * USERS_PER_THREAD, persistence);
    let stage = Stage::new(pair.ways());
    let clients = crowd::run(&stage, threads, seed, || {
        let mut rng = Rng::with_seed(seed);
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(rng.u64(PAUSE)));
            let victim = *rng.choice(&VICTIMS).expect("one of four");
            let absence = Duration::from_millis(rng.u64(ABSENCE));
            pair.kill(victim, absence, &stage);
        }
    });
    eprintln!(
        "{} announces answered, {} not; {} clients",
        stage.answered.load(Ordering::Relaxed),
        stage.unanswered.load(Ordering::Relaxed),
        clients.len()
    );
    settles(SETTLED, || pair.wrong(&stage, &clients).is_empty());
    pair.assert_right(&stage, &clients, "after quiet");
    // What a start applies again must not count again.
    pair.stop();
    pair.site.mika.run();
    pair.b.run();
    pair.wait_for_answers();
    pair.stop();
    pair.assert_right(&stage, &clients, "after another start");
}

// === impl Pair ===

impl Pair {
    fn start(database: Database, users: usize, persistence: &[&str]) -> Self {
        Self::start_changed(database, users, persistence, |_| ())
    }

    /// The same with what `change` changes of both before they run.
    pub fn start_changed(
        database: Database,
        users: usize,
        persistence: &[&str],
        change: impl Fn(&mut Mika),
    ) -> Self {
        // Peers whose stop reaches a node late count until they expire.
        let limits = json!({ "max_peers_per_user": 1000 });
        let config = |node| json!({ "node": node, "tracker": limits });
        let mut site = Site::prepare_with(database, users, persistence, &config("a"), &change);
        let mut b = site.another(&config("b"));
        change(&mut b);
        let v4 = b.http();
        b.reconfigure(&json!({ "http": { "listen": [v4, v6_of(v4)] } }));
        site.mika.run();
        b.run();
        Self { site, b }
    }

    pub fn ways(&self) -> [SocketAddr; crowd::WAYS] {
        let b = self.b.http();
        [self.site.mika.http(), b, v6_of(b)]
    }

    pub fn stop(&mut self) {
        assert_eq!(self.site.mika.stop(), 0);
        assert_eq!(self.b.stop(), 0);
    }

    /// Kills a server, starts it again after a while, and waits until all answer.
    fn kill(&mut self, victim: Victim, absence: Duration, stage: &Stage) {
        stage.note(format!("{victim:?} is killed"));
        match victim {
            Victim::A => self.site.mika.kill9(),
            Victim::B => self.b.kill9(),
            Victim::Redis => self.site.redis.kill9(),
            Victim::Database => self.site.database.kill9(),
        }
        thread::sleep(absence);
        stage.note(format!("{victim:?} starts again"));
        match victim {
            Victim::A => self.site.mika.launch(),
            Victim::B => self.b.launch(),
            Victim::Redis => self.site.redis.restart(),
            Victim::Database => self.site.database.restart(),
        }
        self.wait_for_answers();
        stage.note(format!("{victim:?} answers"));
    }

    /// Waits until nodes and servers answer.
    pub fn wait_for_answers(&self) {
        poll(PROGRAM_DEADLINE, "Redis answers", || {
            self.site.redis.cli(&["PING"]) == "PONG"
        });
        poll(PROGRAM_DEADLINE, "the database answers", || {
            self.site.database.try_sql("SELECT 1").is_ok()
        });
        for node in [self.site.mika.http(), self.b.http()] {
            // It accepts at once, and answers when it is ready.
            poll(PROGRAM_DEADLINE, "the node answers", || {
                try_get(node, "/").is_ok()
            });
        }
    }

    pub fn assert_right(&self, stage: &Stage, clients: &[Client], when: &str) {
        let wrong = self.wrong(stage, clients);
        assert!(wrong.is_empty(), "{when}:\n{}", wrong.join("\n"));
        let wanted = wanted(clients);
        let [seeded, at_most] = [
            wanted.values().map(|it| it.seeded.len()).sum::<usize>(),
            wanted.values().map(|it| it.maybe_seeded.len()).sum(),
        ];
        let sql = "SELECT SUM(seed_time), SUM(snatches) FROM users";
        let [seed_time, snatches] = self.site.database.row(sql);
        eprintln!(
            "{when}: {snatches} snatches; {seed_time} s of seed time, clients seeded {seeded}, at most {at_most}"
        );
        let rows = self.peers();
        let is_there = |it: &&Client| {
            let row = rows.get(&HEXUPPER.encode(&it.peer_id));
            row.is_some_and(|[_, _, is_active]| *is_active > 0)
        };
        let stay: Vec<_> = clients.iter().filter(is_there).collect();
        let at_both = stay.iter().filter(|it| it.is_at_both()).count();
        eprintln!(
            "{when}: {} peers are there until they expire, though they stopped; {at_both} of them had stopped \
             at both nodes at once",
            stay.len()
        );
    }

    /// What differs between storage and what clients announced.
    pub fn wrong(&self, stage: &Stage, clients: &[Client]) -> Vec<String> {
        let mut wrong = self.wrong_clients(stage, clients);
        wrong.extend(self.wrong_users(clients));
        for (name, mika) in [("A", &self.site.mika), ("B", &self.b)] {
            let log = mika.log();
            let is_loss = |line: &&str| LOSSES.iter().any(|loss| line.contains(loss));
            let lines = log.lines().filter(is_loss);
            wrong.extend(lines.map(|line| format!("{name}: {line}")));
        }
        wrong
    }

    /// Bytes client by client, with the stories of the first that are wrong.
    fn wrong_clients(&self, stage: &Stage, clients: &[Client]) -> Vec<String> {
        let rows = self.peers();
        let mut wrong = Vec::new();
        for client in clients {
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
                text = format!("{text}\n{}", stage.story_of(client));
            }
            wrong.push(text);
        }
        wrong
    }

    /// What storage has of each peer: bytes up and down, and whether it is active.
    fn peers(&self) -> HashMap<String, [u64; 3]> {
        let id = self.site.database.hex("peer_id");
        let active = "CASE WHEN active THEN 1 ELSE 0 END";
        let sql = format!("SELECT {id}, uploaded, downloaded, {active} FROM peers");
        let table = self.site.database.sql(&sql);
        let rows = table.lines().map(|line| {
            let (id, numbers) = line.split_once('\t').expect("four columns");
            let numbers = numbers.split('\t').map(|it| it.parse().expect("a number"));
            let numbers: Vec<u64> = numbers.collect();
            (id.to_owned(), numbers.try_into().expect("three numbers"))
        });
        rows.collect()
    }

    /// Credit, snatches and seed time user by user, and snatches torrent by torrent.
    fn wrong_users(&self, clients: &[Client]) -> Vec<String> {
        let wanted = wanted(clients);
        let mut wrong = Vec::new();
        let mut check = |what: String, found: u64, range: Range| {
            if !range.has(found) {
                wrong.push(format!("{what}: found {found}, wanted {range:?}"));
            }
        };
        let users: BTreeSet<usize> = wanted.keys().map(|(user, _)| *user).collect();
        for user in users {
            let of_user = || wanted.iter().filter(|((it, _), _)| *it == user);
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
            let of_torrent = wanted.iter().filter(|((_, it), _)| *it == torrent);
            let range = of_torrent.map(|(_, it)| it.snatches).sum();
            let rows = format!("torrents WHERE release_name = 'torrent {torrent}'");
            let [snatches] = self.row("snatches", &rows);
            check(format!("torrent {torrent} snatches"), snatches, range);
        }
        wrong
    }

    fn row<const N: usize>(&self, columns: &str, rows: &str) -> [u64; N] {
        let sql = format!("SELECT {columns} FROM {rows}");
        self.site.database.row::<N>(&sql).map(i64::cast_unsigned)
    }
}

/// The same port of the other family.
fn v6_of(v4: SocketAddr) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], v4.port()))
}

/// What storage must have of each user and torrent.
fn wanted(clients: &[Client]) -> BTreeMap<(usize, usize), Wanted> {
    let mut all: BTreeMap<_, Wanted> = BTreeMap::new();
    for client in clients {
        let wanted = all.entry((client.user, client.torrent)).or_default();
        let (up, down) = multipliers(client.torrent);
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

    fn has(self, number: u64) -> bool {
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
