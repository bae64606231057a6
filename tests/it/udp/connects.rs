//! Connection ids (rule U3): their validity.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use mika::listen::udp::{ConnectionIds, ConnectionSecret};
use rustix::process::Signal;
use serde_json::json;

use super::{IH, V4, V6, client, public, with};
use crate::harness::udp::{Announce, Client, PROTOCOL, Reply, connect, header, scrape};
use crate::harness::{Mika, poll};

const BAD_ID: &str = "bad connection id";

#[test]
fn a_connect_is_answered_by_16_bytes() {
    let mika = public();
    let client = Client::new(mika.udp(V4));
    let request = b"\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00\x11\x22\x33\x44";
    let short = client.exchange(request);
    let long = client.exchange(&[&request[..], &[0xee; 100]].concat());
    for reply in [&short, &long] {
        assert_eq!(reply.len(), 16);
        assert_eq!(reply[..8], *b"\x00\x00\x00\x00\x11\x22\x33\x44");
        assert_ne!(
            reply[8..],
            PROTOCOL.to_be_bytes(),
            "the magic number is no id"
        );
    }
    // Within a slot of time it is the same one: nothing is remembered of connects.
    let tries = (0..100).map(|_| client.connect());
    let ids: std::collections::BTreeSet<u64> = tries.collect();
    assert!(ids.len() <= 2, "{ids:?}");
}

#[test]
fn an_id_is_valid_for_an_address_at_any_port() {
    let second = crate::harness::free_port();
    let mut mika = Mika::prepare_udp(&[V4, V6], &json!({ "mode": "public" }));
    let first = mika.udp(V4);
    mika.reconfigure(&json!({ "udp": { "listen": [first, mika.udp(V6), second] } }));
    mika.run();
    let (owner, id) = client(&mika, V4);
    owner.announce(&Announce::new(id, IH));
    // Clients that sit behind a NAT ask from another port each time.
    let elsewhere = Client::new(mika.udp(V4));
    assert_ne!(elsewhere.address().port(), owner.address().port());
    elsewhere.announce(&Announce::new(id, IH));
    Client::new(second).announce(&Announce::new(id, IH));

    let neighbour = Client::at([127, 0, 0, 2].into(), mika.udp(V4));
    assert_eq!(neighbour.refused(&Announce::new(id, IH)), BAD_ID);
    assert_eq!(neighbour.error(&scrape(id, 7, &[IH])), BAD_ID);
    assert_ne!(neighbour.connect(), id);
    let of_other_family = Client::new(mika.udp(V6));
    assert_eq!(of_other_family.refused(&Announce::new(id, IH)), BAD_ID);
    // The neighbour's failures cost the owner nothing.
    owner.announce(&Announce::new(id, IH));
}

#[test]
fn forged_ids_are_refused() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let made_up = (0..64).map(|bit| id ^ (1 << bit));
    for bad in made_up.chain([0, u64::MAX, PROTOCOL]) {
        assert_eq!(
            client.refused(&Announce::new(bad, IH)),
            BAD_ID,
            "{bad:016x}"
        );
        assert_eq!(client.error(&scrape(bad, 7, &[IH])), BAD_ID, "{bad:016x}");
    }
    // Nothing came of them.
    assert_eq!(client.scrape(id, &[IH]), [[0, 0, 0]]);
    assert_eq!(client.announce(&Announce::new(id, IH)).leechers, 1);
}

#[test]
fn ids_hold_for_two_minutes_and_a_little() {
    let mika = public();
    let client = Client::new(mika.udp(V4));
    let secret = ConnectionSecret::load(&mika.path("mika.secret")).expect("the daemon made it");
    let at_age = |age: i64, lifetime: u32| {
        let ids = ConnectionIds::new(&secret, lifetime);
        let id = ids.issue(client.address().ip(), unix() - age);
        client.ask(&Announce::new(id, IH).packet())
    };
    let is_bad = |reply: &Reply| *reply == Reply::Failed(BAD_ID.into());
    for good in [0, 1, 60, 119, 120] {
        assert!(!is_bad(&at_age(good, 120)), "{good} s old");
    }
    for old in [146, 200, 3600, 86_400] {
        assert!(is_bad(&at_age(old, 120)), "{old} s old");
    }
    // Another process's clock may be ahead, but not by much.
    for ahead in [40, 200] {
        assert!(is_bad(&at_age(-ahead, 120)), "{ahead} s in the future");
    }
}

#[test]
fn a_reload_applies_the_id_lifetime() {
    let config = json!({ "mode": "public" });
    let mut mika = Mika::prepare_udp(&[V4], &config);
    mika.run();
    let client = Client::new(mika.udp(V4));
    let secret = ConnectionSecret::load(&mika.path("mika.secret")).expect("the daemon made it");
    let old = || {
        let ids = ConnectionIds::new(&secret, 3600);
        let id = ids.issue(client.address().ip(), unix() - 3000);
        client.ask(&Announce::new(id, IH).packet())
    };
    assert_eq!(old(), Reply::Failed(BAD_ID.into()));
    mika.reconfigure(&json!({ "udp": { "id_lifetime": "1h" } }));
    mika.signal(Signal::HUP);
    poll(crate::harness::PROGRAM_DEADLINE, "ids hold longer", || {
        matches!(old(), Reply::Announced(_))
    });
}

/// Clients keep an id for a minute, whatever becomes of the tracker meanwhile.
#[test]
fn ids_survive_a_restart_and_a_crash() {
    let port = crate::harness::free_port();
    let config = json!({ "mode": "public", "udp": { "listen": [port] } });
    let mut mika = Mika::prepare_on(port, &config);
    mika.run();
    let client = Client::new(port);
    let id = client.connect();
    client.announce(&Announce::new(id, IH));
    assert_eq!(mika.stop(), 0);
    mika.run();
    client.announce(&Announce::new(id, IH));
    mika.kill9();
    mika.run();
    client.announce(&Announce::new(id, IH));
    // With another secret they are void: the file is what they hang on.
    assert_eq!(mika.stop(), 0);
    fs::remove_file(mika.path("mika.secret")).expect("the secret");
    mika.run();
    assert_eq!(client.refused(&Announce::new(id, IH)), BAD_ID);
}

#[test]
fn processes_of_one_host_share_the_secret() {
    let mut first = Mika::prepare_udp(&[V4], &json!({ "mode": "public" }));
    first.run();
    let secret = first.path("mika.secret");
    let config = with(
        json!({ "mode": "public" }),
        "udp",
        json!({ "secret": secret }),
    );
    let mut second = Mika::prepare_udp(&[V4], &config);
    second.run();
    let (_, id) = client(&first, V4);
    Client::new(second.udp(V4)).announce(&Announce::new(id, IH));
    let mode = fs::metadata(secret)
        .expect("the secret")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn malformed_connects_are_dropped() {
    let mika = public();
    let (client, id) = client(&mika, V4);
    let good = connect(0x1122_3344);
    for length in 0..good.len() {
        assert!(client.is_dropped(&good[..length]), "{length} bytes");
    }
    for not_magic in [0, id, PROTOCOL + 1, PROTOCOL.swap_bytes(), PROTOCOL << 8] {
        assert!(client.is_dropped(&header(not_magic, 0, 7)), "{not_magic:x}");
    }
}

#[allow(clippy::disallowed_methods)] // the daemon's ids go by real time
fn unix() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock that is set").as_secs() as i64
}
