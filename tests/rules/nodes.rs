//! Two nodes that share what they decided: one account, one swarm, one snatch.

use std::sync::Arc;

use mika::base::clock::Seconds;
use mika::base::ids::TorrentId;
use mika::change::{Batch, Change};
use mika::registry::Torrent;
use mika::tracker::Mode;

use crate::world::{TTL, World, hash, peer, rules, torrent};

/// A sweep that journals nothing.
const NONE: [u32; 0] = [];

/// What the one journaled, the other adopts.
fn share(from: &mut World, to: &World) {
    for change in from.drain() {
        match change {
            Change::Peer(change) => to.tracker.follow_peer(&change, false, to.now),
            Change::Snatches { info_hash, count } => to.tracker.follow_snatches(info_hash, count),
            Change::Guest(it) => {
                to.tracker
                    .follow_guest(it.info_hash, it.address, &it.record, to.now);
            }
        }
    }
}

/// What each journaled until now, the other adopts: neither knew of the other's before.
fn exchange(one: &mut World, two: &mut World) {
    let (first, second) = (one.drain_peers(), two.drain_peers());
    for (changes, to) in [(first, &*two), (second, &*one)] {
        for change in changes {
            to.tracker.follow_peer(&change, false, to.now);
        }
    }
}

/// A client of two addresses, known by both to two nodes.
fn of_two_families() -> (World, World) {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1).totals(0, 2000).left(0));
    share(&mut one, &two);
    two.ok(peer(1).of(1).totals(0, 2000).left(0).from("2a00::1"));
    share(&mut two, &one);
    (one, two)
}

/// Another process, which started at another moment of the same day.
fn second(mut world: World) -> World {
    world.now.mono = Seconds::START.plus(12_345);
    world
}

/// Two nodes that share a cache, and a peer that both know.
fn two_private() -> (World, World) {
    let shared = || {
        let mut world = World::private();
        world.tracker = world.tracker.shared();
        world
    };
    let (mut one, mut two) = (shared(), second(shared()));
    one.ok(peer(1).of(1));
    share(&mut one, &two);
    assert_eq!(after_a_sweep(&mut two), NONE);
    (one, two)
}

/// Leechers of the first torrent by the changes that a sweep journals.
fn after_a_sweep(world: &mut World) -> Vec<u32> {
    world.sweep();
    let changes = world.drain_peers();
    changes.iter().map(|it| it.counts.leechers).collect()
}

fn batch(changes: Vec<Change>) -> Vec<Arc<Batch>> {
    vec![Arc::new(Batch::new("two#1".into(), 1, changes))]
}

fn two_public() -> (World, World) {
    let shared = || {
        let mut world = World::new(Mode::Public, rules(), 100);
        world.tracker = world.tracker.shared();
        world
    };
    (shared(), second(shared()))
}

#[test]
fn a_client_that_changes_the_node_keeps_its_base() {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1).totals(1000, 0));
    one.wait(60);
    two.wait(60);
    one.ok(peer(1).of(1).totals(1500, 0));
    share(&mut one, &two);
    two.wait(60);
    two.ok(peer(1).of(1).totals(1800, 0));
    assert_eq!(two.credited(1), (300, 0));
}

#[test]
fn an_older_record_changes_nothing() {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1).totals(100, 0));
    let old = one.drain_peers().remove(0);
    one.wait(60);
    two.wait(60);
    one.ok(peer(1).of(1).totals(700, 0));
    share(&mut one, &two);
    two.tracker.follow_peer(&old, true, two.now);
    two.wait(60);
    two.ok(peer(1).of(1).totals(800, 0));
    assert_eq!(two.credited(1), (100, 0));
}

#[test]
fn seed_time_goes_on_from_the_latest_announce_at_either_node() {
    let seeds = || peer(1).of(1).left(0);
    let wait = |one: &mut World, two: &mut World, seconds| {
        one.wait(seconds);
        two.wait(seconds);
    };
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(seeds());
    share(&mut one, &two);
    wait(&mut one, &mut two, 100);
    one.ok(seeds());
    one.ok(seeds().event("stopped"));
    wait(&mut one, &mut two, 50);
    // The other node learns too late that it left, and of more announces than it knows.
    two.ok(seeds().event("started"));
    two.drain();
    share(&mut one, &two);
    wait(&mut one, &mut two, 20);
    two.ok(seeds());
    let report = two.drain_peers().pop().and_then(|change| change.report);
    let since = report.and_then(|report| report.seeding_since);
    assert_eq!(since, Some(two.now.unix - 20));
}

