//! Access by web pages of other sites, through a browser that reaches the API.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::api::{Answer, Api, BASIC, with_api};
use crate::harness::{Mika, poll};

const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon whose API needs no login.
fn open(api: &Value) -> (Mika, Api) {
    let mut mika = with_api(&json!({ "api": { "username": "", "password": "", "tokens": [] } }));
    mika.reconfigure(&json!({ "api": api }));
    mika.run();
    let api = Api::of(&mika).as_whom("");
    (mika, api)
}

/// The answer to a request with these lines as its head.
fn ask(api: &Api, lines: &[&str]) -> Answer {
    let mut connection = api.connect().expect("a connection");
    let head = format!("{}\r\n\r\n", lines.join("\r\n"));
    connection.send_head(&head).expect("a request");
    connection.answer().expect("an answer")
}

/// What removing a client that is not there is answered: 404 where it was tried.
fn change(api: &Api, host: &str, headers: &[&str]) -> u16 {
    let host = format!("Host: {host}");
    let mut lines = vec!["DELETE /api/whitelist/-XX HTTP/1.1", &host];
    lines.extend(headers);
    ask(api, &lines).status
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let (_mika, api) = open(&json!({}));
    let port = api.address().port();
    let host = format!("localhost:{port}");
    for own in [
        vec![],
        vec![format!("Origin: https://localhost:{port}")],
        vec![format!("Origin: HTTPS://LocalHost:{port}")],
        vec![format!("Referer: https://localhost:{port}/page?a=b")],
        vec!["Sec-Fetch-Site: same-origin".into()],
        vec!["Sec-Fetch-Site: none".into()],
    ] {
        let headers: Vec<&str> = own.iter().map(String::as_str).collect();
        assert_eq!(change(&api, &host, &headers), 404, "{own:?}");
    }
    for foreign in [
        vec!["Origin: https://evil.example".to_owned()],
        vec!["Origin: null".into()],
        vec!["Origin: ".into()],
        vec!["Origin: localhost".into()],
        vec![format!("Origin: http://localhost:{port}")],
        vec!["Origin: https://localhost".into()],
        vec![format!("Origin: https://localhost:{}", port ^ 1)],
        vec![format!("Origin: https://127.0.0.1:{port}")],
        vec![format!("Origin: https://localhost:{port}.evil.example")],
        vec![format!("Origin: https://evil.example@localhost:{port}")],
        vec![format!("Origin: https://localhost.evil.example:{port}")],
        vec![
            format!("Origin: https://localhost:{port}"),
            "Origin: https://evil.example".into(),
        ],
        vec![
            "Origin: https://evil.example".into(),
            "Sec-Fetch-Site: same-origin".into(),
        ],
        vec![
            format!("Origin: https://localhost:{port}"),
            "Sec-Fetch-Site: cross-site".into(),
        ],
        vec!["Sec-Fetch-Site: same-site".into()],
        vec!["Sec-Fetch-Site: cross-site".into()],
        vec![format!(
            "Referer: https://evil.example/https://localhost:{port}"
        )],
        vec!["Referer: nonsense".into()],
    ] {
        let headers: Vec<&str> = foreign.iter().map(String::as_str).collect();
        assert_eq!(change(&api, &host, &headers), 403, "{foreign:?}");
    }
    // Not even one that is logged in.
    let mut mika = with_api(&json!({}));
    mika.run();
    let api = Api::of(&mika);
    let login = format!("Authorization: {BASIC}");
    let evil = [login.as_str(), "Origin: https://evil.example"];
    assert_eq!(change(&api, "localhost", &evil), 403);
    assert_eq!(change(&api, "localhost", &[&login]), 404);
}

