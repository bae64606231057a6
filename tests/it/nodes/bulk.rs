//! Many edits at once, by every means, while both nodes run.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use mika::base::ids::InfoHash;

use super::pair::Pair;
use crate::harness::http::{Connection, escape};
use crate::harness::load::passkey;
use crate::harness::site::{has_no_difference, settles};
use crate::harness::{now, number};

/// Edits in one statement.
const STATEMENT: usize = 500;

/// How long both nodes may take after the last of few edits.
const FOLLOWS: Duration = Duration::from_secs(5);

/// Torrents asked for by one scrape.
const SCRAPED: usize = 40;

/// Users that `mika-manage` adds, a process each.
const ADDED: usize = 10;

#[test]
fn both_nodes_and_the_cache_end_equal_to_storage() {
    let edits = usize::try_from(number("MIKA_EDITS", 4000)).expect("a number of edits");
    let pair = Pair::start(1);
    let users = edits / 2;
    let torrents = edits - users;
    write_torrents(&pair, torrents);
    let start = now();
    thread::scope(|scope| {
        scope.spawn(|| edit_users(&pair, users));
        scope.spawn(|| {
            pair.site.mika.managed(&["torrents", "import", "in"]);
            pair.sql("CREATE TABLE imported SELECT info_hash FROM torrents");
            edit_torrents(&pair);
        });
        scope.spawn(|| manage_users(&pair));
    });
    let edited = start.elapsed();
    let patience = FOLLOWS + edited;
    let expected = Expected::of(&pair);
    let mut report = String::new();
    let are_alike = settles(patience, || {
        let nodes = pair.nodes().into_iter();
        report = nodes.flat_map(|node| expected.missed_by(node)).collect();
        report.is_empty()
    });
    assert!(are_alike, "the nodes differ from storage:\n{report}");
    let followed = start.elapsed().saturating_sub(edited);
    eprintln!("{edits} edits within {edited:?}; followed {followed:?} later at the latest");
    let is_alike = settles(patience, || {
        report = pair.site.mika.managed(&["warmup", "--dry-run"]);
        has_no_difference(&report)
    });
    assert!(is_alike, "the cache differs from storage:\n{report}");
}

/// Adds users, changes some, gives some another passkey, deletes some.
fn edit_users(pair: &Pair, count: usize) {
    for first in (0..count).step_by(STATEMENT) {
        let last = (first + STATEMENT).min(count) - 1;
        pair.sql(&format!(
            "INSERT INTO users (passkey, username)
             SELECT CONCAT('first-key-', seq), CONCAT('number ', seq) FROM seq_{first}_to_{last};"
        ));
        let of = |rest: u8| format!("username LIKE 'number %{rest}'");
        let [disabled, renewed, deleted] = [of(1), of(2), of(3)];
        pair.sql(&format!(
            "UPDATE users SET enabled = 0 WHERE {disabled};
             UPDATE users SET passkey = REPLACE(passkey, 'first', 'second') WHERE {renewed};
             DELETE FROM users WHERE {deleted};"
        ));
    }
}

/// Disables some of the torrents, deletes some and gives some another info hash.
fn edit_torrents(pair: &Pair) {
    pair.sql("UPDATE torrents SET enabled = 0 WHERE release_name LIKE 'n%1'");
    pair.sql(
        "UPDATE torrents SET info_hash = UNHEX(SHA1(info_hash)) WHERE release_name LIKE 'n%2'",
    );
    pair.sql("DELETE FROM torrents WHERE release_name LIKE 'n%3'");
}

fn manage_users(pair: &Pair) {
    let manage = |arguments: &[&str]| drop(pair.b.managed(arguments));
    for number in 0..ADDED {
        let name = format!("added {number}");
        manage(&[
            "users",
            "add",
            &name,
            "--passkey",
            &format!("added-number-{number}"),
        ]);
        match number % 3 {
            0 => manage(&["users", "disable", &name]),
            1 => manage(&["users", "passkey", &name]),
            _ => {}
        }
    }
}

/// The files of an import.
fn write_torrents(pair: &Pair, count: usize) {
    let folder = pair.site.mika.path("in");
    fs::create_dir(&folder).expect("a folder");
    for number in 0..count {
        let torrent = format!(
            "d4:infod6:lengthi1e4:name8:n{number:07}12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee"
        );
        fs::write(folder.join(format!("{number}.torrent")), torrent).expect("a torrent");
    }
}

/// What storage has in the end for every passkey and info hash that ever existed.
struct Expected {
    users: BTreeMap<String, bool>,
    torrents: BTreeMap<InfoHash, bool>,
}

// === impl Expected ===

impl Expected {
    fn of(pair: &Pair) -> Self {
        let users = pair.sql(
            "SELECT passkey, enabled FROM users
             UNION SELECT REPLACE(passkey, 'second', 'first'), 0 FROM users WHERE passkey LIKE 'second-%'
             UNION SELECT CONCAT('first-key-', seq), 0 FROM seq_0_to_1000000
                WHERE seq MOD 10 = 3 AND seq <= (SELECT COUNT(*) FROM users)",
        );
        let torrents = pair.sql(
            "SELECT HEX(info_hash), enabled FROM torrents
             UNION SELECT HEX(info_hash), 0 FROM imported
                WHERE info_hash NOT IN (SELECT info_hash FROM torrents)",
        );
        let row = |line: &str| {
            let (key, is_enabled) = line.split_once('\t').expect("two columns");
            (key.to_owned(), is_enabled == "1")
        };
        let hash = |(key, is_enabled): (String, bool)| {
            (
                key.to_lowercase().parse().expect("an info hash"),
                is_enabled,
            )
        };
        Self {
            users: users.lines().map(row).collect(),
            torrents: torrents.lines().map(row).map(hash).collect(),
        }
    }

    /// Those for which the node has something else, a line each.
    fn missed_by(&self, node: SocketAddr) -> Vec<String> {
        let mut connection = Connection::open(node).expect("the node runs");
        let mut scrape = |target: &str| connection.get(target).expect("the node answers");
        let mut missed = Vec::new();
        let any = escape(&[0; 20]);
        for (passkey, &is_enabled) in &self.users {
            let reply = scrape(&format!("/{passkey}/scrape?info_hash={any}"));
            if reply.failure().is_none() != is_enabled {
                missed.push(format!("{node}: {passkey}: enabled: {is_enabled}\n"));
            }
        }
        let torrents: Vec<_> = self.torrents.iter().collect();
        for part in torrents.chunks(SCRAPED) {
            let hashes = part
                .iter()
                .map(|(hash, _)| format!("info_hash={}", escape(&hash.0)));
            let hashes: Vec<String> = hashes.collect();
            let reply = scrape(&format!("/{}/scrape?{}", passkey(0), hashes.join("&")));
            let reply = reply.bencode();
            let files = reply.get(b"files").expect("no refusal");
            for (hash, is_enabled) in part {
                if files.get(&hash.0).is_some() != **is_enabled {
                    missed.push(format!("{node}: {hash}: enabled: {is_enabled}\n"));
                }
            }
        }
        missed
    }
}
