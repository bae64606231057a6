//! Edits where nodes share a cache: storage, then the cache, then the nodes.

use std::collections::HashSet;
use std::thread;

use super::shared::{Shared, torrent_key};
use super::{Folder, HASH};

#[test]
fn every_edit_reaches_the_cache_and_notifies_the_nodes() {
    let site = Shared::on_mariadb();
    let folder = &site.folder;
    folder.ok(&["users", "add", "alice", "--passkey", "alices_passkey"]);
    assert_eq!(site.field("t:u:1", "username"), "alice");
    assert_eq!(site.redis.cli(&["GET", "t:user:alices_passkey"]), "1");
    folder.ok(&["users", "disable", "alice"]);
    assert_eq!(site.field("t:u:1", "enabled"), "0");
    let passkey = folder.ok(&["users", "passkey", "alice"]);
    assert_eq!(site.field("t:u:1", "passkey"), passkey.trim());
    assert_eq!(site.redis.cli(&["EXISTS", "t:user:alices_passkey"]), "0");

    folder.ok(&["torrents", "add", HASH, "--name", "film"]);
    let key = format!("t:t:{HASH}");
    assert_eq!(site.field(&key, "name"), "film");
    folder.ok(&["torrents", "disable", HASH, "a fake"]);
    assert_eq!(
        (site.field(&key, "enabled"), site.field(&key, "reason")),
        ("0".into(), "a fake".into())
    );
    folder.ok(&["torrents", "enable", HASH]);
    assert_eq!(
        (site.field(&key, "enabled"), site.field(&key, "reason")),
        ("1".into(), String::new())
    );

    folder.ok(&["whitelist", "add", "-TR", "Transmission"]);
    assert_eq!(site.field("t:whitelist", "-TR"), "Transmission");
    folder.ok(&["whitelist", "remove", "-TR"]);
    assert_eq!(site.redis.cli(&["HLEN", "t:whitelist"]), "0");

    let notices = site.redis.cli(&["XLEN", "t:control"]);
    assert_eq!(
        notices,
        "8",
        "one notice for each edit: {}",
        site.redis.cli(&["XRANGE", "t:control", "-", "+"])
    );
}

#[test]
fn an_import_writes_all_its_torrents() {
    let site = Shared::on_mariadb();
    for number in 0..1201 {
        let torrent = format!(
            "d4:infod6:lengthi1e4:name8:n{number:07}12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee"
        );
        site.folder
            .write(&format!("in/{number}.torrent"), torrent.as_bytes());
    }
    let outcome = site.folder.run(&["torrents", "import", "in"]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(outcome.stdout.starts_with("1201 added"), "{outcome:?}");
    let keys = site.redis.cli(&["--scan", "--pattern", "t:t:*"]);
    assert_eq!(keys.lines().count(), 1201);
    assert_eq!(site.redis.cli(&["XLEN", "t:control"]), "1201");
}

#[test]
fn an_edit_is_saved_while_the_cache_is_away() {
    let mut site = Shared::new();
    site.folder.ok(&["users", "add", "alice"]);
    site.redis.kill9();
    let outcome = site.folder.run(&["users", "disable", "alice"]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(
        outcome
            .stderr
            .contains("saved, but the cache can't be updated now"),
        "{outcome:?}"
    );
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    let error = site.folder.fails(1, &["wipeuserstats", "--yes"]);
    assert!(error.contains("run it again"), "{error}");
    assert_eq!(
        site.folder.json(&["users", "show", "alice"])["enabled"],
        false
    );
}

#[test]
fn concurrent_edits_leave_the_cache_equal_to_storage() {
    const ROUNDS: usize = 12;
    let site = Shared::on_mariadb();
    site.folder.ok(&["users", "add", "alice"]);
    site.folder.ok(&["torrents", "add", HASH, "--name", "film"]);
    let edit = |folder: &Folder, words: &[&str]| {
        let output = folder.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}");
    };
    let folder = &site.folder;
    thread::scope(|scope| {
        for (user, torrent) in [("enable", "disable"), ("disable", "enable")] {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    edit(folder, &["users", user, "alice"]);
                    edit(folder, &["users", "passkey", "alice"]);
                    edit(folder, &["torrents", torrent, HASH]);
                    edit(
                        folder,
                        &["whitelist", "add", "-TR", &format!("{user} {round}")],
                    );
                }
            });
        }
    });
    let user = folder.json(&["users", "show", "alice"]);
    let enabled = |value: &serde_json::Value| if value["enabled"] == true { "1" } else { "0" };
    assert_eq!(site.field("t:u:1", "enabled"), enabled(&user));
    let passkey = user["passkey"].as_str().unwrap();
    assert_eq!(site.field("t:u:1", "passkey"), passkey);
    let torrent = folder.json(&["torrents", "show", HASH]);
    assert_eq!(
        site.field(&format!("t:t:{HASH}"), "enabled"),
        enabled(&torrent)
    );
    let clients = folder.json(&["whitelist", "list"]);
    assert_eq!(
        site.field("t:whitelist", "-TR"),
        clients[0]["client"].as_str().unwrap()
    );
    let keys = site.redis.cli(&["--scan", "--pattern", "t:user:*"]);
    let keys: HashSet<&str> = keys.lines().collect();
    assert_eq!(keys, HashSet::from([&*format!("t:user:{passkey}")]));
}

#[test]
fn wipes_need_a_confirmation_and_reach_storage_and_cache() {
    let site = Shared::on_mariadb();
    site.fill(3, 4, 1);
    site.sql(
        "UPDATE users SET uploaded = 5, downloaded = 6, snatches = 1, seed_time = 7;
         UPDATE torrents SET uploaded = 5, snatches = 2, seeders = 1",
    );
    site.folder.ok(&["warmup"]);
    assert_eq!(site.field("t:u:2", "uploaded"), "5");
    assert!(site.folder.fails(2, &["wipeuserstats"]).contains("--yes"));
    assert_eq!(site.folder.json(&["users", "show", "2"])["uploaded"], 5);

    let text = site.folder.ok(&["wipeuserstats", "--yes"]);
    assert!(text.contains("of 3 users"), "{text}");
    let user = site.folder.json(&["users", "show", "2"]);
    for name in ["uploaded", "downloaded", "snatches", "seed_time"] {
        assert_eq!(user[name], 0);
        assert_eq!(site.field("t:u:2", name), "0");
    }
    assert_eq!(site.field(&torrent_key(4), "uploaded"), "5");

    assert_eq!(site.folder.json(&["wipetorstats", "--yes"])["wiped"], 4);
    assert_eq!(site.field(&torrent_key(4), "uploaded"), "0");
    assert_eq!(site.field(&torrent_key(4), "snatches"), "0");
    assert_eq!(
        site.field(&torrent_key(4), "seeders"),
        "1",
        "who is there now"
    );
    assert_eq!(site.redis.cli(&["ZCARD", "t:i:snatches"]), "0");
    let last = site
        .redis
        .cli(&["XREVRANGE", "t:control", "+", "-", "COUNT", "1"]);
    assert!(last.to_lowercase().contains("wipe"), "{last}");
}

#[test]
fn wipes_work_without_a_cache() {
    let folder = Folder::new();
    folder.ok(&["users", "add", "alice"]);
    folder.sql("UPDATE users SET uploaded = 5");
    folder.ok(&["wipeuserstats", "--yes"]);
    assert_eq!(folder.json(&["users", "show", "alice"])["uploaded"], 0);
}
