//! The spill file: the leftovers of a clean stop (C5), nothing of another database (C12),
//! and its name (C13).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::pair::{Client, Pair, knows_user};
use crate::harness::database::{DATABASE, Database, numbers};
use crate::harness::load::passkey;
use crate::harness::redis::{AOF, Redis};
use crate::harness::site::Site;
use crate::harness::{PROGRAM_DEADLINE, poll};

const MB: u64 = 1_000_000;

/// How long credit may take to storage.
const CREDITED: Duration = Duration::from_secs(30);

/// How long it may take until a file that was deleted is noticed: it is looked at every second.
const NOTICED: Duration = Duration::from_secs(3);

fn uploaded(site: &Site, database: &str) -> u64 {
    let passkey = passkey(0);
    let sql = format!("SELECT uploaded FROM users WHERE passkey = '{passkey}'");
    let [uploaded] = numbers(&sql, &site.database.sql_in(database, &sql));
    uploaded.cast_unsigned()
}

fn is_credited(site: &Site, expected: u64) {
    poll(CREDITED, "it is credited", || {
        uploaded(site, DATABASE) >= expected
    });
    assert_eq!(uploaded(site, DATABASE), expected);
}

/// A client of a node that runs, of which storage has the start and no bytes.
fn started(site: &mut Site) -> Client {
    site.mika.run();
    let client = Client::new(0, 1);
    client.accepted(site.mika.http(), "started");
    poll(CREDITED, "storage has the start", || {
        site.database.row::<1>("SELECT COUNT(*) FROM peers") == [1]
    });
    client
}

/// The client continues after a restart of its node, and is fully credited.
fn goes_on(site: &mut Site, mut client: Client) {
    site.mika.run();
    assert!(knows_user(site.mika.http(), &client.passkey));
    is_credited(site, client.uploaded);
    client.uploaded += 50 * MB;
    client.accepted(site.mika.http(), "stopped");
    is_credited(site, client.uploaded);
}

crate::on_each_database![
    a_clean_stop_without_the_database_spills_what_redis_may_forget,
    peers_replayed_from_a_spill_file_reach_other_nodes,
    peers_that_only_storage_has_are_there_after_a_kill,
    a_kill_within_the_flush_second_loses_nothing_with_a_redis_that_forgets,
    a_spill_file_of_another_database_is_set_aside,
    a_deleted_spill_file_is_rewritten,
    what_is_acknowledged_after_the_spill_file_was_deleted_is_kept,
];

fn a_clean_stop_without_the_database_spills_what_redis_may_forget(database: Database) {
    for persistence in [&[][..], &AOF] {
        let mut site = Site::prepare_on(database, 1, persistence, &json!({ "node": "a" }));
        let mut client = started(&mut site);
        site.database.kill9();
        client.uploaded = 700 * MB;
        client.accepted(site.mika.http(), "completed");
        assert_eq!(site.mika.stop(), 0);
        let log = site.mika.log();
        assert!(log.contains("the rest is kept in the spill file"), "{log}");
        assert!(!log.contains("storage has everything"), "{log}");
        site.redis.cli(&["FLUSHALL"]);
        site.redis.kill9();
        site.redis.restart();
        site.database.restart();
        goes_on(&mut site, client);
    }
}

fn peers_replayed_from_a_spill_file_reach_other_nodes(database: Database) {
    let mut pair = Pair::start_on(database, 2);
    let [_, b] = pair.nodes();
    // They answer when they have loaded.
    for node in pair.nodes() {
        Client::new(0, 2).accepted(node, "started");
    }
    pair.site.database.kill9();
    let seeder = Client::new(1, 1);
    seeder.accepted(b, "started");
    assert_eq!(pair.site.mika.stop(), 0);
    assert_eq!(pair.b.stop(), 0);
    pair.site.redis.cli(&["FLUSHALL"]);
    pair.site.database.restart();
    pair.site.mika.run();
    poll(CREDITED, "the cache is filled", || {
        let log = pair.site.mika.log();
        log.contains("the cache has all peers of this node")
    });
    let [a, _] = pair.nodes();
    let leecher = Client {
        left: 1,
        ..Client::new(0, 1)
    };
    assert!(!seeder.is_in(&leecher.accepted(a, "started")));
    pair.b.run();
    poll(CREDITED, "the other node hands it out", || {
        seeder.is_in(&leecher.accepted(a, ""))
    });
}

