//! Two databases and one Redis: what belongs to one never gets into the other (C12).

use std::time::Duration;

use serde_json::json;

use super::pair::{Client, knows_user};
use crate::harness::database::{Database, numbers};
use crate::harness::load::{info_hash, passkey};
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{Mika, poll};

/// How long credit may take to storage.
const CREDITED: Duration = Duration::from_secs(20);

/// How long a node may take to refuse its start: it waits for heartbeats of others.
const REFUSED: Duration = Duration::from_secs(20);

/// A site, and a node of another database that has the same users and torrents, on the same Redis.
fn two_databases(database: Database) -> (Site, Mika) {
    let site = Site::prepare_on(database, 3, &AOF, &json!({ "node": "a" }));
    site.database.create("other");
    let url = site.database.url().replace("/site", "/other");
    let other = site.another(&json!({ "node": "b", "storage": { "url": url } }));
    other.managed(&["migrate"]);
    site.fill_another("other", 3);
    let sql = "INSERT INTO users (passkey, username) VALUES ('of-the-other', 'x')";
    site.database.sql_in("other", sql);
    (site, other)
}

fn identity(site: &Site, database: &str) -> String {
    site.database
        .sql_in(database, "SELECT id FROM mika_identity")
}

fn uploaded(site: &Site, database: &str) -> i64 {
    let sql = "SELECT SUM(uploaded) FROM users";
    let [uploaded] = numbers(sql, &site.database.sql_in(database, sql));
    uploaded
}

/// Starts a node, and waits until it serves.
fn run(mika: &mut Mika) {
    mika.run();
    assert!(knows_user(mika.http(), &passkey(0)));
}

/// What a node logs that does not start.
fn refused(mika: &mut Mika) -> String {
    mika.launch();
    assert_eq!(mika.wait(REFUSED), 1);
    mika.log()
}

fn names_both(site: &Site, said: &str) {
    for part in [
        &identity(site, "site"),
        &identity(site, "other"),
        "cache.url",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

crate::on_each_database![
    a_node_does_not_start_on_the_cache_of_another_database,
    a_dead_nodes_batches_are_not_applied_to_another_database,
    an_unused_cache_of_another_database_is_adopted_and_cleared,
    a_node_stops_when_another_database_adopts_its_cache,
    a_node_does_not_load_the_registry_of_another_database,
];

fn a_node_does_not_start_on_the_cache_of_another_database(database: Database) {
    let (mut site, mut other) = two_databases(database);
    run(&mut site.mika);
    let said = refused(&mut other);
    names_both(&site, &said);
    assert!(said.contains("node \"a\" of it runs on"), "{said}");
    for arguments in [&["check"][..], &["warmup"], &["cleanup"]] {
        let output = other.manage(arguments);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        names_both(&site, &said);
    }
    // An edit is saved, and does not reach nodes of the other database.
    let output = other.manage(&["users", "add", "new"]);
    assert!(output.status.success());
    names_both(&site, &String::from_utf8_lossy(&output.stderr));
    let added = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        site.redis
            .cli(&["EXISTS", &format!("t:user:{}", added.trim())]),
        "0"
    );
    site.is_reconciled();
}

fn a_dead_nodes_batches_are_not_applied_to_another_database(database: Database) {
    let (mut site, mut other) = two_databases(database);
    run(&mut site.mika);
    let mut client = Client::new(0, 1);
    client.accepted(site.mika.http(), "started");
    poll(CREDITED, "storage has the start", || {
        site.database.row::<1>("SELECT COUNT(*) FROM peers") == [1]
    });
    site.database.pause();
    client.uploaded = 80_000;
    // Acknowledged by Redis alone.
    client.accepted(site.mika.http(), "stopped");
    site.mika.kill9();
    site.database.resume();

    let said = refused(&mut other);
    names_both(&site, &said);
    assert!(said.contains("left batches"), "{said}");
    let check = other.manage(&["check"]);
    names_both(&site, &String::from_utf8_lossy(&check.stdout));
    assert_eq!(uploaded(&site, "other"), 0);

    // Its own node saves them, and takes leave.
    run(&mut site.mika);
    poll(CREDITED, "the rest is credited", || {
        uploaded(&site, "site") == 80_000
    });
    assert_eq!(site.mika.stop(), 0);
    run(&mut other);
    assert!(knows_user(other.http(), "of-the-other"));
    Client::new(0, 1).accepted(other.http(), "started");
    assert_eq!(other.stop(), 0);
    assert_eq!(uploaded(&site, "other"), 0);
    assert_eq!(uploaded(&site, "site"), 80_000);
}

fn an_unused_cache_of_another_database_is_adopted_and_cleared(database: Database) {
    let (mut site, mut other) = two_databases(database);
    run(&mut site.mika);
    let seeder = Client::new(0, 1);
    seeder.accepted(site.mika.http(), "started");
    assert_eq!(site.mika.stop(), 0);

    run(&mut other);
    let node = other.http();
    assert!(
        other
            .log()
            .contains("the cache was that of another database")
    );
    assert!(knows_user(node, "of-the-other"));
    let mut leecher = Client::new(1, 1);
    leecher.left = 1;
    let reply = leecher.accepted(node, "started");
    assert!(!seeder.is_in(&reply), "a peer of another database");
    let swarm = format!("t:p:{}", mika::base::ids::InfoHash(info_hash(1)));
    // Storage may be the first to have it.
    poll(CREDITED, "the cache has the peer alone", || {
        site.redis.cli(&["HLEN", &swarm]) == "1"
    });
    assert_eq!(other.stop(), 0);

    run(&mut site.mika);
    assert!(!knows_user(site.mika.http(), "of-the-other"));
    let reply = leecher.accepted(site.mika.http(), "started");
    assert!(seeder.is_in(&reply), "storage has it");
    site.is_reconciled();
}

fn a_node_stops_when_another_database_adopts_its_cache(database: Database) {
    let (mut site, _other) = two_databases(database);
    run(&mut site.mika);
    let id = identity(&site, "other");
    site.redis.cli(&["HSET", "t:registry", "database", &id]);
    assert_eq!(site.mika.wait(REFUSED), 1);
    let said = site.mika.log();
    names_both(&site, &said);
    assert_eq!(site.redis.cli(&["HKEYS", "t:nodes"]), "");
    assert_eq!(site.redis.cli(&["KEYS", "t:journal:*"]), "");
    site.redis.cli(&["HDEL", "t:registry", "database"]);
    // One that was emptied is claimed again.
    run(&mut site.mika);
    site.redis.cli(&["FLUSHALL"]);
    let own = identity(&site, "site");
    poll(CREDITED, "the node says whose the cache is", || {
        site.redis.cli(&["HGET", "t:registry", "database"]) == own
    });
    site.is_reconciled();
}

fn a_node_does_not_load_the_registry_of_another_database(database: Database) {
    let mut site = Site::prepare_on(database, 3, &AOF, &json!({}));
    let mark = site.redis.cli(&["HGET", "t:registry", "position"]);
    let id = identity(&site, "site");
    assert!(mark.contains(&id), "{mark}");
    let foreign = mark.replace(&id, "0123abcd");
    site.redis
        .cli(&["HSET", "t:registry", "position", &foreign]);
    site.redis.cli(&["DEL", "t:u:1"]);
    run(&mut site.mika);
    site.is_reconciled();
    let log = site.mika.log();
    assert!(log.contains("registry of another database"), "{log}");
}
