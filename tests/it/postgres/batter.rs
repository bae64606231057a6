//! A batter site: its rows, announces, edits, and the info hashes that it does not store.

use std::fs;
use std::process::Output;

use mika::base::ids::InfoHash;
use mika::wire::bencode;
use serde_json::json;
use sha1::{Digest as _, Sha1};

use crate::harness::batter::{TABLES, sign_up, upload};
use crate::harness::http::escape;
use crate::harness::postgres::Postgres;
use crate::harness::{Mika, PROGRAM_DEADLINE, poll};

const ALICE: &str = "0123456789abcdef0123456789abcdef";
const BOB: &str = "fedcba9876543210fedcba9876543210";

/// A torrent as a client made it.
struct Made {
    file: Vec<u8>,
    hash: InfoHash,
}

/// A site with two users, and a tracker that is configured for it.
struct Site {
    server: Postgres,
    mika: Mika,
}

/// A .torrent file with this info dictionary, in which `#` stands for the hash of one piece.
fn torrent(info: &str, piece: u8) -> Made {
    let (before, after) = info.split_once('#').expect("a place for the pieces");
    let piece = [b"20:".as_slice(), &[piece; 20]].concat();
    let info = [before.as_bytes(), &piece, after.as_bytes()].concat();
    bencode::parse(&info).expect("canonical bencode");
    Made {
        file: [b"d8:announce3:url4:info".as_slice(), &info, b"e"].concat(),
        hash: InfoHash(Sha1::digest(&info).into()),
    }
}

fn single(piece: u8) -> Made {
    let info = "d6:lengthi16000e4:name9:Lied.flac12:piece lengthi16384e6:pieces#7:privatei1ee";
    torrent(info, piece)
}

