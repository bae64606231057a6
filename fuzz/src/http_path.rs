//! Paths and proxy headers of HTTP requests (rules H1, H2).

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use mika::base::ids::Passkey;
use mika::wire::forwarded::{Hop, client_ip, forwarded_hops, list_hops};
use mika::wire::http::{Target, parse_path};

/// A line with a path, and others with headers.
pub fn http_path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    check_path(lines.next().unwrap_or_default());
    for header in lines {
        check_hops(&list_hops(header).collect::<Vec<_>>());
        check_hops(&forwarded_hops(header).collect::<Vec<_>>());
    }
}

fn check_path(path: &str) {
    let (passkey, action) = match parse_path(path) {
        Some(Target::Announce { passkey }) => (passkey, "announce"),
        Some(Target::Scrape { passkey }) => (passkey, "scrape"),
        None => return,
    };
    let plain = match &passkey {
        Some(passkey) => {
            assert!(Passkey::is_valid(passkey));
            format!("/{passkey}/{action}")
        }
        None => format!("/{action}"),
    };
    let passkey = passkey.as_deref().map(Cow::Borrowed);
    let expected = match action {
        "announce" => Target::Announce { passkey },
        _ => Target::Scrape { passkey },
    };
    assert_eq!(parse_path(&plain), Some(expected));
    // Escapes and slashes beside it are all that may differ from the plain form.
    assert!(path.contains('%') || path.trim_matches('/') == plain.trim_matches('/'));
}

fn check_hops(hops: &[Hop]) {
    let proxies: [IpNet; 2] = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a net"));
    let is_proxy = |ip: &IpAddr| proxies.iter().any(|net| net.contains(ip));
    let last = hops
        .iter()
        .rev()
        .find(|hop| !hop.is_some_and(|ip| is_proxy(&ip)));
    match client_ip(hops.iter().copied(), &proxies) {
        Ok(client) if is_proxy(&client) => {
            assert_eq!(
                (last, hops[0]),
                (None, Some(client)),
                "a client was passed over"
            );
        }
        Ok(client) => {
            assert_eq!(last, Some(&Some(client)), "not the last hop but proxies");
            assert_eq!(client, client.to_canonical());
        }
        Err(_) => assert!(hops.is_empty() || last == Some(&None)),
    }
}
