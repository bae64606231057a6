//! `cleanup`: what is of no use is listed, and goes when asked for.

use super::Folder;
use super::shared::{Shared, torrent_key};

#[test]
fn it_lists_what_is_of_no_use_and_removes_it_when_asked() {
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
fn a_cache_that_was_never_loaded_is_left_alone() {
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
