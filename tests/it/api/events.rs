//! Server-sent events.

use serde_json::json;

use super::{HASH, announce, private};
use crate::harness::api::Connection;

/// Reads on until all of `texts` have come, in whatever order.
fn wait_for(stream: &mut Connection, received: &mut String, texts: &[&str]) {
    while let Some(missing) = texts.iter().find(|text| !received.contains(**text)) {
        let more = stream.read();
        let more = more.unwrap_or_else(|error| panic!("{missing} not within: {error}; {received}"));
        assert!(!more.is_empty(), "the stream ended: {received}");
        received.push_str(&more);
    }
}

#[test]
fn event_streams_have_edits_snatches_and_refusals() {
    let (mut mika, api) = private();
    let mut stream = api.connect().expect("a connection");
    stream
        .request("GET", "/api/events", &api.authorization, &[], b"")
        .expect("a request");
    let head = stream.head().expect("a head");
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    let mut received = String::new();

    api.post(
        "/api/torrent",
        &json!({ "torrent_id": 5, "info_hash": HASH, "name": "five" }),
    );
    api.post(
        "/api/user",
        &json!({ "user_id": 7, "passkey": "passkey-seven", "name": "seven" }),
    );
    api.post(
        "/api/whitelist",
        &json!({ "prefix": "-TR", "client": "Transmission" }),
    );
    announce(&mika, "nobody-knows-it", "left=5");
    announce(
        &mika,
        "passkey-seven",
        "uploaded=0&downloaded=0&left=5&event=started",
    );
    announce(
        &mika,
        "passkey-seven",
        "uploaded=0&downloaded=5&left=0&event=completed",
    );
    let torrent = format!(r#"{{"id":5,"info_hash":"{HASH}","what":"torrent"}}"#);
    let snatch = format!(r#"{{"info_hash":"{HASH}","user":7}}"#);
    let texts = [
        "event: registry",
        &torrent,
        r#"{"id":7,"info_hash":null,"what":"user"}"#,
        r#"{"id":null,"info_hash":null,"what":"whitelist"}"#,
        "event: refusal",
        r#"{"address":"127.0.0.1","protocol":"http","reason":"invalid_passkey"}"#,
        "event: snatch",
        &snatch,
    ];
    wait_for(&mut stream, &mut received, &texts);
    assert!(!received.contains("passkey-seven"));
    // A watcher does not keep the node from stopping.
    assert_eq!(mika.stop(), 0);
    while stream.read().is_ok_and(|more| !more.is_empty()) {}
}

#[test]
fn the_number_of_event_streams_is_limited() {
    let (_mika, api) = private();
    let mut watchers = Vec::new();
    for _ in 0..32 {
        let mut stream = api.connect().expect("a connection");
        stream
            .request("GET", "/api/events", &api.authorization, &[], b"")
            .expect("a request");
        assert_eq!(stream.head().expect("a head").status, 200);
        watchers.push(stream);
    }
    assert!(api.get("/api/events").is_error(503));
    drop(watchers.pop());
    crate::harness::poll(
        crate::harness::PROGRAM_DEADLINE,
        "a place is free again",
        || {
            let mut stream = api.connect().expect("a connection");
            stream
                .request("GET", "/api/events", &api.authorization, &[], b"")
                .expect("a request");
            stream.head().expect("a head").status == 200
        },
    );
}
