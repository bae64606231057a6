//! Users, torrents and the whitelist, in an embedded database.

use std::fs;
use std::os::unix::fs::symlink;

use mika::base::ids::InfoHash;
use serde_json::json;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use super::{Folder, HASH};

// --- users ---

#[test]
fn the_first_command_creates_the_database_and_prints_only_the_passkey() {
    let folder = Folder::new();
    let outcome = folder.run(&["users", "add", "alice"]);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let passkey = outcome.stdout.strip_suffix('\n').unwrap();
    assert_eq!(passkey.len(), 32);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    assert!(passkey.bytes().all(plain), "{passkey}");

    let shown = folder.json(&["users", "show", "alice"]);
    let expected = json!({
        "id": 1, "username": "alice", "passkey": passkey, "enabled": true, "can_leech": true,
        "uploaded": 0, "downloaded": 0, "snatches": 0, "announces": 0, "seed_time": 0,
    });
    assert_eq!(shown, expected);
    assert!(!folder.ok(&["users", "list"]).contains(passkey));
    assert!(!folder.ok(&["users", "list", "--json"]).contains(passkey));
}

#[test]
fn a_user_is_named_by_id_or_name_and_a_shared_name_is_refused() {
    let folder = Folder::new();
    folder.ok(&["users", "add", "alice", "--passkey", "alices_passkey"]);
    folder.ok(&["users", "add", "1"]);
    assert_eq!(folder.json(&["users", "show", "1"])["username"], "alice");
    assert_eq!(folder.json(&["users", "show", "2"])["username"], "1");
    folder.sql("INSERT INTO users(passkey, username) VALUES ('another_passkey', 'alice')");
    let error = folder.fails(1, &["users", "show", "alice"]);
    assert!(error.contains("1, 3"), "{error}");
    assert!(
        folder
            .fails(1, &["users", "show", "bob"])
            .contains("no user bob")
    );
}

#[test]
fn users_are_disabled_enabled_and_given_new_passkeys() {
    let folder = Folder::new();
    folder.ok(&["users", "add", "alice", "--passkey", "alices_passkey"]);
    folder.ok(&["users", "disable", "alice"]);
    assert_eq!(folder.json(&["users", "show", "1"])["enabled"], false);
    assert_eq!(folder.json(&["users", "enable", "alice"])["enabled"], true);
    assert_eq!(folder.json(&["users", "show", "1"])["enabled"], true);
    let passkey = folder.ok(&["users", "passkey", "alice"]);
    assert_eq!(
        folder.json(&["users", "show", "1"])["passkey"],
        passkey.trim()
    );
    assert_ne!(passkey.trim(), "alices_passkey");
}

