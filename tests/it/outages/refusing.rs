//! Servers that answer and refuse.

use std::cell::RefCell;
use std::io::Write as _;
use std::process::{Child, Stdio};

use mika::base::ids::InfoHash;
use serde_json::json;

use super::trial::Trial;
use crate::harness::database::{ACCOUNT, Database};
use crate::harness::http::{escape, get};
use crate::harness::load::{info_hash, passkey};
use crate::harness::mariadb::MariaDb;
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{PROGRAM_DEADLINE, poll};

/// Connections that MariaDB allows in the end: the lowest setting.
const CONNECTIONS: usize = 10;

/// What a backup begins with.
const LOCK: &str = "FLUSH TABLES WITH READ LOCK";

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
        let lock = RefCell::new(None);
        trial.outage(
            "MariaDB locked",
            |it| *lock.borrow_mut() = Some(Client::after(it.mariadb(), LOCK)),
            |_| drop(lock.take()),
        );
        let log = trial.outage(
            "a table gone",
            |it| drop(it.database.sql("RENAME TABLE users TO members")),
            |it| drop(it.database.sql("RENAME TABLE members TO users")),
        );
        assert!(log.contains("users"), "{log}");
    });
}

#[test]
fn registry_changes_are_followed_while_storage_takes_no_batch() {
    let mut site = Site::prepare(1, &AOF, &json!({ "node": "locked" }));
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
    let lock = "BEGIN; SELECT * FROM site.users FOR UPDATE";
    let lock = Client::after(site.mariadb(), lock);
    assert_eq!(announce(&old, "&uploaded=100"), None);
    let hash = InfoHash(new);
    site.database.sql(&format!(
        "UPDATE torrents SET info_hash = X'{hash}' WHERE id = 2"
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

/// A client that keeps its connection. It ends when it goes out of scope.
struct Client(Child);

/// Takes all connections but that of an administrator; no other client gets one.
fn crowd_out(mariadb: &MariaDb) -> Vec<Client> {
    let places = 0..CONNECTIONS;
    let crowd = places.map(|_| Client::after(mariadb, "SELECT 1")).collect();
    mariadb.sql(&format!(
        "SET GLOBAL max_connections = {CONNECTIONS}; KILL USER {ACCOUNT}"
    ));
    crowd
}

// === impl Client ===

impl Client {
    /// A client that has run `sql`.
    fn after(mariadb: &MariaDb, sql: &str) -> Self {
        let mut client = mariadb.client();
        let mut process = client
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("mariadb starts");
        let id = process.id();
        let input = process.stdin.as_mut().expect("it is piped");
        writeln!(input, "{sql}; DO GET_LOCK('client {id}', 0);").expect("the client reads");
        poll(PROGRAM_DEADLINE, "the client has run its SQL", || {
            let is_free = mariadb.try_sql(&format!("SELECT IS_FREE_LOCK('client {id}')"));
            is_free.is_ok_and(|it| it == "0")
        });
        Self(process)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