/// While Redis takes nothing, storage gets one peer and the spill file the next one.
fn peers_that_only_storage_has_are_there_after_a_kill(database: Database) {
    let mut site = Site::prepare_on(database, 4, &AOF, &json!({ "node": "a" }));
    started(&mut site);
    let takes_writes = |site: &Site, takes: bool| {
        let replicas = if takes { "0" } else { "1" };
        let set = ["CONFIG", "SET", "min-replicas-to-write", replicas];
        assert_eq!(site.redis.cli(&set), "OK");
    };
    takes_writes(&site, false);
    let stored = Client::new(1, 1);
    stored.accepted(site.mika.http(), "started");
    poll(CREDITED, "storage has it", || {
        site.database.row::<1>("SELECT COUNT(*) FROM peers") == [2]
    });
    site.database.kill9();
    let spilled = Client::new(2, 1);
    spilled.accepted(site.mika.http(), "started");
    site.mika.kill9();
    takes_writes(&site, true);
    site.database.restart();
    site.mika.run();
    let leecher = Client {
        left: 1,
        ..Client::new(3, 1)
    };
    poll(CREDITED, "both are handed out", || {
        let reply = leecher.accepted(site.mika.http(), "");
        stored.is_in(&reply) && spilled.is_in(&reply)
    });
}

fn a_kill_within_the_flush_second_loses_nothing_with_a_redis_that_forgets(database: Database) {
    let config = json!({ "node": "a", "journal": { "flush_interval": "3s" } });
    let mut site = Site::prepare_on(database, 1, &[], &config);
    let mut client = started(&mut site);
    for _ in 0..3 {
        client.uploaded += 100 * MB;
        client.accepted(site.mika.http(), "completed");
        site.mika.kill9();
        site.redis.kill9();
        site.redis.restart();
        site.mika.run();
        assert!(knows_user(site.mika.http(), &client.passkey));
        is_credited(&site, client.uploaded);
    }
    site.mika.kill9();
    goes_on(&mut site, client);
}

/// A spill file that was set aside.
fn aside(site: &Site) -> Option<PathBuf> {
    let entries = fs::read_dir(site.mika.folder()).expect("the folder");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    let is_aside = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("mika.spill.of-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    };
    paths.find(is_aside)
}

fn a_spill_file_of_another_database_is_set_aside(database: Database) {
    let mut site = Site::prepare_on(database, 1, &AOF, &json!({ "node": "a" }));
    let mut client = started(&mut site);
    site.database.pause();
    site.redis.pause();
    client.uploaded = 80_000;
    // Acknowledged by the spill file alone.
    client.accepted(site.mika.http(), "completed");
    assert!(site.spilled() > 0);
    site.mika.kill9();
    site.redis.resume();
    site.database.resume();

    site.database.create("other");
    let (own, own_redis) = (site.database.url(), site.redis.url());
    let redis = Redis::start_with(&AOF);
    site.mika.reconfigure(&json!({
        "storage": { "url": own.replace("/site", "/other") }, "cache": { "url": redis.url() }
    }));
    site.mika.managed(&["migrate"]);
    site.fill_another("other", 1);
    site.mika.run();
    assert!(knows_user(site.mika.http(), &client.passkey));
    let path = aside(&site).expect("the file is kept");
    let log = site.mika.log();
    assert!(log.contains("batches for another database"), "{log}");
    assert!(
        log.contains(&path.file_name().unwrap().to_string_lossy().into_owned()),
        "{log}"
    );
    Client::new(0, 2).accepted(site.mika.http(), "started");
    assert_eq!(site.mika.stop(), 0);
    assert_eq!(uploaded(&site, "other"), 0);

    // With its own database, as the message says, it is applied.
    site.mika.reconfigure(&json!({
        "storage": { "url": own }, "cache": { "url": own_redis }, "journal": { "spill": path }
    }));
    goes_on(&mut site, client);
}

/// A node whose servers don't answer, and a client whose 300 MB only its spill file has.
fn with_spilled(database: Database) -> (Site, Client) {
    let mut site = Site::prepare_on(database, 1, &AOF, &json!({ "node": "a" }));
    let mut client = started(&mut site);
    site.database.pause();
    site.redis.pause();
    client.uploaded = 300 * MB;
    client.accepted(site.mika.http(), "completed");
    (site, client)
}

/// Deletes the spill file, as by hand. It may be recreated at once.
fn unlink(site: &Site) {
    for extra in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(site.mika.path(&format!("mika.spill{extra}")));
    }
}

fn a_deleted_spill_file_is_rewritten(database: Database) {
    let (mut site, client) = with_spilled(database);
    let before = site.spilled();
    assert!(before > 0);
    unlink(&site);
    poll(NOTICED, "it is there again", || {
        site.mika
            .log()
            .contains("it was written again with all its batches")
    });
    assert!(site.spilled() >= before);
    let log = site.mika.log();
    assert!(log.contains("the spill file was deleted"), "{log}");
    is_kept_after(&mut site, client);
}

fn what_is_acknowledged_after_the_spill_file_was_deleted_is_kept(database: Database) {
    let (mut site, client) = with_spilled(database);
    unlink(&site);
    is_kept_after(&mut site, client);
}

/// One more announce is acknowledged, and the node is killed at once.
fn is_kept_after(site: &mut Site, mut client: Client) {
    client.uploaded = 700 * MB;
    client.accepted(site.mika.http(), "completed");
    site.mika.kill9();
    site.redis.resume();
    site.database.resume();
    poll(PROGRAM_DEADLINE, "the database answers", || {
        site.database.try_sql("SELECT 1").is_ok()
    });
    goes_on(site, client);
}