#[test]
fn invalid_users_are_refused() {
    let folder = Folder::new();
    folder.ok(&["users", "add", "alice", "--passkey", "alices_passkey"]);
    folder.fails(1, &["users", "add", "alice"]);
    folder.fails(1, &["users", "add", "bob", "--passkey", "alices_passkey"]);
    folder.fails(2, &["users", "add", "bob", "--passkey", "short"]);
    folder.fails(2, &["users", "add", ""]);
    folder.fails(2, &["users", "add", "evil\x1b[31m"]);
    folder.fails(2, &["users", "add", &"x".repeat(256)]);
    assert_eq!(folder.json(&["users", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn lists_are_sorted_and_streamed_and_show_no_terminal_escapes() {
    let folder = Folder::new();
    folder.ok(&["migrate"]);
    folder.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
         INSERT INTO users(passkey, username, uploaded)
         SELECT printf('passkey%d', i), 'user' || i || char(27) || '[31m', i * 1073741824 FROM n",
    );
    let text = folder.ok(&["users", "list"]);
    assert_eq!(text.lines().count(), 2501);
    assert!(!text.contains('\x1b') && text.contains("user1\\u{1b}[31m"));
    let first = folder.ok(&["users", "list", "-s", "uploaded"]);
    assert!(first.lines().nth(1).unwrap().contains("2500.00 GiB") || first.contains("2.44 TiB"));
    let all = folder.json(&["users", "list", "-s", "uploaded"]);
    assert_eq!(all.as_array().unwrap().len(), 2500);
    assert_eq!(all[0]["id"], 2500);
    assert_eq!(all[0]["username"], "user2500\x1b[31m");
    folder.fails(2, &["users", "list", "-s", "colour"]);
}

// --- torrents ---

#[test]
fn torrents_are_added_shown_disabled_with_a_reason_and_enabled() {
    let folder = Folder::new();
    folder.ok(&["torrents", "add", HASH, "--name", "Debian 12"]);
    folder.ok(&["torrents", "disable", HASH, "not here"]);
    let shown = folder.json(&["torrents", "show", &HASH.to_uppercase()]);
    assert_eq!(shown["info_hash"], HASH);
    assert_eq!(shown["name"], "Debian 12");
    assert_eq!(
        (&shown["enabled"], &shown["reason"]),
        (&json!(false), &json!("not here"))
    );
    folder.ok(&["torrents", "enable", HASH]);
    let shown = folder.json(&["torrents", "list"]);
    assert_eq!(
        (&shown[0]["enabled"], &shown[0]["reason"]),
        (&json!(true), &json!(null))
    );

    folder.fails(1, &["torrents", "add", HASH, "--name", "again"]);
    folder.fails(2, &["torrents", "add", "0025", "--name", "short"]);
    folder.fails(1, &["torrents", "show", &HASH.replace("00", "ff")]);
    folder.fails(1, &["torrents", "disable", &HASH.replace("00", "ff")]);
    folder.fails(2, &["torrents", "disable", HASH, &"x".repeat(256)]);
}

#[test]
fn import_reads_every_kind_of_torrent_and_lists_bad_ones() {
    const PIECES: &str = "6:pieces20:aaaaaaaaaaaaaaaaaaaa";
    let folder = Folder::with_config(&json!({"mode": "private"}));
    let v1 = format!("d6:lengthi5e4:name2:v112:piece lengthi16384e{PIECES}7:privatei1ee");
    let root = "r".repeat(32);
    let tree = |name: &str| {
        let leaf = format!("d0:d6:lengthi5e11:pieces root32:{root}ee");
        format!("9:file treed{}:{name}{leaf}e", name.len())
    };
    let tail = "12:piece lengthi16384e";
    let v2 = format!("d{}12:meta versioni2e4:name2:v2{tail}e", tree("v2"));
    let hybrid = format!(
        "d{}6:lengthi5e12:meta versioni2e4:name6:hybrid{tail}{PIECES}e",
        tree("hybrid")
    );
    let unsorted = format!("d{PIECES}4:name8:unsorted{tail}6:lengthi5ee");
    for (name, info) in [
        ("v1.torrent", &v1),
        ("sub/v2.torrent", &v2),
        ("sub/deep/hybrid.TORRENT", &hybrid),
        ("unsorted.torrent", &unsorted),
        ("copy-of-v1.torrent", &v1),
    ] {
        folder.write(&format!("t/{name}"), format!("d4:info{info}e").as_bytes());
    }
    folder.write(
        "t/corrupt.torrent",
        format!("d4:info{}", &v1[..40]).as_bytes(),
    );
    folder.write("t/not-a-torrent.txt", b"");
    symlink("..", folder.path("t/sub/circle")).unwrap();

    let outcome = folder.run(&["torrents", "import", "t"]);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert_eq!(outcome.stdout, "4 added, 1 known already, 1 refused\n");
    assert!(
        outcome.stderr.contains("t/corrupt.torrent: "),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.contains("3 of them lack private=1"),
        "{outcome:?}"
    );

    let sha1 = |info: &str| info_hash(&Sha1::digest(info));
    let sha256 = |info: &str| info_hash(&Sha256::digest(info));
    for (hash, name, second) in [
        (sha1(&v1), "v1", None),
        (sha256(&v2), "v2", None),
        (sha1(&hybrid), "hybrid", Some(sha256(&hybrid))),
        (sha1(&unsorted), "unsorted", None),
    ] {
        let shown = folder.json(&["torrents", "show", &hash]);
        assert_eq!(shown["name"], name);
        assert_eq!(shown["info_hash_v2"], json!(second));
    }
    fs::remove_file(folder.path("t/corrupt.torrent")).unwrap();
    let again = folder.json(&["torrents", "import", "t"]);
    assert_eq!(
        again,
        json!({"added": 0, "known": 5, "refused": [], "not_private": 0})
    );
    folder.fails(1, &["torrents", "import", "nowhere.torrent"]);
}

// --- whitelist ---

#[test]
fn the_whitelist_survives_its_own_export_and_import() {
    let folder = Folder::new();
    folder.ok(&["whitelist", "add", "-TR", "Transmission"]);
    folder.ok(&["whitelist", "add", "-qB4500-", "qBittorrent 4.5"]);
    folder.ok(&["whitelist", "add", "-TR", "Transmission BT"]);
    let exported = folder.ok(&["whitelist", "export"]);
    assert_eq!(
        exported,
        "-TR\tTransmission BT\n-qB4500-\tqBittorrent 4.5\n"
    );
    folder.ok(&["whitelist", "remove", "-TR"]);
    folder.fails(1, &["whitelist", "remove", "-TR"]);

    let outcome = folder.run_with_stdin(&["whitelist", "import", "-"], &exported);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(folder.ok(&["whitelist", "export"]), exported);
    let expected = json!([
        {"prefix": "-TR", "client": "Transmission BT"},
        {"prefix": "-qB4500-", "client": "qBittorrent 4.5"},
    ]);
    assert_eq!(folder.json(&["whitelist", "list"]), expected);
}

#[test]
fn a_list_with_a_bad_line_changes_nothing() {
    let folder = Folder::new();
    folder.write(
        "list",
        b"# ours\n\n-TR\tTransmission\nno tab here\n-prefix-longer-than-20\tX\n",
    );
    let error = folder.fails(1, &["whitelist", "import", "list"]);
    assert!(
        error.contains("list:4: ") && error.contains("list:5: "),
        "{error}"
    );
    assert_eq!(folder.json(&["whitelist", "list"]), json!([]));
    folder.fails(2, &["whitelist", "add", "", "nobody"]);
}

/// The first 20 bytes of a digest as an info hash is written.
fn info_hash(digest: &[u8]) -> String {
    InfoHash::from_slice(&digest[..20]).unwrap().to_string()
}

#[test]
fn a_passkey_may_come_from_stdin_where_no_process_list_shows_it() {
    let folder = Folder::new();
    let add = ["users", "add", "alice", "--passkey", "-"];
    let outcome = folder.run_with_stdin(&add, "alices_passkey\n");
    assert_eq!(
        (outcome.status, outcome.stdout.trim()),
        (0, "alices_passkey")
    );
    let bob = ["users", "add", "bob", "--passkey=-"];
    let outcome = folder.run_with_stdin(&bob, "  bobs_passkey");
    assert_eq!((outcome.status, outcome.stdout.trim()), (0, "bobs_passkey"));
    let carol = ["users", "add", "carol", "--passkey", "-"];
    for input in ["", "\n", "short", "not a passkey\n", &"x".repeat(5000)] {
        let outcome = folder.run_with_stdin(&carol, input);
        assert_eq!(outcome.status, 2, "{outcome:?}");
        let said = outcome.stderr;
        assert!(
            said.contains("--passkey") && !said.contains("not a passkey"),
            "{said}"
        );
    }
    let help = folder.ok(&["users", "add", "--help"]);
    assert!(help.contains("stdin"), "{help}");
}
