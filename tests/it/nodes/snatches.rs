//! Snatches of a public tracker: one number in the journal for each torrent and flush, counted once by storage and
//! nodes, whatever is killed or away meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mika::base::ids::InfoHash;
use serde_json::{Value, json};

use super::pair::Pair;
use crate::harness::database::Database;
use crate::harness::http::{Reply, escape, get};
use crate::harness::load::info_hash;
use crate::harness::poll;
use crate::harness::redis::AOF;
use crate::harness::site::Site;

/// How long a snatch may take to the journal, to storage and to other nodes.
const COUNTED: Duration = Duration::from_secs(40);

/// No row names it: its first snatch registers it.
const UNKNOWN: usize = 77;

fn public() -> Value {
    json!({ "node": "a", "mode": "public" })
}

fn announce(node: SocketAddr, torrent: usize, port: u16, rest: &str) -> Reply {
    let hash = escape(&info_hash(torrent));
    let target = format!(
        "/announce?info_hash={hash}&peer_id=-MK0001-snatch-{port:05}&port={port}&uploaded=0&downloaded=0{rest}"
    );
    let reply = get(node, &target);
    assert_eq!(reply.failure(), None);
    reply
}

/// That many clients complete the torrent, from the port `first` on.
fn complete(node: SocketAddr, torrent: usize, first: u16, clients: u16) {
    for port in first..first + clients {
        announce(node, torrent, port, "&left=0&event=completed");
    }
}

/// The snatches that a node shows to clients.
fn shown(node: SocketAddr, torrent: usize) -> Option<i64> {
    announce(node, torrent, 9, "&left=1&numwant=0").int("downloaded")
}

/// The snatches of all journals in Redis by info hash, and the number of lines with them.
fn journaled(site: &Site) -> (BTreeMap<String, u64>, usize) {
    let (mut sums, mut lines) = (BTreeMap::new(), 0);
    for stream in site.redis.cli(&["KEYS", "t:journal:*"]).lines() {
        let entries = site.redis.cli(&["XRANGE", stream, "-", "+"]);
        for line in entries.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let (hash, count) = match fields[..] {
                ["snatch1", hash] => (hash, 1),
                ["snatch2", hash, count] => (hash, count.parse().expect("a number")),
                _ => continue,
            };
            *sums.entry(hash.to_owned()).or_default() += count;
            lines += 1;
        }
    }
    (sums, lines)
}

/// The snatches in storage of the torrents 0, 1 and the unknown one.
fn stored(site: &Site) -> [i64; 3] {
    [0, 1, UNKNOWN].map(|torrent| {
        let hash = InfoHash(info_hash(torrent)).to_string();
        let sql = format!(
            "SELECT COALESCE(SUM(snatches), 0) FROM torrents WHERE info_hash = {}",
            site.database.bytes(&hash)
        );
        let [snatches] = site.database.row(&sql);
        snatches
    })
}

fn is_stored(site: &Site, expected: [i64; 3]) {
    let mut found = [0; 3];
    let is_right = crate::harness::site::settles(COUNTED, || {
        found = stored(site);
        found == expected
    });
    assert!(is_right, "{found:?} and not {expected:?}");
}

#[test]
fn public_snatches_are_one_number_in_the_journal_and_count_once_through_kills() {
    count_once_through_kills(Database::MariaDb);
}

#[test]
fn public_snatches_count_once_through_kills_on_postgresql() {
    count_once_through_kills(Database::Postgres);
}

fn count_once_through_kills(database: Database) {
    let mut site = Site::prepare_on(database, 1, &AOF, &public());
    site.mika.run();
    let node = site.mika.http();
    assert_eq!(shown(node, 0), Some(0));
    site.database.pause();
    complete(node, 0, 2000, 300);
    complete(node, 1, 2000, 40);
    complete(node, UNKNOWN, 2000, 3);
    let expected = [(0, 300), (1, 40), (UNKNOWN, 3)];
    let expected =
        expected.map(|(torrent, count)| (InfoHash(info_hash(torrent)).to_string(), count));
    let expected = BTreeMap::from(expected);
    let mut lines = 0;
    poll(COUNTED, "the cache has all of them", || {
        let found = journaled(&site);
        lines = found.1;
        found.0 == expected
    });
    assert!(lines < 343 / 2, "{lines} lines");
    site.mika.kill9();
    site.database.resume();
    site.mika.run();
    is_stored(&site, [300, 40, 3]);
    // A start that reads batches that storage has, and one in the middle of a transaction.
    for round in 1..=3 {
        complete(site.mika.http(), 0, 3000 + round, 1);
        is_stored(&site, [300 + i64::from(round), 40, 3]);
        site.mika.kill9();
        site.mika.run();
    }
    site.database.kill9();
    site.database.restart();
    complete(site.mika.http(), 1, 3000, 60);
    is_stored(&site, [303, 100, 3]);
    let node = site.mika.http();
    let all = [0, 1, UNKNOWN].map(|torrent| shown(node, torrent));
    assert_eq!(all, [Some(303), Some(100), Some(3)]);
}

#[test]
fn public_snatches_count_once_through_the_spill_file() {
    let mut site = Site::prepare(1, &AOF, &public());
    site.mika.run();
    assert_eq!(shown(site.mika.http(), 0), Some(0));
    site.database.pause();
    site.redis.pause();
    complete(site.mika.http(), 0, 2000, 200);
    complete(site.mika.http(), UNKNOWN, 2000, 2);
    assert_eq!(site.mika.stop(), 0);
    assert!(site.spilled() > 0);
    site.redis.resume();
    site.database.resume();
    site.mika.run();
    is_stored(&site, [200, 0, 2]);
    assert_eq!(site.mika.stop(), 0);
    site.mika.run();
    complete(site.mika.http(), 0, 3000, 1);
    is_stored(&site, [201, 0, 2]);
}

#[test]
fn public_snatches_of_one_node_are_shown_by_the_other() {
    let pair = Pair::start_with(Database::MariaDb, 1, &json!({ "mode": "public" }));
    let [a, b] = pair.nodes();
    // Both know the torrent, whose snatches a node that loads later would read from storage.
    assert_eq!([shown(a, 0), shown(b, 0)], [Some(0); 2]);
    complete(a, 0, 2000, 50);
    complete(b, 0, 3000, 7);
    for node in [a, b] {
        poll(COUNTED, "it shows all", || shown(node, 0) == Some(57));
    }
    is_stored(&pair.site, [57, 0, 0]);
    complete(a, 0, 4000, 1);
    for node in [a, b] {
        poll(COUNTED, "it shows one more", || shown(node, 0) == Some(58));
    }
}

#[test]
fn public_snatches_in_the_journal_of_an_earlier_version_count() {
    let mut site = Site::prepare(1, &AOF, &public());
    let hash = InfoHash(info_hash(0)).to_string();
    let changes = format!("snatch1 {hash}\nsnatch1 {hash}\n");
    let stream = "t:journal:a#1.00000000";
    let entry = ["1-0", "count", "2", "changes", &changes];
    site.redis.cli(&[&["XADD", stream], &entry[..]].concat());
    site.redis
        .cli(&["HSET", "t:nodes", "a#1.00000000", "stopped"]);
    site.mika.run();
    complete(site.mika.http(), 0, 2000, 1);
    is_stored(&site, [3, 0, 0]);
}
