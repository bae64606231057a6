//! Announce and scrape over HTTP, byte by byte against the real program: the rules H1 to H8,
//! Q1 to Q8, R1 to R8 and S1 to S5 of docs/protocol.md. What it does beside answering is in `tests/daemon.rs`.

mod harness;

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use harness::http::{Connection, Reply, escape, get};
use harness::{Mika, lasting_port, now, poll};
use mika::wire::bencode::{self, Node};
use serde_json::{Value, json};

/// Every kind of byte that is special in a URL, and bytes that are not text.
const IH: &str = "%00%25%2B%26%3D%3B%3F%20%23%2F~%7F%80%FF%C3%28aZ0-";
const IH_BYTES: [u8; 20] = *b"\x00\x25\x2b\x26\x3d\x3b\x3f\x20\x23\x2f~\x7f\x80\xff\xc3\x28aZ0-";
const PID: &str = "-MK0001-abcdefghijkl";

const PASSKEY: &str = "Passkey-of-the-first-user";

/// One torrent on a tracker, and announces to it.
struct Swarm<'a> {
    tracker: &'a Mika,
    /// What stands before `/announce`.
    prefix: &'a str,
    info_hash: [u8; 20],
    others: Cell<u16>,
}

/// What an announce must be answered with.
enum Expected {
    /// complete, downloaded, incomplete
    Counts([i64; 3]),
    Failure(&'static str),
}

use Expected::{Counts, Failure};

const LEECHER: Expected = Counts([0, 0, 1]);
const SEEDER: Expected = Counts([1, 0, 0]);

/// The announce `A`: `with` is a list such as `"event=started, -port, left=0"`, where `x=y` replaces a
/// parameter, or is appended, and `-x` takes one away.
fn a(with: &str) -> String {
    a_of(&IH_BYTES, with)
}

fn a_of(info_hash: &[u8; 20], with: &str) -> String {
    let info_hash = format!("info_hash={}", escape(info_hash));
    let mut params = vec![info_hash, format!("peer_id={PID}")];
    let rest = [
        "port=6881",
        "uploaded=0",
        "downloaded=0",
        "left=16384",
        "compact=1",
    ];
    params.extend(rest.map(str::to_owned));
    let key = |param: &str| param.split('=').next().unwrap_or_default().to_owned();
    for change in with.split(", ").filter(|change| !change.is_empty()) {
        let gone = change
            .strip_prefix('-')
            .map_or_else(|| key(change), str::to_owned);
        let place = params.iter().position(|param| key(param) == gone);
        match (change.starts_with('-'), place) {
            (true, place) => drop(params.remove(place.expect("a parameter to take away"))),
            (false, Some(place)) => change.clone_into(&mut params[place]),
            (false, None) => params.push(change.to_owned()),
        }
    }
    format!("/announce?{}", params.join("&"))
}

fn public() -> Mika {
    Mika::start(&json!({ "mode": "public" }))
}

/// A private tracker with users, torrents and two allowed clients; not running yet.
fn private(config: &Value) -> Mika {
    let mut whole = json!({ "mode": "private" });
    for (key, value) in config.as_object().expect("a config") {
        whole[key] = value.clone();
    }
    let mika = Mika::prepare(&whole);
    mika.managed(&["users", "add", "first", "--passkey", PASSKEY]);
    mika.managed(&["whitelist", "add", "-MK", "Mika's tests"]);
    let hash = mika::ids::InfoHash(IH_BYTES).to_string();
    mika.managed(&["torrents", "add", &hash, "--name", "A torrent"]);
    mika
}

fn counts(reply: &Reply) -> [i64; 3] {
    ["complete", "downloaded", "incomplete"].map(|key| reply.int(key).unwrap_or(-1))
}

/// What every reply has in common (rules R1 to R5); its length was exact, or it could not have been read.
fn check_form(reply: &Reply) {
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("transfer-encoding"), None);
    let text = reply.body.escape_ascii();
    let (interval, min) = (reply.int("interval"), reply.int("min interval"));
    assert!(min >= Some(1) && min <= interval, "{text}");
    if reply.failure().is_none() {
        assert!(reply.bencode().get(b"peers").is_some(), "{text}");
        assert!(counts(reply).iter().all(|&count| count >= 0), "{text}");
    }
}

