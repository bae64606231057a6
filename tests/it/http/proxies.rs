//! Clients behind trusted proxies: which header counts, in what form, and what happens without one.

use std::net::Ipv4Addr;

use serde_json::json;

use super::{a, check_form, one};
use crate::harness::Mika;

fn behind(header: &str) -> Mika {
    let mut http = json!({ "trusted_proxies": ["127.0.0.0/8", "10.9.0.0/16"] });
    if !header.is_empty() {
        http["forwarded_header"] = json!(header);
    }
    Mika::start(&json!({ "mode": "public", "http": http }))
}

/// The address that an announce with these header lines is believed to come from, or the failure.
fn seen(mika: &Mika, lines: &str) -> String {
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n", a(""));
    let (reply, _) = one(mika.http(), request.as_bytes());
    check_form(&reply);
    match reply.bytes("external ip") {
        Some(ip) if ip.len() == 4 => Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]).to_string(),
        Some(ip) => ip.escape_ascii().to_string(),
        None => reply.failure().expect("a failure"),
    }
}

const INVALID: &str = "invalid forwarded address";

#[test]
fn only_the_configured_header_counts() {
    let client = "X-Forwarded-For: 8.8.8.8\r\nX-Real-IP: 8.8.4.4\r\nForwarded: for=8.8.1.1";
    for (name, expected) in [
        ("X-Forwarded-For", "8.8.8.8"),
        ("forwarded", "8.8.1.1"),
        ("x-real-ip", "8.8.4.4"),
    ] {
        let mika = behind(name);
        assert_eq!(seen(&mika, client), expected, "{name}");
    }
    let mika = behind("CF-Connecting-IP");
    let both = format!("{client}\r\ncf-connecting-ip: 9.9.9.9");
    assert_eq!(seen(&mika, &both), "9.9.9.9");
    assert_eq!(seen(&mika, client), "127.0.0.1", "not the client's headers");
}

