//! The same promise with Redis and MariaDB: one of the three is killed at a time, at random
//! moments, and whatever comes back empty or late, the credit is exact.

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use crate::harness::mariadb::MariaDb;
use crate::harness::redis::{AOF, Redis};
use crate::harness::{Mika, PROGRAM_DEADLINE, lasting_port, poll};
use crate::load::{
    self, Ledger, Stage, TORRENTS, USERS_PER_THREAD, info_hash, multipliers, passkey, report,
};
use crate::{number, seed};

/// Milliseconds between two kills, from when everybody works again.
const PAUSE: std::ops::RangeInclusive<u64> = 0..=400;

/// Milliseconds that a server stays away.
const ABSENCE: std::ops::RangeInclusive<u64> = 0..=1500;

#[derive(Clone, Copy, Debug)]
enum Victim {
    Mika,
    Redis,
    MariaDb,
}

struct Site {
    mika: Mika,
    redis: Redis,
    mariadb: MariaDb,
}

#[test]
fn no_server_that_is_killed_costs_credit() {
    endure("MIKA_SERVER_KILLS", &AOF);
}

#[test]
fn a_redis_that_forgets_everything_costs_no_credit() {
    endure("MIKA_FORGETTING_KILLS", &[]);
}

fn endure(variable: &str, persistence: &[&str]) {
    let kills = number(variable, 20);
    let threads = number("MIKA_LOAD", 4) as usize;
    let seed = seed();
    eprintln!("{variable}={kills} MIKA_LOAD={threads} MIKA_SEED={seed}");
    let mut site = Site::prepare(threads * USERS_PER_THREAD, persistence);
    site.mika.run();
    let stage = Stage::new(site.mika.http());
    let expected = load::run(&stage, threads, seed, || {
        site.kill_again_and_again(&stage, kills, &mut Rng::with_seed(seed));
    });
    assert_eq!(site.mika.stop(), 0);
    report(&stage, &expected);
    site.compare(&expected);
}

// === impl Site ===

impl Site {
    /// Servers with users and torrents, by plain SQL, and a warm cache.
    fn prepare(users: usize, persistence: &[&str]) -> Self {
        let mariadb = MariaDb::start();
        mariadb.sql("CREATE DATABASE site");
        let redis = Redis::start_with(persistence);
        let mika = Mika::prepare_on(
            lasting_port(),
            &json!({
                "mode": "private",
                "node": "killed",
                // A reply that was not worth its wait is no acknowledgement: here none gives up.
                "journal": { "flush_interval": "300ms", "ack_timeout": "30s" },
                "cache": { "driver": "redis", "url": redis.url() },
                "storage": { "driver": "mysql", "url": mariadb.url("site") },
            }),
        );
        mika.managed(&["migrate"]);
        let quoted = (0..users).map(|user| format!("('{}', 'user {user}')", passkey(user)));
        let quoted: Vec<String> = quoted.collect();
        mariadb.sql(&format!(
            "INSERT INTO site.users (passkey, username) VALUES {}",
            quoted.join(", ")
        ));
        for torrent in 0..TORRENTS {
            let (up, down) = multipliers(torrent);
            let hash = mika::ids::InfoHash(info_hash(torrent));
            mariadb.sql(&format!(
                "INSERT INTO site.torrents (info_hash, release_name, multi_up, multi_dn)
                 VALUES (X'{hash}', 'torrent {torrent}', {up}, {down})"
            ));
        }
        mariadb.sql("INSERT INTO site.whitelist (peer_id, vstring) VALUES ('-MK', 'test')");
        mika.managed(&["warmup"]);
        Self {
            mika,
            redis,
            mariadb,
        }
    }

    fn kill_again_and_again(&mut self, stage: &Stage, kills: u64, rng: &mut Rng) {
        for _ in 0..kills {
            stage.is_answered();
            thread::sleep(Duration::from_millis(rng.u64(PAUSE)));
            let victim = *rng
                .choice(&[Victim::Mika, Victim::Redis, Victim::MariaDb])
                .expect("one of three");
            self.kill(victim, Duration::from_millis(rng.u64(ABSENCE)));
        }
        stage.is_answered();
    }

    fn kill(&mut self, victim: Victim, absence: Duration) {
        match victim {
            Victim::Mika => {
                self.mika.kill9();
                self.mika.launch();
                poll(PROGRAM_DEADLINE, "mika accepts connections", || {
                    self.mika.accepts()
                });
            }
            Victim::Redis => {
                self.redis.kill9();
                thread::sleep(absence);
                self.redis.restart();
            }
            Victim::MariaDb => {
                self.mariadb.kill9();
                thread::sleep(absence);
                self.mariadb.restart();
            }
        }
    }

    /// Holds the database to what was announced.
    fn compare(&self, expected: &[Ledger]) {
        let mut wrong = Vec::new();
        for (user, ledger) in expected.iter().enumerate() {
            let found = self.mariadb.row::<3>(&format!(
                "SELECT uploaded, downloaded, snatches FROM site.users WHERE passkey = '{}'",
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
            let found = self.mariadb.row::<1>(&format!(
                "SELECT snatches FROM site.torrents WHERE release_name = 'torrent {torrent}'"
            ));
            if found != [snatches as i64] {
                wrong.push(format!(
                    "torrent {torrent}: found {found:?}, snatched by {snatches}"
                ));
            }
        }
        let active = "SELECT count(*) FROM site.peers WHERE active";
        assert_eq!(self.mariadb.row::<1>(active), [0]);
        let log = self.mika.log();
        wrong.extend(
            log.lines()
                .filter(|line| line.contains("panicked"))
                .map(str::to_owned),
        );
        assert!(
            wrong.is_empty(),
            "found (up, down, snatches):\n{}",
            wrong.join("\n")
        );
    }
}