/// Sends raw bytes on a connection of their own; the replies until the server closes, or `most`.
fn talk(address: SocketAddr, bytes: &[u8], most: usize) -> (Vec<Reply>, Connection) {
    let mut connection = Connection::open(address).expect("a connection");
    connection.send(bytes).expect("the request is taken");
    let replies = (0..most).map_while(|_| connection.receive().ok()).collect();
    (replies, connection)
}

fn one(address: SocketAddr, bytes: &[u8]) -> (Reply, Connection) {
    let (mut replies, connection) = talk(address, bytes, 1);
    (replies.pop().expect("a reply"), connection)
}

// === impl Swarm ===

impl<'a> Swarm<'a> {
    /// A torrent that nobody knows yet.
    fn new(tracker: &'a Mika) -> Self {
        let mut info_hash = [0; 20];
        fastrand::fill(&mut info_hash);
        Self {
            tracker,
            prefix: "",
            info_hash,
            others: Cell::new(0),
        }
    }

    fn announce(&self, with: &str) -> Reply {
        let reply = get(
            self.tracker.http(),
            &format!("{}{}", self.prefix, a_of(&self.info_hash, with)),
        );
        check_form(&reply);
        reply
    }

    /// Lets `count` other peers of this kind come; their ports are 20001 and on.
    fn others(&self, count: u16, with: &str) -> &Self {
        let mut connection = Connection::open(self.tracker.http()).expect("a connection");
        for _ in 0..count {
            let number = self.others.get() + 1;
            self.others.set(number);
            let who = format!("peer_id=-MK0001-{number:012}, port={}, ", 20_000 + number);
            let reply = connection
                .get(&a_of(&self.info_hash, &(who + with)))
                .expect("a reply");
            check_form(&reply);
        }
        self
    }

    /// complete, downloaded, incomplete, by scrape.
    fn scrape(&self) -> [i64; 3] {
        let target = format!(
            "{}/scrape?info_hash={}",
            self.prefix,
            escape(&self.info_hash)
        );
        let reply = get(self.tracker.http(), &target);
        let root = reply.bencode();
        let files = root.get(b"files").expect("files");
        let file = files.get(&self.info_hash).expect("the torrent");
        [&b"complete"[..], b"downloaded", b"incomplete"]
            .map(|key| file.get(key).and_then(Node::as_int).expect("a count"))
    }
}

// === announces ===

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
        (
            7,
            format!("{hash}&{pid}&{rest}&info_hash={}", PID),
            multiple,
        ),
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
fn numwant_is_kept_to() {
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

/// Vectors 65 and 67: what seeders and leechers are told, and how the counters move.
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
fn each_family_meets_its_own() {
    let v4 = lasting_port();
    let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v4.port()));
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
    let mut endpoint = std::net::Ipv6Addr::LOCALHOST.octets().to_vec();
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

