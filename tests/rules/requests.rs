//! Admission and invalid requests: rules Q4, R6, R8, W12 and the parameters.

use mika::base::clock::Seconds;
use mika::base::ids::{InfoHash, TorrentId};
use mika::registry::RegistryChange;
use mika::tracker::{IdleTorrents, Mode, Rules, Tracker};

use crate::world::{TTL, World, escaped, hash, peer, rules, torrent, user};

#[test]
fn what_is_left_decides_between_seeder_and_leecher() {
    let huge = [
        "left=",
        "left=-1",
        "left=abc",
        "left=1",
        "left=4294967296",
        "left=9223372036854775807",
        "left=18446744073709551615",
        "left=99999999999999999999",
    ];
    for left in huge {
        let mut world = World::public();
        assert_eq!(world.counts(peer(1).with(left)), (0, 1, 0), "{left}");
    }
    let mut world = World::public();
    assert_eq!(world.counts(peer(1).without("left")), (0, 1, 0));
    assert_eq!(world.counts(peer(1).with("left=0")), (1, 0, 0));
}

#[test]
fn a_stop_needs_no_port() {
    for ask in [peer(1).without("port"), peer(1).with("port=junk")] {
        let mut world = World::private();
        world.ok(peer(1).of(1));
        world.ok(peer(2).of(2));
        let reply = world.ok(ask.clone().of(1).event("stopped"));
        assert_eq!((reply.incomplete, reply.peers.len()), (1, 0));
        assert!(world.announce(ask.of(1)).is_err(), "but all others do");
    }
}

#[test]
fn refusals_come_in_their_order_and_change_nothing() {
    let mut rules = rules();
    rules.whitelist = true;
    let mut world = World::private_by(rules, 100);
    world.allow("-MK0001-");
    let (mut off, mut closed, mut gone) = (user(1), user(2), torrent(2));
    off.enabled = false;
    closed.can_leech = false;
    gone.enabled = false;
    gone.reason = Some("trumped".into());
    world.apply(RegistryChange::User(off));
    world.apply(RegistryChange::User(closed));
    world.apply(RegistryChange::Torrent(gone));

    let bad = |ask: crate::world::Ask| ask.without("port").torrent(9);
    assert_eq!(world.refused(bad(peer(1))), "invalid passkey");
    assert_eq!(
        world.refused(bad(peer(1).passkey("badpasskey0"))),
        "invalid passkey"
    );
    assert_eq!(world.refused(bad(peer(1).of(1))), "account disabled");
    assert_eq!(world.refused(bad(peer(1).of(3))), "missing port");
    let alien = peer(1).of(3).with("peer_id=-XX0001-000000000001");
    assert_eq!(
        world.refused(alien.clone().torrent(9)),
        "client not allowed"
    );
    assert_eq!(
        world.refused(peer(1).of(2).torrent(9)),
        "unregistered torrent"
    );
    assert_eq!(world.refused(peer(1).of(2).torrent(2)), "trumped");
    assert_eq!(world.refused(peer(1).of(2)), "download not allowed");

    assert_eq!(world.tracker.totals(), (0, 0, 0));
    assert!(world.drain().is_empty());
    // Users who may not download may seed, and stop.
    assert_eq!(world.counts(peer(1).of(2).left(0)), (1, 0, 0));
    assert_eq!(world.counts(peer(1).of(2).event("stopped")), (0, 0, 0));
}

#[test]
fn an_unknown_torrent_is_created_in_public_only() {
    let mut world = World::public();
    assert_eq!(world.scrape(hash(7)).unwrap().incomplete, 0);
    world.ok(peer(1).torrent(7));
    assert_eq!(world.scrape(hash(7)).unwrap().incomplete, 1);

    let mut closed = rules();
    closed.auto_register = false;
    let mut world = World::new(Mode::Public, closed, 100);
    world.apply(RegistryChange::Torrent(torrent(1)));
    assert_eq!(world.refused(peer(1).torrent(7)), "unregistered torrent");
    world.ok(peer(1));

    let mut world = World::private();
    assert_eq!(
        world.refused(peer(1).of(1).torrent(7)),
        "unregistered torrent"
    );
    assert_eq!(world.scrape(hash(7)), None);
    assert_eq!(world.scrape(hash(1)).unwrap().incomplete, 0);
    assert_eq!(world.tracker.totals(), (0, 0, 0));
}

#[test]
fn public_torrents_are_bounded() {
    let mut few = rules();
    few.max_torrents = 1;
    let mut world = World::new(Mode::Public, few, 100);
    world.ok(peer(1));
    assert_eq!(world.refused(peer(1).torrent(2)), "temporarily unavailable");
    assert_eq!(world.metrics.torrents_full.get(), 1);
}

