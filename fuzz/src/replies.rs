//! Replies: canonical bencode that parses back, and UDP packets of the
//! lengths that clients demand (rules R3 to R6, S3, S4, U1, U4).

use std::net::IpAddr;

use mika::base::ids::{InfoHash, PeerId};
use mika::wire::bencode::{Node, Value, parse};
use mika::wire::udp::{self, Transaction};
use mika::wire::{AnnounceReply, Failure, PeerList, RetryIn, ScrapeEntry, http};

use super::Bytes;

/// Peers of a reply here: bytes decide what they are.
const PEERS_MAX: u8 = 40;

/// A reply of each kind, out of the same bytes.
pub fn replies(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let flags = bytes.u8();
    let external_ip = if flags & 1 == 0 {
        IpAddr::from(bytes.array::<4>())
    } else {
        IpAddr::from(bytes.array::<16>())
    };
    let reply = AnnounceReply {
        complete: bytes.u32(),
        incomplete: bytes.u32(),
        downloaded: bytes.u32(),
        interval: bytes.u32(),
        min_interval: bytes.u32(),
        external_ip,
    };
    let mut peers = PeerList::default();
    for _ in 0..bytes.u8() % PEERS_MAX {
        match external_ip {
            IpAddr::V4(_) => peers.endpoints.extend(bytes.array::<6>()),
            IpAddr::V6(_) => peers.endpoints.extend(bytes.array::<18>()),
        }
        if flags & 2 != 0 {
            peers.peer_ids.push(PeerId(bytes.array()));
        }
    }
    compact_announce(&reply, &peers);
    list_announce(&reply, &peers);
    udp_announce(&reply, &peers);
    let mut entries = Vec::new();
    while !bytes.is_empty() && entries.len() < 74 {
        let entry = ScrapeEntry {
            complete: bytes.u16().into(),
            downloaded: bytes.u32(),
            incomplete: bytes.u16().into(),
            paused: bytes.u8().into(),
        };
        entries.push((InfoHash(bytes.array()), entry));
    }
    udp_scrape(&entries);
    entries.sort_unstable_by_key(|(hash, _)| *hash);
    entries.dedup_by_key(|(hash, _)| *hash);
    entries.reverse();
    http_scrape(entries, reply.min_interval);
}

/// Bytes as a text of the tracker, in replies that refuse.
pub fn failures(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let retry_in = match bytes.u8() {
        0 => None,
        1 => Some(RetryIn::Never),
        _ => Some(RetryIn::Minutes(bytes.u32())),
    };
    let (interval, min_interval) = (bytes.u32(), bytes.u32());
    let reason = String::from_utf8_lossy(bytes.0);
    let failure = Failure {
        reason: &reason,
        interval,
        min_interval,
        retry_in,
    };
    let mut out = Vec::new();
    http::write_failure(&mut out, &failure);
    let root = read(&out);
    assert_eq!(text(&root, "failure reason"), Some(reason.as_bytes()));
    assert_eq!(int(&root, "interval"), Some(interval.into()));
    assert_eq!(int(&root, "min interval"), Some(min_interval.into()));
    match retry_in {
        None => assert_eq!(root.get(b"retry in"), None),
        Some(RetryIn::Never) => assert_eq!(text(&root, "retry in"), Some(&b"never"[..])),
        Some(RetryIn::Minutes(minutes)) => {
            assert_eq!(int(&root, "retry in"), Some(minutes.into()));
        }
    }
    let mut packet = Vec::new();
    udp::write_error(&mut packet, Transaction([1, 2, 3, 4]), &reason);
    // What is written before a client has shown its address must not be longer than is said.
    assert!(packet.len() <= udp::error_len(&reason) && packet.len() <= 8 + 100);
    assert_eq!(&packet[..8], [0, 0, 0, 3, 1, 2, 3, 4]);
    let told = std::str::from_utf8(&packet[8..]).expect("a character was cut");
    assert!(!told.contains('\0'));
    assert!(reason.replace('\0', "").starts_with(told));
}

fn compact_announce(reply: &AnnounceReply, peers: &PeerList) {
    let mut out = Vec::new();
    http::write_announce(&mut out, reply, peers, false);
    let root = read(&out);
    check_counts(&root, reply);
    let (peers4, peers6) = match reply.external_ip {
        IpAddr::V4(ip) => {
            assert_eq!(text(&root, "external ip"), Some(&ip.octets()[..]));
            (&*peers.endpoints, None)
        }
        IpAddr::V6(ip) => {
            assert_eq!(text(&root, "external ip"), Some(&ip.octets()[..]));
            (&[][..], Some(&*peers.endpoints))
        }
    };
    assert_eq!(text(&root, "peers"), Some(peers4));
    assert_eq!(text(&root, "peers6"), peers6);
}

