//! The API over the wire: requests of the web application, their answers, and access control.

mod bulk;
mod crowds;
mod events;
mod login;
mod origin;
mod original;
mod reload;
mod routes;
mod schema;
mod secrets;
mod shared;

use serde_json::json;

use crate::harness::Mika;
use crate::harness::api::{Api, with_api};
use crate::harness::http::{Reply, escape, get};

/// A torrent and its hash as bytes.
const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// A private tracker that lets any client in, with an API.
fn private() -> (Mika, Api) {
    let config = json!({ "mode": "private", "tracker": { "whitelist": false } });
    let mut mika = with_api(&config);
    mika.run();
    let api = Api::of(&mika);
    (mika, api)
}

/// The reply to an announce for [`HASH`].
fn announce(mika: &Mika, passkey: &str, rest: &str) -> Reply {
    let hash: Vec<u8> = (0..20)
        .map(|at| u8::from_str_radix(&HASH[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect();
    let target = format!(
        "/{passkey}/announce?info_hash={}&peer_id=-TR3000-abcdefghijkl&port=6881&{rest}",
        escape(&hash)
    );
    get(mika.http(), &target)
}

/// The failure in a reply; empty without one.
fn failure(reply: &Reply) -> String {
    let text = reply.body.escape_ascii().to_string();
    let rest = text.strip_prefix("d14:failure reason");
    let rest = rest.and_then(|rest| rest.split_once(':'));
    rest.map(|(length, rest)| rest[..length.parse().expect("a length")].to_owned())
        .unwrap_or_default()
}
