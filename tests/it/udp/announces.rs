//! Announces over UDP (rules U1, U2, U4, U7), and that they meet those over HTTP in one swarm.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::json;

use super::{COMPLETED, IH, PAUSED, STARTED, STOPPED, V4, V6, client, counts, new_torrent, public};
use crate::harness::Mika;
use crate::harness::http::{escape, get};
use crate::harness::udp::{ANNOUNCE_LEN, Announce, Client, HEADER};

/// Peers of a torrent at ports 20001 and on.
fn others(client: &Client, base: &Announce, numbers: std::ops::RangeInclusive<u16>) {
    for n in numbers {
        client.announce(&base.peer(n));
    }
}

fn ports(peers: &[SocketAddr]) -> BTreeSet<u16> {
    peers.iter().map(SocketAddr::port).collect()
}

#[test]
fn the_announce_of_the_vectors_is_answered_by_20_bytes() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend(b"\x00\x00\x00\x01\x11\x22\x33\x44");
    packet.extend(IH);
    packet.extend(b"-MK0001-abcdefghijkl");
    packet.extend(b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00");
    packet.extend(b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00");
    packet.extend(b"\x12\x34\xab\xcd\xff\xff\xff\xff\x1a\xe1");
    assert_eq!(packet.len(), ANNOUNCE_LEN);
    assert_eq!(packet, Announce::new(id, IH).packet());
    let reply = client.exchange(&packet);
    assert_eq!(reply.len(), 20);
    assert_eq!(reply[..8], *b"\x00\x00\x00\x01\x11\x22\x33\x44");
    let interval = u32::from_be_bytes(*reply[8..].first_chunk().expect("an interval"));
    assert!((1710..=1890).contains(&interval), "{interval}");
    assert_eq!(reply[12..], *b"\x00\x00\x00\x01\x00\x00\x00\x00");
}

#[test]
fn events_are_compared_in_all_their_bits() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let announce = |event, left| Announce {
        left,
        event,
        ..Announce::new(id, new_torrent())
    };
    for event in [
        0,
        STARTED,
        PAUSED,
        5,
        0x0001_0000,
        0x0100_0003,
        0x8000_0003,
        u32::MAX,
    ] {
        assert_eq!(counts(&client, &announce(event, 1)), (0, 1), "{event:x}");
        assert_eq!(counts(&client, &announce(event, 0)), (1, 0), "{event:x}");
    }
    // Only a client that lacks nothing has completed it (rule W5).
    for (event, left, expected) in [
        (COMPLETED, 0, [1, 1, 0]),
        (COMPLETED, 1, [0, 0, 1]),
        (0x0100_0001, 0, [1, 0, 0]),
        (STARTED, 0, [1, 0, 0]),
    ] {
        let it = announce(event, left);
        client.announce(&it);
        assert_eq!(
            client.scrape(id, &[it.info_hash]),
            [expected],
            "{event:x} {left}"
        );
    }
}

#[test]
fn a_stop_is_answered_and_removes_the_peer_whatever_its_fields() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let known = Announce::new(id, IH);
    others(&client, &known, 1..=3);
    assert_eq!(client.announce(&known).leechers, 4);
    let stop = Announce {
        event: STOPPED,
        left: u64::MAX,
        num_want: 50,
        ..known.clone()
    };
    let reply = client.announce(&stop);
    assert_eq!((reply.leechers, reply.seeders), (3, 0));
    assert!(reply.peers.is_empty());
    assert!(
        (1710..=1890).contains(&reply.interval),
        "{}",
        reply.interval
    );
    assert_eq!(client.announce(&stop).leechers, 3, "a stop is repeated");
    let unknown = Announce {
        info_hash: new_torrent(),
        port: 0,
        ..stop
    };
    assert_eq!(counts(&client, &unknown), (0, 0));
    assert_eq!(client.scrape(id, &[unknown.info_hash]), [[0, 0, 0]]);
}

#[test]
fn an_unreadable_left_makes_a_leecher() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    for left in [
        1,
        16_384,
        i64::MAX as u64,
        1 << 63,
        u64::MAX,
        1 << 32,
        5 << 32,
    ] {
        let it = Announce {
            left,
            ..Announce::new(id, new_torrent())
        };
        assert_eq!(counts(&client, &it), (0, 1), "{left}");
    }
}

