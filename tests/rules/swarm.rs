//! Membership and counters of a swarm: rules W1 to W7, W10, W11, W13, S3 to S5.

use mika::change::Change;
use mika::registry::RegistryChange;

use crate::world::{Ask, TOMBSTONE, TTL, World, hash, peer, user};

type Counts = (u32, u32, u32);

/// Brings peer 1 into a state: absent, leecher or seeder.
fn prepare(world: &mut World, state: &str, ask: &Ask) {
    match state {
        "leecher" => drop(world.ok(ask.clone())),
        "seeder" => drop(world.ok(ask.clone().left(0))),
        _ => {}
    }
}

/// Rule W13, row by row: the state before, what is announced, and the counters after it.
#[test]
fn every_transition_changes_the_counters_by_the_table() {
    let table: &[(&str, &str, Counts)] = &[
        ("absent", "left=5", (0, 1, 0)),
        ("absent", "left=5&event=started", (0, 1, 0)),
        ("absent", "left=5&event=completed", (0, 1, 0)),
        ("absent", "left=5&event=paused", (0, 1, 0)),
        ("absent", "left=0", (1, 0, 0)),
        ("absent", "left=0&event=started", (1, 0, 0)),
        ("absent", "left=0&event=paused", (1, 0, 0)),
        ("absent", "left=0&event=completed", (1, 0, 1)),
        ("absent", "left=5&event=stopped", (0, 0, 0)),
        ("absent", "left=0&event=stopped", (0, 0, 0)),
        ("leecher", "left=5", (0, 1, 0)),
        ("leecher", "left=5&event=started", (0, 1, 0)),
        ("leecher", "left=5&event=completed", (0, 1, 0)),
        ("leecher", "left=5&event=paused", (0, 1, 0)),
        ("leecher", "left=0", (1, 0, 0)),
        ("leecher", "left=0&event=started", (1, 0, 0)),
        ("leecher", "left=0&event=completed", (1, 0, 1)),
        ("leecher", "left=5&event=stopped", (0, 0, 0)),
        ("leecher", "left=0&event=stopped&numwant=50", (0, 0, 0)),
        ("leecher", "expiry", (0, 0, 0)),
        ("seeder", "left=5", (0, 1, 0)),
        ("seeder", "left=5&event=completed", (0, 1, 0)),
        ("seeder", "left=5&event=paused", (0, 1, 0)),
        ("seeder", "left=0", (1, 0, 0)),
        ("seeder", "left=0&event=completed", (1, 0, 0)),
        ("seeder", "left=0&event=paused", (1, 0, 0)),
        ("seeder", "left=5&event=stopped", (0, 0, 0)),
        ("seeder", "left=0&event=stopped", (0, 0, 0)),
        ("seeder", "expiry", (0, 0, 0)),
    ];
    for (before, announce, expected) in table {
        for mut world in [World::public(), World::private()] {
            let ask = peer(1).of(1);
            prepare(&mut world, before, &ask);
            if *announce == "expiry" {
                world.wait(TTL + 1);
                world.sweep();
            } else {
                let counts = world.counts(ask.with(announce));
                assert_eq!(counts, *expected, "{before}, {announce}: reply");
            }
            let entry = world.scrape(hash(1)).unwrap();
            let counts = (entry.complete, entry.incomplete, entry.downloaded);
            assert_eq!(counts, *expected, "{before}, {announce}: scrape");
        }
    }
}

#[test]
fn seeders_and_leechers_change_sides() {
    let mut world = World::public();
    assert_eq!(world.counts(peer(1).left(0).event("started")), (1, 0, 0));
    assert_eq!(world.counts(peer(1).left(10)), (0, 1, 0));
    assert_eq!(world.counts(peer(1).left(0)), (1, 0, 0));
}

#[test]
fn a_snatch_counts_only_once_for_a_user() {
    let mut world = World::private();
    let done = |n: u8, user: u32| peer(n).of(user).left(0).event("completed");
    world.ok(peer(1).of(1));
    assert_eq!(world.counts(done(1, 1)), (1, 0, 1));
    assert_eq!(world.counts(done(1, 1)), (1, 0, 1), "repeated");
    world.ok(peer(1).of(1));
    assert_eq!(world.counts(done(1, 1)), (1, 0, 1), "after a recheck");
    assert_eq!(world.counts(done(2, 1)), (2, 0, 1), "another client");
    world.wait(5);
    assert_eq!(world.counts(done(3, 2)), (3, 0, 2), "another user");
    for (n, user) in [(1, 1), (2, 1), (3, 2)] {
        world.ok(peer(n).of(user).event("stopped"));
    }
    world.flush();
    assert_eq!(world.scrape(hash(1)).unwrap().downloaded, 2, "empty swarm");
    assert_eq!((world.totals(1).snatches, world.totals(2).snatches), (1, 1));
    let completed_at = world.standing(1).completed_at;
    assert_eq!(completed_at, Some(1_800_000_000));
    world.wait(1000);
    world.restart();
    assert_eq!(world.counts(done(1, 1)), (1, 0, 2), "after a restart");
    world.drain();
    assert_eq!(world.totals(1).snatches, 1);
    assert_eq!(world.standing(1).completed_at, completed_at);
    assert_eq!(world.counts(done(1, 4)), (2, 0, 3));
}

