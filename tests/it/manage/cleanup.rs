//! `cleanup`: unused entries are listed, and removed on request.

use super::Folder;
use super::shared::{Shared, torrent_key};

#[test]
fn cleanup_lists_unused_entries_and_removes_them_on_request() {
    let site = Shared::new();
    site.fill(5, 5, 1);
    site.folder.ok(&["warmup"]);
    assert_eq!(site.folder.ok(&["cleanup"]), "nothing to clean up\n");
    let clean = site.snapshot();

    let hash = "ab".repeat(20);
    let (set, sorted) = (
        format!("t:tpeers:{hash}"),
        format!("t:ptimeout:{hash}:-TR3000-x"),
    );
    let swarm = torrent_key(1).replace("t:t:", "t:p:");
    for command in [
        vec!["SADD", &set, "x"],
        vec!["SET", &sorted, "1"],
        vec!["HSET", "t:u:77", "user_id", "77", "passkey", "passkey-77"],
        vec!["SADD", "t:u:hnr:78", "1"],
        vec!["HSET", "t:u:79", "uploaded", "5"],
        vec!["SET", "t:user:former-passkey", "3"],
        vec!["SET", "t:user:no-user-at-all", "nobody"],
        vec!["HSET", &format!("t:t:{hash}"), "torrent_id", "99"],
        vec!["HSET", &format!("t:p:{hash}"), "1:00", "x"],
        vec!["HSET", &swarm, "7:ab", "damaged"],
        vec!["HSET", "t:u:2", "uploaded", "-5"],
        vec!["HSET", &torrent_key(3), "snatches", "4611686018427387905"],
        vec!["HDEL", &torrent_key(4), "torrent_id"],
    ] {
        site.redis.cli(&command);
    }
    let dirty = site.snapshot();
    let outcome = site.folder.run(&["cleanup"]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().skip(1).collect();
    assert_eq!(lines.len(), 14, "{}", outcome.stdout);
    assert!(outcome.stderr.contains("found: 14"), "{outcome:?}");
    let all = outcome.stdout.clone() + &outcome.stderr;
    for passkey in ["passkey-77", "former-passkey", "no-user-at-all"] {
        assert!(!all.contains(passkey), "{all}");
    }
    assert_eq!(site.snapshot(), dirty);

    site.folder.ok(&["cleanup", "-d"]);
    assert_eq!(site.folder.ok(&["cleanup"]), "nothing to clean up\n");
    site.redis.cli(&["DEL", "t:control"]);
    let control_free = |text: String| -> Vec<String> {
        let is_kept = |line: &&str| !line.starts_with("t:control");
        text.lines().filter(is_kept).map(Into::into).collect()
    };
    let mut expected = control_free(clean);
    for line in &mut expected {
        if line.starts_with("t:u:2:") {
            line.push_str(" uploaded=0");
        }
        if line.starts_with(&torrent_key(3)) {
            *line = line.replace(" torrent_id", " snatches=0 torrent_id");
        }
    }
    assert_eq!(
        sorted_fields(control_free(site.snapshot())),
        sorted_fields(expected)
    );
}

/// Each line with its fields in order.
fn sorted_fields(lines: Vec<String>) -> Vec<Vec<String>> {
    let sort = |line: String| {
        let mut words: Vec<String> = line.split(' ').map(Into::into).collect();
        words.sort();
        words
    };
    lines.into_iter().map(sort).collect()
}

#[test]
fn a_cache_that_was_never_loaded_is_not_cleaned() {
    let site = Shared::new();
    site.redis.cli(&["SADD", "t:u:active:1", "1"]);
    let error = site.folder.fails(1, &["cleanup", "-d"]);
    assert!(error.contains("mika-manage warmup"), "{error}");
    assert_eq!(site.redis.cli(&["EXISTS", "t:u:active:1"]), "1");
}

#[test]
fn totals_of_storage_that_can_not_be_are_set_to_0() {
    let folder = Folder::new();
    folder.ok(&["users", "add", "alice"]);
    folder.ok(&["users", "add", "bob"]);
    folder.sql(
        "UPDATE users SET uploaded = -1, downloaded = 7 WHERE id = 1;
         UPDATE users SET downloaded = 4611686018427387905, snatches = 3 WHERE id = 2",
    );
    let found = folder.json(&["cleanup"]);
    assert_eq!(found.as_array().unwrap().len(), 2);
    assert_eq!(found[0]["id"], "1");
    assert!(
        found[0]["problem"]
            .as_str()
            .unwrap()
            .starts_with("uploaded:")
    );
    assert_eq!(
        folder.json(&["users", "show", "2"])["downloaded"],
        4_611_686_018_427_387_905_u64
    );

    folder.ok(&["cleanup", "--delete"]);
    assert_eq!(folder.ok(&["cleanup"]), "nothing to clean up\n");
    let (alice, bob) = (
        folder.json(&["users", "show", "1"]),
        folder.json(&["users", "show", "2"]),
    );
    assert_eq!(
        (&alice["uploaded"], &alice["downloaded"]),
        (&0.into(), &7.into())
    );
    assert_eq!(
        (&bob["downloaded"], &bob["snatches"]),
        (&0.into(), &3.into())
    );
}

#[test]
fn dead_nodes_are_listed_once_storage_has_their_journal() {
    let site = Shared::new();
    site.folder.ok(&["warmup"]);
    site.sql("INSERT INTO mika_journal (node, applied) VALUES ('old', 7), ('rest', 7)");
    for (node, last) in [("old", "7-0"), ("rest", "8-0")] {
        let key = format!("t:journal:{node}");
        site.redis
            .cli(&["HSET", "t:nodes", node, "host boot pid 1 5"]);
        site.redis
            .cli(&["XADD", &key, last, "count", "0", "changes", ""]);
    }
    site.redis
        .cli(&["XTRIM", "t:journal:old", "MAXLEN", "=", "0"]);
    let listed = site.folder.ok(&["cleanup"]);
    assert!(
        listed.contains("old") && !listed.contains("rest"),
        "{listed}"
    );
    assert_eq!(site.redis.cli(&["HEXISTS", "t:nodes", "old"]), "1");

    // A number is forgotten by name only, and where the cache has nothing left of the node.
    let refused = site.folder.fails(1, &["cleanup", "--forget", "rest"]);
    assert!(refused.contains("batches of rest up to 8"), "{refused}");
    let unknown = site.folder.fails(1, &["cleanup", "--forget", "nobody"]);
    assert!(
        unknown.contains("storage knows no node nobody"),
        "{unknown}"
    );
    site.folder.fails(2, &["cleanup", "--forget", "old", "-d"]);

    site.folder.ok(&["cleanup", "-d"]);
    assert_eq!(site.redis.cli(&["HKEYS", "t:nodes"]), "rest");
    let outcome = site.folder.run(&["cleanup", "--forget", "old"]);
    assert!(
        outcome.stderr.contains("forgot node old and its journal"),
        "{outcome:?}"
    );
    assert_eq!(site.redis.cli(&["EXISTS", "t:journal:old"]), "0");
    site.folder.fails(1, &["cleanup", "--forget", "old"]);
    site.redis
        .cli(&["XTRIM", "t:journal:rest", "MAXLEN", "=", "0"]);
    site.sql(
        "UPDATE mika_journal SET applied = 8;
         INSERT INTO mika_journal (node, applied) VALUES ('rest#2.0a0b0c0d', 3)",
    );
    let outcome = site.folder.run(&["cleanup", "--forget", "rest"]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(
        outcome
            .stderr
            .contains("forgot node rest and its 2 journals"),
        "{outcome:?}"
    );
    assert_eq!(site.redis.cli(&["EXISTS", "t:journal:rest"]), "0");
}

#[test]
fn running_nodes_are_not_forgotten() {
    let site = Shared::new();
    site.folder.ok(&["warmup"]);
    site.sql("INSERT INTO mika_journal (node, applied) VALUES ('alive', 7), ('mine', 7)");
    let config = site.folder.path("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let with_name = text.replacen('{', r#"{"node": "mine", "#, 1);
    site.folder.write("config.json", with_name.as_bytes());
    let own = site.folder.fails(2, &["cleanup", "--forget", "mine"]);
    assert!(own.contains("the node of this config"), "{own}");

    let (redis, stop) = (&site.redis, &std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for count in 0.. {
                redis.cli(&[
                    "HSET",
                    "t:nodes",
                    "alive",
                    &format!("host boot pid 1 {count}"),
                ]);
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        let listed = site.folder.run(&["cleanup"]);
        let refused = site.folder.run(&["cleanup", "--forget", "alive"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(listed.stdout, "nothing to clean up\n", "{listed:?}");
        assert!(refused.stderr.contains("node alive runs"), "{refused:?}");
    });
}
