//! A node that comes back under another name, such as a recreated container.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use super::pair::{Client, knows_user};
use crate::harness::load::passkey;
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{Mika, poll};

/// How long credit may take to storage.
const CREDITED: Duration = Duration::from_secs(20);

/// How long batches of a dead node may stay: it counts as dead after 15 s, and they are kept for 10 s.
const TRIMMED: Duration = Duration::from_secs(60);

/// How long a node may take to refuse its start: it waits for heartbeats of another.
const REFUSED: Duration = Duration::from_secs(20);

fn uploaded(site: &Site) -> i64 {
    let passkey = passkey(0);
    let sql = format!("SELECT uploaded FROM users WHERE passkey = '{passkey}'");
    site.database.row::<1>(&sql)[0]
}

/// Puts a batch into the spill file of a node that does not run.
fn forge_spill(mika: &Mika, node: &str, number: u64) {
    let file = Connection::open(mika.path("mika.spill")).unwrap();
    file.execute_batch(&format!(
        "CREATE TABLE node (name TEXT NOT NULL);
         CREATE TABLE batches (number INTEGER PRIMARY KEY, changes INTEGER NOT NULL, text TEXT NOT NULL);
         INSERT INTO node VALUES ('{node}'); INSERT INTO batches VALUES ({number}, 0, '')"
    ))
    .unwrap();
}

#[test]
fn a_node_can_be_renamed_after_a_clean_stop() {
    let mut site = Site::prepare(1, &AOF, &json!({ "node": "c0ffee01" }));
    site.mika.run();
    let mut client = Client::new(0, 1);
    client.accepted(site.mika.http(), "started");
    client.uploaded = 100;
    client.accepted(site.mika.http(), "");
    assert_eq!(site.mika.stop(), 0);
    site.mika.reconfigure(&json!({ "node": "c0ffee02" }));
    site.mika.run();
    client.uploaded = 150;
    client.accepted(site.mika.http(), "stopped");
    poll(CREDITED, "both sessions are credited", || {
        uploaded(&site) >= 150
    });
    assert_eq!(uploaded(&site), 150);
}

#[test]
fn leftovers_of_a_renamed_node_are_credited_once() {
    let mut site = Site::prepare(1, &AOF, &json!({ "node": "c0ffee01" }));
    let mut other = site.another(&json!({ "node": "other" }));
    site.mika.run();
    other.run();
    let node = site.mika.http();
    let mut client = Client::new(0, 1);
    client.accepted(node, "started");
    poll(CREDITED, "storage has the start", || {
        site.database.row::<1>("SELECT COUNT(*) FROM peers") == [1]
    });
    site.database.pause();
    site.redis.pause();
    client.uploaded = 123_456;
    // Acknowledged by the spill file alone.
    client.accepted(node, "stopped");
    assert!(site.spilled() > 0);
    site.mika.kill9();
    site.redis.resume();
    site.database.resume();
    for name in ["c0ffee02", "c0ffee03"] {
        site.mika.reconfigure(&json!({ "node": name }));
        site.mika.run();
        assert!(knows_user(site.mika.http(), &passkey(0)));
        assert_eq!(uploaded(&site), 123_456, "{name}");
        site.mika.kill9();
    }
    let log = site.mika.log();
    let saved = "saved what an earlier start left in the spill file";
    assert_eq!(log.matches(saved).count(), 1, "{log}");
    // The other node knows of it: it goes on from there.
    client.uploaded = 123_500;
    client.accepted(other.http(), "");
    client.accepted(other.http(), "stopped");
    poll(CREDITED, "the rest is credited", || {
        uploaded(&site) > 123_456
    });
    assert_eq!(uploaded(&site), 123_500);
}

