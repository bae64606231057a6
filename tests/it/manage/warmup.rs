//! `warmup`: storage into a real Redis.

use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use super::shared::{Shared, torrent_key};
use crate::harness::{PROGRAM_DEADLINE, poll};

#[test]
fn it_prints_the_four_lines_and_fills_the_cache() {
    let site = Shared::on_mariadb();
    site.fill(146, 3819, 12);
    let outcome = site.folder.run(&["warmup"]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(
        outcome.stdout,
        "> Warming up redis data...\n\
         > Loading whitelist...   12\n\
         > Loading passkeys...    146\n\
         > Loading torrents...    3819\n"
    );
    assert_eq!(outcome.stderr, "");

    assert_eq!(site.field("t:whitelist", "-C7-"), "client 7");
    assert_eq!(site.redis.cli(&["GET", "t:user:passkey-146"]), "146");
    assert_eq!(site.field("t:u:146", "username"), "user 146");
    assert_eq!(site.field("t:u:146", "enabled"), "1");
    let key = torrent_key(3819);
    assert_eq!(site.field(&key, "torrent_id"), "3819");
    assert_eq!(site.field(&key, "name"), "torrent 3819");
    assert_ne!(site.field("t:registry", "position"), "");
}

#[test]
fn a_second_warmup_only_removes_deleted_rows() {
    let site = Shared::on_mariadb();
    site.fill(30, 30, 3);
    site.folder.ok(&["warmup"]);
    site.redis.cli(&["DEL", "t:control"]);
    let before = site.snapshot();
    site.folder.ok(&["warmup"]);
    site.redis.cli(&["DEL", "t:control"]);
    assert_eq!(site.snapshot(), before);

    site.sql(
        "DELETE FROM users WHERE id = 7; DELETE FROM torrents WHERE id = 8;
         DELETE FROM whitelist WHERE peer_id = '-C2-';
         UPDATE users SET passkey = 'another-one' WHERE id = 9;
         UPDATE torrents SET info_hash = x'ffffffffffffffffffffffffffffffffffffffff' WHERE id = 10;",
    );
    site.redis.cli(&["SADD", "t:u:active:7", "1"]);
    site.redis.cli(&["SET", "t:user:stale-passkey", "3"]);
    let outcome = site.folder.run(&["warmup"]);
    assert_eq!(outcome.status, 0);
    assert!(
        outcome
            .stdout
            .ends_with("passkeys...    29\n> Loading torrents...    29\n"),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.contains("1 users, 2 torrents"),
        "{outcome:?}"
    );
    let gone = [
        "t:u:7",
        "t:u:active:7",
        "t:user:passkey-7",
        "t:user:passkey-9",
        "t:user:stale-passkey",
        &torrent_key(8),
        &torrent_key(10),
    ];
    assert_eq!(site.redis.cli(&[&["EXISTS"], &gone[..]].concat()), "0");
    assert_eq!(site.redis.cli(&["HLEN", "t:whitelist"]), "2");
    assert_eq!(site.redis.cli(&["GET", "t:user:another-one"]), "9");
    let moved = "t:t:ffffffffffffffffffffffffffffffffffffffff";
    assert_eq!(site.field(moved, "torrent_id"), "10");
}

#[test]
fn a_warmup_keeps_live_counters() {
    let site = Shared::on_mariadb();
    site.fill(2, 2, 1);
    site.folder.ok(&["warmup"]);
    site.redis
        .cli(&["HSET", "t:u:1", "uploaded", "5000", "enabled", "0"]);
    site.redis
        .cli(&["HSET", &torrent_key(2), "seeders", "3", "snatches", "4"]);
    site.sql("UPDATE users SET uploaded = 1 WHERE id = 1");
    site.folder.ok(&["warmup"]);
    assert_eq!(site.field("t:u:1", "uploaded"), "5000");
    assert_eq!(
        site.field("t:u:1", "enabled"),
        "1",
        "this is for storage to say"
    );
    assert_eq!(site.field(&torrent_key(2), "seeders"), "3");
    assert_eq!(site.field(&torrent_key(2), "snatches"), "4");
}

#[test]
fn only_the_given_parts_are_loaded() {
    let site = Shared::new();
    site.fill(3, 4, 2);
    let text = site.folder.ok(&["warmup", "--only", "whitelist,torrents"]);
    assert_eq!(
        text,
        "> Warming up redis data...\n> Loading whitelist...   2\n> Loading torrents...    4\n"
    );
    assert_eq!(site.redis.cli(&["EXISTS", "t:u:1"]), "0");
    assert_eq!(
        site.field("t:registry", "position"),
        "",
        "it is not complete"
    );
    site.folder.fails(2, &["warmup", "--only", "users"]);
    site.folder.fails(2, &["warmup", "--only", ""]);

    let document = site.folder.json(&["warmup", "--only", "passkeys"]);
    assert_eq!(document["passkeys"]["rows"], 3);
    assert!(document["torrents"].is_null());
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let site = Shared::on_mariadb();
    site.fill(5, 6, 2);
    let empty = site.snapshot();
    let text = site.folder.ok(&["warmup", "--dry-run"]);
    assert!(
        text.contains("> Loading passkeys...    5 (to add: 5, to change: 0, to remove: 0)"),
        "{text}"
    );
    assert_eq!(site.snapshot(), empty);

    site.folder.ok(&["warmup"]);
    site.sql(
        "UPDATE users SET can_leech = 0 WHERE id = 1; DELETE FROM users WHERE id = 2;
         UPDATE torrents SET release_name = 'x' WHERE id < 3; DELETE FROM torrents WHERE id = 4;
         INSERT INTO torrents(info_hash, release_name)
         VALUES (x'ffffffffffffffffffffffffffffffffffffffff', 'new');
         UPDATE whitelist SET vstring = 'x' WHERE peer_id = '-C1-'",
    );
    let before = site.snapshot();
    let document = site.folder.json(&["warmup", "--dry-run"]);
    for (part, counts) in [
        ("whitelist", [2, 0, 1, 0]),
        ("passkeys", [4, 0, 1, 1]),
        ("torrents", [6, 1, 2, 1]),
    ] {
        let found = ["rows", "added", "changed", "removed"].map(|name| &document[part][name]);
        assert_eq!(found, counts, "{part}");
    }
    assert_eq!(site.snapshot(), before);
}

#[test]
fn unusable_rows_are_listed_without_a_passkey() {
    let site = Shared::new();
    site.fill(4, 4, 1);
    site.sql(
        "UPDATE users SET passkey = '' WHERE id = 2;
         UPDATE users SET passkey = 'öööööööö-secret' WHERE id = 3;
         UPDATE torrents SET info_hash = x'00' WHERE id = 4;",
    );
    let outcome = site.folder.run(&["warmup"]);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    for row in ["users 3", "torrents 4"] {
        assert!(outcome.stderr.contains(row), "{row}: {outcome:?}");
    }
    assert!(!outcome.stderr.contains("secret"), "{outcome:?}");
    assert!(
        outcome.stderr.contains("2 rows can't be used"),
        "{outcome:?}"
    );
    assert!(
        outcome
            .stdout
            .contains("passkeys...    2\n> Loading torrents...    3\n")
    );
    assert_eq!(site.redis.cli(&["EXISTS", "t:u:2", "t:u:3"]), "0");
    let document = site.folder.run(&["--json", "warmup"]).stdout;
    assert!(
        document.contains(r#""skipped":2,"unfinished_users":1"#),
        "{document}"
    );
}

#[test]
fn a_user_without_a_passkey_is_removed_from_the_cache() {
    let site = Shared::new();
    site.fill(3, 1, 1);
    site.folder.ok(&["warmup"]);
    site.sql("UPDATE users SET passkey = '' WHERE id = 2");
    site.folder.ok(&["warmup"]);
    assert_eq!(
        site.redis.cli(&["EXISTS", "t:u:2", "t:user:passkey-2"]),
        "0"
    );
}

#[test]
fn an_unreachable_server_is_named() {
    let mut site = Shared::on_mariadb();
    site.fill(3, 3, 1);
    site.redis.kill9();
    let outcome = site.folder.run(&["warmup"]);
    assert_eq!(outcome.status, 2, "{outcome:?}");
    assert_eq!(outcome.stdout, "");
    assert!(outcome.stderr.contains("cache.url"), "{outcome:?}");
    assert!(
        outcome.stderr.contains(&site.redis.address().to_string()),
        "{outcome:?}"
    );
    site.redis.restart();
    site.folder.ok(&["warmup"]);

    let mariadb = site.mariadb.as_mut().unwrap();
    mariadb.kill9();
    let address = mariadb.address().to_string();
    let outcome = site.folder.run(&["warmup"]);
    assert_eq!(outcome.status, 2, "{outcome:?}");
    assert!(outcome.stderr.contains("storage.url"), "{outcome:?}");
    assert!(outcome.stderr.contains(&address), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
}

#[test]
fn of_duplicate_rows_the_lowest_id_is_used() {
    let site = Shared::on_mariadb();
    site.fill(4, 4, 1);
    site.sql(
        "ALTER TABLE users DROP KEY users_by_passkey; ALTER TABLE torrents DROP KEY torrents_by_hash;
         UPDATE users SET passkey = 'passkey-2' WHERE id = 3;
         UPDATE torrents SET info_hash = LPAD(1, 20, '0') WHERE id = 4;",
    );
    site.redis
        .cli(&["HSET", "t:u:3", "user_id", "3", "passkey", "passkey-2"]);
    for _ in 0..2 {
        let outcome = site.folder.run(&["warmup"]);
        assert_eq!(outcome.status, 1, "{outcome:?}");
        assert!(
            outcome.stderr.contains("users 3") && outcome.stderr.contains("user 2"),
            "{outcome:?}"
        );
        assert!(outcome.stderr.contains("torrents 4"), "{outcome:?}");
        assert!(!outcome.stderr.contains("passkey-2"), "{outcome:?}");
        assert_eq!(site.redis.cli(&["GET", "t:user:passkey-2"]), "2");
        assert_eq!(site.redis.cli(&["EXISTS", "t:u:2", "t:u:3"]), "1");
        assert_eq!(site.field(&torrent_key(1), "torrent_id"), "1");
    }
}

#[test]
fn the_memory_driver_needs_no_warmup() {
    let folder = super::Folder::new();
    let error = folder.fails(2, &["warmup"]);
    assert!(
        error.contains("nothing to warm up") && error.contains("memory"),
        "{error}"
    );
}

#[test]
fn a_warmup_can_be_interrupted_anywhere_and_repeated() {
    let site = Shared::new();
    site.fill(20_000, 20_000, 3);
    let full = Shared::new();
    full.fill(20_000, 20_000, 3);
    full.folder.ok(&["warmup"]);
    for delay in [2, 10, 30, 60, 100, 150] {
        let mut child = spawn(&site);
        // Where it is by then does not matter: each of these stops it somewhere else.
        thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    site.folder.ok(&["warmup"]);
    for shared in [&site, &full] {
        shared.redis.cli(&["DEL", "t:control", "t:registry"]);
    }
    assert_eq!(site.snapshot(), full.snapshot());
}

#[test]
fn a_second_warmup_never_removes_valid_rows() {
    let site = Shared::on_mariadb();
    site.fill(3000, 3000, 5);
    site.folder.ok(&["warmup"]);
    let mut child = spawn(&site);
    let key = torrent_key(1500);
    poll(PROGRAM_DEADLINE, "the warmup ends", || {
        let there = ["t:u:1500", "t:user:passkey-1500", &key, "t:whitelist"];
        assert_eq!(site.redis.cli(&[&["EXISTS"], &there[..]].concat()), "4");
        assert_eq!(site.redis.cli(&["HLEN", "t:whitelist"]), "5");
        child.try_wait().unwrap().is_some()
    });
}

fn spawn(site: &Shared) -> Child {
    let mut command = site.folder.command(&["warmup"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn unusable_whitelist_rows_are_listed() {
    let site = Shared::on_mariadb();
    site.fill(2, 2, 2);
    site.sql("INSERT INTO whitelist (peer_id, vstring) VALUES ('   ', 'blank')");
    let outcome = site.folder.run(&["warmup"]);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(
        outcome.stderr.contains("whitelist") && outcome.stderr.contains("\"   \""),
        "{outcome:?}"
    );
    let dry = site.folder.run(&["warmup", "--dry-run"]);
    assert_eq!(dry.status, 1, "{dry:?}");
    site.sql(
        "DELETE FROM whitelist WHERE vstring = 'blank';
         INSERT INTO whitelist (peer_id, vstring) VALUES ('-LT\\t30', 'tab')",
    );
    assert_eq!(site.folder.run(&["warmup"]).status, 0);
    let check = site.folder.run(&["check"]);
    assert!(
        check
            .stdout
            .contains("no client's peer id begins: \"-LT\\t30\""),
        "{check:?}"
    );
}
