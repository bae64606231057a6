//! Edits, one at a time, by every command and by plain SQL.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use mika::base::ids::InfoHash;
use serde_json::json;

use super::pair::{Client, Pair, knows_torrent, knows_user};
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::poll;

/// How long the cache may take to follow an edit.
const MIRRORED: Duration = Duration::from_secs(20);

const HASH: InfoHash = InfoHash([0x77; 20]);

/// What both nodes are to do after an edit.
struct Edits<'a> {
    pair: &'a Pair,
    times: Vec<Duration>,
}

crate::on_each_database![
    both_nodes_follow_every_command,
    a_torrent_that_was_deleted_while_no_node_ran_stays_deleted,
    both_nodes_follow_plain_sql,
];

fn both_nodes_follow_every_command(database: Database) {
    let pair = Pair::start_on(database, 1);
    let mut edits = Edits::of(&pair);
    edits.manage(&["users", "add", "alice", "--passkey", "alices_passkey"]);
    edits.user("alices_passkey", true);
    edits.manage(&["users", "disable", "alice"]);
    edits.user("alices_passkey", false);
    edits.manage(&["users", "enable", "alice"]);
    edits.user("alices_passkey", true);
    let passkey = edits.manage(&["users", "passkey", "alice"]);
    edits.user("alices_passkey", false);
    edits.user(passkey.trim(), true);

    let hash = HASH.to_string();
    edits.manage(&["torrents", "add", &hash, "--name", "film"]);
    edits.torrent(HASH, true);
    edits.manage(&["torrents", "disable", &hash, "a fake"]);
    edits.torrent(HASH, false);
    edits.manage(&["torrents", "enable", &hash]);
    edits.torrent(HASH, true);

    edits.manage(&["whitelist", "add", "-TR", "Transmission"]);
    edits.client(b"-TR", true);
    edits.manage(&["whitelist", "remove", "-TR"]);
    edits.client(b"-TR", false);
    let list = edits.manage(&["whitelist", "export"]);
    let path = pair.site.mika.path("list");
    fs::write(&path, list.replace("-MK", "-XY")).expect("a list");
    edits.manage(&["whitelist", "import", "list"]);
    edits.client(b"-XY", true);
    edits.report("mika-manage");
}

fn a_torrent_that_was_deleted_while_no_node_ran_stays_deleted(database: Database) {
    let mut pair = Pair::start_on(database, 1);
    let hash = pair.bytes(HASH);
    pair.sql(&format!("INSERT INTO torrents (info_hash) VALUES ({hash})"));
    pair.follow("both know it", |node| knows_torrent(node, HASH));
    let is_cached = |pair: &Pair| pair.site.redis.cli(&["EXISTS", &format!("t:t:{HASH}")]) == "1";
    poll(MIRRORED, "the cache has it", || is_cached(&pair));
    assert_eq!(pair.b.stop(), 0);
    assert_eq!(pair.site.mika.stop(), 0);
    pair.sql(&format!("DELETE FROM torrents WHERE info_hash = {hash}"));
    pair.site.mika.run();
    poll(MIRRORED, "the cache has it no longer", || !is_cached(&pair));
    let [a, _] = pair.nodes();
    assert!(!knows_torrent(a, HASH));
    pair.b.run();
    assert!(!knows_torrent(pair.b.http(), HASH));
}

#[test]
fn postgresql_tells_both_nodes_of_an_edit_by_sql() {
    let config = json!({ "storage": { "poll_interval": "60s" } });
    let pair = Pair::start_with(Database::Postgres, 1, &config);
    let mut edits = Edits::of(&pair);
    for [from, to] in [
        [passkey(0).as_str(), "passkey-1"],
        ["passkey-1", "passkey-2"],
    ] {
        pair.sql(&format!(
            "UPDATE users SET passkey = '{to}' WHERE passkey = '{from}'"
        ));
        edits.user(to, true);
        edits.user(from, false);
    }
    edits.report("SQL on PostgreSQL");
}