#[test]
fn peers_come_as_many_as_are_wanted_and_fit() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let base = Announce::new(id, new_torrent());
    let want = |num_want: i32| {
        let packet = Announce {
            num_want,
            ..base.clone()
        };
        let length = client.exchange(&packet.packet()).len();
        let peers = client.announce(&packet).peers;
        assert_eq!(length, 20 + 6 * peers.len());
        assert_eq!(ports(&peers).len(), peers.len(), "somebody came twice");
        assert!(!ports(&peers).contains(&base.port), "the requester itself");
        peers.len()
    };
    assert_eq!(want(-1), 0, "no other peer is there");
    others(&client, &base, 1..=60);
    for (num_want, expected) in [
        (0, 0),
        (1, 1),
        (59, 59),
        (60, 60),
        (61, 60),
        (-1, 50),
        (-2, 50),
        (i32::MIN, 50),
        (i32::MAX, 60),
    ] {
        assert_eq!(want(num_want), expected, "{num_want}");
    }
    others(&client, &base, 61..=300);
    for (num_want, expected) in [(i32::MAX, 200), (200, 200), (201, 200), (-1, 50), (0, 0)] {
        assert_eq!(want(num_want), expected, "{num_want}");
    }
}

/// Replies stay within the smallest packet that IPv6 carries in one piece, whatever the config says.
#[test]
fn ipv6_peers_are_67_at_most() {
    let config = json!({ "mode": "public", "tracker": { "max_numwant": 1000, "numwant": 500 } });
    let mut mika = Mika::prepare_udp(&[V4, V6], &config);
    mika.run();
    for (ip, most, bytes) in [(V6, 67, 18), (V4, 200, 6)] {
        let (client, id) = client(&mika, ip);
        let base = Announce::new(id, new_torrent());
        others(&client, &base, 1..=300);
        for (num_want, expected) in [(i32::MAX, most), (-1, most), (66, 66), (0, 0)] {
            let it = Announce {
                num_want,
                ..base.clone()
            };
            let length = client.exchange(&it.packet()).len();
            assert_eq!(length, 20 + bytes * expected, "{ip} {num_want}");
        }
    }
}

#[test]
fn families_are_counted_together_and_handed_out_apart() {
    let mika = public();
    let (four, id4) = client(&mika, V4);
    let (six, id6) = client(&mika, V6);
    let hash = new_torrent();
    let (base4, base6) = (Announce::new(id4, hash), Announce::new(id6, hash));
    others(&four, &base4, 1..=2);
    others(&six, &base6, 3..=5);
    let reply = four.announce(&base4);
    assert_eq!(reply.leechers, 6);
    assert_eq!(ports(&reply.peers), BTreeSet::from([20_001, 20_002]));
    assert!(
        reply
            .peers
            .iter()
            .all(|peer| peer.ip() == four.address().ip())
    );
    let reply = six.announce(&base6);
    assert_eq!(reply.leechers, 7);
    assert_eq!(
        ports(&reply.peers),
        BTreeSet::from([20_003, 20_004, 20_005])
    );
    assert!(
        reply
            .peers
            .iter()
            .all(|peer| peer.ip() == six.address().ip())
    );
}

#[test]
fn a_peer_is_where_its_packets_come_from_at_the_port_that_it_names() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let hash = new_torrent();
    let liar = Announce {
        ip: 0x0808_0808,
        ..Announce::new(id, hash)
    };
    client.announce(&liar);
    let unreachable = Announce {
        port: 0,
        ..Announce::new(id, hash).peer(1)
    };
    assert_eq!(client.announce(&unreachable).leechers, 2);
    let asker = Client::at([127, 0, 0, 3].into(), mika.udp(V4));
    let asking = Announce::new(asker.connect(), hash);
    let reply = asker.announce(&asking.peer(2));
    assert_eq!(reply.leechers, 3, "one without a port counts, too");
    let expected: SocketAddr = ([127, 0, 0, 1], liar.port).into();
    assert_eq!(reply.peers, [expected]);
}

#[test]
fn seeders_get_leechers_only() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let base = Announce::new(id, new_torrent());
    let seeder = |n| Announce {
        left: 0,
        ..base.peer(n)
    };
    (1..=3).for_each(|n| drop(client.announce(&seeder(n))));
    others(&client, &base, 4..=5);
    let reply = client.announce(&seeder(6));
    assert_eq!((reply.seeders, reply.leechers), (4, 2));
    assert_eq!(ports(&reply.peers), BTreeSet::from([20_004, 20_005]));
    let reply = client.announce(&base.peer(7));
    assert_eq!(reply.peers.len(), 6);
    // A partial seed gets leechers that are not partial seeds (rule W7).
    let partial = Announce {
        event: PAUSED,
        ..base.peer(8)
    };
    let reply = client.announce(&partial);
    assert_eq!(
        ports(&reply.peers),
        BTreeSet::from([20_004, 20_005, 20_007])
    );
}