/// Two files, the second with this length.
fn album(length: u32, piece: u8) -> Made {
    let info = format!(
        "d5:filesld6:lengthi7e4:pathl4:CD 19:Tür.flaceed6:lengthi{length}e4:pathl7:log.txteee\
         4:name5:Album12:piece lengthi16384e6:pieces#e"
    );
    torrent(&info, piece)
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

// === impl Site ===

impl Site {
    fn new() -> Self {
        let server = Postgres::start();
        let url = server.database("site");
        let users = [sign_up("alice", ALICE), sign_up("bob", BOB)].join(";");
        server.sql("site", &format!("{TABLES}{users}"));
        let mika = Mika::prepare(&json!({
            "mode": "private",
            "storage": { "driver": "postgres", "url": url, "schema": "batter" },
            "tracker": { "whitelist": true },
            "journal": { "flush_interval": "200ms" },
        }));
        let site = Self { server, mika };
        let done = site.mika.managed(&["migrate"]);
        assert!(done.contains("0001_init"), "{done}");
        site.mika
            .managed(&["whitelist", "add", "-MK", "Mika's own"]);
        site
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql("site", sql)
    }

    /// Uploads it; its id.
    fn upload(&self, made: &Made) -> String {
        self.sql(&format!("{} RETURNING id", upload(&made.file)))
    }

    fn announce(&self, passkey: &str, hash: InfoHash, rest: &str) -> String {
        let hash = escape(&hash.0);
        let reply = self.mika.fetch(&format!(
            "/{passkey}/announce?info_hash={hash}&peer_id=-MK0001-abcdefghijkl&port=6881{rest}"
        ));
        String::from_utf8_lossy(&reply).into_owned()
    }

    fn is_accepted(&self, passkey: &str, hash: InfoHash) -> bool {
        self.announce(passkey, hash, "&uploaded=0&downloaded=0&left=9")
            .contains("8:complete")
    }

    fn becomes(&self, accepted: bool, passkey: &str, hash: InfoHash, what: &str) {
        poll(PROGRAM_DEADLINE, what, || {
            self.is_accepted(passkey, hash) == accepted
        });
    }
}

#[test]
fn a_batter_site_is_credited_and_followed() {
    let mut site = Site::new();
    let first = single(1);
    site.upload(&first);
    let check = site.mika.manage(&["check"]);
    assert!(check.status.success(), "{}", said(&check));
    site.mika.run();
    let start = "&uploaded=0&downloaded=0&left=9&event=started";
    assert!(
        site.announce(ALICE, first.hash, start)
            .contains("8:complete")
    );
    let end = "&uploaded=1000&downloaded=9&left=0&event=completed";
    site.announce(ALICE, first.hash, end);
    poll(PROGRAM_DEADLINE, "the credit is there", || {
        site.sql(
            "SELECT uploaded, downloaded, snatches FROM mika_users JOIN auth_user USING (id)
            WHERE username = 'alice'",
        ) == "1000\t9\t1"
    });
    poll(PROGRAM_DEADLINE, "the counters are there", || {
        site.sql("SELECT seeders, snatches FROM mika_torrents") == "1\t1"
    });

    // Edits of each of the site's tables, and of the settings beside them.
    let second = album(5, 2);
    let id = site.upload(&second);
    site.becomes(true, ALICE, second.hash, "an upload is followed");
    site.sql(&format!(
        "UPDATE mika_torrents SET enabled = false WHERE id = {id}"
    ));
    site.becomes(false, ALICE, second.hash, "a torrent is disabled");
    site.sql(&format!(
        "UPDATE mika_torrents SET enabled = true WHERE id = {id}"
    ));
    site.becomes(true, ALICE, second.hash, "a torrent is enabled");
    let renamed = torrent(
        "d6:lengthi16000e4:name5:B.mp312:piece lengthi16384e6:pieces#7:privatei1ee",
        1,
    );
    site.sql("UPDATE torrents_torrent SET name = 'B.mp3' WHERE length IS NOT NULL");
    site.becomes(
        true,
        ALICE,
        renamed.hash,
        "the hash of a renamed file is rebuilt",
    );
    assert!(!site.is_accepted(ALICE, first.hash));
    let key = "0".repeat(32);
    site.sql(&format!(
        "UPDATE profiles_profile SET trackerid = '{key}' WHERE trackerid = '{ALICE}'"
    ));
    site.becomes(true, &key, second.hash, "a new key works");
    site.becomes(false, ALICE, second.hash, "the old one does not");
    site.sql("UPDATE auth_user SET is_active = false WHERE username = 'bob'");
    site.becomes(false, BOB, second.hash, "a ban takes effect");
    site.mika.managed(&["users", "enable", "bob"]);
    site.becomes(true, BOB, second.hash, "and ends");
    site.sql("DELETE FROM profiles_profile; DELETE FROM auth_user WHERE username = 'bob'");
    site.becomes(false, BOB, second.hash, "a deleted user is refused");
    assert_eq!(
        site.sql("SELECT count(*) FROM mika_users WHERE id = 2"),
        "0"
    );
    // What the site alone does is said.
    let add = site.mika.manage(&["users", "add", "carol"]);
    assert!(
        said(&add).contains("does not support adding users"),
        "{}",
        said(&add)
    );
    assert_eq!(site.mika.stop(), 0);
}

#[test]
fn rows_without_an_info_hash_are_named_and_the_others_work() {
    let mut site = Site::new();
    let good = single(1);
    site.upload(&good);
    let only = "d5:filesld6:lengthi7e4:pathl1:aeee4:name1:a12:piece lengthi16384e6:pieces#e";
    let only = site.upload(&torrent(only, 2));
    site.mika.run();
    site.becomes(true, ALICE, good.hash, "the good one works");
    assert!(
        site.mika.log().contains("its only file is in a list"),
        "{}",
        site.mika.log()
    );
    let broken = single(3);
    let row = upload(&broken.file).replace("'030303", "'xyz");
    let broken_id = site.sql(&format!("{row} RETURNING id"));
    poll(PROGRAM_DEADLINE, "the log names it", || {
        site.mika
            .log()
            .contains("pieces is not in hexadecimal digits")
    });
    let check = site.mika.manage(&["check"]);
    assert_eq!(check.status.code(), Some(1), "{}", said(&check));
    for row in [
        format!("{only} (its only file is in a list"),
        format!("{broken_id} (pieces is not in hexadecimal digits)"),
    ] {
        assert!(said(&check).contains(&row), "{row}: {}", said(&check));
    }
    site.sql(&format!(
        "UPDATE torrents_torrent SET pieces = repeat('03', 20) WHERE id = {broken_id}"
    ));
    site.becomes(true, ALICE, broken.hash, "a corrected row works");
}

#[test]
fn another_hash_is_explained_and_can_be_set_by_hand() {
    let mut site = Site::new();
    // An empty file: the site's own download leaves out its length.
    let made = album(0, 4);
    let id = site.upload(&made);
    let other = site.upload(&single(5));
    site.mika.run();
    let check = said(&site.mika.manage(&["check"]));
    assert!(
        check.contains(&format!("the length of an empty file: {id}")),
        "{check}"
    );
    assert!(!site.is_accepted(ALICE, made.hash));

    let path = site.mika.path("uploaded.torrent");
    fs::write(&path, &made.file).unwrap();
    let path = path.to_str().unwrap();
    let set = site
        .mika
        .managed(&["torrents", "hash", &id, "--file", path]);
    assert_eq!(set.trim(), format!("{} Album (set by hand)", made.hash));
    site.becomes(true, ALICE, made.hash, "the uploaded file's hash works");
    let check = said(&site.mika.manage(&["check"]));
    assert!(
        check.contains("an info hash that was set by hand and differs"),
        "{check}"
    );
    assert!(check.contains(&format!(": {id} (")), "{check}");
    // It stays over edits of the site, and is no other torrent's.
    site.sql(&format!(
        "UPDATE torrents_torrent SET name = 'Album 2' WHERE id = {id}"
    ));
    let hash = site.sql(&format!(
        "SELECT encode(info_hash, 'hex') FROM mika_torrents WHERE id = {id}"
    ));
    assert_eq!(hash, made.hash.to_string());
    let taken = site.mika.manage(&["torrents", "hash", &other, &hash]);
    assert!(
        said(&taken).contains(&format!("torrent {id}, which has that info hash")),
        "{}",
        said(&taken)
    );
    let unknown = site.mika.manage(&["torrents", "hash", "99", "--reset"]);
    assert!(said(&unknown).contains("torrent 99"), "{}", said(&unknown));

    let reset = site.mika.managed(&["torrents", "hash", &id, "--reset"]);
    assert!(reset.contains("(rebuilt from the site's row)"), "{reset}");
    site.becomes(false, ALICE, made.hash, "the hash by hand is gone");
    let rebuilt: InfoHash = reset.split(' ').next().unwrap().parse().unwrap();
    site.becomes(true, ALICE, rebuilt, "the rebuilt one works");
}

/// A site that keeps its clients in a table of its own, and is batter's otherwise.
#[test]
fn a_schema_of_a_sites_own_may_be_based_on_it() {
    let mut site = Site::new();
    site.sql("DROP TABLE mika_migrations CASCADE; CREATE TABLE clients (prefix varchar(20))");
    let file = "-- Our batter.\n-- based on: batter\n-- follow clients as whitelist\n\
        -- follow auth_user as user by id: username, is_active\n\
        -- follow torrents_torrent as torrent by id: pieces, name\n\n\
        -- name: whitelist\nSELECT prefix, prefix FROM clients\n";
    fs::write(site.mika.path("ours.sql"), file).unwrap();
    site.mika
        .reconfigure(&json!({ "storage": { "schema": "./ours.sql" } }));
    site.sql("DROP TABLE mika_torrents, mika_users");
    site.mika.managed(&["migrate"]);
    site.sql("INSERT INTO clients VALUES ('-MK')");
    let made = single(1);
    site.upload(&made);
    let check = site.mika.manage(&["check"]);
    assert!(check.status.success(), "{}", said(&check));
    // What only Mika writes needs no trigger.
    let tested = said(&site.mika.manage(&["schema", "test", "ours.sql"]));
    assert!(
        tested.contains("changes of profiles_profile") && !tested.contains("of mika_"),
        "{tested}"
    );
    site.mika.run();
    assert!(site.is_accepted(ALICE, made.hash));
}
