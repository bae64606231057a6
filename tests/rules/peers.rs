//! Peers in a reply: rules W7, W8, W9, R4 and `numwant`.

use std::collections::HashMap;
use std::net::SocketAddr;

use mika::base::addr::{PublicAddress, PublicAddresses};
use mika::tracker::{Mode, Rules};

use crate::world::{Ask, World, peer, rules};

/// The last numbers of the addresses, in order.
fn numbers(peers: &[SocketAddr]) -> Vec<u8> {
    let mut numbers: Vec<u8> = peers
        .iter()
        .map(|peer| match peer {
            SocketAddr::V4(peer) => peer.ip().octets()[3],
            SocketAddr::V6(peer) => peer.ip().octets()[15],
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Peers 1 and 2 leech, 3 and 4 are partial seeds, 5 to 7 seed.
fn crowd(mut world: World) -> World {
    for n in 1..=7 {
        let ask = peer(n).of(n.into());
        world.ok(match n {
            1 | 2 => ask,
            3 | 4 => ask.event("paused"),
            _ => ask.left(0),
        });
    }
    world
}

#[test]
fn each_role_gets_useful_peers() {
    for mut world in [crowd(World::public()), crowd(World::private())] {
        let mut given = |ask: Ask| numbers(&world.ok(ask).peers);
        assert_eq!(given(peer(1).of(1)), [2, 3, 4, 5, 6, 7]);
        assert_eq!(given(peer(8).of(8)), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(given(peer(3).of(3).event("paused")), [1, 2, 8]);
        assert_eq!(given(peer(5).of(5).left(0)), [1, 2, 8]);
        assert_eq!(given(peer(1).of(1).event("stopped")), [0; 0]);
    }
}

#[test]
fn no_client_gets_itself() {
    for mut world in [World::public(), World::private()] {
        assert_eq!(world.ok(peer(1).of(1)).peers, []);
        assert_eq!(world.ok(peer(1).of(1)).peers, []);
        world.ok(peer(2).of(2));
        assert_eq!(numbers(&world.ok(peer(1).of(1)).peers), [2]);
    }
    // Another client of the same endpoint is no use either.
    let mut world = World::private();
    world.ok(peer(1).of(1));
    assert_eq!(world.ok(peer(2).of(2).from("9.9.9.1")).peers, []);
}

#[test]
fn peers_without_a_port_are_counted_and_not_handed_out() {
    for mut world in [World::public(), World::private()] {
        let portless = || peer(1).of(1).with("port=0");
        assert_eq!(world.counts(portless()), (0, 1, 0));
        assert_eq!(world.ok(peer(2).of(2)).peers, []);
        assert_eq!(numbers(&world.ok(portless()).peers), [2]);
        assert_eq!(world.counts(portless().left(0)), (1, 1, 0));
        assert_eq!(world.ok(peer(2).of(2)).peers, []);
        // It may gain a port.
        world.ok(peer(1).of(1).left(0));
        assert_eq!(numbers(&world.ok(peer(2).of(2)).peers), [1]);
    }
}

#[test]
fn families_do_not_mix() {
    for mut world in [World::public(), World::private()] {
        world.ok(peer(1).of(1).from("2a00::1"));
        let v4 = world.ok(peer(2).of(2));
        assert!(v4.body.ends_with(b"5:peers0:e"), "no peers6 either");
        let v6 = world.ok(peer(3).of(3).from("2a00::3"));
        let mut expected = b"5:peers0:6:peers618:*".to_vec();
        expected.pop();
        expected.extend(b"\x2a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1e");
        assert!(v6.body.ends_with(&expected));
        let none = world.ok(peer(3).of(3).from("2a00::3").with("numwant=0"));
        assert!(none.body.ends_with(b"5:peers0:6:peers60:e"));
        // An IPv4 address in IPv6 clothes.
        let mapped = world.ok(peer(4).of(4).from("::ffff:9.9.9.4"));
        assert!(mapped.body.ends_with(b"5:peers6:\x09\x09\x09\x02\x1a\xe1e"));
    }
}

#[test]
fn private_addresses_are_handed_out_to_private_ones_only() {
    for mut world in [World::public(), World::private()] {
        world.ok(peer(1).of(1).from("10.0.0.1"));
        world.ok(peer(2).of(2));
        assert_eq!(numbers(&world.ok(peer(3).of(3)).peers), [2]);
        let local = world.ok(peer(4).of(4).from("10.0.0.4"));
        assert_eq!(numbers(&local.peers), [1, 2, 3]);
    }
}

/// Rules by which local networks have these public addresses; an empty network stands for all.
fn rules_with(mappings: &[(&str, &str)]) -> Rules {
    let mappings = mappings.iter().map(|(network, address)| PublicAddress {
        network: network.parse().ok(),
        address: address.parse().unwrap(),
    });
    Rules {
        public_addresses: PublicAddresses::new(mappings.collect()),
        max_peers_per_user: 1000,
        ..rules()
    }
}

fn texts(peers: &[SocketAddr]) -> Vec<String> {
    let mut texts: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
    texts.sort_unstable();
    texts
}

#[test]
fn a_seeder_beside_the_tracker_is_handed_out_under_its_public_address() {
    let rules = || rules_with(&[("", "203.0.113.7"), ("", "2001:db8::7")]);
    for mut world in [
        World::new(Mode::Public, rules(), 10_000),
        World::private_by(rules(), 10_000),
    ] {
        world.ok(peer(1).of(1).from("192.168.1.5").left(0));
        world.ok(peer(2).of(2).from("fd00::5").left(0));
        let mut given = |n: u8, ip: &str| texts(&world.ok(peer(n).of(n.into()).from(ip)).peers);
        assert_eq!(given(3, "9.9.9.3"), ["203.0.113.7:6881"]);
        assert_eq!(given(4, "2a00::4"), ["[2001:db8::7]:6881"]);
        // Neighbours reach it directly.
        let local = given(5, "192.168.1.6");
        assert_eq!(local, ["192.168.1.5:6881", "9.9.9.3:6881"]);
        let local = given(6, "fd00::6");
        assert_eq!(local, ["[2a00::4]:6881", "[fd00::5]:6881"]);
    }
}

#[test]
fn each_local_network_has_its_own_public_address() {
    let networks = [
        ("10.0.0.0/8", "203.0.113.1"),
        ("192.168.0.0/16", "203.0.113.2"),
    ];
    for mut world in [
        World::new(Mode::Public, rules_with(&networks), 10_000),
        World::private_by(rules_with(&networks), 10_000),
    ] {
        world.ok(peer(1).of(1).from("10.0.0.1").left(0));
        world.ok(peer(2).of(2).from("192.168.0.2").left(0));
        world.ok(peer(3).of(3).from("172.16.0.3").left(0));
        let mut given = |ip: &str| {
            let given = texts(&world.ok(peer(9).of(9).from(ip)).peers);
            world.ok(peer(9).of(9).from(ip).event("stopped"));
            given
        };
        assert_eq!(given("9.9.9.9"), ["203.0.113.1:6881", "203.0.113.2:6881"]);
        assert_eq!(
            given("10.9.9.9"),
            ["10.0.0.1:6881", "172.16.0.3:6881", "203.0.113.2:6881"]
        );
        assert_eq!(
            given("127.0.0.1"),
            ["10.0.0.1:6881", "172.16.0.3:6881", "192.168.0.2:6881"]
        );
    }
}

/// The router forwards a port to one of them only.
#[test]
fn local_peers_of_one_port_are_one_public_endpoint_in_a_reply() {
    let rules = || rules_with(&[("", "8.8.8.8")]);
    for (mut world, others) in [
        (World::new(Mode::Public, rules(), 10_000), 2),
        (World::new(Mode::Public, rules(), 10_000), 100),
        (World::private_by(rules(), 10_000), 2),
        (World::private_by(rules(), 10_000), 100),
    ] {
        for n in 1..=others {
            world.ok(peer(n).of(1).from(&format!("10.0.0.{n}")));
        }
        world.ok(peer(101).of(1).from("8.8.8.8"));
        let given = texts(&world.ok(peer(102).of(1).with("numwant=200")).peers);
        assert_eq!(given, ["8.8.8.8:6881"]);
        // The client at that very endpoint gets no peer there, and its neighbours neither.
        let own = texts(&world.ok(peer(101).of(1).from("8.8.8.8")).peers);
        assert_eq!(own, ["9.9.9.102:6881"]);
        let local = world.ok(peer(1).of(1).from("10.0.0.1").with("numwant=200"));
        assert_eq!(local.peers.len(), usize::from(others) - 1 + 2);
    }
}

#[test]
fn a_local_client_gets_its_public_address() {
    let mut world = World::new(Mode::Public, rules_with(&[("", "203.0.113.7")]), 10);
    let has = |reply: &[u8], ip: [u8; 4]| {
        let text = [&b"11:external ip4:"[..], &ip].concat();
        reply.windows(text.len()).any(|window| window == text)
    };
    let reply = world.ok(peer(1).from("10.0.0.1")).body;
    assert!(has(&reply, [203, 0, 113, 7]), "{reply:?}");
    let reply = world.ok(peer(2).from("9.9.9.2")).body;
    assert!(has(&reply, [9, 9, 9, 2]), "{reply:?}");
}

#[test]
fn a_claimed_address_counts_only_if_trusted_and_global() {
    let seen_as = |trust: bool, claim: &str| {
        let mut rules = rules();
        rules.trust_client_ip = trust;
        let mut world = World::new(Mode::Public, rules, 10);
        world.ok(peer(1).from("10.0.0.1").with(claim));
        world.ok(peer(2).from("10.0.0.2")).peers[0].to_string()
    };
    assert_eq!(seen_as(true, "ip=8.8.8.8"), "8.8.8.8:6881");
    assert_eq!(seen_as(true, "ipv6=2a00::8&ipv4=8.8.8.8"), "8.8.8.8:6881");
    for claim in ["ip=192.168.0.1", "ip=2a00::8", "ip=example.org"] {
        assert_eq!(seen_as(true, claim), "10.0.0.1:6881", "{claim}");
    }
    assert_eq!(seen_as(false, "ip=8.8.8.8"), "10.0.0.1:6881");
}

#[test]
fn own_clients_are_hidden_if_configured() {
    for hide in [false, true] {
        let mut rules = rules();
        rules.hide_own_peers = hide;
        let mut world = World::private_by(rules, 100);
        world.ok(peer(1).of(1));
        world.ok(peer(2).of(2));
        let given = numbers(&world.ok(peer(3).of(1)).peers);
        assert_eq!(given, if hide { vec![2] } else { vec![1, 2] });
    }
}

#[test]
fn as_many_come_as_are_wanted() {
    let mut rules = rules();
    rules.max_peers_per_user = 2000;
    for mut world in [World::public(), World::private_by(rules, 10_000)] {
        for n in 0..250 {
            world.ok(peer(n).of(1));
        }
        let mut given = |more: &str| world.ok(peer(1).of(1).with(more)).peers.len();
        let table = [
            ("numwant=0", 0),
            ("numwant=7", 7),
            ("numwant=-1", 50),
            ("numwant=", 50),
            ("numwant=x", 50),
            ("num_want=3", 50),
            ("numwant=2147483647", 200),
            ("numwant=99999999999999", 200),
            ("numwant=9&event=stopped", 0),
        ];
        for (more, expected) in table {
            assert_eq!(given(more), expected, "{more}");
        }
    }
}

#[test]
fn the_list_form_names_peers_in_private_mode() {
    let mut world = World::private();
    world.ok(peer(1).of(1));
    let body = world.ok(peer(2).of(2).with("compact=0")).body;
    let list = b"5:peersld2:ip7:9.9.9.17:peer id20:-MK0001-0000000000014:porti6881eeee";
    assert!(body.ends_with(list), "{}", body.escape_ascii());
    let body = world.ok(peer(2).of(2).with("compact=0&no_peer_id=1")).body;
    assert!(body.ends_with(b"5:peersld2:ip7:9.9.9.14:porti6881eeee"));
    let body = world.ok(peer(2).of(2).without("compact")).body;
    assert!(body.ends_with(b"5:peers6:\x09\x09\x09\x01\x1a\xe1e"));
}

#[test]
fn selection_is_uniform() {
    let mut rules = rules();
    rules.max_peers_per_user = 2000;
    for mut world in [World::public(), World::private_by(rules, 10_000)] {
        for n in 0..1000u32 {
            let [_, _, high, low] = n.to_be_bytes();
            let id = format!("peer_id=-MK0001-{n:012}");
            let ip = format!("9.9.{high}.{low}");
            world.ok(peer(1).of(1).from(&ip).with(&id));
        }
        let mut counts: HashMap<SocketAddr, u32> = HashMap::new();
        for _ in 0..4000 {
            let reply = world.ok(peer(1).of(2).from("8.8.8.8"));
            assert_eq!(reply.peers.len(), 50);
            for peer in reply.peers {
                *counts.entry(peer).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), 1000);
        // Expected 200, σ = √(4000 × 0.05 × 0.95) = 13.8.
        for (peer, count) in counts {
            assert!((118..=282).contains(&count), "{peer}: {count}");
        }
    }
}
