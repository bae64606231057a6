//! Vectors of announces: rules Q1 to Q8, R1 to R6 and W1 to W13 as far as they show on the wire.

use std::collections::HashSet;
use std::net::{Ipv6Addr, SocketAddr};

use serde_json::json;

use super::{IH, IH_BYTES, PASSKEY, PID, Swarm, a, a_of, check_form, counts, one, private, public};
use crate::harness::http::get;
use crate::harness::{Mika, free_port};

/// What an announce must be answered with.
enum Expected {
    /// complete, downloaded, incomplete
    Counts([i64; 3]),
    Failure(&'static str),
}

use Expected::{Counts, Failure};

const LEECHER: Expected = Counts([0, 0, 1]);
const SEEDER: Expected = Counts([1, 0, 0]);

#[allow(clippy::too_many_lines)] // a table
#[test]
fn vectors_of_announces() {
    let tracker = public();
    // Vector, announce, what it is answered with.
    let table = [
        (7, "-info_hash", Failure("missing info_hash")),
        (7, "info_hash2=x", LEECHER),
        (8, "-peer_id", Failure("missing peer_id")),
        (8, "peer_id=-MK0001-abcdefghijk", Failure("invalid peer_id")),
        (
            8,
            "peer_id=-MK0001-abcdefghijklm",
            Failure("invalid peer_id"),
        ),
        (
            8,
            "peer_id=%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00",
            LEECHER,
        ),
        (12, "-left", LEECHER),
        (12, "left=-1", LEECHER),
        (12, "left=", LEECHER),
        (12, "left=abc", LEECHER),
        (12, "left=0", SEEDER),
        (12, "left=000", SEEDER),
        (14, "left=9223372036854775807", LEECHER),
        (14, "left=18446744073709551615", LEECHER),
        (14, "left=99999999999999999999", LEECHER),
        (14, "left=4294967296", LEECHER),
        (15, "port=0", LEECHER),
        (16, "port=65535", LEECHER),
        (16, "port=65536", Failure("invalid port")),
        (16, "port=abc", Failure("invalid port")),
        (16, "-port", Failure("missing port")),
        (17, "-port, event=stopped", Counts([0, 0, 0])),
        (17, "port=0, event=stopped, left=", Counts([0, 0, 0])),
        (21, "event=", LEECHER),
        (21, "event=empty", LEECHER),
        (23, "event=bogus", LEECHER),
        (23, "event=STARTED", LEECHER),
        (23, "event=Stopped", Counts([0, 0, 0])),
        (23, "event=paused", LEECHER),
        (23, "event=completed", LEECHER),
        (25, "-compact", LEECHER),
        (28, "key=-12345", LEECHER),
        (28, "key=%00%01%FF%80%00%00%00%00", LEECHER),
        (
            28,
            "key=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            LEECHER,
        ),
        (28, "uploaded=-1", LEECHER),
        (28, "uploaded=9223372036854775808, downloaded=%zz", LEECHER),
        (5, "left=%30", SEEDER),
        (5, "left=%3", LEECHER),
        (
            5,
            "peer_id=%2-MK0001-abcdefghij",
            Failure("invalid peer_id"),
        ),
        (5, "unknown=%zz%", LEECHER),
        (
            6,
            "left=5, a=1, trackerid=x, corrupt=-1, redundant=1, supportcrypto=1, ip=1.2.3.4, ipv6=x.i2p",
            LEECHER,
        ),
    ];
    for (vector, with, expected) in table {
        let swarm = Swarm::new(&tracker);
        let reply = swarm.announce(with);
        let case = format!("vector {vector}, A({with}): {}", reply.body.escape_ascii());
        match expected {
            Counts(expected) => {
                assert_eq!(counts(&reply), expected, "{case}");
                assert_eq!(reply.failure(), None, "{case}");
                assert_eq!(reply.bytes("peers"), Some(Vec::new()), "{case}");
                assert_eq!(swarm.scrape(), expected, "{case}");
            }
            Failure(reason) => {
                assert_eq!(reply.failure().as_deref(), Some(reason), "{case}");
                assert_eq!(
                    swarm.scrape(),
                    [0, 0, 0],
                    "a refusal changes nothing: {case}"
                );
            }
        }
    }
}

/// Vectors 2, 3, 7, 10 and rules Q1, Q2, Q6, Q7, where the query as a whole matters.
#[allow(clippy::too_many_lines)] // a table
#[test]
fn vectors_of_queries() {
    let tracker = public();
    let rest = "port=6881&uploaded=0&downloaded=0&left=16384&compact=1";
    let hash = format!("info_hash={IH}");
    let pid = format!("peer_id={PID}");
    let lower = IH.to_lowercase().replace("az0-", "aZ0-");
    let escaped = "%00%25%2B%26%3D%3B%3F%20%23%2F%7E%7F%80%FF%C3%28%61%5A%30%2D";
    let hex = "00252b263d3b3f20232f7e7f80ffc328615a302d";
    let multiple = Some("multiple info_hash");
    let invalid = Some("invalid info_hash");
    let table = [
        (2, format!("info_hash={lower}&{pid}&{rest}"), None),
        (2, format!("info_hash={escaped}&{pid}&{rest}"), None),
        (
            2,
            format!("info_hash=%00%25+%26=;%3F%20%23/~%7F%80%FF%C3(aZ0-&{pid}&{rest}"),
            None,
        ),
        (
            3,
            format!("info_hash={}&{pid}&{rest}", IH.replace("%2B", "+")),
            None,
        ),
        (7, format!("{hash}&{pid}&{rest}&{hash}"), None),
        (7, format!("{hash}&{pid}&{rest}&info_hash={escaped}"), None),
        (7, format!("{hash}&{pid}&{rest}&info_hash={PID}"), multiple),
        (7, format!("info_hash={hex}&{pid}&{rest}"), invalid),
        (7, format!("{hash}x&{pid}&{rest}"), invalid),
        (7, format!("info_hash=%0&{pid}&{rest}"), invalid),
        (7, format!("info_hash=&{pid}&{rest}"), invalid),
        (10, format!("{hash}&&{pid}&{rest}"), None),
        (10, format!("&{hash}&{pid}&{rest}"), None),
        (10, format!("{hash}&{pid}&{rest}&"), None),
        (10, format!("{hash}&=b&{pid}&{rest}"), None),
        (10, format!("{hash}&a&{pid}&{rest}"), None),
        (10, format!("a=b=c&{hash}&left&{pid}&{rest}&d=e=f?g"), None),
        (
            11,
            format!("compact=1&left=0&left=5&port=0&{rest}&{pid}&{hash}"),
            None,
        ),
        (
            11,
            format!("INFO_HASH=x&Left=0&%6ceft=0&{hash}&{pid}&{rest}"),
            None,
        ),
        (11, format!("x=y?{hash}&{pid}&{rest}"), None),
        (11, format!("{pid}&{rest}&x=<>\"+;,/:;left=0&{hash}"), None),
        (11, format!("{pid}&{rest}&x=#&{hash}#&left=16384"), invalid),
    ];
    for (vector, query, failure) in table {
        let reply = get(tracker.http(), &format!("/announce?{query}"));
        check_form(&reply);
        assert_eq!(
            reply.failure().as_deref(),
            failure,
            "vector {vector}, {query}"
        );
        if failure.is_none() {
            assert_eq!(counts(&reply), [0, 0, 1], "vector {vector}, {query}");
        }
    }
    let torrent = Swarm {
        info_hash: IH_BYTES,
        ..Swarm::new(&tracker)
    };
    assert_eq!(
        torrent.scrape(),
        [0, 0, 1],
        "all of them are one torrent and one peer"
    );
}

#[test]
fn an_announce_alone_is_answered_byte_for_byte() {
    let tracker = public();
    let reply = get(tracker.http(), &a("event=started"));
    check_form(&reply);
    let interval = reply.int("interval").expect("interval");
    let expected = format!(
        "d8:completei0e10:downloadedi0e11:external ip4:\x7f\0\0\x0110:incompletei1e\
         8:intervali{interval}e12:min intervali900e5:peers0:e"
    );
    assert_eq!(reply.body, expected.as_bytes());
}

#[test]
fn intervals_differ_by_five_percent_at_most() {
    let tracker = public();
    let swarm = Swarm::new(&tracker);
    let interval = |_| swarm.announce("").int("interval").expect("interval");
    let intervals: HashSet<i64> = (0..200).map(interval).collect();
    assert!(
        intervals
            .iter()
            .all(|interval| (1710..=1890).contains(interval)),
        "{intervals:?}"
    );
    assert!(intervals.len() > 50, "{intervals:?}");
}

/// Vectors 15, 18, 19 and the cap: port 0 is never handed out, `numwant` decides how many are.
#[test]
fn numwant_is_respected() {
    let tracker = public();
    let swarm = Swarm::new(&tracker);
    swarm
        .others(60, "")
        .others(1, "port=0, peer_id=-MK0001-unconnectabl");
    // What is asked for, and how many are given.
    let few = [
        ("", 50),
        ("numwant=-1", 50),
        ("numwant=abc", 50),
        ("numwant=", 50),
        ("numwant=99999999999999999999", 50),
        ("numwant=0", 0),
        ("numwant=1", 1),
        ("numwant=007", 7),
        ("num_want=3", 50),
        ("numwant=60", 60),
        ("numwant=200", 60),
        ("numwant=30, event=stopped", 0),
    ];
    let check = |table: &[(&str, usize)]| {
        for &(with, expected) in table {
            let peers = swarm.announce(with).bytes("peers").expect("compact peers");
            assert_eq!(peers.len(), expected * 6, "A({with})");
            let peers: HashSet<&[u8]> = peers.chunks(6).collect();
            assert_eq!(peers.len(), expected, "A({with}): each peer once");
            let mut ports = peers
                .iter()
                .map(|peer| u16::from_be_bytes([peer[4], peer[5]]));
            assert!(
                ports.all(|port| port > 20_000),
                "A({with}): neither itself nor port 0"
            );
        }
    };
    check(&few);
    swarm.others(160, "");
    check(&[
        ("numwant=200", 200),
        ("numwant=201", 200),
        ("numwant=4294967295", 200),
    ]);
}

/// Vectors 65 and 67: what seeders and leechers get, and how the counters change.
#[test]
fn swarm_counters_follow_the_peers() {
    let tracker = public();
    let swarm = Swarm::new(&tracker);
    let steps = [
        ("event=started, left=0", [1, 0, 0]),
        ("left=10", [0, 0, 1]),
        ("left=0", [1, 0, 0]),
        ("event=completed, left=0", [1, 0, 0]),
        ("left=10", [0, 0, 1]),
        ("event=completed, left=10", [0, 0, 1]),
        // It was a seeder before: this is the end of a recheck (rule W5).
        ("event=completed, left=0", [1, 0, 0]),
        ("event=stopped, left=0", [0, 0, 0]),
        ("event=started, left=10", [0, 0, 1]),
        ("event=completed, left=0", [1, 1, 0]),
        ("event=completed, left=0", [1, 1, 0]),
        ("event=stopped, left=0", [0, 1, 0]),
        ("event=stopped, left=0", [0, 1, 0]),
    ];
    for (number, (with, expected)) in steps.into_iter().enumerate() {
        let reply = swarm.announce(with);
        assert_eq!(counts(&reply), expected, "step {number}: A({with})");
        assert_eq!(swarm.scrape(), expected, "step {number}: A({with})");
        assert_eq!(
            reply.bytes("peers"),
            Some(Vec::new()),
            "step {number}: A({with})"
        );
    }
    swarm.others(3, "left=0").others(2, "");
    assert_eq!(
        swarm
            .announce("left=0")
            .bytes("peers")
            .map(|peers| peers.len()),
        Some(2 * 6)
    );
    assert_eq!(
        swarm
            .announce("left=1")
            .bytes("peers")
            .map(|peers| peers.len()),
        Some(5 * 6)
    );
}

/// Vectors 35 and 36, and the list form of IPv6.
#[test]
fn peers_are_of_the_requesters_family() {
    let v4 = free_port();
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, v4.port()));
    let mut tracker = Mika::prepare_on(
        v4,
        &json!({ "mode": "public", "http": { "listen": [v4, v6] } }),
    );
    tracker.run();
    let hash = |byte| [byte; 20];
    let alone = get(v6, &a_of(&hash(1), ""));
    assert_eq!(alone.bytes("peers"), Some(Vec::new()));
    assert_eq!(alone.bytes("peers6"), Some(Vec::new()));
    assert_eq!(alone.bytes("external ip").map(|ip| ip.len()), Some(16));
    for with in ["numwant=0", "event=stopped"] {
        let reply = get(v6, &a_of(&hash(1), with));
        assert_eq!(reply.bytes("peers"), Some(Vec::new()), "A({with})");
        assert_eq!(reply.bytes("peers6"), Some(Vec::new()), "A({with})");
    }
    get(
        v6,
        &a_of(&hash(2), "peer_id=-MK0001-zzzzzzzzzzzz, port=4242"),
    );
    let v4_only = get(v4, &a_of(&hash(2), ""));
    assert_eq!(v4_only.bytes("peers"), Some(Vec::new()));
    assert_eq!(v4_only.bytes("peers6"), None);
    assert_eq!(counts(&v4_only), [0, 0, 2]);
    let mut endpoint = Ipv6Addr::LOCALHOST.octets().to_vec();
    endpoint.extend(4242_u16.to_be_bytes());
    let reply = get(v6, &a_of(&hash(2), "port=4243"));
    assert_eq!(reply.bytes("peers6"), Some(endpoint));
    let list = get(v6, &a_of(&hash(2), "port=4243, compact=0"));
    assert!(
        list.body.ends_with(b"5:peersld2:ip3:::14:porti4242eeee"),
        "{}",
        list.body.escape_ascii()
    );
    assert_eq!(list.bytes("peers6"), None);
}

