//! Credit of clients that announce to two nodes: storage settles the reports of both.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::pair::{Client, Pair};
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::{now, poll};

const MB: u64 = 1_000_000;

/// How long credit may take to storage, and what a dead node left.
const CREDITED: Duration = Duration::from_secs(40);

impl Pair {
    /// What storage has of the first user: bytes uploaded, snatches, announces.
    fn totals(&self) -> [i64; 3] {
        let passkey = passkey(0);
        self.site.database.row(&format!(
            "SELECT uploaded, snatches, announces FROM users WHERE passkey = '{passkey}'"
        ))
    }

    /// Waits until storage has that many announces of the first user, and then for the cache to
    /// show what it has of uploads.
    fn has_announces(&self, number: i64) {
        poll(CREDITED, "storage has all announces", || {
            self.totals()[2] == number
        });
        let passkey = passkey(0);
        let sql = format!("SELECT id FROM users WHERE passkey = '{passkey}'");
        let [id] = self.site.database.row(&sql);
        let [uploaded, ..] = self.totals();
        poll(CREDITED, "the cache shows it", || {
            let key = format!("t:u:{id}");
            self.site.redis.cli(&["HGET", &key, "uploaded"]) == uploaded.to_string()
        });
    }
}

/// As a client of two families does whose addresses lead to different nodes.
fn at_both(client: &Client, nodes: [SocketAddr; 2], event: &str) {
    thread::scope(|scope| {
        for node in nodes {
            scope.spawn(move || client.accepted(node, event));
        }
    });
}

crate::on_each_database![
    the_same_totals_at_both_nodes_count_once,
    spilled_credit_of_a_killed_node_counts_after_its_client_moved,
    a_stop_at_a_node_that_does_not_know_the_client_is_credited,
    a_restart_at_a_node_that_does_not_know_the_client_begins_a_session,
];

fn the_same_totals_at_both_nodes_count_once(database: Database) {
    let pair = Pair::start_on(database, 2);
    let mut client = Client {
        left: 1,
        ..Client::new(0, 1)
    };
    at_both(&client, pair.nodes(), "started");
    (client.uploaded, client.left) = (25 * MB, 0);
    at_both(&client, pair.nodes(), "completed");
    client.uploaded = 40 * MB;
    at_both(&client, pair.nodes(), "");
    at_both(&client, pair.nodes(), "stopped");
    pair.has_announces(8);
    let [uploaded, snatches, _] = pair.totals();
    assert_eq!((uploaded.cast_unsigned(), snatches), (40 * MB, 1));
}

/// A client with 300 MB, of which only the first node knows, which is dead.
fn known_to_a_dead_node(database: Database) -> (Pair, Client) {
    let mut pair = Pair::start_on(database, 2);
    let [a, b] = pair.nodes();
    let mut client = Client::new(0, 1);
    for node in [a, b] {
        Client::new(1, 1).accepted(node, "started");
    }
    pair.site.database.pause();
    pair.site.redis.kill9();
    client.accepted(a, "started");
    client.uploaded = 300 * MB;
    client.accepted(a, "completed");
    pair.site.mika.kill9();
    // Within one second, the order of two nodes is unknown.
    let killed = now();
    poll(CREDITED, "another second", || {
        killed.elapsed() > Duration::from_secs(2)
    });
    pair.site.redis.restart();
    pair.site.database.resume();
    (pair, client)
}

fn spilled_credit_of_a_killed_node_counts_after_its_client_moved(database: Database) {
    let (mut pair, mut client) = known_to_a_dead_node(database);
    let [_, b] = pair.nodes();
    client.uploaded = 500 * MB;
    poll(CREDITED, "the other node takes it", || {
        client.announce(b, "").failure().is_none()
    });
    client.uploaded = 600 * MB;
    client.accepted(b, "stopped");
    pair.site.mika.run();
    let is_settled = || pair.totals()[2] == 4;
    poll(CREDITED, "storage has the reports to both", is_settled);
    assert_eq!(pair.totals()[0].cast_unsigned(), 600 * MB);
}

fn a_stop_at_a_node_that_does_not_know_the_client_is_credited(database: Database) {
    let (mut pair, mut client) = known_to_a_dead_node(database);
    let [_, b] = pair.nodes();
    client.uploaded = 450 * MB;
    poll(CREDITED, "the other node takes it", || {
        client.announce(b, "stopped").failure().is_none()
    });
    pair.site.mika.run();
    poll(CREDITED, "storage has the reports to both", || {
        pair.totals()[0].cast_unsigned() == 450 * MB
    });
}

fn a_restart_at_a_node_that_does_not_know_the_client_begins_a_session(database: Database) {
    let mut pair = Pair::start_on(database, 2);
    let [a, b] = pair.nodes();
    let mut client = Client::new(0, 1);
    for node in [a, b] {
        Client::new(1, 1).accepted(node, "started");
    }
    // Without it, nodes don't see each other's changes; storage gets those of both.
    pair.site.redis.kill9();
    client.accepted(a, "started");
    client.uploaded = 100 * MB;
    client.accepted(a, "stopped");
    poll(CREDITED, "storage has it", || {
        pair.totals()[0].cast_unsigned() == 100 * MB
    });
    // Within five seconds, it may be the same start, passed on by another node.
    let stopped = now();
    poll(CREDITED, "time passes", || {
        stopped.elapsed() > Duration::from_secs(6)
    });
    client.uploaded = 0;
    client.accepted(b, "started");
    client.uploaded = 50 * MB;
    client.accepted(b, "stopped");
    poll(CREDITED, "both sessions are credited", || {
        pair.totals()[0].cast_unsigned() == 150 * MB
    });
    pair.site.redis.restart();
}