/// How many snatches of new `torrents`, announced from `ip`, are counted.
fn registered(world: &mut World, torrents: std::ops::Range<u16>, ip: &str) -> usize {
    let registered = torrents.filter(|number| {
        let mut hash = [7; 20];
        hash[..2].copy_from_slice(&number.to_be_bytes());
        let ask = || peer(1).raw_hash(&escaped(&InfoHash(hash))).from(ip);
        let counted = world.counts(ask().left(0).event("completed")).2;
        world.ok(ask().event("stopped"));
        let stays = world.scrape(InfoHash(hash)).unwrap().downloaded;
        assert_eq!(counted, stays);
        counted == 1
    });
    registered.count()
}

/// Each seconds apart, so that it is not the rate that bounds them.
#[test]
fn one_network_registers_only_its_share_of_what_is_free() {
    let mut few = rules();
    few.max_torrents = 1000;
    let mut world = World::new(Mode::Public, few, 100_000);
    let mut register = |first: u16, ip: &str| {
        let slow = (0..200).map(|n| {
            if n % 10 == 0 {
                world.wait(1);
                world.sweep();
            }
            registered(&mut world, first + n..first + n + 1, ip)
        });
        slow.sum::<usize>()
    };
    assert_eq!(register(0, "203.0.113.1"), 1000 / 16);
    assert_eq!(register(200, "203.0.113.200"), 0);
    assert_eq!(register(400, "198.51.100.1"), 1000 / 16);
    // One owner of IPv6 may have a whole /32.
    let all: usize = (0..8)
        .map(|n| register(600 + 200 * n, &format!("2a00:1:{n}::1")))
        .sum();
    assert_eq!(all, 1000 / 4);
    assert_eq!(register(3000, "2a00:2::1"), 1000 / 16);
    assert!(world.metrics.registrations_share.get() > 0);
}

#[test]
fn registrations_of_a_second_are_bounded() {
    let mut world = World::new(
        Mode::Public,
        Rules {
            max_torrents: 100_000,
            ..rules()
        },
        100_000,
    );
    assert_eq!(registered(&mut world, 0..200, "203.0.113.1"), 50);
    assert_eq!(world.metrics.registrations_rate.get(), 150);
    world.wait(1);
    assert_eq!(registered(&mut world, 200..210, "203.0.113.1"), 10);
}

#[test]
fn a_full_registry_counts_snatches_of_registered_torrents_only() {
    let mut few = rules();
    few.max_torrents = 3;
    let mut world = World::new(Mode::Public, few, 100);
    for n in 1..=3 {
        world.apply(RegistryChange::Torrent(torrent(n)));
    }
    let done = |n: u8| peer(n).torrent(n).left(0).event("completed");
    assert_eq!(world.counts(done(3)), (1, 0, 1));
    assert_eq!(world.counts(done(4)), (1, 0, 0), "served, and not counted");
    assert_eq!(world.metrics.registrations_full.get(), 1);
    // The count of a registered torrent outlives its swarm, also where room is scarce.
    world.ok(peer(3).torrent(3).event("stopped"));
    for n in 5..=6 {
        world.ok(peer(n).torrent(n));
    }
    world.sweep();
    assert_eq!(world.scrape(hash(3)).unwrap().downloaded, 1);
    // It is removed with its row.
    world.apply(RegistryChange::TorrentGone(TorrentId(3)));
    world.tracker.forget_snatches(&hash(3));
    assert_eq!(world.counts(done(3)), (1, 0, 1));
}

#[test]
fn unused_torrents_are_removed_by_snatches_and_age() {
    let mut world = World::public();
    let done = |torrent: u8, n: u8| peer(n).torrent(torrent).left(0).event("completed");
    let leave = |torrent: u8, n: u8| peer(n).torrent(torrent).event("stopped");
    for (torrent, snatches) in [(1, 2), (2, 1), (3, 1), (4, 9), (5, 7), (6, 1)] {
        world.wait(10);
        for n in 0..snatches {
            world.ok(done(torrent, n));
            world.ok(leave(torrent, n));
        }
        world.sweep();
    }
    world.ok(peer(1).torrent(6));
    world.wait(1000);
    let idle = |world: &World, most, age| {
        let mut found = IdleTorrents::new(most);
        let before = Seconds(world.now.mono.0 - age);
        (0..Tracker::SHARDS).for_each(|shard| world.tracker.find_idle(shard, before, &mut found));
        let found = found.into_vec().into_iter();
        found
            .map(|it| (it.info_hash.0[0], it.snatches))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        idle(&world, 9, 500),
        [(2, 1), (3, 1), (1, 2), (4, 9), (5, 7)]
    );
    assert_eq!(idle(&world, 3, 500), [(2, 1), (3, 1), (1, 2)]);
    assert_eq!(idle(&world, 9, 1035), [(2, 1), (1, 2)], "empty for so long");
    // A peer makes it a used one.
    world.ok(peer(1).torrent(2));
    world.ok(leave(2, 1));
    world.sweep();
    world.wait(600);
    assert_eq!(idle(&world, 9, 1200), [(3, 1), (1, 2), (4, 9), (5, 7)]);
}