#[test]
fn a_seeder_snatches_nothing() {
    for mut world in [World::public(), World::private()] {
        world.ok(peer(1).of(1));
        world.ok(peer(1).of(1).left(0));
        assert_eq!(
            world.counts(peer(1).of(1).left(0).event("completed")),
            (1, 0, 0)
        );
    }
}

#[test]
fn a_public_snatch_counts_once_while_the_peer_stays() {
    let mut world = World::public();
    let done = || peer(1).left(0).event("completed");
    world.ok(peer(1));
    assert_eq!(world.counts(done()), (1, 0, 1));
    world.ok(peer(1));
    assert_eq!(world.counts(done()), (1, 0, 1));
    assert_eq!(world.counts(done().with("port=7000")), (1, 0, 1));
    world.ok(peer(1).with("port=7000&event=stopped"));
    assert_eq!(world.counts(done()), (1, 0, 2), "came again");
    let snatches = Change::Snatches {
        info_hash: hash(1),
        count: 2,
    };
    assert_eq!(world.drain(), [snatches]);
    world.wait(TTL + 1);
    assert_eq!(world.counts(done()), (1, 0, 3), "expired, though not swept");
    world.drain();
    world.ok(peer(1).event("stopped"));
    world.sweep();
    assert_eq!(world.scrape(hash(1)).unwrap().downloaded, 3);
    world.restart();
    assert_eq!(world.counts(peer(2)), (0, 1, 3));
}

/// A client that checks its files finds what it lacks, fetches it, and sends `completed` again.
#[test]
fn a_recheck_of_a_public_seeder_is_not_a_snatch() {
    let mut world = World::public();
    let done = || peer(1).left(0).event("completed");
    // It came as a seeder, so it never downloaded the torrent here.
    world.ok(peer(1).left(0).event("started"));
    for _ in 0..3 {
        assert_eq!(world.counts(peer(1)), (0, 1, 0), "it lacks something");
        assert_eq!(world.counts(peer(1).event("paused")), (0, 1, 0));
        assert_eq!(world.counts(done()), (1, 0, 0));
        assert_eq!(world.counts(done().with("port=7000")), (1, 0, 0));
        world.ok(peer(1).left(0));
    }
    // Others are not affected, nor is the client itself when it comes again after it expired.
    world.ok(peer(2));
    assert_eq!(world.counts(peer(2).left(0).event("completed")), (2, 0, 1));
    world.wait(TTL + 1);
    world.sweep();
    assert_eq!(world.counts(done()), (1, 0, 2), "a new stay");
}

#[test]
fn a_download_reported_by_both_families_is_one_public_snatch() {
    let v6 = |n: u8| peer(n).from("2a00::1");
    for v6_is_first in [false, true] {
        let mut world = World::public();
        world.ok(peer(1));
        assert_eq!(world.counts(v6(1)), (0, 2, 0), "a peer of each family");
        let mut announces = [peer(1), v6(1).with("key=other")];
        if v6_is_first {
            announces.reverse();
        }
        let [first, second] = announces.map(|ask| ask.left(0).event("completed"));
        assert_eq!(world.counts(first.clone()), (1, 1, 1));
        world.wait(30);
        assert_eq!(world.counts(second.clone()), (2, 0, 1));
        for again in [first, second] {
            assert_eq!(world.counts(again), (2, 0, 1));
        }
        // Another client, and another torrent of the same one.
        assert_eq!(
            world.counts(v6(2).with("port=7").left(0).event("completed")),
            (3, 0, 2)
        );
        let other = |ask: Ask| ask.torrent(2).left(0).event("completed");
        assert_eq!(world.counts(other(v6(1))), (1, 0, 1));
        assert_eq!(world.counts(other(peer(1))), (2, 0, 1));
        let counts = world.drain().into_iter().map(|change| match change {
            Change::Snatches { count, .. } => count,
            other => panic!("{other:?}"),
        });
        assert_eq!(counts.sum::<u32>(), 3, "each is kept once");
    }
}

