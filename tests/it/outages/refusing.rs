//! Servers that answer and refuse.

use std::cell::RefCell;

use mika::base::ids::InfoHash;
use serde_json::json;

use super::trial::Trial;
use crate::harness::database::{ACCOUNT, DATABASE, Database};
use crate::harness::http::{escape, get};
use crate::harness::load::{info_hash, passkey};
use crate::harness::mariadb::MariaDb;
use crate::harness::redis::AOF;
use crate::harness::session::Session;
use crate::harness::site::Site;
use crate::harness::{PROGRAM_DEADLINE, poll};

/// Connections that MariaDB allows in the end: the lowest setting.
const CONNECTIONS: usize = 10;

/// Other keys, so that loading takes longer than the outage.
const FILL: &str = "for key = 1, 20000 do redis.call('SET', 'other:' .. key, key) end";

/// How long Redis takes for each command that it loads, in microseconds.
const LOAD_DELAY: &str = "500";

#[test]
fn redis_may_refuse() {
    Trial::run(Database::MariaDb, &AOF, &json!({}), |trial| {
        let log = trial.outage(
            "Redis out of memory",
            |it| drop(it.redis.cli(&["CONFIG", "SET", "maxmemory", "1"])),
            |it| drop(it.redis.cli(&["CONFIG", "SET", "maxmemory", "0"])),
        );
        assert!(log.contains("raise maxmemory"), "{log}");
        let log = trial.outage(
            "Redis read-only",
            |it| follow_nobody(it, "yes"),
            |it| drop(it.redis.cli(&["REPLICAOF", "NO", "ONE"])),
        );
        assert!(log.contains("read-only"), "{log}");
        let log = trial.outage(
            "Redis without its master",
            |it| follow_nobody(it, "no"),
            |it| drop(it.redis.cli(&["REPLICAOF", "NO", "ONE"])),
        );
        assert!(log.contains("it is a replica"), "{log}");
        trial.outage(
            "Redis loading",
            |it| {
                it.redis.cli(&["EVAL", FILL, "0"]);
                it.redis.restart_with(&["--key-load-delay", LOAD_DELAY]);
            },
            |it| {
                let reply = it.redis.cli(&["PING"]);
                assert!(reply.contains("LOADING"), "{reply}");
                it.redis.cli(&["CONFIG", "SET", "key-load-delay", "0"]);
            },
        );
    });
}

/// Makes Redis a replica of a master that is not there.
fn follow_nobody(site: &Site, serve_stale: &str) {
    let redis = &site.redis;
    redis.cli(&["CONFIG", "SET", "replica-serve-stale-data", serve_stale]);
    assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
}

#[test]
fn mariadb_may_refuse() {
    Trial::run(Database::MariaDb, &AOF, &json!({}), |trial| {
        let crowd = RefCell::new(Vec::new());
        let log = trial.outage(
            "MariaDB full",
            |it| *crowd.borrow_mut() = crowd_out(it.mariadb()),
            |_| crowd.borrow_mut().clear(),
        );
        assert!(log.contains("has too many connections"), "{log}");
        let log = trial.outage(
            "MariaDB read-only",
            |it| drop(it.database.sql("SET GLOBAL read_only = 1")),
            |it| drop(it.database.sql("SET GLOBAL read_only = 0")),
        );
        assert!(log.contains("is read-only now"), "{log}");
        locked(trial, "FLUSH TABLES WITH READ LOCK;");
        let log = trial.outage(
            "a table gone",
            |it| drop(it.database.sql("RENAME TABLE users TO members")),
            |it| drop(it.database.sql("RENAME TABLE members TO users")),
        );
        assert!(log.contains("users"), "{log}");
    });
}

#[test]
fn postgresql_may_refuse() {
    Trial::run(Database::Postgres, &AOF, &json!({}), |trial| {
        let log = trial.outage(
            "PostgreSQL full",
            |it| {
                it.database.sql(&format!(
                    "ALTER ROLE {ACCOUNT} CONNECTION LIMIT 0;
                     SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ACCOUNT}'"
                ));
            },
            |it| {
                it.database
                    .sql(&format!("ALTER ROLE {ACCOUNT} CONNECTION LIMIT -1"));
            },
        );
        assert!(log.contains("has too many connections"), "{log}");
        locked(
            trial,
            "BEGIN; LOCK TABLE users, torrents, peers IN EXCLUSIVE MODE;",
        );
        let log = trial.outage(
            "a table gone",
            |it| drop(it.database.sql("ALTER TABLE users RENAME TO members")),
            |it| drop(it.database.sql("ALTER TABLE members RENAME TO users")),
        );
        assert!(log.contains("users"), "{log}");
    });
}

/// A client of the site holds a lock, such as a backup or a change of a table takes.
fn locked(trial: &mut Trial, lock: &str) {
    let client = RefCell::new(None);
    trial.outage(
        "database locked",
        |it| {
            // In a deadlock with a batch, either may be the one that the server refuses.
            poll(PROGRAM_DEADLINE, "the lock is taken", || {
                let mut session = it.database.session();
                let is_taken = session.try_run(lock);
                *client.borrow_mut() = is_taken.then_some(session);
                is_taken
            });
        },
        |_| drop(client.take()),
    );
}

crate::on_each_database![registry_changes_are_followed_while_storage_takes_no_batch];

fn registry_changes_are_followed_while_storage_takes_no_batch(database: Database) {
    let mut site = Site::prepare_on(database, 1, &AOF, &json!({ "node": "locked" }));
    site.mika.run();
    let announce = |hash: &[u8; 20], rest: &str| {
        let (passkey, hash) = (passkey(0), escape(hash));
        let target = format!(
            "/{passkey}/announce?info_hash={hash}&peer_id=-MK0001-abcdefghijkl&port=6881&left=0{rest}"
        );
        get(site.mika.http(), &target).failure()
    };
    let (old, new) = (info_hash(1), [0x77; 20]);
    assert_eq!(announce(&old, "&uploaded=0&event=started"), None);
    let sql = "SELECT COUNT(*), COALESCE(SUM(uploaded), 0) FROM peers";
    poll(PROGRAM_DEADLINE, "storage has the client", || {
        site.database.row::<2>(sql) == [1, 0]
    });
    let mut lock = site.database.session();
    lock.run("BEGIN; SELECT * FROM users FOR UPDATE;");
    assert_eq!(announce(&old, "&uploaded=100"), None);
    let hash = site.database.bytes(&InfoHash(new).to_string());
    site.database.sql(&format!(
        "UPDATE torrents SET info_hash = {hash} WHERE id = 2"
    ));
    poll(PROGRAM_DEADLINE, "the torrent has its new hash", || {
        announce(&new, "&uploaded=100").is_none()
    });
    drop(lock);
    assert_eq!(announce(&new, "&uploaded=150&event=stopped"), None);
    poll(PROGRAM_DEADLINE, "all is credited", || {
        site.database.row::<2>(sql) == [1, 150]
    });
}

/// Takes all connections but that of an administrator; no other client gets one.
fn crowd_out(mariadb: &MariaDb) -> Vec<Session> {
    let places = 0..CONNECTIONS;
    let mut crowd: Vec<Session> = places.map(|_| mariadb.session(DATABASE)).collect();
    // Once they are connected: the tracker would take the place of one that is late.
    for session in &mut crowd {
        session.run("");
    }
    mariadb.sql(&format!(
        "SET GLOBAL max_connections = {CONNECTIONS}; KILL USER {ACCOUNT}"
    ));
    crowd
}