#[test]
fn only_names_of_the_api_are_served() {
    let (_mika, api) = open(&json!({}));
    let port = api.address().port();
    let read = |host: &str| {
        let host = format!("Host: {host}");
        ask(&api, &["GET /api/users HTTP/1.1", &host])
    };
    for known in [
        "localhost".to_owned(),
        format!("localhost:{port}"),
        "LOCALHOST.".into(),
        format!("127.0.0.1:{port}"),
        "127.0.0.1:8443".into(),
        format!("[::1]:{port}"),
        "[0:0:0:0:0:0:0:1]".into(),
    ] {
        assert_eq!(read(&known).status, 200, "{known}");
        assert_eq!(change(&api, &known, &[]), 404, "{known}");
    }
    for foreign in [
        format!("evil.example:{port}"),
        "evil.example".into(),
        "localhost.evil.example".into(),
        "127.0.0.1.evil.example".into(),
        "192.0.2.1".into(),
        "[2001:db8::1]".into(),
    ] {
        let answer = read(&foreign);
        assert!(answer.is_error(421), "{foreign}: {}", answer.text());
        assert!(answer.text().contains("api.hosts"), "{}", answer.text());
        let own = format!("Origin: https://{foreign}");
        assert_eq!(change(&api, &foreign, &[&own]), 421, "{foreign}");
    }
    for bad in [
        "",
        "localhost@evil.example",
        "local host",
        "::1",
        "localhost:x",
    ] {
        assert!(read(bad).is_error(400), "{bad:?}");
    }
    // The files of the page and the probes of a load balancer hold nothing.
    let probe = ["GET /healthz HTTP/1.1", "Host: 192.0.2.1"];
    assert_eq!(ask(&api, &probe).status, 200);
}

#[test]
fn the_host_of_the_target_overrides_the_header() {
    let (_mika, api) = open(&json!({}));
    let own = "GET https://localhost/api/version HTTP/1.1";
    let foreign = "GET https://evil.example/api/version HTTP/1.1";
    assert_eq!(ask(&api, &[own, "Host: localhost"]).status, 200);
    assert!(ask(&api, &[foreign, "Host: localhost"]).is_error(421));
    assert!(ask(&api, &[own, "Host: evil.example"]).is_error(421));
    let target = "GET /api/version HTTP/1.1";
    let two = [target, "Host: localhost", "Host: evil.example"];
    assert!(ask(&api, &two).is_error(400));
    assert!(ask(&api, &[target]).is_error(400));
    assert_eq!(ask(&api, &["GET /api/version HTTP/1.0"]).status, 200);
}

#[test]
fn names_of_the_certificate_and_of_the_config_are_served() {
    let (mut mika, api) = open(&json!({ "hosts": ["admin.example.org", "[2001:db8::7]:8443"] }));
    let read = |host: &str| {
        ask(
            &api,
            &["GET /api/version HTTP/1.1", &format!("Host: {host}")],
        )
    };
    for host in [
        "Admin.Example.org",
        "admin.example.org:8443",
        "[2001:db8::7]",
    ] {
        assert_eq!(read(host).status, 200, "{host}");
    }
    // A proxy sends its own name of the API, and leaves the browser's origin as it is.
    let proxied = |origin: &str| change(&api, "127.0.0.1:34001", &[&format!("Origin: {origin}")]);
    for (origin, status) in [
        ("https://admin.example.org", 404),
        ("http://admin.example.org", 404),
        ("https://admin.example.org:443", 404),
        ("https://[2001:db8::7]:8443", 404),
        ("https://admin.example.org:8443", 403),
        ("https://[2001:db8::7]", 403),
        ("https://other.example.org", 403),
    ] {
        assert_eq!(proxied(origin), status, "{origin}");
    }
    // The certificate is exchanged by a reload, and its names are.
    assert!(read("tracker.example.org").is_error(421));
    mika.managed(&["genkey", "--force", "--san", "tracker.example.org"]);
    mika.reconfigure(&json!({ "api": { "hosts": [] } }));
    mika.signal(Signal::USR2);
    let read = |host: &str| {
        let api = Api::of(&mika).as_whom("");
        ask(
            &api,
            &["GET /api/version HTTP/1.1", &format!("Host: {host}")],
        )
        .status
    };
    poll(PATIENCE, "the reload", || mika.log().contains("reloaded"));
    assert_eq!(
        (read("tracker.example.org"), read("admin.example.org")),
        (200, 421)
    );
}
