//! Metrics: requests by outcome and reason, peers by family and role.

use mika::telemetry::metrics::Protocol;
use mika::tracker::{Reason, Roles, SwarmStats};

use crate::world::{World, hash, peer};

fn roles(seeders: u64, leechers: u64, paused: u64) -> Roles {
    Roles {
        seeders,
        leechers,
        paused,
    }
}

#[test]
fn peers_are_counted_by_family_and_role() {
    // Small swarms and large ones are kept in different forms.
    for number in [2, 90] {
        for mut world in [World::public(), World::private()] {
            for n in 1..=number {
                let user = 1 + u32::from(n) % 9;
                let at = |ip: String| peer(n).of(user).from(&ip);
                // Rules that limit a user's clients are not what this is about.
                world.rules.max_peers_per_user = 100;
                world.tracker.set_rules(world.rules.clone());
                world.ok(at(format!("9.9.8.{n}")));
                world.ok(at(format!("2a00::{n:x}")));
            }
            world.ok(peer(91).of(1).left(0).torrent(2));
            world.ok(peer(92).of(2).event("paused").torrent(2));
            world.ok(peer(93).of(3).with("port=0").torrent(2));
            let expected = SwarmStats {
                swarms: 2,
                v4: roles(1, u64::from(number) + 1, 1),
                v6: roles(0, number.into(), 0),
            };
            assert_eq!(world.tracker.swarm_stats(), expected);
            let (swarms, seeders, leechers) = world.tracker.totals();
            assert_eq!((swarms, seeders), (2, 1));
            assert!(leechers >= u64::from(number) + 2);
        }
    }
}

#[test]
fn requests_are_counted_by_outcome_and_reason() {
    let mut world = World::private();
    world.ok(peer(1).of(1));
    world.ok(peer(1).of(1));
    world.refused(peer(1).passkey("nobodys-passkey"));
    world.refused(peer(1).of(1).torrent(9));
    world.refused(peer(1).of(1).raw_hash("short"));
    assert!(world.scrape(hash(1)).is_some());
    let metrics = &world.metrics;
    assert_eq!((metrics.announces.get(), metrics.scrapes.get()), (2, 1));
    assert_eq!(metrics.announces.of(Protocol::Http).get(), 2);
    assert_eq!(metrics.announces_refused.of(Protocol::Http).get(), 3);
    assert_eq!(metrics.announces_refused.of(Protocol::Udp).get(), 0);
    let refusals: Vec<_> = Reason::ALL
        .iter()
        .map(|&reason| (reason, metrics.refusals.of(reason).get()))
        .filter(|(_, number)| *number > 0)
        .collect();
    let expected = [
        (Reason::BadInfoHash, 1),
        (Reason::InvalidPasskey, 1),
        (Reason::UnregisteredTorrent, 1),
    ];
    assert_eq!(refusals, expected);
}

#[test]
fn a_session_counts_once_for_its_client() {
    let mut world = World::public();
    let of = |id: &str, n: u8| peer(n).with(&format!("peer_id={id}{n:012}"));
    for n in 1..=3 {
        world.ok(of("-qB4650-", n).event("started"));
        world.ok(of("-qB4650-", n));
        world.ok(of("-qB4650-", n).event("stopped"));
    }
    world.ok(of("-ZZ0000-", 4).event("started"));
    let all = world.metrics.clients.all();
    let counted = all
        .iter()
        .map(|it| (it.client, it.version.as_str(), it.sessions));
    let counted: Vec<_> = counted.collect();
    assert_eq!(
        counted,
        [("other", "other", 1), ("qBittorrent", "4.6.5", 3)]
    );
}
