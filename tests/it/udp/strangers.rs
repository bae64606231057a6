//! Replies to unverified addresses, and to packets that are not requests (rule U4).

use std::time::Duration;

use super::{IH, V4, V6, client, new_torrent, public};
use crate::harness::udp::{ANNOUNCE, Announce, CONNECT, Client, PROTOCOL, SCRAPE, header, scrape};

#[test]
fn unknown_actions_are_dropped_whatever_their_id() {
    let mika = public();
    for ip in [V4, V6] {
        let (client, id) = client(&mika, ip);
        for action in [3, 4, 5, 0x0100_0000, 0x0001_0001, 0x8000_0001, u32::MAX] {
            for id in [id, 0, PROTOCOL] {
                let mut packet = header(id, action, 7);
                assert!(client.is_dropped(&packet), "{action:x}");
                packet.resize(200, 0);
                assert!(client.is_dropped(&packet), "{action:x}");
            }
        }
        // An error that another tracker sends, say one whose address was forged.
        let error = [&header(0, 3, 0x1122_3344)[8..], b"bad connection id"].concat();
        assert!(client.is_dropped(&error));
    }
}

#[test]
fn a_bad_id_error_is_never_longer_than_the_request() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let bad = id ^ 1;
    let error_len = 8 + "bad connection id".len();
    for action in [ANNOUNCE, SCRAPE] {
        for length in 16..=200 {
            let mut packet = header(bad, action, 7);
            packet.resize(length, 0);
            if length < error_len {
                assert!(client.is_dropped(&packet), "{length} bytes");
            } else {
                assert_eq!(client.error(&packet), "bad connection id", "{length} bytes");
            }
        }
    }
}

/// No more bytes are sent to a forged address than came from it.
#[test]
fn replies_to_unverified_sources_do_not_amplify() {
    let mika = public();
    let client = Client::new(mika.udp(V4));
    client.set_timeout(Duration::from_secs(20));
    let mut rng = fastrand::Rng::new();
    for _ in 0..3000 {
        let mut packet = match rng.u8(..5) {
            0 => header(PROTOCOL, CONNECT, 7),
            1 => Announce::new(rng.u64(..), IH).packet(),
            2 => scrape(rng.u64(..), 7, &vec![IH; rng.usize(1..90)]),
            3 => header(PROTOCOL, rng.u32(..4), 7),
            _ => Vec::new(),
        };
        match rng.u8(..4) {
            0 => packet.truncate(rng.usize(..=packet.len())),
            1 => packet.extend((0..rng.usize(..300)).map(|_| rng.u8(..))),
            2 if !packet.is_empty() => {
                let at = rng.usize(..packet.len());
                packet[at] = rng.u8(..);
            }
            _ => {}
        }
        let marker = rng.u32(1 << 16..);
        client.send(&packet);
        client.send(&header(PROTOCOL, CONNECT, marker));
        let mut bytes = 0;
        loop {
            let reply = client.receive().expect("the marker's answer");
            if reply[4..8] == marker.to_be_bytes() {
                break;
            }
            bytes += reply.len();
        }
        assert!(bytes <= packet.len(), "{bytes} for {packet:02x?}");
    }
}

#[test]
fn garbage_changes_nothing() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let hash = new_torrent();
    client.announce(&Announce::new(id, hash));
    let mut rng = fastrand::Rng::new();
    for _ in 0..2000 {
        // Too short for a connect, so that nothing comes back.
        let garbage: Vec<u8> = (0..rng.usize(..16)).map(|_| rng.u8(..)).collect();
        client.send(&garbage);
    }
    for length in [0, 1, 15, 1472, 2048, 2049, 65_507] {
        assert!(client.is_dropped(&vec![0xff; length]), "{length} bytes");
    }
    assert_eq!(client.scrape(id, &[hash]), [[0, 0, 1]]);
    assert!(!mika.log().contains("panic"), "{}", mika.log());
}
