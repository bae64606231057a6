//! One endpoint of one user is one client (rule W1a), and no reply has an endpoint twice.

use std::net::SocketAddr;

use mika::base::ids::{TorrentId, UserId};
use mika::change::PeerRecord;

use crate::world::{Ask, TTL, World, hash, peer, rules};

const V4: &str = "9.9.9.1";
const V6: &str = "2a00::1";

/// A client of user 1 with that peer id, at one endpoint that all of them have.
fn crashing(n: u8) -> Ask {
    peer(n).of(1).from(V4)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Peer ids of user 1 that storage has as active in torrent 1, by their last digits.
fn active(world: &World) -> Vec<u8> {
    let is_there = |record: &PeerRecord| record.active;
    let peers = world.storage.peers.iter();
    let peers = peers.filter(|(key, record)| key.user == UserId(1) && is_there(record));
    let number = |id: &[u8; 20]| std::str::from_utf8(&id[17..]).unwrap().parse().unwrap();
    let mut ids: Vec<u8> = peers.map(|(key, _)| number(&key.peer_id.0)).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_client_that_crashes_and_restarts_is_one_peer() {
    let mut world = World::private();
    for n in 0..50 {
        let reply = world.ok(crashing(n).event("started"));
        assert_eq!((reply.complete, reply.incomplete), (0, 1), "start {n}");
        world.wait(60);
    }
    let reply = world.ok(peer(200).of(2));
    assert_eq!(reply.peers, [address("9.9.9.1:6881")]);
    world.flush();
    assert_eq!(world.storage.counts[&TorrentId(1)].leechers, 2);
    assert_eq!(active(&world), [49]);
    assert_eq!(world.metrics.replaced.get(), 49);
}

#[test]
fn a_client_in_a_crash_loop_is_not_refused() {
    let mut world = World::private();
    for n in 0..3000_u32 {
        let id = format!("peer_id=-MK0001-{n:012}");
        let reply = world.ok(crashing(1).with(&id).event("started"));
        assert_eq!(reply.incomplete, 1, "start {n}");
        if n % 100 == 0 {
            world.drain();
        }
    }
    assert_eq!(world.tracker.records_of(UserId(1)), 1000);
}

#[test]
fn the_record_of_a_replaced_client_stays() {
    let mut world = World::private();
    world.ok(crashing(1).totals(100, 0));
    world.wait(60);
    world.ok(crashing(1).totals(150, 0));
    world.ok(crashing(2).event("started"));
    assert_eq!(world.credited(1), (50, 0));
    assert!(!world.record(1, 1).active);
    // A late stop of it still counts, and removes no peer.
    let reply = world.ok(crashing(1).totals(170, 0).event("stopped"));
    assert_eq!(reply.incomplete, 1);
    assert_eq!(world.credited(1), (20, 0));
    // Restarted at its endpoint with its old peer id, it continues from its base.
    let reply = world.ok(crashing(1).totals(175, 0));
    assert_eq!(reply.incomplete, 1);
    assert_eq!(world.credited(1), (5, 0));
    assert_eq!(active(&world), [1]);
}

#[test]
fn a_client_that_moves_to_the_endpoint_of_another_replaces_it() {
    let mut world = World::private();
    world.ok(crashing(1));
    world.ok(crashing(2).with("port=7000"));
    assert_eq!(world.counts(crashing(2)), (0, 1, 0));
    world.ok(crashing(2).event("stopped"));
    assert_eq!(
        world.counts(peer(3).of(2)),
        (0, 1, 0),
        "no client came back"
    );
}

#[test]
fn a_replaced_record_leaves_with_both_families_in_any_order() {
    for order in [[V4, V6], [V6, V4]] {
        let mut world = World::private();
        for ip in [V4, V6] {
            world.ok(crashing(1).from(ip).event("started"));
        }
        for ip in order {
            assert_eq!(world.counts(crashing(2).from(ip).event("started")).1, 1);
        }
        for ip in ["9.9.9.9", "2a00::9"] {
            assert_eq!(world.ok(peer(9).of(2).from(ip)).peers.len(), 1, "{ip}");
        }
        // What comes late of the old one in one family ends with the new one's next announce.
        world.ok(crashing(1).from(order[1]));
        assert_eq!(world.counts(crashing(2).from(order[1])).1, 2);
        world.drain();
        assert_eq!(active(&world), [2]);
    }
}

#[test]
fn clients_without_a_port_or_of_other_users_are_not_replaced() {
    let mut world = World::private();
    for n in 1..=3 {
        world.ok(crashing(n).with("port=0"));
    }
    world.ok(crashing(4).with("port=7001"));
    world.ok(crashing(5).from("9.9.9.2"));
    world.ok(crashing(6).torrent(2));
    assert_eq!(world.counts(crashing(5).from("9.9.9.2")).1, 5);
    assert_eq!(
        world.refused(crashing(7).with("port=0")),
        "too many peers",
        "clients without a port are distinguished by their peer ids"
    );
}

#[test]
fn an_endpoint_that_two_users_share_is_counted_twice_and_handed_out_once() {
    let mut world = World::private();
    for user in 1..=3 {
        for ip in [V4, V6] {
            world.ok(peer(user).of(user.into()).from(ip));
        }
    }
    for ip in ["9.9.9.9", "2a00::9"] {
        let reply = world.ok(peer(9).of(4).from(ip));
        assert_eq!(reply.incomplete, 4);
        assert_eq!(reply.peers.len(), 1, "{ip}");
        let list = world.ok(peer(9).of(4).from(ip).with("compact=0"));
        let entries = list.body.windows(4).filter(|it| it == b"2:ip");
        assert_eq!(entries.count(), 1);
    }
}

#[test]
fn no_reply_of_a_large_swarm_has_an_endpoint_twice() {
    let mut world = World::private();
    // 90 endpoints, which several users have.
    for n in 0..90_u8 {
        for user in 1..=4 {
            let port = 7000 + u16::from(n) / 5;
            let ip = format!("9.9.8.{}", n % 5);
            let ask = peer(n % 5).of(user).from(&ip);
            let id = format!("peer_id=-MK0001-{user:06}{n:06}&port={port}");
            let _ = world.announce(ask.with(&id));
        }
    }
    for want in [5, 10, 50, 200] {
        let mut peers = world
            .ok(peer(9).of(5).with(&format!("numwant={want}")))
            .peers;
        let number = peers.len();
        peers.sort_unstable();
        peers.dedup();
        assert_eq!(peers.len(), number);
    }
}

#[test]
fn replacing_a_client_is_not_a_hit_and_run() {
    let mut world = World::private();
    world.ok(crashing(1));
    world.wait(60);
    world.ok(crashing(1).totals(0, 5000).left(0));
    world.ok(crashing(2).left(0).event("started"));
    world.drain();
    assert!(!world.standing(1).hnr, "the user is still there");
    world.ok(crashing(2).left(0).event("stopped"));
    world.drain();
    assert!(world.standing(1).hnr);
}

#[test]
fn a_replaced_client_is_journaled_once_there_is_room() {
    let mut world = World::private_by(rules(), 2);
    world.ok(crashing(1));
    world.drain();
    world.ok(peer(8).of(2));
    world.ok(peer(8).of(2));
    assert_eq!(world.counts(crashing(2).event("started")).1, 2);
    world.flush();
    assert_eq!(active(&world), [2]);
}

#[test]
fn restored_clients_at_one_endpoint_become_one() {
    let mut world = World::private();
    let records = |world: &mut World, n: u8, port: u16| {
        world.ok(crashing(n).with(&format!("port={port}")));
        world.wait(10);
    };
    (1..=3).for_each(|n| records(&mut world, n, 6880 + u16::from(n)));
    world.flush();
    for record in world.storage.peers.values_mut() {
        record.v4.as_mut().unwrap().set_port(6881);
    }
    world.restart();
    assert_eq!(world.scrape(hash(1)).unwrap().incomplete, 1);
    world.flush();
    assert_eq!(active(&world), [3], "the one that announced last");
    assert_eq!(world.storage.counts[&TorrentId(1)].leechers, 1);
    assert_eq!(world.counts(crashing(4)).1, 1);
}

#[test]
fn expired_clients_do_not_count_for_the_limit() {
    let mut world = World::private();
    world.ok(crashing(1));
    world.wait(TTL + 1);
    assert_eq!(world.counts(crashing(2)).1, 1);
    world.flush();
    assert_eq!(active(&world), [2]);
}