/// Vector 27: whom a proxy speaks for is believed only if the proxy is.
#[test]
fn only_trusted_proxies_speak_for_others() {
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

// === requests ===

/// Rules H1, H2, H4, H5: how a request may be written, and whether the connection stays.
#[test]
fn vectors_of_requests() {
    let tracker = public();
    let target = a("");
    // Request head, status, whether the connection stays open.
    let table = [
        (format!("GET {target} HTTP/1.1\r\nHost: x\r\n"), 200, true),
        (format!("GET {target} HTTP/1.1\r\n"), 200, true),
        (format!("GET http://any{target} HTTP/1.1\r\n"), 200, true),
        (
            format!("GET http://any:99{target} HTTP/1.1\r\nHost: other\r\n"),
            200,
            true,
        ),
        (format!("GET /{target} HTTP/1.1\r\n"), 200, true),
        (
            format!(
                "GET {} HTTP/1.1\r\n",
                target.replace("announce?", "announce/?")
            ),
            200,
            true,
        ),
        (format!("GET {target} HTTP/1.0\r\n"), 200, false),
        (
            format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n"),
            200,
            true,
        ),
        (
            format!("GET {target} HTTP/1.0\r\nConnection: Keep-Alive\r\n"),
            200,
            true,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nConnection: close\r\n"),
            200,
            false,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nconnection: CLOSE\r\n"),
            200,
            false,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nConnection: keep-alive, Close\r\n"),
            200,
            false,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nConnection: x,close ,y\r\n"),
            200,
            false,
        ),
        (
            format!("GET {target} HTTP/1.1\r\nConnection: closed\r\n"),
            200,
            true,
        ),
        ("GET / HTTP/1.1\r\n".into(), 404, true),
        ("GET /announce.php HTTP/1.1\r\n".into(), 404, true),
        ("GET /short/announce HTTP/1.1\r\n".into(), 404, true),
        ("GET /announces HTTP/1.1\r\n".into(), 404, true),
        (format!("GET {target}\x01 HTTP/1.1\r\n"), 400, false),
        (format!("GET {target}\x7f HTTP/1.1\r\n"), 400, false),
        (format!("GET {target} HTTP/9.9\r\n"), 400, false),
        ("nonsense\r\n".into(), 400, false),
    ];
    for (head, status, stays) in table {
        let (reply, mut connection) = one(tracker.http(), format!("{head}\r\n").as_bytes());
        assert_eq!(reply.status, status, "{head}");
        if head.contains("HTTP/1.0") && stays {
            let said = reply.header("connection").unwrap_or_default();
            assert!(said.eq_ignore_ascii_case("keep-alive"), "{head}");
        }
        if stays {
            assert_eq!(
                connection.get(&target).expect("a second reply").status,
                200,
                "{head}"
            );
        } else {
            assert!(connection.is_closed(), "{head}");
        }
    }
}

/// Vector 32: only GET does anything, and what follows a POST is not executed.
#[test]
fn other_methods_change_nothing() {
    let tracker = public();
    let swarm = Swarm {
        info_hash: IH_BYTES,
        ..Swarm::new(&tracker)
    };
    let hidden = format!("GET {} HTTP/1.1\r\n\r\n", a("event=started"));
    let length = hidden.len();
    for head in [
        format!(
            "POST {} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n",
            a("")
        ),
        format!("POST {} HTTP/1.1\r\n\r\n", a("")),
        format!(
            "POST {} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            a("")
        ),
        format!("PUT {} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n", a("")),
        format!("DELETE {} HTTP/1.1\r\n\r\n", a("")),
        format!("get {} HTTP/1.1\r\n\r\n", a("")),
    ] {
        let (replies, _) = talk(tracker.http(), format!("{head}{hidden}").as_bytes(), 2);
        let [reply] = &replies[..] else {
            panic!("{} replies to {head}", replies.len())
        };
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("GET")),
            "{head}"
        );
        assert_eq!(reply.header("connection"), Some("close"), "{head}");
        assert_eq!(swarm.scrape(), [0, 0, 0], "{head}");
    }
    let mut connection = Connection::open(tracker.http()).expect("a connection");
    connection
        .send(format!("HEAD {} HTTP/1.1\r\n\r\n", a("")).as_bytes())
        .expect("a HEAD");
    let reply = connection.receive_head().expect("a head");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
    assert_eq!(swarm.scrape(), [0, 0, 0]);
    let next = connection
        .get(&a(""))
        .expect("a HEAD has no body, so the next reply begins at once");
    assert_eq!(next.status, 200);
}

/// Rule H6: as many requests as are there are answered in order, in whatever pieces they come.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let tracker = public();
    let swarm = Swarm::new(&tracker);
    let request = |number: usize| {
        let who = format!("port={}, peer_id=-MK0001-{number:012}", 1000 + number);
        format!(
            "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
            a_of(&swarm.info_hash, &who)
        )
    };
    let ten: String = (1..=10).map(request).collect();
    let (replies, _) = talk(tracker.http(), ten.as_bytes(), 10);
    let leechers: Vec<_> = replies
        .iter()
        .map(|reply| reply.int("incomplete"))
        .collect();
    assert_eq!(leechers, (1..=10).map(Some).collect::<Vec<_>>());

    let two = request(11) + &request(12).replace("compact=1", "x=<>\"#&compact=1");
    let mut connection = Connection::open(tracker.http()).expect("a connection");
    for split in 1..two.len() {
        for piece in [&two[..split], &two[split..]] {
            connection.send(piece.as_bytes()).expect("a piece");
        }
        for number in 1..=2 {
            let reply = connection.receive().expect("a reply");
            let case = format!("reply {number}, split at {split}");
            assert_eq!((reply.status, reply.failure()), (200, None), "{case}");
        }
    }
    assert_eq!(swarm.scrape(), [0, 0, 12]);
}

