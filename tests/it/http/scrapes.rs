//! Vectors of scrapes: rules S1 to S5.

use std::time::Duration;

use mika::wire::bencode;
use serde_json::json;

use super::{IH, IH_BYTES, PASSKEY, Swarm, a, check_form, counts, private, public};
use crate::harness::http::{Reply, get};
use crate::harness::{Mika, poll};

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

/// How many torrents a scrape has.
fn files_of(reply: &Reply) -> usize {
    let root = reply.bencode();
    match root.get(b"files").map(|files| &files.value) {
        Some(bencode::Value::Dict(files)) => files.len(),
        other => panic!("files: {other:?}"),
    }
}

/// Vector 41: a peer that is only scraped still expires, and scrapes add no peer.
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
