//! Connect, announce and scrape over UDP, byte by byte against the real program; the rules are those
//! of docs/protocol.md, "UDP". Decisions are those of HTTP announces.

mod announces;
mod connects;
mod hosts;
mod options;
mod private;
mod registry;
mod scrapes;
mod strangers;

use crate::harness::Mika;
use crate::harness::udp::{Announce, Client};
use serde_json::{Value, json};

const V4: &str = "127.0.0.1";
const V6: &str = "::1";

/// Every kind of byte that is special somewhere, and bytes that are not text.
const IH: [u8; 20] = *b"\x00\x25\x2b\x26\x3d\x3b\x3f\x20\x23\x2f~\x7f\x80\xff\xc3\x28aZ0-";

/// Events on the wire (rule U1).
const COMPLETED: u32 = 1;
const STARTED: u32 = 2;
const STOPPED: u32 = 3;
const PAUSED: u32 = 4;

/// A public tracker with UDP on both families, running.
fn public() -> Mika {
    let mut mika = Mika::prepare_udp(&[V4, V6], &json!({ "mode": "public" }));
    mika.run();
    mika
}

/// A client of that tracker with a connection id.
fn client(mika: &Mika, ip: &str) -> (Client, u64) {
    let client = Client::new(mika.udp(ip));
    let id = client.connect();
    (client, id)
}

/// A torrent that is unknown yet.
fn new_torrent() -> [u8; 20] {
    let mut hash = [0; 20];
    fastrand::fill(&mut hash);
    hash
}

/// Seeders and leechers, as in the reply to an announce.
fn counts(client: &Client, announce: &Announce) -> (u32, u32) {
    let reply = client.announce(announce);
    (reply.seeders, reply.leechers)
}

/// A number of the daemon's database.
fn stored(mika: &Mika, sql: &str) -> i64 {
    let [number] = mika.row(sql);
    number
}

/// The config with more in it.
fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}