#[test]
fn peers_of_both_nodes_meet_and_leave_both() {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1).left(0));
    share(&mut one, &two);
    let reply = two.ok(peer(2).of(2));
    assert_eq!((reply.complete, reply.incomplete), (1, 1));
    assert_eq!(reply.peers, ["9.9.9.1:6881".parse().unwrap()]);
    one.wait(10);
    two.wait(10);
    one.ok(peer(1).of(1).left(0).event("stopped"));
    share(&mut one, &two);
    assert_eq!(two.counts(peer(2).of(2)), (0, 1, 0));
}

#[test]
fn a_peer_seen_by_one_node_does_not_expire_at_the_other() {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1));
    share(&mut one, &two);
    for _ in 0..3 {
        one.wait(TTL - 10);
        two.wait(TTL - 10);
        one.ok(peer(1).of(1));
        share(&mut one, &two);
        two.sweep();
    }
    assert_eq!(two.scrape(hash(1)).unwrap().incomplete, 1);
    two.wait(TTL + 1);
    two.sweep();
    assert_eq!(two.scrape(hash(1)).unwrap().incomplete, 0);
}

#[test]
fn a_download_is_completed_once_at_any_node() {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1));
    one.ok(peer(1).of(1).left(0).event("completed"));
    share(&mut one, &two);
    assert_eq!(
        two.counts(peer(1).of(1).left(0).event("completed")),
        (1, 0, 1)
    );
    let journaled = two.drain_peers();
    assert!(journaled.iter().all(|change| !change.credit.snatched));
    assert!(journaled[0].standing.completed_at.is_some());
}

#[test]
fn what_a_user_did_elsewhere_counts_for_hit_and_run() {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1));
    one.wait(10);
    two.wait(10);
    one.ok(peer(1).of(1).totals(0, 2000).left(0));
    share(&mut one, &two);
    two.wait(10);
    two.ok(peer(1).of(1).totals(0, 2000).left(0).event("stopped"));
    assert!(two.drain_peers()[0].standing.hnr, "2000 bytes, and gone");
}

#[test]
fn a_client_that_restarts_at_the_other_node_is_one_peer_at_both() {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(9).of(1).from("9.9.9.1"));
    share(&mut one, &two);
    // In the same second, and with a peer id that sorts before the other.
    two.ok(peer(1).of(1));
    share(&mut two, &one);
    for world in [&mut one, &mut two] {
        assert_eq!(world.counts(peer(2).of(2)).1, 2);
        let list = world.ok(peer(2).of(2).with("compact=0")).body;
        assert!(list.windows(20).any(|it| it == b"-MK0001-000000000001"));
    }
    assert!(two.record(1, 1).active && !two.record(1, 9).active);
}

#[test]
fn nodes_that_see_one_endpoint_at_once_agree_on_its_client() {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(9).of(1).from("9.9.9.1"));
    one.wait(1);
    two.wait(1);
    two.ok(peer(1).of(1));
    let (first, second) = (one.drain_peers(), two.drain_peers());
    for change in &second {
        one.tracker.follow_peer(change, false, one.now);
    }
    for change in &first {
        two.tracker.follow_peer(change, false, two.now);
    }
    for world in [&mut one, &mut two] {
        let list = world.ok(peer(2).of(2).with("compact=0"));
        assert_eq!(list.incomplete, 2);
        assert!(
            list.body
                .windows(20)
                .any(|it| it == b"-MK0001-000000000001")
        );
    }
    // The one that knew better journals it.
    two.flush();
    assert!(!two.record(1, 9).active);
}

#[test]
fn changes_under_a_former_hash_move_no_peer() {
    use mika::registry::RegistryChange;

    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1).totals(100, 0));
    let late = one.drain_peers();
    // Torrent 1 has the hash of torrent 4 there, and torrent 5 the one that it had.
    let renamed = |id: u8, as_hash: u8| {
        let mut torrent = torrent(id);
        torrent.info_hash = hash(as_hash);
        RegistryChange::Torrent(torrent)
    };
    two.apply(renamed(1, 4));
    two.apply(renamed(5, 1));
    for change in &late {
        two.tracker.follow_peer(change, false, two.now);
    }
    assert_eq!(two.scrape(hash(1)).unwrap().incomplete, 0);
    assert_eq!(two.scrape(hash(4)).unwrap().incomplete, 0);
    two.wait(10);
    two.ok(peer(1).of(1).torrent(4).totals(130, 0));
    assert_eq!(two.credited(1), (30, 0), "its account went over");
}

