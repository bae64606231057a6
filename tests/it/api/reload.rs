//! What a reload changes in the API.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::private;
use crate::harness::api::{Api, BASIC, READER, with_api};
use crate::harness::{free_port, poll};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn certificate_and_credentials_change_and_no_connection_is_dropped() {
    let (mut mika, api) = private();
    let mut kept = api.connect().expect("a connection");
    let mut ask = |authorization: &str| {
        kept.request("GET", "/api/version", authorization, &[], b"")
            .expect("a request");
        kept.answer().expect("an answer").status
    };
    assert_eq!(ask(BASIC), 200);

    mika.managed(&["genkey", "--force"]);
    mika.reconfigure(&json!({ "api": { "password": "hunter3" } }));
    mika.signal(Signal::USR2);
    poll(PATIENCE, "the new password is asked for", || {
        ask(BASIC) == 401
    });
    let new = "Basic c2l0ZTpodW50ZXIz"; // site:hunter3
    assert_eq!(ask(new), 200);
    assert!(
        api.connect().is_err(),
        "who trusts the old certificate alone does not connect"
    );
    assert_eq!(Api::of(&mika).as_whom(new).get("/api/version").status, 200);
    let log = mika.log();
    assert!(log.contains("api.password has changed"), "{log}");
    assert!(!log.contains("hunter"), "{log}");

    // A certificate that can't be read leaves the old one, which the connection shows.
    let trusting = Api::of(&mika).as_whom(new);
    fs::write(mika.path("key_ca"), "nonsense").expect("a file");
    mika.signal(Signal::USR2);
    poll(PATIENCE, "the reload is refused", || {
        mika.log().contains("not reloaded; going on as before")
    });
    assert_eq!(trusting.get("/api/version").status, 200);
    assert_eq!(ask(new), 200);
}

#[test]
fn a_reload_does_not_open_an_api_that_other_hosts_reach() {
    let listen = format!("0.0.0.0:{}", free_port().port());
    let mut mika = with_api(&json!({ "api": { "listen": [listen] } }));
    mika.run();
    let api = Api::of(&mika);
    assert_eq!(api.get("/api/version").status, 200);
    // The listener stays where it is until the next start.
    let off = json!({ "api": { "listen": [], "password": "", "tokens": [] } });
    let stranger = api.as_whom("");
    mika.reconfigure(&off);
    mika.signal(Signal::USR2);
    poll(PATIENCE, "the reload is refused", || {
        mika.log().contains("not reloaded; going on as before")
    });
    assert!(stranger.get("/api/version").is_error(401));
    assert_eq!(api.get("/api/version").status, 200);
}

#[test]
fn changed_credentials_end_event_streams() {
    let (mut mika, api) = private();
    let mut stream = api.connect().expect("a connection");
    stream
        .request("GET", "/api/events", READER, &[], b"")
        .expect("a request");
    assert_eq!(stream.head().expect("a head").status, 200);
    mika.reconfigure(&json!({ "api": { "tokens": [] } }));
    mika.signal(Signal::USR2);
    // The last chunk of a stream that ends is an empty one.
    let mut received = String::new();
    while !received.ends_with("0\r\n\r\n") {
        let more = stream.read().expect("the end of the stream");
        assert!(!more.is_empty(), "cut off after {received:?}");
        received.push_str(&more);
    }
    assert!(api.as_whom(READER).get("/api/version").is_error(401));
}