#[test]
fn two_families_are_one_private_peer() {
    let mut world = World::private();
    let v4 = || peer(1).of(1);
    let v6 = || peer(1).of(1).from("2a00::1");
    world.ok(v4().event("started"));
    assert_eq!(world.counts(v6().event("started")), (0, 1, 0));
    // Both families offer the peer, each its own address; a new port replaces the old one.
    world.ok(v4().with("port=7000"));
    let peers = world.ok(peer(2).of(2)).peers;
    assert_eq!(peers, ["9.9.9.1:7000".parse().unwrap()]);
    let peers = world.ok(peer(2).of(2).from("2a00::2")).peers;
    assert_eq!(peers, ["[2a00::1]:6881".parse().unwrap()]);
    world.ok(peer(2).of(2).event("stopped"));
    world.ok(peer(2).of(2).from("2a00::2").event("stopped"));

    assert_eq!(world.counts(v4().left(0)), (1, 0, 0));
    assert_eq!(world.counts(v6().left(0).event("completed")), (1, 0, 0));
    assert_eq!(world.counts(v4().left(0).event("stopped")), (1, 0, 0));
    assert_eq!(world.counts(v4().left(0).event("stopped")), (1, 0, 0));
    let active: Vec<bool> = world
        .drain_peers()
        .iter()
        .filter(|change| change.key.user.0 == 1)
        .map(|change| change.record.active)
        .collect();
    assert!(active.into_iter().all(|active| active));
    assert_eq!(world.record(1, 1).v4, None);
    assert!(world.record(1, 1).v6.is_some());
    assert_eq!(world.counts(v6().left(0).event("stopped")), (0, 0, 0));
    world.drain();
    assert!(!world.record(1, 1).active);
}

#[test]
fn reports_of_one_family_hold_for_the_other() {
    let mut world = World::private();
    let v6 = |n: u8| {
        let ip = format!("2a00::{n}");
        peer(n).of(n.into()).from(&ip)
    };
    world.ok(peer(1).of(1));
    world.ok(v6(1));
    world.ok(peer(1).of(1).left(0));
    assert_eq!(world.ok(v6(2).left(0)).peers, [], "it seeds in both");
    world.ok(v6(1));
    assert_eq!(world.ok(peer(2).of(2).left(0)).peers.len(), 1);
    // But a stop takes only its own family away, and a restart does not change that.
    let stop = peer(1).of(1).left(0).event("stopped");
    assert_eq!(world.counts(stop), (1, 1, 0));
    world.drain();
    assert_eq!(world.record(1, 1).left, Some(16384));
    world.restart();
    assert_eq!(world.scrape(hash(1)).unwrap().incomplete, 1);
}

#[test]
fn one_family_may_expire_alone() {
    let mut world = World::private();
    world.ok(peer(1).of(1));
    world.wait(TTL);
    world.ok(peer(1).of(1).from("2a00::1"));
    world.wait(1);
    assert_eq!(world.ok(peer(2).of(2)).peers, []);
    world.flush();
    assert_eq!(
        (world.record(1, 1).v4, world.record(1, 1).active),
        (None, true)
    );
    // Its last family stops before a sweep saw the other one expire.
    let mut world = World::private();
    world.ok(peer(1).of(1));
    world.wait(TTL);
    world.ok(peer(1).of(1).from("2a00::1"));
    world.wait(1);
    let stop = peer(1).of(1).from("2a00::1").event("stopped");
    assert_eq!(world.counts(stop), (0, 0, 0));
}

#[test]
fn two_families_are_two_public_peers() {
    let mut world = World::public();
    world.ok(peer(1));
    assert_eq!(world.counts(peer(1).from("2a00::1")), (0, 2, 0));
    assert_eq!(world.counts(peer(1).event("stopped")), (0, 1, 0));
}

#[test]
fn a_public_peer_is_its_endpoint() {
    let mut world = World::public();
    world.ok(peer(1).with("key=1234ABCD"));
    // A stranger that knows the peer id can neither stop nor redirect it.
    let stranger = || peer(1).from("9.9.9.66");
    assert_eq!(world.counts(stranger().event("stopped")), (0, 1, 0));
    assert_eq!(world.counts(stranger()), (0, 2, 0));
    world.ok(stranger().event("stopped"));
    // The client itself may change its port; another key is another client.
    assert_eq!(
        world.counts(peer(1).with("key=1234ABCD&port=7000")),
        (0, 1, 0)
    );
    assert_eq!(world.counts(peer(1).with("key=99&port=7001")), (0, 2, 0));
    assert_eq!(world.counts(peer(1).with("port=7002")), (0, 2, 0));
    // A client that takes over the port of another one leaves no ghost at its old port.
    let mut world = World::public();
    world.ok(peer(1));
    world.ok(peer(2).from("9.9.9.1").with("port=7000"));
    assert_eq!(world.counts(peer(1).with("port=7000")), (0, 1, 0));
}

