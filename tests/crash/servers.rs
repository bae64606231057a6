//! The same with Redis and a database server: one of the three is killed at a time, at random
//! moments, and whatever comes back empty or late, the credit is exact.

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use crate::harness::database::Database;
use crate::harness::load::{self, Stage, USERS_PER_THREAD, report};
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{PROGRAM_DEADLINE, number, poll};
use crate::seed;

/// Milliseconds between two kills, from when all work again.
const PAUSE: std::ops::RangeInclusive<u64> = 0..=400;

/// Milliseconds that a server stays away.
const ABSENCE: std::ops::RangeInclusive<u64> = 0..=1500;

#[derive(Clone, Copy, Debug)]
enum Victim {
    Mika,
    Redis,
    Database,
}

#[test]
fn killing_servers_loses_no_credit() {
    endure(Database::MariaDb, &AOF, "MIKA_SERVER_KILLS", 20);
}

#[test]
fn a_redis_that_forgets_everything_loses_no_credit() {
    endure(Database::MariaDb, &[], "MIKA_FORGETTING_KILLS", 20);
}

#[test]
fn killing_servers_loses_no_credit_on_postgresql() {
    endure(Database::Postgres, &AOF, "MIKA_POSTGRES_KILLS", 7);
}

#[test]
fn a_redis_that_forgets_everything_loses_no_credit_on_postgresql() {
    endure(Database::Postgres, &[], "MIKA_POSTGRES_FORGETTING_KILLS", 7);
}

fn endure(database: Database, persistence: &[&str], variable: &str, default: u64) {
    let kills = number(variable, default);
    let threads = number("MIKA_LOAD", 4) as usize;
    let seed = seed();
    eprintln!("{variable}={kills} MIKA_LOAD={threads} MIKA_SEED={seed}");
    let config = json!({ "node": "killed" });
    let users = threads * USERS_PER_THREAD;
    let mut site = Site::prepare_on(database, users, persistence, &config);
    site.mika.run();
    let stage = Stage::new(site.mika.http());
    let expected = load::run(&stage, threads, seed, || {
        kill_again_and_again(&mut site, &stage, kills, &mut Rng::with_seed(seed));
    });
    site.stop_with_all_applied();
    report(&stage, &expected);
    site.compare(&expected);
}

fn kill_again_and_again(site: &mut Site, stage: &Stage, kills: u64, rng: &mut Rng) {
    for _ in 0..kills {
        stage.is_answered();
        thread::sleep(Duration::from_millis(rng.u64(PAUSE)));
        let victim = *rng
            .choice(&[Victim::Mika, Victim::Redis, Victim::Database])
            .expect("one of three");
        kill(site, victim, Duration::from_millis(rng.u64(ABSENCE)));
    }
    stage.is_answered();
}

fn kill(site: &mut Site, victim: Victim, absence: Duration) {
    match victim {
        Victim::Mika => {
            site.mika.kill9();
            site.mika.launch();
            poll(PROGRAM_DEADLINE, "mika accepts connections", || {
                site.mika.accepts()
            });
        }
        Victim::Redis => {
            site.redis.kill9();
            thread::sleep(absence);
            site.redis.restart();
        }
        Victim::Database => {
            site.database.kill9();
            thread::sleep(absence);
            site.database.restart();
        }
    }
}
