//! A private tracker with a Redis and a database of its own, and what both must contain after a load.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use mika::base::ids::InfoHash;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::database::{DATABASE, Database, SiteDatabase};
use super::http::get;
use super::load::{Ledger, TORRENTS, info_hash, multipliers, passkey};
use super::mariadb::MariaDb;
use super::net::Host;
use super::redis::Redis;
use super::{Mika, free_port, merge, now, poll};

/// How long servers and node may take to agree again. Batches stay in the cache for ten seconds
/// after storage has them, for other nodes to read.
const RECONCILED: Duration = Duration::from_secs(40);

/// The daemon and its servers.
pub struct Site {
    pub mika: Mika,
    pub redis: Redis,
    pub database: SiteDatabase,
}

/// The servers in its config, besides what the test wants.
fn with_servers(config: &Value, database: &SiteDatabase, redis: &Redis) -> Value {
    let mut whole = json!({
        "mode": "private",
        // A reply after the timeout is not an acknowledgement: here none times out.
        "journal": { "flush_interval": "300ms", "ack_timeout": "30s", "keep": "10s" },
        "cache": { "driver": "redis", "url": redis.url() },
        "storage": database.config(),
    });
    merge(&mut whole, config);
    whole
}

/// Users and torrents of the load, as a site's own SQL adds them.
pub fn fill(database: &SiteDatabase, name: &str, users: usize) {
    let mut sql = String::new();
    let quoted = (0..users).map(|user| format!("('{}', 'user {user}')", passkey(user)));
    let quoted: Vec<String> = quoted.collect();
    write!(
        sql,
        "INSERT INTO users (passkey, username) VALUES {};",
        quoted.join(", ")
    )
    .expect("a String takes everything");
    for torrent in 0..TORRENTS {
        let (up, down) = multipliers(torrent);
        let hash = database.bytes(&InfoHash(info_hash(torrent)).to_string());
        write!(
            sql,
            "INSERT INTO torrents (info_hash, release_name, multi_up, multi_dn)
             VALUES ({hash}, 'torrent {torrent}', {up}, {down});"
        )
        .expect("a String takes everything");
    }
    sql.push_str("INSERT INTO whitelist (peer_id, vstring) VALUES ('-MK', 'test');");
    database.sql_in(name, &sql);
}

/// Whether it becomes true before `deadline` has passed.
pub fn settles(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = now();
    while !condition() {
        if start.elapsed() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(100));
    }
    true
}

/// Whether a dry run of a warmup found cache and storage alike.
pub fn has_no_difference(report: &str) -> bool {
    let counts = "(to add: 0, to change: 0, to remove: 0)";
    report.lines().filter(|line| line.contains(counts)).count() == 3
}

// === impl Site ===

impl Site {
    /// Servers with users and torrents, by plain SQL, and a warm cache. The daemon does not run yet.
    pub fn prepare(users: usize, persistence: &[&str], config: &Value) -> Self {
        Self::prepare_on(Database::MariaDb, users, persistence, config)
    }

    /// The same with that database.
    pub fn prepare_on(
        database: Database,
        users: usize,
        persistence: &[&str],
        config: &Value,
    ) -> Self {
        Self::prepare_with(database, users, persistence, config, |_| ())
    }

    /// The same with what `change` changes before a program runs, such as the environment.
    pub fn prepare_with(
        database: Database,
        users: usize,
        persistence: &[&str],
        config: &Value,
        change: impl FnOnce(&mut Mika),
    ) -> Self {
        let database = SiteDatabase::start(database);
        let redis = Redis::start_with(persistence);
        let config = with_servers(config, &database, &redis);
        let mut mika = Mika::prepare_on(free_port(), &config);
        change(&mut mika);
        Self::fill(mika, redis, database, users)
    }

    /// The same, with the daemon on one host and the servers on another.
    pub fn prepare_apart(
        database: Database,
        users: usize,
        ours: &Host,
        theirs: &Host,
        config: &Value,
    ) -> Self {
        Self::prepare_on_hosts(database, users, [ours, theirs, theirs], config)
    }

    /// The same with hosts for the daemon, Redis and the database.
    pub fn prepare_on_hosts(
        database: Database,
        users: usize,
        [ours, of_redis, of_database]: [&Host; 3],
        config: &Value,
    ) -> Self {
        let database = SiteDatabase::start_in(database, of_database);
        let redis = Redis::start_in(of_redis);
        let config = with_servers(config, &database, &redis);
        let mika = Mika::prepare_in(ours, ([127, 0, 0, 1], 6881).into(), &config);
        Self::fill(mika, redis, database, users)
    }

    fn fill(mika: Mika, redis: Redis, database: SiteDatabase, users: usize) -> Self {
        mika.managed(&["migrate"]);
        fill(&database, DATABASE, users);
        mika.managed(&["warmup"]);
        Self {
            mika,
            redis,
            database,
        }
    }

    /// A second daemon for the same servers, in a folder of its own. It does not run yet.
    pub fn another(&self, config: &Value) -> Mika {
        let config = with_servers(config, &self.database, &self.redis);
        Mika::prepare_on(free_port(), &config)
    }