#[test]
fn an_edit_is_published_once() {
    const EDITS: usize = 12;
    let pair = Pair::start(1);
    let mut edits = Edits::of(&pair);
    edits.sql("INSERT INTO users (passkey, username) VALUES ('bobs_passkey', 'bob')");
    edits.user("bobs_passkey", true);
    // Before that, the notice of an earlier edit may be late.
    sleep(Duration::from_secs(21));
    let before = edits.notices();
    for number in 0..EDITS {
        let hash = InfoHash([0xe0 + number as u8; 20]);
        if number % 2 == 0 {
            let name = format!("user-{number}");
            edits.manage(&["users", "add", &name, "--passkey", &format!("{name}-key")]);
            edits.user(&format!("{name}-key"), true);
        } else {
            edits.manage(&["torrents", "add", &hash.to_string(), "--name", "film"]);
            edits.torrent(hash, true);
        }
        // The lease holder has read the feed.
        sleep(Duration::from_millis(700));
    }
    let given = edits.notices() - before;
    eprintln!("{EDITS} edits: {given} notices");
    // One that is read from the feed before its editor has published it is published twice.
    assert!((EDITS..=EDITS + 3).contains(&given), "{given}");

    // An editor that wrote the row and failed before it published it.
    let id = pair.sql("SELECT id FROM users WHERE username = 'bob'");
    let key = format!("t:u:{}", id.trim());
    pair.site.redis.cli(&["HSET", &key, "enabled", "0"]);
    edits.sql("UPDATE users SET enabled = false WHERE username = 'bob'");
    edits.user("bobs_passkey", false);
    assert_eq!(edits.notices() - before, given + 1);
}

fn both_nodes_follow_plain_sql(database: Database) {
    let pair = Pair::start_on(database, 1);
    let mut edits = Edits::of(&pair);
    edits.sql("INSERT INTO users (passkey, username) VALUES ('bobs_passkey', 'bob')");
    edits.user("bobs_passkey", true);
    edits.sql("UPDATE users SET enabled = false WHERE username = 'bob'");
    edits.user("bobs_passkey", false);
    edits.sql("UPDATE users SET enabled = true, passkey = 'bobs_second' WHERE username = 'bob'");
    edits.user("bobs_second", true);
    edits.user("bobs_passkey", false);
    edits.sql("DELETE FROM users WHERE username = 'bob'");
    edits.user("bobs_second", false);

    let moved = InfoHash([0x78; 20]);
    let [old, new] = [HASH, moved].map(|hash| pair.bytes(hash));
    edits.sql(&format!("INSERT INTO torrents (info_hash) VALUES ({old})"));
    edits.torrent(HASH, true);
    edits.sql(&format!(
        "UPDATE torrents SET enabled = false WHERE info_hash = {old}"
    ));
    edits.torrent(HASH, false);
    edits.sql(&format!(
        "UPDATE torrents SET enabled = true, info_hash = {new} WHERE info_hash = {old}"
    ));
    edits.torrent(moved, true);
    edits.torrent(HASH, false);
    edits.sql(&format!("DELETE FROM torrents WHERE info_hash = {new}"));
    edits.torrent(moved, false);

    edits.sql("INSERT INTO whitelist (peer_id, vstring) VALUES ('-DE', 'Deluge')");
    edits.client(b"-DE", true);
    edits.sql("DELETE FROM whitelist WHERE peer_id = '-DE'");
    edits.client(b"-DE", false);
    edits.report("SQL");
}

// === impl Edits ===

impl<'a> Edits<'a> {
    fn of(pair: &'a Pair) -> Self {
        Self {
            pair,
            times: Vec::new(),
        }
    }

    fn manage(&self, arguments: &[&str]) -> String {
        self.pair.site.mika.managed(arguments)
    }

    fn sql(&self, statement: &str) {
        self.pair.sql(statement);
    }

    /// How many notices were published.
    fn notices(&self) -> usize {
        let count = self.pair.site.redis.cli(&["XLEN", "t:control"]);
        count.parse().expect("a number")
    }

    fn user(&mut self, passkey: &str, is_known: bool) {
        self.follow(&format!("{passkey} is known: {is_known}"), |node| {
            knows_user(node, passkey) == is_known
        });
    }

    fn torrent(&mut self, hash: InfoHash, is_known: bool) {
        self.follow(&format!("{hash} is known: {is_known}"), |node| {
            knows_torrent(node, hash) == is_known
        });
    }

    fn client(&mut self, prefix: &[u8], is_allowed: bool) {
        let mut client = Client::new(0, 1);
        client.peer_id[..prefix.len()].copy_from_slice(prefix);
        let what = format!("{} is allowed: {is_allowed}", prefix.escape_ascii());
        self.follow(&what, |node| {
            client.announce(node, "").failure().is_none() == is_allowed
        });
    }

    fn follow(&mut self, what: &str, condition: impl Fn(std::net::SocketAddr) -> bool) {
        self.times.push(self.pair.follow(what, condition));
    }

    fn report(mut self, name: &str) {
        self.times.sort_unstable();
        let (middle, last) = (self.times[self.times.len() / 2], self.times.last());
        eprintln!("{name}: both nodes follow within {middle:?} typically, {last:?} at most");
    }
}
