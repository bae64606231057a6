//! How many records one user may have over all torrents, and how fast they may begin them (rule A6).

use mika::base::ids::{InfoHash, TorrentId, UserId};
use mika::registry::{RegistryChange, Torrent};

use crate::world::{Ask, TOMBSTONE, TTL, World, escaped, peer, rules, torrent, user};

/// Records of one user.
struct RecordLimits {
    max: u32,
    burst: u32,
    rate: u32,
}

const LIMITS: RecordLimits = RecordLimits {
    max: 20,
    burst: 30,
    rate: 2,
};

/// A tracker with torrents 1 to 200 and those limits.
fn limited(limits: RecordLimits) -> World {
    let mut rules = rules();
    rules.max_records_per_user = limits.max;
    rules.new_records_burst = limits.burst;
    rules.new_records_rate = limits.rate;
    let world = World::private_by(rules, 10_000);
    (1..=200).for_each(|n| world.apply(RegistryChange::Torrent(torrent(n))));
    world
}

/// Client `n` of user 1 in that torrent.
fn client(n: u8, torrent: u8) -> Ask {
    peer(n).of(1).torrent(torrent)
}

#[test]
fn a_user_with_too_many_records_gets_no_new_torrents() {
    let mut world = limited(LIMITS);
    (1..=20).for_each(|n| drop(world.ok(client(1, n))));
    assert_eq!(world.refused(client(1, 21)), "too many peers of this user");
    assert_eq!(world.refused(client(2, 21)), "too many peers of this user");
    assert_eq!(world.tracker.records_of(UserId(1)), 20);
    world.ok(client(1, 21).event("stopped"));
    world.ok(client(1, 20).event("completed").left(0));
    world.ok(peer(1).of(2).torrent(21));
    assert_eq!(world.counts(peer(1).of(2).torrent(21)).1, 1, "no trace");
    // Tombstones count until they are forgotten.
    (1..=20).for_each(|n| drop(world.ok(client(1, n).event("stopped"))));
    assert_eq!(world.refused(client(1, 21)), "too many peers of this user");
    world.wait(TOMBSTONE + 1);
    world.flush();
    assert_eq!(world.tracker.records_of(UserId(1)), 0);
    world.ok(client(1, 21));
}

#[test]
fn a_restarted_client_is_not_refused_because_of_its_tombstones() {
    let mut world = limited(RecordLimits {
        burst: 1000,
        ..LIMITS
    });
    for start in 1..=20 {
        // Every other time it crashes.
        for n in 1..=20 {
            assert_eq!(world.counts(client(start, n).from("9.9.9.1")).1, 1);
        }
        for n in 1..=20 * (start % 2) {
            world.ok(client(start, n).from("9.9.9.1").event("stopped"));
        }
        world.drain();
    }
    assert_eq!(world.tracker.records_of(UserId(1)), 20);
}

#[test]
fn new_records_of_a_user_are_rate_limited() {
    let mut world = limited(RecordLimits {
        max: 1000,
        ..LIMITS
    });
    let mut torrents = 1..;
    let mut begin = |world: &mut World| {
        let mut tries = torrents.by_ref().take(40);
        let is_let_in = |n: &u8| match world.announce(client(1, *n)) {
            Ok(_) => true,
            Err(reason) => {
                assert_eq!(reason, "too many new peers of this user");
                false
            }
        };
        tries.by_ref().filter(is_let_in).count()
    };
    assert_eq!(begin(&mut world), 30);
    assert_eq!(begin(&mut world), 0);
    world.wait(3);
    assert_eq!(begin(&mut world), 6);
    // Present peers may announce and stop; and other users have a rate of their own.
    world.ok(client(1, 1));
    world.ok(client(1, 2).event("stopped"));
    world.ok(client(1, 2));
    world.ok(peer(1).of(2));
    assert_eq!(world.tracker.records_of(UserId(1)), 36);
}

#[test]
fn refusals_have_a_retry_time() {
    let mut world = limited(RecordLimits {
        max: 2,
        burst: 3,
        rate: 1,
    });
    let body = |world: &mut World, ask: Ask| {
        let query = ask.query();
        let params = mika::wire::query::parse_announce(query.as_bytes());
        let refusal = world
            .announce_parsed(Some("passkey-0001"), params, "9.9.9.1".parse().unwrap())
            .unwrap_err();
        let mut body = Vec::new();
        mika::wire::http::write_failure(&mut body, &refusal.failure(1800, 900));
        String::from_utf8(body).unwrap()
    };
    world.ok(client(1, 1));
    world.ok(client(1, 2));
    assert_eq!(
        body(&mut world, client(1, 3)),
        "d14:failure reason27:too many peers of this user8:intervali1800e12:min intervali900e8:retry ini15ee"
    );
    world.ok(client(2, 1).from("9.9.9.1"));
    assert_eq!(
        body(&mut world, client(3, 1)),
        "d14:failure reason31:too many new peers of this user8:intervali1800e12:min intervali900e8:retry ini15ee"
    );
}

#[test]
fn the_records_of_one_passkey_are_limited() {
    let mut world = World::private_by(rules(), 100_000);
    let hash = |n: u32| {
        let mut bytes = [7; 20];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        InfoHash(bytes)
    };
    for n in 0..40_000 {
        world.apply(RegistryChange::Torrent(Torrent {
            id: TorrentId(1000 + n),
            info_hash: hash(n),
            ..torrent(1)
        }));
    }
    for n in 0..40_000 {
        // As fast as it was tried: all of them within 16 seconds.
        if n % 2500 == 0 {
            world.wait(1);
        }
        let _ = world.announce(peer(1).of(1).raw_hash(&escaped(&hash(n))));
    }
    // The burst, and 5 a second.
    assert_eq!(world.tracker.records_of(UserId(1)), 10_000 + 15 * 5);
}

#[test]
fn records_are_counted_as_they_come_and_go() {
    let mut world = World::private();
    let count = |world: &World| world.tracker.records_of(UserId(1));
    (1..=3).for_each(|n| drop(world.ok(client(1, n))));
    world.ok(client(2, 1));
    world.ok(client(2, 1));
    world.ok(client(2, 1).event("stopped"));
    assert_eq!(count(&world), 4);
    world.flush();
    world.restart();
    assert_eq!(count(&world), 4, "what was restored");
    world.tracker.forget(&crate::world::hash(2));
    assert_eq!(count(&world), 3);
    world.apply(RegistryChange::TorrentGone(TorrentId(3)));
    world.apply(RegistryChange::User(user(1)));
    world.wait(TTL + TOMBSTONE + 2);
    world.flush();
    world.wait(TTL + TOMBSTONE + 2);
    world.flush();
    assert_eq!(count(&world), 0, "what was forgotten");
}
