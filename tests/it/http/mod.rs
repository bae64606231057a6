//! Announce and scrape over HTTP, byte by byte against the real program; the rules are those of
//! docs/protocol.md. The rest of the daemon is in `daemon`.

mod announces;
mod connections;
mod crowds;
mod proxies;
mod proxy_protocol;
mod requests;
mod scrapes;
mod tls;

use std::cell::Cell;
use std::net::SocketAddr;

use crate::harness::Mika;
use crate::harness::http::{Connection, Reply, escape, get};
use mika::wire::bencode::Node;
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
    let hash = mika::base::ids::InfoHash(IH_BYTES).to_string();
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
    /// A torrent that is unknown yet.
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
