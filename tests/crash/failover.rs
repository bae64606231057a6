//! The same with several database servers: the one that takes the writes is killed under load, another takes its
//! place, and the credit is exact.

use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::harness::database::{Database, SiteDatabase};
use crate::harness::galera::{Galera, NODES};
use crate::harness::load::{self, Stage, USERS_PER_THREAD, report};
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::standby::Pair;
use crate::harness::{Mika, number};
use crate::seed;

/// Milliseconds from when all work again to the next kill.
const PAUSE: RangeInclusive<u64> = 0..=1500;

/// Milliseconds that a node of a cluster stays away.
const ABSENCE: RangeInclusive<u64> = 0..=4000;

/// Milliseconds of commits that a standby lacks when it takes over; far below `journal.keep`.
const LAG: RangeInclusive<u64> = 500..=1500;

#[test]
fn killing_nodes_of_a_galera_cluster_loses_no_credit() {
    let alone = json!({ "cache": { "driver": "memory", "url": "" } });
    endure(Database::Galera, &alone, "MIKA_GALERA_KILLS", 3);
}

#[test]
fn killing_nodes_of_a_galera_cluster_loses_no_credit_with_redis() {
    endure(Database::Galera, &json!({}), "MIKA_GALERA_REDIS_KILLS", 2);
}

#[test]
fn promoting_a_synchronous_standby_loses_no_credit() {
    let alone = json!({ "cache": { "driver": "memory", "url": "" } });
    let log = endure(Database::Standby, &alone, "MIKA_PROMOTIONS", 2);
    assert!(!log.contains("storage went back"), "{log}");
}

#[test]
fn promoting_a_standby_that_lags_loses_no_credit() {
    let alone = json!({ "cache": { "driver": "memory", "url": "" } });
    let log = endure(
        Database::LaggingStandby,
        &alone,
        "MIKA_LAGGING_PROMOTIONS",
        2,
    );
    assert!(log.contains("storage went back"), "{log}");
    assert!(!log.contains("not kept any more"), "{log}");
}

/// Kills servers under load, and compares the credit; returns the daemon's log.
fn endure(database: Database, config: &Value, variable: &str, default: u64) -> String {
    let kills = number(variable, default);
    let threads = number("MIKA_LOAD", 4) as usize;
    let seed = seed();
    eprintln!("{variable}={kills} MIKA_LOAD={threads} MIKA_SEED={seed}");
    let users = threads * USERS_PER_THREAD;
    let mut site = Site::prepare_on(database, users, &AOF, &json!({ "node": "failover" }));
    site.mika.reconfigure(config);
    site.mika.run();
    let stage = Stage::new(site.mika.http());
    let mut rng = Rng::with_seed(seed);
    let expected = load::run(&stage, threads, seed, || {
        for _ in 0..kills {
            stage.is_answered();
            thread::sleep(Duration::from_millis(rng.u64(PAUSE)));
            match &mut site.database {
                SiteDatabase::Galera(cluster) => lose_node(cluster, &site.mika, &mut rng),
                SiteDatabase::Standby(pair) => fail_over(pair, database, &mut rng),
                _ => unreachable!("a database on several servers"),
            }
        }
        stage.is_answered();
    });
    site.stop_with_all_applied();
    report(&stage, &expected);
    site.compare(&expected);
    site.mika.log()
}

/// Every second time, it is the node that Mika writes to.
fn lose_node(cluster: &mut Galera, mika: &Mika, rng: &mut Rng) {
    let place = if rng.bool() {
        writer(cluster, &mika.log())
    } else {
        rng.usize(..NODES)
    };
    cluster.kill(place);
    thread::sleep(Duration::from_millis(rng.u64(ABSENCE)));
    cluster.rejoin();
}

/// The node that Mika writes to, by its log.
fn writer(cluster: &Galera, log: &str) -> usize {
    let is_move = |line: &&str| line.contains("storage is another server now");
    let place_in = |line: &str| {
        let addresses = cluster.addresses();
        addresses
            .iter()
            .position(|it| line.contains(&it.to_string()))
    };
    log.lines().rfind(is_move).and_then(place_in).unwrap_or(0)
}

fn fail_over(pair: &mut Pair, database: Database, rng: &mut Rng) {
    let lags = database == Database::LaggingStandby;
    if lags {
        pair.stop_standby();
        thread::sleep(Duration::from_millis(rng.u64(LAG)));
    }
    pair.kill_primary();
    if lags {
        pair.start_standby();
    }
    pair.promote();
}
