//! How soon a node hands out the peers of another one, and that both count the same peers after that.
//!
//! `MIKA_ROUNDS` is how many newcomers are timed, `MIKA_LOAD` how many threads announce to both nodes meanwhile.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::pair::{Client, Pair};
use crate::harness::database::Database;
use crate::harness::http::{escape, get};
use crate::harness::load::{self, Stage, TORRENTS, USERS_PER_THREAD, info_hash, passkey};
use crate::harness::{merge, now, number, poll};

/// How long a peer may take to the other node on a machine that is busy with other tests. It takes some milliseconds.
const SEEN: Duration = Duration::from_secs(10);

/// How often the other node is asked for it.
const ASK_PERIOD: Duration = Duration::from_millis(1);

/// How long until both nodes count the same.
const AGREED: Duration = Duration::from_secs(20);

/// The torrent of those that are timed.
const TIMED: usize = 1;

/// What a thread of the load rests after each announce.
const REST: Duration = Duration::from_millis(2);

crate::on_each_database![newcomers_to_one_node_are_handed_out_by_the_other];

fn newcomers_to_one_node_are_handed_out_by_the_other(database: Database) {
    propagate(database, &json!({}));
}

/// Nothing waits until a public announce is durable; other nodes hear of a newcomer as soon.
#[test]
fn public_newcomers_to_one_node_are_handed_out_by_the_other() {
    propagate(
        Database::MariaDb,
        // As by default: an announce that has to wait for the next flush would be late.
        &json!({ "mode": "public", "journal": { "flush_interval": "1s" } }),
    );
}

fn propagate(database: Database, config: &Value) {
    let threads = number("MIKA_LOAD", 0) as usize;
    let users = threads * USERS_PER_THREAD;
    // A user of the load has clients at both nodes.
    let mut config = config.clone();
    let limits = json!({ "tracker": { "max_peers_per_user": 100 } });
    merge(&mut config, &limits);
    let pair = Pair::start_with(database, users + 2, &config);
    let [a, b] = pair.nodes();
    let [at_a, at_b] = [a, b].map(|node| Stage::new(node).resting(REST));
    load::run(&at_a, threads.div_ceil(2), 1, || {
        load::run(&at_b, threads / 2, 2, || time_newcomers(&pair, users));
    });
    count_the_same([a, b]);
}

/// Newcomers announce to either node in turn, until the other one hands them out.
fn time_newcomers(pair: &Pair, users: usize) {
    let [a, b] = pair.nodes();
    let leecher = Client {
        left: 1,
        ..Client::new(users, TIMED)
    };
    // Announces wait until a node has started.
    for node in [a, b] {
        leecher.accepted(node, "started");
    }
    let rounds = number("MIKA_ROUNDS", 20);
    let times = (0..rounds).map(|round| {
        let (here, there) = if round % 2 == 0 { (a, b) } else { (b, a) };
        let seeder = Client::new(users + 1, TIMED);
        seeder.accepted(here, "started");
        let answered = now();
        while !seeder.is_in(&leecher.accepted(there, "")) {
            assert!(answered.elapsed() < SEEN, "the other node hands it out");
            thread::sleep(ASK_PERIOD);
        }
        let took = answered.elapsed();
        seeder.accepted(here, "stopped");
        took
    });
    let mut times: Vec<Duration> = times.collect();
    let first = [times[0], times[1]];
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    eprintln!(
        "handed out by the other node after {:?} (median), {:?} (p90), {:?} (p99), {:?} at most; the first of either node after {first:?}",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

/// Waits until both nodes count the same seeders and leechers of each torrent.
fn count_the_same(nodes: [SocketAddr; 2]) {
    for torrent in 0..TORRENTS {
        let counts = |node| {
            let hash = info_hash(torrent);
            let target = format!("/{}/scrape?info_hash={}", passkey(0), escape(&hash));
            let reply = get(node, &target);
            let files = reply.bencode();
            let file = files.get(b"files").and_then(|it| it.get(&hash));
            ["complete", "incomplete"].map(|key| file?.get(key.as_bytes())?.as_int())
        };
        let mut found = [[None; 2]; 2];
        poll(AGREED, "both nodes count the same peers", || {
            found = nodes.map(counts);
            found[0] == found[1]
        });
        eprintln!("torrent {torrent}: seeders and leechers {:?}", found[0]);
    }
}