/// The proxy's header is not configured, and one of the two may be the client's own.
#[test]
fn two_headers_that_differ_are_refused_if_none_is_configured() {
    let mika = behind("");
    let both = |list: &str, forwarded: &str| {
        seen(
            &mika,
            &format!("X-Forwarded-For: {list}\r\nForwarded: {forwarded}"),
        )
    };
    assert_eq!(both("8.8.8.8", "for=198.51.100.7"), INVALID);
    assert_eq!(both("8.8.8.8", "for=unknown"), INVALID);
    assert_eq!(both("junk", "for=9.9.9.9"), INVALID);
    assert_eq!(both("9.9.9.9", r#"for="9.9.9.9:80""#), "9.9.9.9");
    assert_eq!(
        both("8.8.8.8, 9.9.9.9", "for=9.9.9.9, for=10.9.0.1"),
        "9.9.9.9"
    );
    assert_eq!(seen(&mika, "Forwarded: for=9.9.9.9"), "9.9.9.9");
    assert_eq!(seen(&mika, "X-Forwarded-For: 9.9.9.9"), "9.9.9.9");
    let log = mika.log();
    assert_eq!(log.matches("name different clients").count(), 1, "{log}");
    assert!(!log.contains("8.8.8.8"), "{log}");
}

#[test]
fn empty_elements_are_skipped_and_hidden_hops_are_refused() {
    let list = behind("X-Forwarded-For");
    for (value, expected) in [
        ("9.9.9.9, ", "9.9.9.9"),
        ("8.8.8.8, , 9.9.9.9,,", "9.9.9.9"),
        (", 9.9.9.9", "9.9.9.9"),
        ("9.9.9.9 ,\t10.9.0.1", "9.9.9.9"),
        ("9.9.9.9:5678", "9.9.9.9"),
        ("::ffff:9.9.9.9", "9.9.9.9"),
        ("\"9.9.9.9\"", "9.9.9.9"),
        ("8.8.8.8\r\nx-forwarded-for: 9.9.9.9, 10.9.0.1", "9.9.9.9"),
        ("9.9.9.9\r\nX-FORWARDED-FOR: ,", "9.9.9.9"),
        ("unknown, 9.9.9.9", "9.9.9.9"),
        ("8.8.8.8, unknown", INVALID),
        ("8.8.8.8, _hidden, 10.9.0.1", INVALID),
        (", ,", INVALID),
        ("", INVALID),
    ] {
        let lines = format!("X-Forwarded-For: {value}");
        assert_eq!(seen(&list, &lines), expected, "{value}");
    }
    let ipv6 = seen(&list, "X-Forwarded-For: [2001:db8::1]:4711");
    assert!(ipv6.starts_with(" \\x01\\r\\xb8"), "{ipv6}");

    let forwarded = behind("Forwarded");
    for (value, expected) in [
        ("for=9.9.9.9;proto=http;by=10.9.0.1", "9.9.9.9"),
        (r#"FOR="9.9.9.9:80", , for=10.9.0.1"#, "9.9.9.9"),
        (r#"for=8.8.8.8;x=", for=7.7.7.7", for=9.9.9.9"#, "9.9.9.9"),
        (r#"for="8.8.8.8, for=9.9.9.9"#, INVALID),
        ("for=8.8.8.8, for=_hidden", INVALID),
        ("for=8.8.8.8, proto=https", INVALID),
        ("for=8.8.8.8\r\nForwarded: for=9.9.9.9", "9.9.9.9"),
    ] {
        let lines = format!("Forwarded: {value}");
        assert_eq!(seen(&forwarded, &lines), expected, "{value}");
    }
    let ipv6 = seen(&forwarded, r#"Forwarded: for="[2001:db8::1]:4711""#);
    assert!(ipv6.starts_with(" \\x01\\r\\xb8"), "{ipv6}");
}

/// The proxy stands for itself then, which is said once, with the header that it does send.
#[test]
fn a_proxy_without_the_header_is_logged_and_counted() {
    let mut mika = Mika::prepare(&json!({
        "mode": "public",
        "http": { "trusted_proxies": ["127.0.0.1/32"] },
    }));
    mika.run();
    for _ in 0..3 {
        assert_eq!(seen(&mika, "X-Real-IP: 9.9.9.9"), "127.0.0.1");
    }
    let log = mika.log();
    let line = log
        .lines()
        .find(|line| line.contains("a trusted proxy sends no"));
    let line = line.expect("a warning");
    assert!(line.contains("it sends X-Real-IP"), "{line}");
    assert!(line.contains("http.forwarded_header"), "{line}");
    assert_eq!(log.matches("a trusted proxy sends no").count(), 1, "{log}");
    assert!(!log.contains("9.9.9.9"), "{log}");

    mika.reconfigure(&json!({ "http": { "forwarded_header": "X-Real-IP" } }));
    mika.signal(rustix::process::Signal::USR2);
    crate::harness::poll(std::time::Duration::from_secs(20), "it is reloaded", || {
        seen(&mika, "X-Real-IP: 9.9.9.9") == "9.9.9.9"
    });
}

#[test]
fn headers_of_untrusted_sources_are_ignored() {
    let mika = Mika::start(&json!({
        "mode": "public",
        "http": { "trusted_proxies": ["10.9.0.0/16"], "forwarded_header": "X-Real-IP" },
    }));
    let lines = "X-Real-IP: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\nX-Forwarded-For: 9.9.9.9";
    assert_eq!(seen(&mika, lines), "127.0.0.1");
    assert!(!mika.log().contains("a trusted proxy"));
}

#[test]
fn a_health_check_without_headers_does_not_disable_the_header_of_clients() {
    let mika = behind("");
    assert_eq!(seen(&mika, "X-Other: 1"), "127.0.0.1");
    assert_eq!(seen(&mika, "X-Real-IP: 9.9.9.9"), "127.0.0.1");
    let log = mika.log();
    assert!(log.contains("it sends X-Real-IP"), "{log}");
    assert_eq!(log.matches("a trusted proxy sends no").count(), 2, "{log}");
}