fn list_announce(reply: &AnnounceReply, peers: &PeerList) {
    let mut out = Vec::new();
    http::write_announce(&mut out, reply, peers, true);
    let root = read(&out);
    check_counts(&root, reply);
    let Some(Value::List(list)) = root.get(b"peers").map(|node| &node.value) else {
        panic!("no list of peers")
    };
    let mut endpoints = Vec::new();
    let mut peer_ids = Vec::new();
    for peer in list {
        let ip = text(peer, "ip").and_then(|ip| std::str::from_utf8(ip).ok());
        match ip.and_then(|ip| ip.parse().ok()).expect("an address") {
            IpAddr::V4(ip) => endpoints.extend(ip.octets()),
            IpAddr::V6(ip) => endpoints.extend(ip.octets()),
        }
        let port = int(peer, "port").and_then(|port| u16::try_from(port).ok());
        endpoints.extend(port.expect("a port").to_be_bytes());
        peer_ids.extend(text(peer, "peer id").map(|id| PeerId(id.try_into().expect("20 bytes"))));
    }
    assert_eq!(endpoints, peers.endpoints);
    assert_eq!(peer_ids, peers.peer_ids);
}

fn check_counts(root: &Node, reply: &AnnounceReply) {
    for (key, number) in [
        ("complete", reply.complete),
        ("downloaded", reply.downloaded),
        ("incomplete", reply.incomplete),
        ("interval", reply.interval),
        ("min interval", reply.min_interval),
    ] {
        assert_eq!(int(root, key), Some(number.into()), "{key}");
    }
}

fn udp_announce(reply: &AnnounceReply, peers: &PeerList) {
    let mut packet = Vec::new();
    udp::write_announce(
        &mut packet,
        Transaction([1, 2, 3, 4]),
        reply,
        &peers.endpoints,
    );
    let mut read = Bytes(&packet);
    assert_eq!(read.array(), [0, 0, 0, 1, 1, 2, 3, 4]);
    let numbers = [read.u32(), read.u32(), read.u32()];
    assert_eq!(numbers, [reply.interval, reply.incomplete, reply.complete]);
    assert_eq!(read.0, peers.endpoints);
}

fn udp_scrape(entries: &[(InfoHash, ScrapeEntry)]) {
    let mut packet = Vec::new();
    let written = entries.iter().map(|(_, entry)| *entry);
    udp::write_scrape(&mut packet, Transaction([1, 2, 3, 4]), written);
    let mut read = Bytes(&packet);
    assert_eq!(read.array(), [0, 0, 0, 2, 1, 2, 3, 4]);
    for (_, entry) in entries {
        let numbers = [read.u32(), read.u32(), read.u32()];
        assert_eq!(
            numbers,
            [entry.complete, entry.downloaded, entry.incomplete]
        );
    }
    assert!(read.is_empty());
}

fn http_scrape(mut entries: Vec<(InfoHash, ScrapeEntry)>, min_interval: u32) {
    let mut out = Vec::new();
    http::write_scrape(&mut out, &mut entries, min_interval);
    let root = read(&out);
    let Some(Value::Dict(files)) = root.get(b"files").map(|node| &node.value) else {
        panic!("no files")
    };
    assert_eq!(files.len(), entries.len());
    for ((key, file), (hash, entry)) in files.iter().zip(&entries) {
        assert_eq!(*key, hash.0);
        assert_eq!(int(file, "complete"), Some(entry.complete.into()));
        assert_eq!(int(file, "downloaded"), Some(entry.downloaded.into()));
        assert_eq!(int(file, "incomplete"), Some(entry.incomplete.into()));
        let downloaders = i64::from(entry.incomplete.saturating_sub(entry.paused));
        let told = int(file, "downloaders").unwrap_or(i64::from(entry.incomplete));
        assert_eq!(told, downloaders);
    }
    let interval = root
        .get(b"flags")
        .and_then(|flags| int(flags, "min_request_interval"));
    assert_eq!(interval, Some(min_interval.into()));
}

fn read(bytes: &[u8]) -> Node<'_> {
    parse(bytes).unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()))
}

fn text<'a>(node: &Node<'a>, key: &str) -> Option<&'a [u8]> {
    node.get(key.as_bytes())?.as_bytes()
}

fn int(node: &Node, key: &str) -> Option<i64> {
    node.get(key.as_bytes())?.as_int()
}