/// Rule H7: what is too long is told so, and costs no memory.
#[test]
fn long_requests_are_refused() {
    let tracker = public();
    let long = |length: usize| {
        let start = "/announce?x=";
        format!(
            "GET {start}{} HTTP/1.1\r\nHost: x\r\n\r\n",
            "x".repeat(length - start.len())
        )
    };
    let (fits, _) = one(tracker.http(), long(15 * 1024).as_bytes());
    assert_eq!(fits.failure().as_deref(), Some("missing info_hash"));
    for length in [
        16 * 1024,
        17 * 1024,
        31 * 1024,
        33 * 1024,
        100 * 1024,
        1 << 20,
    ] {
        let status = status_line(tracker.http(), long(length).as_bytes());
        assert_eq!(status, "HTTP/1.1 414 URI Too Long", "{length}");
    }
    let before = memory(&tracker);
    let endless: Vec<_> = (0..30)
        .map(|_| status_line(tracker.http(), long(1 << 20).as_bytes()))
        .collect();
    assert!(
        endless
            .iter()
            .all(|status| status.ends_with("414 URI Too Long"))
    );
    let grown = memory(&tracker).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");

    let headers = |count: usize| {
        let lines: String = (0..count).fold(String::new(), |mut lines, number| {
            write!(lines, "X-{number}: y\r\n").expect("a String takes everything");
            lines
        });
        format!("GET {} HTTP/1.1\r\n{lines}\r\n", a(""))
    };
    assert!(status_line(tracker.http(), headers(64).as_bytes()).contains(" 200 "));
    for count in [65, 100, 101, 300] {
        assert!(
            status_line(tracker.http(), headers(count).as_bytes()).contains(" 431 "),
            "{count}"
        );
    }
    let big = format!(
        "GET {} HTTP/1.1\r\nX: {}\r\n\r\n",
        a(""),
        "y".repeat(64 << 10)
    );
    assert!(status_line(tracker.http(), big.as_bytes()).contains(" 431 "));
}

/// The status line alone: the server may close while the rest of the request is still coming.
fn status_line(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    if let Err(error) = stream.write_all(request) {
        assert!(
            matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ),
            "{error}"
        );
    }
    let mut reply = Vec::new();
    let mut chunk = [0; 4096];
    while !reply.contains(&b'\n') {
        let length = stream.read(&mut chunk).expect("a reply");
        assert!(length > 0, "closed without a reply");
        reply.extend_from_slice(&chunk[..length]);
    }
    String::from_utf8_lossy(&reply)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Resident memory in KiB.