#[test]
fn a_private_peer_is_its_user_and_id() {
    let mut world = World::private();
    world.ok(peer(1).of(1));
    assert_eq!(world.counts(peer(1).of(2)), (0, 2, 0));
    assert_eq!(world.counts(peer(1).of(1).with("key=7&port=1")), (0, 2, 0));
    assert_eq!(world.counts(peer(1).of(2).event("stopped")), (0, 1, 0));
}

#[test]
fn partial_seeds_are_leechers_that_download_nothing() {
    for mut world in [World::public(), World::private()] {
        let paused = |world: &World| world.scrape(hash(1)).unwrap().paused;
        world.ok(peer(1).of(1).event("paused"));
        assert_eq!(world.counts(peer(2).of(2)), (0, 2, 0));
        assert_eq!(paused(&world), 1);
        world.ok(peer(1).of(1));
        assert_eq!(paused(&world), 0, "the latest announce counts");
        world.ok(peer(1).of(1).event("PAUSED"));
        assert_eq!(paused(&world), 1);
        assert_eq!(world.counts(peer(1).of(1).event("stopped")), (0, 1, 0));
        assert_eq!(paused(&world), 0);
    }
}

#[test]
fn a_peer_lives_for_its_ttl_and_leaves_once() {
    for mut world in [World::public(), World::private()] {
        world.ok(peer(1).of(1).left(0));
        world.wait(TTL);
        world.sweep();
        assert_eq!(world.ok(peer(2).of(2)).peers.len(), 1);
        world.wait(1);
        let reply = world.ok(peer(2).of(2));
        assert_eq!(reply.peers, [], "before a sweep");
        world.sweep();
        world.sweep();
        assert_eq!(world.counts(peer(2).of(2)), (0, 1, 0));
        assert_eq!(world.metrics.expired.get(), 1);
    }
}

#[test]
fn expiry_is_journaled_once() {
    let mut world = World::private();
    world.ok(peer(1).of(1));
    world.drain();
    world.wait(TTL + 1);
    world.sweep();
    let changes = world.drain_peers();
    assert_eq!(changes.len(), 1);
    assert!(!changes[0].record.active);
    assert_eq!(
        (changes[0].record.v4, changes[0].credit.announces),
        (None, 0)
    );
    assert_eq!(changes[0].counts.leechers, 0);
    world.sweep();
    assert!(world.drain().is_empty());
    // A peer that comes back before a sweep counts once, and is journaled with the announce alone.
    world.ok(peer(1).of(1));
    world.drain();
    world.wait(TTL + 1);
    assert_eq!(world.counts(peer(1).of(1)), (0, 1, 0));
    assert_eq!(world.metrics.expired.get(), 2);
    world.sweep();
    let changes = world.drain_peers();
    assert_eq!(changes.len(), 1);
    assert!(changes[0].record.active);
}

#[test]
fn a_swarm_of_many_thousands_expires_as_a_whole() {
    let mut world = World::private();
    let announce = |world: &mut World, id: u32| {
        let ip = format!("9.9.{}.{}", id / 256, id % 256);
        world.ok(peer(1).of(id).from(&ip).with("numwant=1"))
    };
    for id in 10..6010 {
        world.apply(RegistryChange::User(user(id)));
        if id == 3010 {
            world.wait(1000);
        }
        announce(&mut world, id);
    }
    world.drain();
    world.wait(TTL - 999);
    world.sweep();
    assert_eq!(world.metrics.expired.get(), 3000);
    assert_eq!(world.drain_peers().len(), 3000);
    assert_eq!(announce(&mut world, 3010).incomplete, 3000);
    assert_eq!(announce(&mut world, 3009).incomplete, 3001);
    world.wait(TTL + TOMBSTONE);
    // The sweep that expires a peer queues what it owes; only a later one forgets the tombstone.
    world.flush();
    world.sweep();
    assert_eq!(world.tracker.totals(), (0, 0, 0));
}

#[test]
fn empty_public_swarms_free_their_memory() {
    let mut world = World::public();
    world.ok(peer(1));
    world.ok(peer(1).torrent(2).left(0).event("completed"));
    world.wait(TTL + 1);
    world.sweep();
    assert_eq!(world.tracker.totals(), (1, 0, 0), "the snatched one stays");
}

#[test]
fn scrapes_change_nothing_in_a_swarm() {
    for mut world in [World::public(), World::private()] {
        world.ok(peer(1).of(1));
        world.wait(TTL);
        let before = world.scrape(hash(1));
        assert_eq!(world.scrape(hash(1)), before);
        world.wait(1);
        world.scrape(hash(1));
        world.sweep();
        assert_eq!(world.scrape(hash(1)).unwrap().incomplete, 0);
    }
}
