//! What a reload changes of the API.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::harness::api::{Api, BASIC};
use super::harness::poll;
use super::private;

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
