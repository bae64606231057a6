//! No credit is lost or doubled: under a steady load `mika` is killed repeatedly, and at the
//! end the database holds exactly what the clients reported, user by user.
//!
//! `MIKA_KILLS` is how often, `MIKA_SERVER_KILLS`, `MIKA_FORGETTING_KILLS`, `MIKA_NODE_KILLS` and
//! `MIKA_FORGETTING_NODE_KILLS` the same for other tests, and `MIKA_POSTGRES_KILLS`,
//! `MIKA_POSTGRES_FORGETTING_KILLS`, `MIKA_POSTGRES_NODE_KILLS` and `MIKA_POSTGRES_FORGETTING_NODE_KILLS` for
//! those on PostgreSQL; `MIKA_GALERA_KILLS`, `MIKA_GALERA_REDIS_KILLS`, `MIKA_PROMOTIONS` and
//! `MIKA_LAGGING_PROMOTIONS` are for several database servers. `MIKA_EARLIER` is a folder with the programs of an
//! earlier version, and `MIKA_CYCLES` how often both nodes go back to it. `MIKA_LOAD` is the number of threads that announce,
//! and `MIKA_SEED` repeats a run as far as time allows. `scripts/kill-test` runs them longer.
//!
//! `MIKA_CHAOS_FAULTS` or `MIKA_CHAOS_MINUTES`, `MIKA_CHAOS_CACHE` and `MIKA_CHAOS_DATABASE` are for the faults of `chaos`, which
//! `scripts/chaos` sets.

#![allow(clippy::print_stderr)] // the seed, without which a failure can't be followed

#[path = "../harness/mod.rs"]
mod harness;

mod chaos;
mod client;
mod crowd;
mod failover;
mod nodes;
mod reconcile;
mod rolling;
mod servers;
mod stage;
mod story;

use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use harness::load::{
    self, Ledger, Stage, TORRENTS, USERS_PER_THREAD, info_hash, multipliers, passkey, report,
};
use harness::{Mika, free_port, number};
use serde_json::json;

/// Milliseconds that a daemon lives once it has answered.
const LIFE: RangeInclusive<u64> = 0..=900;

/// Milliseconds after which a daemon is killed that may not even have started.
const START: RangeInclusive<u64> = 0..=120;

#[test]
fn no_acknowledged_byte_is_lost_or_counted_twice() {
    let kills = number("MIKA_KILLS", 60);
    let threads = number("MIKA_LOAD", 4) as usize;
    let seed = seed();
    eprintln!("MIKA_KILLS={kills} MIKA_LOAD={threads} MIKA_SEED={seed}");

    let mut mika = prepare(threads * USERS_PER_THREAD);
    let stage = Stage::new(mika.http());
    let expected = load::run(&stage, threads, seed, || {
        kill_again_and_again(&mut mika, &stage, kills, Rng::with_seed(seed));
    });
    assert_eq!(mika.stop(), 0);
    report(&stage, &expected);
    compare(&mika, &expected);
}

fn seed() -> u64 {
    number("MIKA_SEED", fastrand::u64(..))
}

/// A daemon that has not run yet, with users and torrents in its database.
fn prepare(users: usize) -> Mika {
    let mika = Mika::prepare_on(
        free_port(),
        &json!({
            "mode": "private",
            // A reply after the timeout is not an acknowledgement: here none times out.
            "journal": { "flush_interval": "300ms", "ack_timeout": "30s" },
        }),
    );
    mika.managed(&["migrate"]);
    let storage = mika.storage();
    for user in 0..users {
        storage
            .execute(
                "INSERT INTO users (passkey, username) VALUES (?1, ?2)",
                (passkey(user), format!("user {user}")),
            )
            .expect("a user");
    }
    for torrent in 0..TORRENTS {
        let (up, down) = multipliers(torrent);
        storage
            .execute(
                "INSERT INTO torrents (info_hash, release_name, multi_up, multi_dn) VALUES (?1, ?2, ?3, ?4)",
                (info_hash(torrent), format!("torrent {torrent}"), up, down),
            )
            .expect("a torrent");
    }
    storage
        .execute(
            "INSERT INTO whitelist (peer_id, vstring) VALUES ('-MK', 'test')",
            (),
        )
        .expect("a client");
    mika
}

fn kill_again_and_again(mika: &mut Mika, stage: &Stage, kills: u64, mut rng: Rng) {
    for _ in 0..kills {
        mika.launch();
        if rng.u8(..4) == 0 {
            thread::sleep(Duration::from_millis(rng.u64(START)));
        } else {
            stage.is_answered();
            thread::sleep(Duration::from_millis(rng.u64(LIFE)));
        }
        mika.kill9();
    }
    mika.run();
}

/// Compares the database with what was announced.
fn compare(mika: &Mika, expected: &[Ledger]) {
    let mut wrong = Vec::new();
    for (user, ledger) in expected.iter().enumerate() {
        let found = mika.row::<3>(&format!(
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
        let found = mika.row::<3>(&format!(
            "SELECT snatches, seeders, leechers FROM torrents WHERE release_name = 'torrent {torrent}'"
        ));
        if found != [snatches as i64, 0, 0] {
            wrong.push(format!(
                "torrent {torrent}: found {found:?}, snatched by {snatches}"
            ));
        }
    }
    assert_eq!(
        mika.row::<1>("SELECT count(*) FROM peers WHERE active"),
        [0]
    );
    let log = mika.log();
    let complaints = log
        .lines()
        .filter(|line| line.contains(" ERROR ") || line.contains("panicked"));
    wrong.extend(complaints.map(str::to_owned));
    assert!(
        wrong.is_empty(),
        "found (up, down, snatches):\n{}",
        wrong.join("\n")
    );
}