#[test]
fn no_network_can_use_up_the_room_for_torrents() {
    let mut few = rules();
    few.max_torrents = 64;
    let mut world = World::new(Mode::Public, few, 1000);
    let begin = |world: &mut World, torrent, ip| world.announce(peer(1).torrent(torrent).from(ip));
    let begun = |world: &mut World, torrents: std::ops::Range<u8>, ip| {
        let begun = torrents.filter(|&torrent| begin(world, torrent, ip).is_ok());
        begun.count()
    };
    // Half of the room has no limit, and then each network has a sixteenth for a peer's life.
    assert_eq!(begun(&mut world, 10..80, "203.0.113.1"), 32 + 4);
    assert_eq!(begun(&mut world, 80..100, "203.0.113.99"), 0);
    assert_eq!(begun(&mut world, 100..140, "198.51.100.1"), 4);
    assert_eq!(world.metrics.torrents_full.get(), 34 + 20 + 36);
    // Existing ones are open to all.
    assert_eq!(begun(&mut world, 10..46, "203.0.113.99"), 36);
    world.wait(TTL + 60);
    world.sweep();
    assert_eq!(begun(&mut world, 140..200, "203.0.113.1"), 32 + 4);
    world.ok(peer(1).event("stopped"));
    world.sweep();
    world.ok(peer(1).torrent(2));
}

#[test]
fn the_peers_of_an_address_in_a_swarm_are_limited() {
    let mut few = rules();
    few.max_peers_per_ip = 2;
    let mut world = World::new(Mode::Public, few, 100);
    for ip in ["9.9.9.9", "2a00::1", "192.168.1.1"] {
        let at = |n: u8, ip: &str| peer(n).from(ip).with(&format!("port={n}"));
        world.ok(at(1, ip));
        world.ok(at(2, ip));
        let third = world.announce(at(3, ip));
        if ip.starts_with("192") {
            // Many hosts may stand behind it.
            assert!(third.is_ok());
            continue;
        }
        assert_eq!(third.unwrap_err(), "too many peers");
        if ip.contains(':') {
            assert_eq!(world.refused(at(3, "2a00::2")), "too many peers");
            world.ok(at(3, "2a00:0:0:1::1").event("stopped"));
        }
        world.ok(at(1, ip));
        world.ok(at(3, ip).torrent(2));
        world.ok(at(2, ip).event("stopped"));
        world.ok(at(3, ip));
    }
    assert_eq!(world.metrics.peers_per_ip.get(), 3);
}

#[test]
fn a_plus_is_a_space_only_if_that_is_registered() {
    let mut closed = rules();
    closed.auto_register = false;
    let mut with_space = [b'x'; 20];
    with_space[3] = b' ';
    let mut with_plus = with_space;
    with_plus[3] = b'+';
    let raw = "xxx+xxxxxxxxxxxxxxxx";
    for mode in [Mode::Public, Mode::Private] {
        let mut world = World::new(mode, closed.clone(), 100);
        world.apply(RegistryChange::User(user(1)));
        assert_eq!(
            world.refused(peer(1).of(1).raw_hash(raw)),
            "unregistered torrent"
        );
        let mut spaced = torrent(1);
        spaced.info_hash = InfoHash(with_space);
        world.apply(RegistryChange::Torrent(spaced));
        world.ok(peer(1).of(1).raw_hash(raw));
        assert_eq!(world.scrape(InfoHash(with_space)).unwrap().incomplete, 1);
        let mut plus = torrent(2);
        plus.info_hash = InfoHash(with_plus);
        world.apply(RegistryChange::Torrent(plus));
        world.ok(peer(2).of(1).raw_hash(raw));
        assert_eq!(world.scrape(InfoHash(with_plus)).unwrap().incomplete, 1);
        assert_eq!(world.scrape(InfoHash(with_space)).unwrap().incomplete, 1);
    }
    let mut open = World::public();
    open.ok(peer(1).raw_hash(raw));
    assert_eq!(open.scrape(InfoHash(with_plus)).unwrap().incomplete, 1);
}

/// As newTrackon and others that encode a form write a hash, and as RFC 3986 has it.
fn spellings(hash: &[u8; 20]) -> [String; 2] {
    let encoded = |space: &str| {
        let bytes = hash.iter().map(|&byte| match byte {
            b' ' => space.to_owned(),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        });
        bytes.collect::<String>()
    };
    [encoded("+"), encoded("%20")]
}

