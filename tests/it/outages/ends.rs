//! The start and the stop while a server is away.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::trial::outage;
use crate::harness::database::{Database, PASSWORD};
use crate::harness::http::{Reply, escape, try_get};
use crate::harness::load::{info_hash, passkey};
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{Mika, PROGRAM_DEADLINE, now, poll};

/// How long a stop may take that waits for nothing.
const AT_ONCE: Duration = Duration::from_secs(3);

/// How long a stop may take with a server that answers nothing, before it is given up.
const SOON: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Redis,
    Database,
}

const SERVERS: [Server; 2] = [Server::Redis, Server::Database];

fn site(database: Database) -> Site {
    Site::prepare_on(database, 1, &AOF, &json!({}))
}

fn announce(mika: &Mika, event: &str, uploaded: u64) -> Option<Reply> {
    let target = format!(
        "/{}/announce?info_hash={}&peer_id=-MK0001-abcdefghijkl&port=6881&uploaded={uploaded}&downloaded=0&left=0&event={event}",
        passkey(0),
        escape(&info_hash(1)),
    );
    let reply = try_get(mika.http(), &target).ok()?;
    assert_eq!(reply.failure(), None, "{target}");
    Some(reply)
}

fn waits(mika: &Mika) -> usize {
    mika.log()
        .matches("waiting until it can be reached")
        .count()
}

crate::on_each_database![
    a_start_waits_for_a_server_and_logs_it_once,
    a_waiting_start_can_be_stopped,
    a_start_with_no_wait_fails_at_once,
    a_wrong_password_ends_the_start_at_once,
    a_stop_leaves_unapplied_batches_to_the_next_start,
];

fn a_start_waits_for_a_server_and_logs_it_once(database: Database) {
    let mut site = site(database);
    for server in SERVERS {
        server.stop(&mut site);
        let before = waits(&site.mika);
        site.mika.launch();
        poll(PROGRAM_DEADLINE, "it waits", || waits(&site.mika) > before);
        thread::sleep(outage());
        assert_eq!(waits(&site.mika), before + 1, "{server:?}");
        server.restart(&mut site);
        poll(PROGRAM_DEADLINE, "announces are answered", || {
            announce(&site.mika, "started", 0).is_some()
        });
        assert_eq!(waits(&site.mika), before + 1, "{server:?}");
        assert_eq!(site.mika.stop(), 0);
    }
}

fn a_waiting_start_can_be_stopped(database: Database) {
    let mut site = site(database);
    for server in SERVERS {
        server.stop(&mut site);
        let before = waits(&site.mika);
        site.mika.launch();
        poll(PROGRAM_DEADLINE, "it waits", || waits(&site.mika) > before);
        ends_at_once(&mut site.mika, 0);
        server.restart(&mut site);

        // Paused, it leaves a connection without any answer.
        server.pause(&site);
        site.mika.launch();
        poll(PROGRAM_DEADLINE, "it has begun", || site.mika.accepts());
        ends_at_once(&mut site.mika, 0);
        server.resume(&site);
    }
}

fn ends_at_once(mika: &mut Mika, status: i32) {
    let start = now();
    assert_eq!(mika.stop(), status);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

fn a_start_with_no_wait_fails_at_once(database: Database) {
    let mut site = site(database);
    for server in SERVERS {
        server.stop(&mut site);
        let before = site.mika.log().len();
        site.mika.launch_with(&["--no-wait"]);
        assert_eq!(site.mika.wait(AT_ONCE), 1, "{server:?}");
        let log = &site.mika.log()[before..];
        assert!(log.contains(server.key()), "{log}");
        assert!(log.contains(&server.address(&site)), "{log}");
        server.restart(&mut site);
    }
}

fn a_wrong_password_ends_the_start_at_once(database: Database) {
    let mut site = site(database);
    let right = site.database.url();
    let wrong = right.replace(PASSWORD, "misremembered");
    site.mika
        .reconfigure(&json!({ "storage": { "url": wrong } }));
    fails_at_once(&mut site, "storage.url");
    site.mika
        .reconfigure(&json!({ "storage": { "url": right } }));
    site.redis.cli(&["CONFIG", "SET", "requirepass", "other"]);
    let wrong = site
        .redis
        .url()
        .replace("redis://", "redis://:misremembered@");
    fails_at_once(&mut site, "cache.url");
    let other_database = site.redis.url().replace("/0", "") + "/3";
    site.mika.reconfigure(&json!({ "cache": { "url": wrong } }));
    fails_at_once(&mut site, "cache.url");
    site.mika
        .reconfigure(&json!({ "cache": { "url": other_database } }));
    fails_at_once(&mut site, "wants a password");
}

fn fails_at_once(site: &mut Site, key: &str) {
    let before = site.mika.log().len();
    site.mika.launch();
    assert_eq!(site.mika.wait(AT_ONCE), 1, "{}", site.mika.log());
    let log = &site.mika.log()[before..];
    assert!(log.contains(key), "{log}");
    assert!(!log.contains("misremembered"), "{log}");
}

fn a_stop_leaves_unapplied_batches_to_the_next_start(database: Database) {
    let mut site = site(database);
    for (round, is_paused) in [(1, false), (2, true)] {
        site.mika.run();
        assert!(announce(&site.mika, "started", 0).is_some());
        if is_paused {
            site.database.pause();
        } else {
            site.database.kill9();
        }
        assert!(announce(&site.mika, "stopped", 1000).is_some());
        let start = now();
        assert_eq!(site.mika.stop(), 0);
        eprintln!("stopped within {:?}", start.elapsed());
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        if is_paused {
            site.database.resume();
        } else {
            site.database.restart();
        }
        site.mika.run();
        poll(PROGRAM_DEADLINE, "the rest is applied", || {
            site.database.row::<1>("SELECT uploaded FROM users") == [1000 * round]
        });
        assert_eq!(site.mika.stop(), 0);
    }
}

// === impl Server ===

impl Server {
    fn key(self) -> &'static str {
        match self {
            Self::Redis => "cache",
            Self::Database => "storage",
        }
    }

    fn address(self, site: &Site) -> String {
        match self {
            Self::Redis => site.redis.address().to_string(),
            Self::Database => site.database.address().to_string(),
        }
    }

    fn stop(self, site: &mut Site) {
        match self {
            Self::Redis => site.redis.stop(),
            Self::Database => site.database.stop(),
        }
    }

    fn restart(self, site: &mut Site) {
        match self {
            Self::Redis => site.redis.restart(),
            Self::Database => site.database.restart(),
        }
    }

    fn pause(self, site: &Site) {
        match self {
            Self::Redis => site.redis.pause(),
            Self::Database => site.database.pause(),
        }
    }

    fn resume(self, site: &Site) {
        match self {
            Self::Redis => site.redis.resume(),
            Self::Database => site.database.resume(),
        }
    }
}
