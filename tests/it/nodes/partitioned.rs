//! One of two nodes is cut off from Redis, from the database, or from both, while the other one goes on.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use super::pair::Client;
use crate::harness::database::Database;
use crate::harness::load::passkey;
use crate::harness::net::{Family, Host, Network, within};
use crate::harness::redis::AOF;
use crate::harness::site::Site;
use crate::harness::{Mika, now, poll};

const MB: u64 = 1_000_000;

/// How long a node may take to find servers again, and to exchange with the other what both missed.
const HEALED: Duration = Duration::from_secs(40);

/// How long a partition lasts at least: longer than a connection is waited for.
const LASTS: Duration = Duration::from_secs(6);

/// A node and the host that it runs on, and clients that announce to it from there.
struct Place<'a> {
    node: &'a Mika,
    host: &'a Host,
}

// === impl Place ===

impl Place<'_> {
    fn announce(&self, client: &Client, event: &str) {
        within(&self.host.namespace, || {
            client.accepted(self.node.http(), event);
        });
    }

    /// Whether a leecher here gets all of these, and these are all seeders that the node counts.
    fn has_just(&self, seeders: &[&Client]) -> bool {
        let torrent = seeders[0].info_hash;
        let leecher = Client {
            left: 1,
            info_hash: torrent,
            port: 9,
            peer_id: *b"-MK0001-just-looking",
            ..Client::new(0, 1)
        };
        let reply = within(&self.host.namespace, || {
            leecher.accepted(self.node.http(), "")
        });
        seeders.iter().all(|seeder| seeder.is_in(&reply))
            && reply.int("complete") == i64::try_from(seeders.len()).ok()
    }
}

crate::on_each_database![a_node_that_was_cut_off_agrees_with_the_others_afterwards];

fn a_node_that_was_cut_off_agrees_with_the_others_afterwards(database: Database) {
    let mut network = Network::new();
    let [at_a, at_b, of_redis, of_database] = [(); 4].map(|()| network.host());
    let hosts = [&at_a, &of_redis, &of_database];
    let mut site = Site::prepare_on_hosts(database, 4, hosts, &json!({ "node": "a" }));
    let [appendonly, yes] = AOF.map(|word| word.trim_start_matches('-'));
    assert_eq!(site.redis.cli(&["CONFIG", "SET", appendonly, yes]), "OK");
    let mut b = site.another_on(&at_b, &json!({ "node": "b" }));
    site.mika.run();
    b.run();
    let places = [(&site.mika, &at_a), (&b, &at_b)];
    let [a, b] = places.map(|(node, host)| Place { node, host });
    let [redis, stored] = [&of_redis, &of_database].map(|host| host.address(Family::V4));
    let mut owed = 0;
    for (torrent, lost) in [
        (1, vec![redis]),
        (2, vec![stored]),
        (3, vec![redis, stored]),
    ] {
        owed += cut_off([&a, &b], torrent, &lost);
        let uploaded = || {
            let sql = format!(
                "SELECT uploaded FROM users WHERE passkey = '{}'",
                passkey(3)
            );
            site.database.row::<1>(&sql)[0].cast_unsigned()
        };
        poll(
            HEALED,
            "what the clients of both reported is credited",
            || uploaded() == owed,
        );
    }
}

/// Cuts `b` off from these servers, and lets clients come and go at both nodes; what user 3 is owed for that.
fn cut_off([a, b]: [&Place; 2], torrent: usize, lost: &[IpAddr]) -> u64 {
    let client = |user| Client::new(user, torrent);
    let [before, leaves, mut reports] = [client(0), client(1), client(3)];
    for (place, client) in [(a, &before), (b, &leaves), (b, &reports)] {
        place.announce(client, "started");
    }
    for place in [a, b] {
        poll(HEALED, "both nodes have all", || {
            place.has_just(&[&before, &leaves, &reports])
        });
    }
    for &address in lost {
        b.host.blackhole(address, true);
    }
    let start = now();
    let [at_a, at_b] = [client(1), client(2)];
    a.announce(&at_a, "started");
    b.announce(&at_b, "started");
    b.announce(&leaves, "stopped");
    reports.uploaded = 100 * MB;
    b.announce(&reports, "");
    poll(LASTS * 2, "the partition lasts", || start.elapsed() > LASTS);
    reports.uploaded += 23 * MB;
    b.announce(&reports, "completed");
    for &address in lost {
        b.host.blackhole(address, false);
    }
    for place in [a, b] {
        poll(HEALED, "both nodes agree", || {
            place.has_just(&[&before, &reports, &at_a, &at_b])
        });
    }
    // Continues at the other node.
    reports.uploaded += 7 * MB;
    a.announce(&reports, "stopped");
    reports.uploaded
}
