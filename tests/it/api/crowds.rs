//! Connections that are held to the API.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::harness::api::{Api, with_api};
use crate::harness::poll;

const DEADLINE: Duration = Duration::from_secs(30);

/// Held connections to the API, over TLS or before it, lock out no client.
#[test]
fn idle_api_connections_are_evicted() {
    let mut mika = with_api(&json!({ "mode": "public" }));
    mika.run();
    let api = Api::of(&mika);
    let mut stream = api.connect().expect("a connection");
    let asked = stream.request("GET", "/api/events", &api.authorization, &[], b"");
    asked.expect("a request");
    assert_eq!(stream.head().expect("a head").status, 200);
    let _handshakes: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(api.address()).expect("the kernel takes it"))
        .collect();
    let _kept: Vec<_> = (0..300)
        .map(|_| {
            let mut kept = api.connect().expect("a connection");
            let asked = kept.request("GET", "/api/version", &api.authorization, &[], b"");
            asked.expect("a request");
            assert_eq!(kept.answer().expect("an answer at once").status, 200);
            kept
        })
        .collect();
    let metrics = api.get("/metrics").text();
    let evicted = metrics
        .lines()
        .find_map(|line| line.strip_prefix("mika_api_connections_evicted_total{reason=\"full\"} "));
    let evicted: u64 = evicted.expect("the metric").parse().expect("a number");
    assert!(evicted >= 300, "{evicted}");
    // A reader of events is not idle.
    mika.manage(&["whitelist", "add", "-MK", "Mika's tests"]);
    let mut received = String::new();
    poll(DEADLINE, "the stream goes on", || {
        received.push_str(&stream.read().expect("more of the stream"));
        received.contains("event: ")
    });
}