/// The edit of a torrent's id and the peers of other nodes come by different ways.
#[test]
fn peers_of_a_torrent_with_a_new_id_are_followed_whichever_comes_first() {
    let (mut one, mut two) = two_private();
    let renumber = |world: &World| {
        let id = TorrentId(66);
        world.registry.renumber(Torrent { id, ..torrent(1) });
        world.tracker.follow_early(world.now);
    };
    let leechers = |world: &World| world.scrape(hash(1)).unwrap().incomplete;
    renumber(&one);
    one.ok(peer(2).of(2));
    share(&mut one, &two);
    assert_eq!(leechers(&two), 1, "of a torrent that it can't know");
    two.ok(peer(3).of(3));
    renumber(&two);
    assert_eq!(leechers(&two), 3, "once it is known");
    share(&mut two, &one);
    assert_eq!(leechers(&one), 3, "also what has the former id");
}

#[test]
fn a_record_survives_the_round_trip_through_the_other_node() {
    let (mut one, two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1).totals(5, 6).left(7));
    let change = one.drain_peers().remove(0);
    two.tracker.follow_peer(&change, false, two.now);
    let shards = 0..mika::tracker::Tracker::SHARDS;
    let members: Vec<_> = shards
        .flat_map(|shard| two.tracker.members(shard, two.now))
        .collect();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].0, hash(1));
    assert_eq!(members[0].1[0].record, change.record);
}

#[test]
fn counters_that_two_nodes_wrote_at_once_are_written_again() {
    let (mut one, mut two) = two_private();
    one.ok(peer(2).of(2));
    two.ok(peer(3).of(3));
    // Each journaled two leechers, and one of these is what cache and storage have.
    exchange(&mut one, &mut two);
    assert_eq!(after_a_sweep(&mut one), [3]);
    assert_eq!(after_a_sweep(&mut two), [3]);
    assert_eq!(after_a_sweep(&mut one), NONE, "once is enough");
}

#[test]
fn counters_are_not_written_again_after_what_was_known_to_their_node() {
    let (mut one, mut two) = two_private();
    two.wait(20);
    one.wait(20);
    one.ok(peer(2).of(2));
    share(&mut one, &two);
    assert_eq!(after_a_sweep(&mut two), NONE);
}

#[test]
fn counters_that_reach_storage_late_are_written_again_if_they_are_wrong_by_now() {
    let (mut one, mut two) = two_private();
    two.ok(peer(3).of(3));
    let right = batch(two.drain());
    // Storage is away for a minute.
    two.wait(60);
    one.wait(60);
    two.sweep();
    two.tracker.on_counts_written(&right, two.now);
    assert_eq!(after_a_sweep(&mut two), NONE, "they are right");
    two.wait(60);
    one.wait(60);
    one.ok(peer(2).of(2));
    share(&mut one, &two);
    assert_eq!(after_a_sweep(&mut two), NONE);
    two.tracker.on_counts_written(&right, two.now);
    assert_eq!(after_a_sweep(&mut two), [3]);
}

#[test]
fn counters_of_a_node_that_is_gone_are_written_again() {
    let (_, mut two) = two_private();
    two.wait(60);
    two.sweep();
    two.tracker.recount_later(&[hash(1)].into());
    assert_eq!(after_a_sweep(&mut two), [1]);
}

#[test]
fn counters_that_a_node_gave_the_cache_are_written_again() {
    let (mut one, mut two) = two_private();
    two.wait(60);
    one.wait(60);
    two.sweep();
    one.ok(peer(2).of(2));
    let shards = 0..mika::tracker::Tracker::SHARDS;
    let given: Vec<_> = shards
        .flat_map(|shard| two.tracker.counts_to_write(shard, two.now))
        .collect();
    assert_eq!(given, [(hash(1), two.tracker.counts(&hash(1)))]);
    share(&mut one, &two);
    assert_eq!(after_a_sweep(&mut two), [2]);
}

