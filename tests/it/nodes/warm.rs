//! A warmup, then a start: the node reads what the warmup wrote.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use mika::wire::bencode::Node;
use rustix::process::Signal;
use serde_json::json;
use sha1::{Digest as _, Sha1};

use super::pair::{Client, knows_user};
use crate::harness::http::{Connection, escape, get};
use crate::harness::load::{info_hash, passkey};
use crate::harness::redis::{AOF, Redis};
use crate::harness::site::Site;
use crate::harness::{PROGRAM_DEADLINE, poll};

/// Enough that a registry that is written again shows among what nodes write all the time.
const USERS: usize = 2000;

/// Commands that a node sends within some seconds, whatever the cache has.
const A_FEW: u64 = 100;

/// How long a node may take to have the cache as it should be.
const FILLED: Duration = Duration::from_secs(20);

/// The keys that a warmup writes, with what is in them.
fn registry(redis: &Redis) -> String {
    let script = "local all = {} \
        for _, pattern in ipairs({'t:u:[0-9]*', 't:t:*', 't:user:*', 't:whitelist'}) do \
            for _, key in ipairs(redis.call('KEYS', pattern)) do \
                if redis.call('TYPE', key).ok == 'hash' then \
                    local fields = redis.call('HGETALL', key) local pairs = {} \
                    for i = 1, #fields, 2 do pairs[#pairs + 1] = fields[i] .. '=' .. fields[i + 1] end \
                    table.sort(pairs) all[#all + 1] = key .. ': ' .. table.concat(pairs, ' ') \
                else all[#all + 1] = key .. ': ' .. redis.call('GET', key) end \
            end \
        end table.sort(all) return all";
    redis.cli(&["EVAL", script, "0"])
}

/// How often each command was called.
fn calls(redis: &Redis) -> HashMap<String, u64> {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    calls.collect()
}

fn is_complete(site: &Site) -> bool {
    site.redis.cli(&["HEXISTS", "t:registry", "position"]) == "1"
}

