//! A Redis that was away for a while, and what happens at a node while it gives Redis what that lacks.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::pair::{Client, Pair};
use crate::harness::database::Database;
use crate::harness::http::{escape, get};
use crate::harness::load::{info_hash, passkey};
use crate::harness::site::settles;
use crate::harness::{Mika, poll};

/// How many clients stop, and the time between two of them: all together longer than it takes until the node gives
/// Redis its journal again, after it has given it its peers.
const CLIENTS: usize = 400;
const PACE: Duration = Duration::from_millis(15);

/// Failures after which a node pauses longest between its tries to give Redis its journal: several seconds.
const FAILURES: u64 = 7;

/// How long these may take, and one more.
const FAILED: Duration = Duration::from_secs(40);

/// How long both nodes may take until they have the same swarm.
const ALIKE: Duration = Duration::from_secs(20);

/// Each at an endpoint of its own: at the same one, it would replace another.
fn client(number: usize) -> Client {
    Client {
        port: 20_000 + number as u16,
        ..Client::new(0, 1)
    }
}

/// How often the node failed to give Redis its journal, by the statistics in its log.
fn failures(node: &Mika) -> u64 {
    let log = node.log();
    let last = log.rsplit_once("cache_failures=");
    let digits = last.and_then(|(_, rest)| rest.split_whitespace().next());
    digits.and_then(|it| it.parse().ok()).unwrap_or(0)
}

fn seeders(node: SocketAddr) -> usize {
    let hash = info_hash(1);
    let target = format!("/{}/scrape?info_hash={}", passkey(0), escape(&hash));
    let reply = get(node, &target);
    let body = reply.bencode();
    let entry = body.get(b"files").and_then(|files| files.get(&hash));
    let complete = entry.and_then(|entry| entry.get(b"complete")?.as_int());
    complete.expect("a number") as usize
}

#[test]
fn clients_that_stop_while_redis_comes_back_leave_the_swarm_of_the_other_node() {
    let config = json!({
        "tracker": { "max_peers_per_user": 1000 },
        "log": { "stats_interval": "100ms" },
    });
    let mut pair = Pair::start_with(Database::MariaDb, 1, &config);
    let [a, b] = pair.nodes();
    let clients: Vec<Client> = (0..CLIENTS).map(client).collect();
    for client in &clients {
        client.accepted(b, "started");
    }
    poll(ALIKE, "both nodes have all clients", || {
        seeders(a) == CLIENTS && seeders(b) == CLIENTS
    });
    pair.site.redis.kill9();
    clients[0].accepted(b, "completed");
    poll(FAILED, "the node pauses between its tries", || {
        failures(&pair.b) >= FAILURES
    });
    let before = failures(&pair.b);
    poll(FAILED, "it has just tried", || failures(&pair.b) > before);
    thread::scope(|scope| {
        scope.spawn(|| {
            for client in &clients {
                client.accepted(b, "stopped");
                thread::sleep(PACE);
            }
        });
        pair.site.redis.restart();
    });
    let mut found = [0; 2];
    let is_empty = settles(ALIKE, || {
        found = [a, b].map(seeders);
        found == [0, 0]
    });
    assert!(is_empty, "seeders at both nodes: {found:?}");
}

/// A node saved a client to storage while Redis was away, and was killed before it could tell others of it. Its next start
/// does.
#[test]
fn a_client_that_only_storage_has_is_known_to_a_running_node_after_the_next_start_of_the_other() {
    let mut pair = Pair::start_with(Database::MariaDb, 1, &json!({}));
    let [a, b] = pair.nodes();
    client(0).accepted(a, "started");
    poll(ALIKE, "both nodes have the first client", || {
        [a, b].map(seeders) == [1, 1]
    });
    pair.site.redis.kill9();
    client(1).accepted(b, "started");
    poll(ALIKE, "storage has the second one", || {
        pair.site.database.row::<1>("SELECT COUNT(*) FROM peers") == [2]
    });
    pair.b.kill9();
    pair.site.redis.restart();
    poll(FAILED, "the other node has given Redis its peers", || {
        let log = pair.site.mika.log();
        log.contains("the cache has all peers of this node")
    });
    assert_eq!(seeders(a), 1);
    pair.b.run();
    let mut found = [0; 2];
    let are_alike = settles(ALIKE, || {
        found = [a, b].map(seeders);
        found == [2, 2]
    });
    assert!(are_alike, "seeders at both nodes: {found:?}");
}