fn memory(tracker: &Mika) -> u64 {
    let path = format!("/proc/{}/status", tracker.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).expect("its status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("its memory");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .expect("a number")
}

/// Rule H4: a body that nobody asked for is passed over, up to 64 KiB.
#[test]
fn bodies_are_passed_over() {
    let tracker = public();
    for length in [1, 1000, 64 << 10] {
        let request = format!("GET {} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n", a(""));
        let (reply, mut connection) = one(
            tracker.http(),
            &[request.as_bytes(), &vec![b'G'; length]].concat(),
        );
        assert_eq!(reply.failure(), None, "{length}");
        assert_eq!(
            connection
                .get(&a(""))
                .expect("the connection goes on")
                .status,
            200,
            "{length}"
        );
    }
    let request = format!("GET {} HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", a(""));
    let (reply, mut connection) = one(
        tracker.http(),
        &[request.as_bytes(), &[b'G'; 80 << 10]].concat(),
    );
    assert_eq!(
        (reply.status, reply.header("connection")),
        (200, Some("close"))
    );
    assert!(connection.is_closed());
}

/// Rules H5 and H8: who dawdles with a request is let go after 10 s, who asks nothing after 30 s.
#[test]
fn slow_and_idle_connections_are_closed() {
    let tracker = public();
    let start = now();
    let mut slow = Connection::open(tracker.http()).expect("a connection");
    let mut idle = Connection::open(tracker.http()).expect("a connection");
    assert_eq!(idle.get(&a("")).expect("a reply").status, 200);
    slow.send(b"GET /announce?info").expect("a beginning");
    poll(Duration::from_secs(20), "a slow head is given up", || {
        // A byte now and then does not help.
        let sent = slow.send(b"x");
        std::thread::sleep(Duration::from_millis(200));
        sent.is_err()
    });
    let seconds = start.elapsed().as_secs();
    assert!((8..=14).contains(&seconds), "a slow head lived {seconds} s");
    let mut still = || idle.is_closed();
    // One look waits for up to 20 s, so two see the end.
    assert!(
        still() || still(),
        "an idle connection is open after {:?}",
        start.elapsed()
    );
    let seconds = start.elapsed().as_secs();
    assert!(
        (28..=36).contains(&seconds),
        "an idle connection lived {seconds} s"
    );
}

// === scrapes ===

/// Vectors 38 and 40.
#[test]
fn vectors_of_scrapes() {
    let tracker = public();
    get(tracker.http(), &a("left=0"));
    let scrape = |query: &str| get(tracker.http(), &format!("/scrape{query}"));
    let known = scrape(&format!("?info_hash={IH}"));
    let expected = [
        &b"d5:filesd20:"[..],
        &IH_BYTES,
        b"d8:completei1e10:downloadedi0e10:incompletei0eee5:flagsd20:min_request_intervali900eee",
    ];
    assert_eq!(known.body, expected.concat());
    let unknown = scrape("?info_hash=aaaaaaaaaaaaaaaaaaaa");
    assert!(unknown.body.starts_with(
        b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei0e10:downloadedi0e10:incompletei0ee"
    ));
    for (query, reason) in [
        ("", "missing info_hash"),
        ("?", "missing info_hash"),
        ("?info_hash", "invalid info_hash"),
        ("?info_hash=aaaaaaaaaaaaaaaaaaa", "invalid info_hash"),
        (
            "?info_hash=aaaaaaaaaaaaaaaaaaaa&info_hash=b",
            "invalid info_hash",
        ),
    ] {
        let reply = scrape(query);
        assert_eq!(reply.failure().as_deref(), Some(reason), "{query}");
        check_form(&reply);
    }
    let many = |count: u32| -> String {
        let hashes = (0..count)
            .rev()
            .map(|number| format!("info_hash={number:020}"));
        hashes.collect::<Vec<_>>().join("&")
    };
    // Hashes asked for, entries of the reply: sorted and unique, which the reader checks.
    for (query, entries) in [
        (many(74), 74),
        (many(75), 74),
        (format!("{}&{}", many(74), many(3)), 74),
        (format!("info_hash={IH}&info_hash={IH}&{}", many(73)), 74),
        (format!("{}&info_hash={IH}", many(74)), 74),
    ] {
        let reply = scrape(&format!("?{query}"));
        assert_eq!(files_of(&reply), entries, "{query}");
    }
}

/// How many torrents a scrape tells of.
fn files_of(reply: &Reply) -> usize {
    let root = reply.bencode();
    match root.get(b"files").map(|files| &files.value) {
        Some(bencode::Value::Dict(files)) => files.len(),
        other => panic!("files: {other:?}"),
    }
}

/// Vector 41: who is only scraped still expires, and scrapes count nobody.
#[test]
fn scrapes_change_nothing() {
    let tracker = Mika::start(&json!({
        "mode": "public",
        "tracker": { "announce_interval": "2s", "min_announce_interval": "1s", "peer_ttl": "3s" },
    }));
    let swarm = Swarm::new(&tracker);
    swarm.others(2, "").others(1, "left=0");
    assert_eq!(swarm.scrape(), [1, 0, 2]);
    poll(
        Duration::from_secs(15),
        "peers expire in spite of scrapes",
        || swarm.scrape() == [0, 0, 0],
    );
    assert_eq!(counts(&swarm.announce("")), [0, 0, 1]);
}

/// Rules S3 and S5: outsiders learn nothing of a private tracker.
#[test]
fn private_scrapes_need_a_passkey() {
    let mut tracker = private(&json!({}));
    tracker.run();
    let scrape = |path: &str| {
        get(
            tracker.http(),
            &format!("{path}?info_hash={IH}&info_hash=aaaaaaaaaaaaaaaaaaaa"),
        )
    };
    for path in ["/scrape", "/badpasskey0/scrape"] {
        assert_eq!(
            scrape(path).failure().as_deref(),
            Some("invalid passkey"),
            "{path}"
        );
    }
    let reply = scrape(&format!("/{PASSKEY}/scrape"));
    assert_eq!(files_of(&reply), 1, "the unknown torrent is left out");
}