#[test]
fn a_client_that_leaves_two_nodes_at_once_has_left() {
    let (mut one, mut two) = of_two_families();
    one.wait(10);
    two.wait(10);
    let stopped = || peer(1).of(1).totals(0, 4000).left(0).event("stopped");
    one.ok(stopped());
    two.ok(stopped().from("2a00::1"));
    exchange(&mut one, &mut two);
    for world in [&mut one, &mut two] {
        assert_eq!(world.scrape(hash(1)).unwrap().complete, 0);
        world.sweep();
        let journaled = world.drain_peers();
        assert!(
            !journaled[0].record.active && journaled[0].standing.hnr,
            "{journaled:?}"
        );
        assert!(journaled[0].report.unwrap().left);
    }
    exchange(&mut one, &mut two);
    one.sweep();
    assert!(one.drain_peers().is_empty(), "it is journaled once");
}

#[test]
fn a_client_at_two_nodes_has_both_families() {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1));
    two.wait(1);
    two.ok(peer(1).of(1).from("2a00::1"));
    one.wait(1);
    exchange(&mut one, &mut two);
    for world in [&mut one, &mut two] {
        for (source, expected) in [("9.9.9.2", "9.9.9.1:6881"), ("2a00::2", "[2a00::1]:6881")] {
            let reply = world.ok(peer(2).of(2).from(source));
            assert_eq!(reply.peers, [expected.parse().unwrap()]);
        }
    }
}

#[test]
fn a_silent_address_expires_while_another_node_sees_the_other_family() {
    let (mut one, mut two) = of_two_families();
    for _ in 0..2 {
        one.wait(TTL / 2 + 10);
        two.wait(TTL / 2 + 10);
        two.ok(peer(1).of(1).left(0).from("2a00::1"));
        share(&mut two, &one);
    }
    assert!(one.ok(peer(2).of(2)).peers.is_empty());
    let reply = one.ok(peer(2).of(2).from("2a00::2"));
    assert_eq!(reply.peers, ["[2a00::1]:6881".parse().unwrap()]);
}

#[test]
fn a_client_that_returns_at_a_node_with_a_slower_clock_is_present() {
    let (mut one, mut two) = (World::private(), second(World::private()));
    one.ok(peer(1).of(1));
    one.wait(3);
    one.ok(peer(1).of(1).event("stopped"));
    share(&mut one, &two);
    two.ok(peer(1).of(1).event("started"));
    share(&mut two, &one);
    assert_eq!(one.scrape(hash(1)).unwrap().incomplete, 1);
    assert_eq!(two.scrape(hash(1)).unwrap().incomplete, 1);
}

#[test]
fn public_peers_and_their_snatches_are_shared() {
    let (mut one, mut two) = two_public();
    one.ok(peer(1));
    one.ok(peer(1).left(0).event("completed"));
    one.ok(peer(3).from("2001:4860::3"));
    share(&mut one, &two);
    assert_eq!(two.counts(peer(2)), (1, 2, 1));
    // It was counted there, so it is not counted here.
    assert_eq!(two.counts(peer(1).left(0).event("completed")), (1, 2, 1));
    one.ok(peer(1).left(0).event("stopped"));
    share(&mut one, &two);
    assert_eq!(two.counts(peer(2)), (0, 2, 1));
}

#[test]
fn an_expired_guest_is_not_adopted() {
    let (mut one, mut two) = two_public();
    one.ok(peer(1));
    two.wait(TTL + 1);
    share(&mut one, &two);
    assert_eq!(two.counts(peer(2)), (0, 1, 0));
}

#[test]
fn wiped_snatches_begin_at_zero() {
    let mut world = World::private();
    world.ok(peer(1).of(1));
    world.ok(peer(1).of(1).left(0).event("completed"));
    world.tracker.wipe_snatches();
    assert_eq!(world.counts(peer(2).of(2)), (1, 1, 0));
}

#[test]
fn a_stop_of_a_client_that_only_another_node_knows_is_passed_on() {
    let mut world = World::private();
    let stopped = || peer(1).of(1).totals(700, 0).left(0).event("stopped");
    assert_eq!(world.counts(stopped()), (0, 0, 0));
    assert!(world.drain_peers().is_empty(), "no other node can know it");
    world.tracker = world.tracker.shared();
    assert_eq!(world.counts(stopped()), (0, 0, 0));
    let journaled = world.drain_peers();
    let report = journaled[0].report.unwrap();
    assert_eq!(report.up.unwrap().to.total, 700);
    assert!(!journaled[0].record.active);
}