#[test]
fn announces_that_are_too_short_are_malformed() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let packet = Announce::new(id, IH).packet();
    for length in HEADER..ANNOUNCE_LEN {
        assert_eq!(
            client.error(&packet[..length]),
            "malformed",
            "{length} bytes"
        );
    }
    for length in 0..HEADER {
        assert!(client.is_dropped(&packet[..length]), "{length} bytes");
    }
    assert_eq!(client.scrape(id, &[IH]), [[0, 0, 0]]);
}

#[test]
fn trailing_bytes_of_a_packet_are_ignored() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    for more in [1, 14, 255, 1400, 2048, 4096, 60_000] {
        let it = Announce {
            options: vec![0xee; more],
            ..Announce::new(id, IH)
        };
        assert_eq!(counts(&client, &it), (0, 1), "{more} bytes more");
    }
}

/// Clients without an answer retry, after 15 s and ever longer.
#[test]
fn repeated_packets_change_nothing_more() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let it = Announce {
        event: COMPLETED,
        left: 0,
        ..Announce::new(id, new_torrent())
    };
    let leecher = Announce {
        event: STARTED,
        left: 5,
        ..it.clone()
    };
    for _ in 0..5 {
        assert_eq!(counts(&client, &leecher), (0, 1));
    }
    for _ in 0..5 {
        assert_eq!(counts(&client, &it), (1, 0));
    }
    assert_eq!(client.scrape(id, &[it.info_hash]), [[1, 1, 0]]);
    // Many at once, from one socket: each has its answer, with its own transaction.
    for transaction in 0..50 {
        client.send(
            &Announce {
                transaction,
                ..it.clone()
            }
            .packet(),
        );
    }
    let answered: BTreeSet<u32> = (0..50)
        .map(|_| {
            let reply = client.receive().expect("a reply");
            u32::from_be_bytes(*reply[4..].first_chunk().expect("a transaction"))
        })
        .collect();
    assert_eq!(answered, (0..50).collect());
    assert_eq!(client.scrape(id, &[it.info_hash]), [[1, 1, 0]]);
}

#[test]
fn http_and_udp_meet_in_one_swarm() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let hash = new_torrent();
    let target = |more: &str| {
        format!(
            "/announce?info_hash={}&peer_id=-MK0001-abcdefghijkl&{more}",
            escape(&hash)
        )
    };
    // The same client over both: 8 hex digits of a key are the number that UDP sends.
    let over_udp = Announce::new(id, hash);
    client.announce(&over_udp);
    let same = get(
        mika.http(),
        &target("port=6882&uploaded=0&downloaded=0&left=9&key=1234ABCD"),
    );
    assert_eq!(
        same.int("incomplete"),
        Some(1),
        "it has moved to another port"
    );
    let other = get(
        mika.http(),
        &target("port=6883&uploaded=0&downloaded=0&left=0&key=other"),
    );
    assert_eq!(
        (other.int("complete"), other.int("incomplete")),
        (Some(1), Some(1))
    );
    let reply = client.announce(&over_udp.peer(1));
    assert_eq!((reply.seeders, reply.leechers), (1, 2));
    assert_eq!(ports(&reply.peers), BTreeSet::from([6882, 6883]));
    let stop = Announce {
        event: STOPPED,
        port: 6883,
        key: 0,
        ..over_udp
    };
    assert_eq!(counts(&client, &stop), (0, 2));
}

#[test]
fn announces_that_the_config_blocks_are_refused() {
    let tracker =
        json!({ "blocked_ports": [6881], "blocked_networks": ["127.0.0.9/32", "::1/128"] });
    let config = json!({ "mode": "public", "tracker": tracker });
    let mut mika = Mika::prepare_udp(&[V4, V6], &config);
    mika.run();
    let (client, id) = client(&mika, V4);
    let base = Announce::new(id, IH);
    assert_eq!(client.refused(&base), "port not allowed");
    assert_eq!(counts(&client, &base.peer(1)), (0, 1));
    for blocked in [
        Client::at([127, 0, 0, 9].into(), mika.udp(V4)),
        Client::new(mika.udp(V6)),
    ] {
        let it = Announce::new(blocked.connect(), IH).peer(2);
        assert_eq!(blocked.refused(&it), "address not allowed");
    }
    assert_eq!(client.scrape(id, &[IH]), [[0, 0, 1]]);
}