#[test]
fn a_start_after_a_warmup_reads_the_cache_and_rewrites_nothing() {
    let mut site = Site::prepare(USERS, &AOF, &json!({}));
    let check = site.mika.manage(&["check"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{said}");
    assert!(said.contains("ok       cache: redis://"), "{said}");
    let before = registry(&site.redis);
    site.redis.cli(&["CONFIG", "RESETSTAT"]);
    site.mika.run();
    let node = site.mika.http();
    Client::new(USERS - 1, 1).accepted(node, "");
    let reads = calls(&site.redis);
    // It mirrors, too, by then.
    site.database
        .sql("UPDATE users SET can_leech = 0 WHERE id = 1");
    poll(FILLED, "an edit is mirrored", || {
        site.redis.cli(&["HGET", "t:u:1", "can_leech"]) == "0"
    });
    let calls = calls(&site.redis);
    let of = |name: &str| calls.get(name).copied().unwrap_or(0);
    for name in [
        "hset", "set", "hdel", "del", "unlink", "evalsha", "zadd", "sadd",
    ] {
        assert!(of(name) < A_FEW, "{name}: {calls:?}");
    }
    // Each row once.
    let rows = USERS as u64 + A_FEW;
    assert!(reads["hmget"] < rows, "{reads:?}");
    let log = site.mika.log();
    assert!(log.contains("registry loaded from the cache"), "{log}");
    assert!(!log.contains("filling it from storage"), "{log}");
    site.database
        .sql("UPDATE users SET can_leech = 1 WHERE id = 1");
    let uncounted = |all: String| {
        // The announce above is counted.
        let counted =
            |line: &&str| !line.starts_with(&format!("t:u:{USERS}:")) && !line.starts_with("t:t:");
        all.lines()
            .filter(counted)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = uncounted(before);
    poll(FILLED, "the registry is as it was", || {
        uncounted(registry(&site.redis)) == before
    });
}

/// So many that a start reads tables and swarms by several threads.
const MANY: usize = 12_000;

#[test]
fn a_large_start_by_several_threads_has_every_peer() {
    let mut site = Site::prepare(3, &AOF, &json!({}));
    let first_announce = "UNIX_TIMESTAMP() - 600";
    // Each user seeds a torrent of their own, and all of them the second one of `Site`.
    site.database.sql(&format!(
        "INSERT INTO users (id, passkey, username)
             SELECT 100 + seq, MD5(seq), CONCAT('u', seq) FROM seq_1_to_{MANY};
         INSERT INTO torrents (id, info_hash, release_name)
             SELECT 100 + seq, UNHEX(SHA1(seq)), CONCAT('r', seq) FROM seq_1_to_{MANY};
         INSERT INTO peers (user_id, torrent_id, peer_id, base_up, base_down, base_at, uploaded, downloaded,
                 left_bytes, ip4, port4, speed_up, speed_down, seed_time, announces, first_announce, last_announce,
                 active, paused)
             SELECT users.id, torrents.id, CONCAT('-MK0001-', LPAD(users.id, 12, '0')), 0, 0, {first_announce}, 0, 0,
                 0, '127.0.0.1', 6881, 0, 0, 60, 2, {first_announce}, {first_announce}, 1, 0
             FROM users JOIN torrents ON torrents.id = users.id OR torrents.id = 2 WHERE users.id > 100;
         INSERT INTO history (torrent_id, user_id, seed_time, announces, completed_at, first_announce, last_announce)
             SELECT torrent_id, user_id, 60, 2, {first_announce}, {first_announce}, {first_announce} FROM peers;"
    ));
    site.mika.manage(&["warmup"]);
    let peers = 2 * MANY;
    for source in [
        format!("swarms loaded accounts={peers}"),
        "swarms loaded from the cache".into(),
    ] {
        let before = site.mika.log().len();
        site.mika.run();
        let node = site.mika.http();
        let scraped = |hash: &[u8; 20]| {
            let target = format!("/{}/scrape?info_hash={}", passkey(0), escape(hash));
            let reply = get(node, &target);
            let files = reply.bencode();
            let file = files.get(b"files").and_then(|it| it.get(hash)).unwrap();
            file.get(b"complete").and_then(Node::as_int)
        };
        assert_eq!(scraped(&info_hash(1)), Some(MANY as i64), "{source}");
        for number in [1, 2, MANY / 2, MANY - 1, MANY] {
            let hash = Sha1::digest(number.to_string()).into();
            assert_eq!(scraped(&hash), Some(1), "{source}: {number}");
        }
        poll(FILLED, "Redis has all peers", || {
            site.redis.cli(&["HEXISTS", "t:registry", "peers"]) == "1"
        });
        let log = site.mika.log();
        let log = &log[before..];
        assert!(log.contains(&source), "{log}");
        assert!(
            log.contains(&format!("seeders={peers} leechers=0")),
            "{log}"
        );
        // Clients are answered before Redis has been given the peers.
        let given = log.find("the cache has the peers that were loaded from storage");
        assert!(
            given.is_none_or(|given| log.find("listening").unwrap() < given),
            "{log}"
        );
        site.mika.stop();
    }
}

#[test]
fn announces_that_come_before_a_start_has_loaded_anything_are_answered() {
    let mut site = Site::prepare(2, &AOF, &json!({}));
    site.mika.run();
    let other = Client::new(1, 0);
    other.accepted(site.mika.http(), "started");
    site.mika.stop();
    site.redis.pause();
    site.mika.launch();
    let mut early = None;
    poll(PROGRAM_DEADLINE, "connections are accepted", || {
        early = Connection::open_within(site.mika.http(), PROGRAM_DEADLINE).ok();
        early.is_some()
    });
    let mut early = early.unwrap();
    let client = Client {
        left: 1,
        ..Client::new(0, 0)
    };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        client.target("started")
    );
    early.send(request.as_bytes()).unwrap();
    let log = site.mika.log();
    assert_eq!(log.matches("registry loaded").count(), 1, "{log}");
    site.redis.resume();
    let reply = early.receive().unwrap();
    assert_eq!(reply.failure(), None);
    assert!(other.is_in(&reply), "with the peers that were there before");
}

#[test]
fn what_changed_between_warmup_and_start_is_in_force_at_once() {
    let mut site = Site::prepare(3, &AOF, &json!({}));
    site.database.sql(
        "UPDATE users SET enabled = 0 WHERE id = 1; DELETE FROM users WHERE id = 2;
         UPDATE torrents SET enabled = 0 WHERE id = 2",
    );
    site.mika.run();
    let node = site.mika.http();
    for (client, is_allowed) in [
        (Client::new(0, 0), false),
        (Client::new(1, 0), false),
        (Client::new(2, 1), false),
        (Client::new(2, 0), true),
    ] {
        let reply = client.announce(node, "started");
        assert_eq!(reply.failure().is_none(), is_allowed, "{}", client.passkey);
    }
    let log = site.mika.log();
    assert!(log.contains("registry loaded from the cache"), "{log}");
    site.is_reconciled();
}

#[test]
fn a_start_after_a_warmup_that_was_killed_ends_with_a_complete_cache() {
    let mut site = Site::prepare(USERS, &AOF, &json!({}));
    site.redis.cli(&["FLUSHALL"]);
    let mut warmup = site.mika.command(env!("CARGO_BIN_EXE_mika-manage"));
    warmup.args(["--config", "config.json", "warmup"]);
    let mut warmup = warmup.stdout(Stdio::null()).spawn().unwrap();
    poll(PROGRAM_DEADLINE, "the warmup has begun", || {
        site.redis.cli(&["DBSIZE"]) != "0"
    });
    warmup.kill().unwrap();
    warmup.wait().unwrap();
    site.mika.run();
    assert!(knows_user(site.mika.http(), &passkey(USERS - 1)));
    poll(FILLED, "the cache is complete", || is_complete(&site));
    site.is_reconciled();
}

#[test]
fn parts_and_dry_runs_do_not_make_a_cache_complete() {
    let mut site = Site::prepare(3, &AOF, &json!({}));
    site.redis.cli(&["FLUSHALL"]);
    for arguments in [
        &["warmup", "--dry-run"][..],
        &["warmup", "--only", "whitelist,torrents"],
        &["warmup", "--only", "passkeys"],
    ] {
        site.mika.managed(arguments);
        assert!(!is_complete(&site), "{arguments:?}");
    }
    site.mika.run();
    assert!(knows_user(site.mika.http(), &passkey(2)));
    poll(FILLED, "the cache is complete", || is_complete(&site));
    // A part that is loaded again leaves it so.
    site.mika.managed(&["warmup", "--only", "whitelist"]);
    assert!(is_complete(&site));
}

#[test]
fn a_node_does_not_load_from_a_cache_too_far_behind() {
    let mut site = Site::prepare(3, &AOF, &json!({}));
    // More changes than are kept: the first of them are gone.
    site.database.sql(
        "UPDATE users SET enabled = 0 WHERE id = 1;
         UPDATE users SET username = 'y' WHERE id = 2; DELETE FROM mika_feed WHERE `key` = 1 AND kind = 'user';
         DELETE FROM mika_feed WHERE seq < (SELECT MAX(seq) FROM (SELECT seq FROM mika_feed) AS f)",
    );
    site.mika.run();
    let reply = Client::new(0, 0).announce(site.mika.http(), "");
    assert!(reply.failure().is_some(), "the ban is in force");
    site.is_reconciled();
    let log = site.mika.log();
    assert!(log.contains("more changed since it was filled"), "{log}");
}

#[test]
fn evicted_keys_are_read_from_storage() {
    let mut site = Site::prepare(USERS, &AOF, &json!({}));
    site.redis
        .cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
    let used = site.redis.cli(&["INFO", "memory"]);
    let used = used
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    let less = used.unwrap().trim().parse::<u64>().unwrap() - 100_000;
    site.redis
        .cli(&["CONFIG", "SET", "maxmemory", &less.to_string()]);
    poll(FILLED, "keys are thrown away", || {
        // Room is made when a command asks for it.
        site.redis.cli(&["SET", "other", "x"]);
        !site
            .redis
            .cli(&["INFO", "stats"])
            .contains("evicted_keys:0\r")
    });
    site.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    site.redis
        .cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    site.mika.run();
    for user in 0..USERS {
        assert!(knows_user(site.mika.http(), &passkey(user)), "{user}");
    }
    site.is_reconciled();
}

#[test]
fn a_reload_reads_storage_while_the_cache_is_incomplete() {
    let mut site = Site::prepare(3, &AOF, &json!({ "node": "a" }));
    site.mika.run();
    // Another node has the lease, so that it is not filled. What is in flight ends soon.
    site.redis
        .cli(&["SET", "t:lease:mirror", "nobody", "PX", "60000"]);
    let mut incomplete = 0;
    poll(FILLED, "the cache stays incomplete", || {
        incomplete = if is_complete(&site) {
            0
        } else {
            incomplete + 1
        };
        site.redis.cli(&["HDEL", "t:registry", "position"]);
        incomplete > 20
    });
    site.database
        .sql("UPDATE users SET enabled = 0 WHERE id = 1");
    site.mika.signal(Signal::USR2);
    poll(FILLED, "the ban is in force", || {
        Client::new(0, 0)
            .announce(site.mika.http(), "")
            .failure()
            .is_some()
    });
    site.database.pause();
    site.mika.signal(Signal::USR2);
    let address = site.database.address().to_string();
    poll(FILLED, "the reload names what is away", || {
        let log = site.mika.log();
        let line = log
            .lines()
            .find(|line| line.contains("the registry was not reloaded"));
        line.is_some_and(|line| line.contains(&address))
    });
    site.database.resume();
}

#[test]
fn without_a_feed_a_start_and_a_reload_read_the_registry_from_storage() {
    let config = json!({ "storage": { "statements": { "feed": "" } } });
    let mut site = Site::prepare(4, &AOF, &config);
    let ban = |site: &Site, user: usize| {
        let passkey = passkey(user);
        site.database.sql(&format!(
            "UPDATE users SET enabled = 0 WHERE passkey = '{passkey}'"
        ));
    };
    ban(&site, 1);
    site.mika.run();
    assert!(knows_user(site.mika.http(), &passkey(0)));
    assert!(!knows_user(site.mika.http(), &passkey(1)), "after a start");
    poll(FILLED, "the cache is brought up to date", || {
        site.redis.cli(&["HGET", "t:u:2", "enabled"]) == "0" && is_complete(&site)
    });
    ban(&site, 2);
    site.mika.signal(Signal::HUP);
    poll(FILLED, "a reload follows the ban", || {
        !knows_user(site.mika.http(), &passkey(2))
    });
    poll(FILLED, "the cache follows the reload", || {
        site.redis.cli(&["HGET", "t:u:3", "enabled"]) == "0" && is_complete(&site)
    });
    // Another node learns what the reload of this one found.
    let mut b = site.another(&json!({
        "node": "b", "storage": { "statements": { "feed": "" } },
    }));
    b.run();
    ban(&site, 3);
    site.mika.signal(Signal::HUP);
    poll(FILLED, "the other node follows the reload", || {
        !knows_user(b.http(), &passkey(3))
    });
    assert!(knows_user(b.http(), &passkey(0)));
}

#[test]
fn a_rebuilt_feed_table_leaves_the_cache_as_it_is() {
    let site = Site::prepare(2, &AOF, &json!({}));
    // Creation times are whole seconds: the rebuild has to fall into another one.
    poll(FILLED, "a table made now has a later creation time", || {
        site.database.sql("ALTER TABLE mika_feed FORCE");
        let later = "SELECT COUNT(*) FROM information_schema.TABLES a, \
             information_schema.TABLES b WHERE a.TABLE_SCHEMA = 'site' AND b.TABLE_SCHEMA = 'site' \
             AND a.TABLE_NAME = 'mika_feed' AND b.TABLE_NAME = 'users' \
             AND a.CREATE_TIME > b.CREATE_TIME + INTERVAL 1 SECOND";
        site.database.sql(later).trim() == "1"
    });
    let check = site.mika.manage(&["check"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("ok       cache: redis://"), "{said}");
}

#[test]
fn a_row_that_becomes_unusable_is_logged_by_the_node_that_mirrors() {
    let mut site = Site::prepare(2, &AOF, &json!({}));
    site.mika.run();
    site.database
        .sql("UPDATE users SET passkey = 'shor!' WHERE id = 2");
    poll(FILLED, "the row is named", || {
        let log = site.mika.log();
        let mut lines = log.lines().filter(|it| it.contains("row passed over"));
        lines.any(|it| it.contains("users") && it.contains("id=2") && !it.contains("shor!"))
    });
    poll(FILLED, "the kinds of changes are logged", || {
        let log = site.mika.log();
        let mut lines = log.lines().filter(|it| it.contains("registry changed"));
        lines.any(|it| it.contains("users=1 torrents=0 whitelist=0"))
    });
}

#[test]
fn an_evicting_server_is_reported_at_the_start() {
    let mut site = Site::prepare(1, &AOF, &json!({}));
    site.redis
        .cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    site.mika.run();
    poll(FILLED, "the policy is named", || {
        let log = site.mika.log();
        log.contains("maxmemory-policy is allkeys-lru") && log.contains("noeviction")
    });
}