/// A spill file may turn up when its journal was forgotten long ago. What a start under another name then writes to Redis
/// does not stay there, even if that start is killed before it could remove it.
#[test]
fn what_a_late_spill_file_left_in_redis_is_trimmed() {
    let keep = json!({ "keep": "10s" });
    let mut site = Site::prepare(1, &AOF, &json!({ "node": "a", "journal": keep }));
    site.mika.run();
    assert!(knows_user(site.mika.http(), &passkey(0)));
    let journal = only_journal(&site);
    site.database.pause();
    site.redis.pause();
    // Acknowledged by the spill file alone.
    Client::new(0, 1).accepted(site.mika.http(), "started");
    assert!(site.spilled() > 0);
    site.mika.kill9();
    site.redis.resume();
    site.database.resume();
    let mut other = site.another(&json!({ "node": "other", "journal": keep }));
    site.redis.cli(&["HDEL", "t:nodes", &journal]);
    site.mika.reconfigure(&json!({ "node": "b" }));
    site.mika.run();
    assert!(knows_user(site.mika.http(), &passkey(0)));
    site.mika.kill9();
    let stream = format!("t:journal:{journal}");
    assert_eq!(site.redis.cli(&["EXISTS", &stream]), "1");
    other.run();
    poll(TRIMMED, "the batches are trimmed", || {
        site.redis.cli(&["XLEN", &stream]) == "0"
    });
}

/// In a cluster, the list of nodes may be lost while the streams of their journals, which are on other servers, are not.
#[test]
fn a_journal_that_is_off_the_list_is_credited_and_trimmed_by_the_next_start() {
    let keep = json!({ "keep": "10s" });
    let mut site = Site::prepare(1, &AOF, &json!({ "node": "a", "journal": keep }));
    site.mika.run();
    let mut client = Client::new(0, 1);
    client.accepted(site.mika.http(), "started");
    let journal = only_journal(&site);
    site.database.pause();
    client.uploaded = 123_456;
    // Acknowledged by Redis.
    client.accepted(site.mika.http(), "stopped");
    site.mika.kill9();
    site.database.resume();
    site.redis.cli(&["DEL", "t:nodes"]);
    let mut other = site.another(&json!({ "node": "other", "journal": keep }));
    other.run();
    poll(CREDITED, "the report is credited", || {
        uploaded(&site) == 123_456
    });
    let stream = format!("t:journal:{journal}");
    poll(TRIMMED, "the batches are trimmed", || {
        site.redis.cli(&["XLEN", &stream]) == "0"
    });
}

/// The journal of the only node that ever ran.
fn only_journal(site: &Site) -> String {
    let mut journal = String::new();
    poll(CREDITED, "the node gives a sign of life", || {
        journal = site.redis.cli(&["HKEYS", "t:nodes"]);
        !journal.is_empty()
    });
    journal
}

#[test]
fn the_spill_file_of_a_running_node_is_refused() {
    let mut site = Site::prepare(1, &AOF, &json!({ "node": "a" }));
    site.mika.run();
    let mut other = site.another(&json!({ "node": "b" }));
    let journal = only_journal(&site);
    assert!(journal.starts_with("a#"), "{journal:?}");
    forge_spill(&other, &journal, 1);
    other.launch();
    assert_eq!(other.wait(REFUSED), 1);
    let log = other.log();
    assert!(
        log.contains("batches of node \"a\", which runs on"),
        "{log}"
    );
    assert!(log.contains("journal.spill"), "{log}");
}

#[test]
fn batches_of_a_node_that_the_database_does_not_know_are_kept() {
    let site = Site::prepare(1, &AOF, &json!({ "node": "a" }));
    let mut other = site.another(&json!({ "node": "b" }));
    forge_spill(&other, "ghost", 7);
    other.launch();
    assert_eq!(other.wait(REFUSED), 1);
    let log = other.log();
    assert!(
        log.contains("know nothing") && log.contains("storage.url"),
        "{log}"
    );
    let file = Connection::open(other.path("mika.spill")).unwrap();
    let count = "SELECT COUNT(*) FROM batches";
    let count: i64 = file.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
}