    /// The same on a host of its own.
    pub fn another_on(&self, host: &Host, config: &Value) -> Mika {
        let config = with_servers(config, &self.database, &self.redis);
        Mika::prepare_in(host, ([127, 0, 0, 1], 6881).into(), &config)
    }

    /// Gives another database of the server, whose tables are there, the same users and torrents.
    pub fn fill_another(&self, name: &str, users: usize) {
        fill(&self.database, name, users);
    }

    /// Its database's server, for tests of what only MariaDB has.
    pub fn mariadb(&self) -> &MariaDb {
        self.database.mariadb()
    }

    /// Batches in the file where the node keeps what the cache does not take.
    pub fn spilled(&self) -> i64 {
        let file = Connection::open(self.mika.path("mika.spill")).expect("the spill file");
        file.query_row("SELECT count(*) FROM batches", [], |row| row.get(0))
            .expect("a number")
    }

    /// Waits until both journals of the node are empty.
    pub fn is_drained(&self) {
        let streams = self.redis.cli(&["KEYS", "t:journal:*"]);
        for stream in streams.lines() {
            poll(RECONCILED, "the cache's journal is empty", || {
                self.redis.cli(&["XLEN", stream]) == "0"
            });
        }
        poll(RECONCILED, "the spill file is empty", || {
            self.spilled() == 0
        });
    }

    /// Waits until the cache has the registry of storage, and both have the same swarms.
    pub fn is_reconciled(&self) {
        poll(RECONCILED, "the cache has the registry", || {
            self.redis.cli(&["HEXISTS", "t:registry", "position"]) == "1"
        });
        let mut report = String::new();
        let is_alike = settles(RECONCILED, || {
            report = self.mika.managed(&["warmup", "--dry-run"]);
            has_no_difference(&report)
        });
        assert!(is_alike, "the cache differs from storage:\n{report}");
        self.swarms_are_alike();
    }

    /// Holds counters and peers of the cache to what storage has. (Totals are for display: those
    /// of the cache may differ once it was away.)
    fn swarms_are_alike(&self) {
        for torrent in 0..TORRENTS {
            let hash = InfoHash(info_hash(torrent)).to_string();
            let stored = || {
                self.database.row::<5>(&format!(
                    "SELECT seeders, leechers, COUNT(user_id),
                        COUNT(CASE WHEN active AND left_bytes = 0 THEN 1 END),
                        COUNT(CASE WHEN active AND left_bytes > 0 THEN 1 END)
                     FROM torrents t LEFT JOIN peers ON torrent_id = t.id
                     WHERE info_hash = {} GROUP BY t.id",
                    self.database.bytes(&hash)
                ))
            };
            let cached = || {
                let number = |command: &[&str]| self.redis.cli(command).parse().unwrap_or(0);
                let key = format!("t:t:{hash}");
                [
                    number(&["HGET", &key, "seeders"]),
                    number(&["HGET", &key, "leechers"]),
                    number(&["HLEN", &format!("t:p:{hash}")]),
                ]
            };
            let mut found = ([0; 5], [0; 3]);
            let is_alike = settles(RECONCILED, || {
                found = (stored(), cached());
                found.0[..3] == found.1 && found.0[..2] == found.0[3..]
            });
            assert!(
                is_alike,
                "torrent {torrent} in storage and cache: {found:?}"
            );
        }
    }

    /// Stops the daemon when the database has everything.
    pub fn stop_with_all_applied(&mut self) {
        assert_eq!(self.mika.stop(), 0);
        // If the database has only just come back, the rest is left to the next start.
        self.mika.run();
        // It accepts at once, and answers when it is ready.
        get(self.mika.http(), "/");
        assert_eq!(self.mika.stop(), 0);
    }

    /// Compares the database with what was announced.
    pub fn compare(&self, expected: &[Ledger]) {
        let mut wrong = Vec::new();
        for (user, ledger) in expected.iter().enumerate() {
            let found = self.database.row::<3>(&format!(
                "SELECT uploaded, downloaded, snatches FROM users WHERE passkey = '{}'",
                passkey(user)
            ));
            let wanted = [
                ledger.uploaded as i64,
                ledger.downloaded as i64,
                ledger.snatched.len() as i64,
            ];
            if found != wanted {
                wrong.push(format!(
                    "user {user}: found {found:?}, announced {wanted:?}"
                ));
            }
        }
        for torrent in 0..TORRENTS {
            let snatches = expected
                .iter()
                .filter(|ledger| ledger.snatched.contains(&torrent))
                .count();
            let found = self.database.row::<1>(&format!(
                "SELECT snatches FROM torrents WHERE release_name = 'torrent {torrent}'"
            ));
            if found != [snatches as i64] {
                wrong.push(format!(
                    "torrent {torrent}: found {found:?}, snatched by {snatches}"
                ));
            }
        }
        let active = "SELECT count(*) FROM peers WHERE active";
        assert_eq!(self.database.row::<1>(active), [0]);
        let log = self.mika.log();
        let panics = log.lines().filter(|line| line.contains("panicked"));
        wrong.extend(panics.map(str::to_owned));
        assert!(
            wrong.is_empty(),
            "found (up, down, snatches):\n{}",
            wrong.join("\n")
        );
    }
}