#[test]
fn both_spellings_of_a_space_are_one_public_torrent() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut with_spaces = 0;
    for number in 0..300 {
        let mut hash = [0; 20];
        random.fill(&mut hash);
        if number % 10 == 0 {
            hash[7] = b' ';
        }
        let [form, plain] = spellings(&hash);
        with_spaces += u32::from(form != plain);
        for order in [[&form, &plain], [&plain, &form]] {
            let mut world = World::public();
            world.ok(peer(1).raw_hash(order[0]));
            assert_eq!(
                world.counts(peer(2).raw_hash(order[1])),
                (0, 2, 0),
                "{form}"
            );
            assert_eq!(
                world.counts(peer(1).raw_hash(order[0])),
                (0, 2, 0),
                "{form}"
            );
            assert_eq!(
                world.scrape(InfoHash(hash)).unwrap().incomplete,
                2,
                "{form}"
            );
            world.ok(peer(1).raw_hash(order[0]).event("stopped"));
            assert_eq!(
                world.scrape(InfoHash(hash)).unwrap().incomplete,
                1,
                "{form}"
            );
        }
    }
    assert!(with_spaces >= 30, "{with_spaces}");
}

/// As JavaScript's `escape` has it: spaces are escaped, and a plus is left as it is.
#[test]
fn a_raw_plus_beside_raw_marks_is_a_plus() {
    for (raw, encoded) in [
        ("+%20%ff0123456789012345+", "%2B%20%FF0123456789012345%2B"),
        ("+/%ff0123456789012345+", "%2B%2F%FF0123456789012345%2B"),
        ("+@01234567890123456+", "%2B%4001234567890123456%2B"),
    ] {
        for order in [[raw, encoded], [encoded, raw]] {
            let mut world = World::public();
            world.ok(peer(1).raw_hash(order[0]));
            assert_eq!(world.counts(peer(2).raw_hash(order[1])), (0, 2, 0), "{raw}");
        }
    }
}

#[test]
fn an_ambiguous_plus_is_decided_by_the_larger_swarm() {
    let (raw, plus) = ("a+%ff01234567890123456", "a%2B%ff01234567890123456");
    let mut world = World::public();
    world.ok(peer(1).raw_hash(plus));
    world.ok(peer(2).raw_hash(plus));
    assert_eq!(world.counts(peer(3).raw_hash(raw)), (0, 3, 0));
    let space = plus.replace("%2B", "%20");
    for n in 4..8 {
        world.ok(peer(n).raw_hash(&space));
    }
    assert_eq!(world.counts(peer(8).raw_hash(raw)), (0, 5, 0));
}

#[test]
fn a_disabled_torrent_fails_with_its_reason_and_retry_never() {
    use mika::wire::RetryIn;
    let mut world = World::private();
    let mut gone = torrent(1);
    (gone.enabled, gone.reason) = (false, Some("dupe".into()));
    world.ok(peer(1).of(1));
    world.apply(RegistryChange::Torrent(gone));
    assert_eq!(world.refused(peer(1).of(1)), "dupe");
    assert_eq!(world.scrape(hash(1)), None);
    let refusal = mika::tracker::Refusal::TorrentDisabled("dupe".into());
    let failure = refusal.failure(1800, 900);
    assert_eq!((failure.interval, failure.min_interval), (3600, 3600));
    assert_eq!(failure.retry_in, Some(RetryIn::Never));
    let unknown = mika::tracker::Refusal::UnregisteredTorrent.failure(1800, 900);
    assert_eq!((unknown.interval, unknown.retry_in), (3600, None));
}

#[test]
fn a_hybrid_torrent_is_one_under_both_hashes() {
    let mut world = World::private();
    let mut hybrid = torrent(1);
    hybrid.info_hash_v2 = Some(hash(77));
    world.apply(RegistryChange::Torrent(hybrid));
    world.ok(peer(1).of(1));
    world.ok(peer(1).of(1).raw_hash(&escaped(&hash(77))));
    assert_eq!(world.credited(1), (0, 0));
    world.wait(10);
    world.ok(peer(1).of(1).totals(70, 7));
    let reply = world.ok(peer(1).of(1).raw_hash(&escaped(&hash(77))).totals(70, 7));
    assert_eq!((reply.incomplete, reply.peers.len()), (1, 0));
    assert_eq!(world.credited(1), (70, 7), "once");
    assert_eq!(world.scrape(hash(77)), world.scrape(hash(1)));
    assert_eq!(world.storage.peers.len(), 1);
}

#[test]
fn intervals_stay_around_the_configured_one() {
    let mut world = World::public();
    let intervals: Vec<u32> = (0..2000).map(|_| world.ok(peer(1)).interval).collect();
    assert_eq!(intervals.iter().min(), Some(&1710));
    assert_eq!(intervals.iter().max(), Some(&1890));
}
