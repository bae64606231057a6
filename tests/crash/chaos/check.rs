//! What must hold when all is healed: swarms alike everywhere, every user right, and nothing kept that is settled.

use std::collections::BTreeMap;
use std::time::Duration;

use mika::base::ids::InfoHash;
use mika::wire::bencode::Node;
use rusqlite::Connection as Sqlite;

use super::hosts::{NODES, Part, Trial};
use crate::harness::http::{escape, get};
use crate::harness::load::{TORRENTS, info_hash, passkey};
use crate::reconcile::{Books, losses};

/// `tracker.hnr_min_bytes` of the nodes. No client seeds for `tracker.hnr_threshold`.
pub const HNR_MIN_BYTES: u64 = 10_000_000;

/// Seconds by which either end of a stretch of seed time may be off where one host's clock is wrong.
const CLOCKS_OFF: i64 = 3;

/// How long it may take until the last peers have expired.
pub const EXPIRED: Duration = Duration::from_secs(150);

/// What storage has of one user and torrent.
#[derive(Clone, Copy, Debug)]
struct History {
    seed_time: i64,
    has_mark: bool,
    active: i64,
}

/// Seeders and leechers of each torrent, by each node, the cache and storage; none if all agree.
pub fn different_swarms(trial: &Trial) -> Option<String> {
    let mut seen: Vec<(String, Vec<[i64; 2]>)> = Vec::new();
    for way in trial.ways().into_iter().take(NODES) {
        let counts = trial.on_clients_host(|| scrape(way.address));
        seen.push((way.name, counts));
    }
    let of_cache = |torrent| {
        let key = format!("t:t:{}", InfoHash(info_hash(torrent)));
        let number = |name| {
            trial
                .cache
                .cli(&key, &["HGET", &key, name])
                .parse()
                .unwrap_or(0)
        };
        [number("seeders"), number("leechers")]
    };
    seen.push(("cache".into(), (0..TORRENTS).map(of_cache).collect()));
    seen.push((
        "database".into(),
        (0..TORRENTS)
            .map(|it| peers_in_storage(trial, it))
            .collect(),
    ));
    let first = &seen[0].1;
    let differ = seen.iter().any(|(_, counts)| counts != first);
    differ.then(|| format!("seeders and leechers of each torrent: {seen:?}"))
}

fn scrape(node: std::net::SocketAddr) -> Vec<[i64; 2]> {
    let of_torrent = |torrent| {
        let hash = info_hash(torrent);
        let target = format!("/{}/scrape?info_hash={}", passkey(0), escape(&hash));
        let reply = get(node, &target);
        let body = reply.bencode();
        let entry = body.get(b"files").and_then(|files| files.get(&hash));
        let entry = entry.expect("a torrent of the site");
        [&b"complete"[..], b"incomplete"]
            .map(|name| entry.get(name).and_then(Node::as_int).expect("a number"))
    };
    (0..TORRENTS).map(of_torrent).collect()
}

fn peers_in_storage(trial: &Trial, torrent: usize) -> [i64; 2] {
    let database = &trial.database;
    let hash = database.bytes(&InfoHash(info_hash(torrent)).to_string());
    database.row(&format!(
        "SELECT COUNT(CASE WHEN left_bytes = 0 THEN 1 END), COUNT(CASE WHEN left_bytes > 0 THEN 1 END)
         FROM peers JOIN torrents t ON t.id = torrent_id WHERE active AND info_hash = {hash}"
    ))
}

/// What differs from what clients announced, and what the logs say of losses.
pub fn wrong(trial: &Trial, books: &Books<'_>) -> Vec<String> {
    let mut wrong = books.wrong();
    wrong.extend(wrong_histories(trial, books));
    for (number, node) in trial.nodes.iter().enumerate() {
        wrong.extend(losses(&Part::Node(number).name(), &node.log()));
    }
    wrong
}

/// Marks of hit and run; and the seed time of users who have one client for a torrent, which never moves.
fn wrong_histories(trial: &Trial, books: &Books<'_>) -> Vec<String> {
    let histories = histories(trial);
    let mut wrong = Vec::new();
    for (&(user, torrent), wanted) in &books.wanted {
        let of_both = || {
            let clients = books.clients.iter();
            clients.filter(move |it| (it.user, it.torrent) == (user, torrent))
        };
        let Some(history) = histories.get(&(user, torrent)) else {
            if of_both().any(|it| !it.story.is_empty()) {
                wrong.push(format!("user {user} torrent {torrent} has no history"));
            }
            continue;
        };
        let down = wanted.moved[1];
        // Where clients of a user leave at two nodes that can't see each other, the user may not be marked.
        let is_due = down.low > HNR_MIN_BYTES
            && history.active == 0
            && of_both().any(|it| it.has_ended_calmly);
        if (is_due && !history.has_mark) || (down.high <= HNR_MIN_BYTES && history.has_mark) {
            wrong.push(format!(
                "user {user} torrent {torrent}: mark of a hit and run {}, downloaded {down:?}",
                history.has_mark
            ));
        }
        for client in of_both().filter(|it| it.is_steady()) {
            let stretches = client.surely_seeded.iter();
            let least: i64 = stretches
                .map(|(from, to)| (to - from - 2 * CLOCKS_OFF).max(0))
                .sum();
            if history.seed_time < least {
                wrong.push(format!(
                    "user {user} torrent {torrent}: {} s of seed time, at least {least}: {:?}\n{}",
                    history.seed_time,
                    client.surely_seeded,
                    books.stage.story_of(client)
                ));
            }
        }
    }
    wrong
}

fn histories(trial: &Trial) -> BTreeMap<(usize, usize), History> {
    let rows = trial.database.sql(
        "SELECT username, release_name, h.seed_time, CASE WHEN h.hnr THEN 1 ELSE 0 END,
            (SELECT COUNT(*) FROM peers p
             WHERE p.active AND p.user_id = h.user_id AND p.torrent_id = h.torrent_id)
         FROM history h JOIN users u ON u.id = h.user_id JOIN torrents t ON t.id = h.torrent_id",
    );
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let last = |text: &str| text.rsplit(' ').next().and_then(|it| it.parse().ok());
        let number = |place: usize| fields[place].parse().expect("a number");
        let history = History {
            seed_time: number(2),
            has_mark: number(3) == 1,
            active: number(4),
        };
        (
            (
                last(fields[0]).expect("a user"),
                last(fields[1]).expect("a torrent"),
            ),
            history,
        )
    };
    rows.lines().map(parse).collect()
}

/// What is kept though storage has it.
pub fn kept(trial: &Trial) -> Vec<String> {
    let mut kept = Vec::new();
    for stream in trial.cache.keys("t:journal:*") {
        let length = trial.cache.cli(&stream, &["XLEN", &stream]);
        if length != "0" {
            kept.push(format!("{stream} has {length} batches"));
        }
    }
    for (number, node) in trial.nodes.iter().enumerate() {
        let name = Part::Node(number).name();
        let file = Sqlite::open(node.path("mika.spill")).expect("the spill file");
        for table in ["batches", "damaged"] {
            let exists = file
                .table_exists(None, table)
                .expect("the spill file can be read");
            let rows = format!("SELECT COUNT(*) FROM {table}");
            let count = if exists {
                file.query_row(&rows, [], |row| row.get(0))
                    .expect("a number")
            } else {
                0
            };
            if count > 0 {
                kept.push(format!("the spill file of {name} has {count} {table}"));
            }
        }
    }
    kept
}