/// Vector 24: in private mode the list form names the peer ids, unless they are not wanted.
#[test]
fn the_list_form_names_peers() {
    let mut tracker = private(&json!({}));
    tracker.run();
    let ask = |with: &str| get(tracker.http(), &format!("/{PASSKEY}{}", a(with)));
    ask("left=0");
    let other = "peer_id=-MK0001-otherotherot, port=6882, compact=0";
    let named = ask(other);
    let entry = format!("5:peersld2:ip9:127.0.0.17:peer id20:{PID}4:porti6881eeee");
    assert!(
        named.body.ends_with(entry.as_bytes()),
        "{}",
        named.body.escape_ascii()
    );
    let unnamed = ask(&format!("{other}, no_peer_id=1"));
    assert!(
        unnamed
            .body
            .ends_with(b"5:peersld2:ip9:127.0.0.14:porti6881eeee"),
        "{}",
        unnamed.body.escape_ascii()
    );
    let compact = ask("peer_id=-MK0001-otherotherot, port=6882, compact=yes");
    assert_eq!(
        compact.bytes("peers"),
        Some(b"\x7f\0\0\x01\x1a\xe1".to_vec())
    );
}

/// Vector 27: the header of a proxy counts only if the proxy is trusted.
#[test]
fn only_trusted_proxies_may_name_the_client() {
    let header = |address, lines: &str| {
        let request = format!("GET {} HTTP/1.1\r\n{lines}\r\n\r\n", a(""));
        let (reply, _) = one(address, request.as_bytes());
        check_form(&reply);
        match reply.bytes("external ip") {
            Some(ip) => ip.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
            None => reply.failure().expect("a failure"),
        }
    };
    let plain = public();
    assert_eq!(
        header(plain.http(), "X-Forwarded-For: 9.9.9.9"),
        "127.0.0.1"
    );
    let behind = Mika::start(&json!({
        "mode": "public",
        "http": { "trusted_proxies": ["127.0.0.0/8", "10.9.0.0/16"] },
    }));
    let table = [
        ("Host: x", "127.0.0.1"),
        ("X-Forwarded-For: 9.9.9.9, 10.0.0.1", "10.0.0.1"),
        ("X-Forwarded-For: 9.9.9.9, 10.9.0.1", "9.9.9.9"),
        (
            "X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-For: 9.9.9.9,10.9.0.1",
            "9.9.9.9",
        ),
        ("x-forwarded-for: ::ffff:9.9.9.9", "9.9.9.9"),
        ("X-Forwarded-For: junk, 9.9.9.9", "9.9.9.9"),
        ("Forwarded: for=9.9.9.9;proto=http", "9.9.9.9"),
    ];
    for (lines, expected) in table {
        assert_eq!(header(behind.http(), lines), expected, "{lines}");
    }
    for lines in [
        "X-Forwarded-For: junk",
        "X-Forwarded-For: ",
        "Forwarded: for=_hidden",
    ] {
        assert!(
            header(behind.http(), lines)
                .parse::<std::net::Ipv4Addr>()
                .is_err(),
            "{lines}"
        );
    }
}
