//! Checks of `Host` and `Origin`, against CSRF and DNS rebinding.
//!
//! A page of another site can make a browser that reaches the API send requests to it (CSRF), and,
//! with a name of its own that resolves to the API's address, read the responses as well (DNS
//! rebinding). So `Host` must be a name that the API serves, and a change must not come from a page of
//! another origin. Programs send neither `Origin` nor `Sec-Fetch-Site`, and are not affected.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;

use arc_swap::ArcSwap;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, Version, header};

use super::error::ApiError;
use crate::net::tls::Certificate;

/// The default ports of URLs.
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// The host names under which the API is served.
pub struct Names {
    listen: Vec<SocketAddr>,
    certificate: Certificate,
    /// Those of the config (`api.hosts`).
    configured: ArcSwap<Vec<HostPort>>,
}

/// A host and a port in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    /// In lower case, without a dot at its end.
    Name(String),
}

// === impl Names ===

impl Names {
    /// The names of an API with these listeners: their addresses, `localhost`, the names of the current
    /// certificate, and `hosts`, each with or without a port.
    pub fn new(listen: Vec<SocketAddr>, certificate: Certificate, hosts: &[String]) -> Self {
        Self {
            listen,
            certificate,
            configured: ArcSwap::from_pointee(parse_all(hosts)),
        }
    }

    /// Replaces the names of the config.
    pub fn set_hosts(&self, hosts: &[String]) {
        self.configured.store(parse_all(hosts).into());
    }

    /// Refuses a request to a name that the API does not serve.
    ///
    /// # Errors
    /// 400 for a missing, repeated or malformed `Host`, 421 for a foreign one.
    pub(super) fn check_host(&self, request: &Request) -> Result<(), ApiError> {
        let target = match request.uri().authority() {
            Some(authority) => Some(HostPort::of(authority).ok_or_else(bad_host)?),
            None => None,
        };
        let header = host_header(request.headers())?;
        if target.is_none() && header.is_none() && request.version() >= Version::HTTP_11 {
            return Err(bad_host());
        }
        if [target, header]
            .iter()
            .flatten()
            .all(|name| self.serves(&name.host))
        {
            return Ok(());
        }
        let message = "the API is not served under this name: use a name of its certificate, or add this one to \
             api.hosts";
        Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, message))
    }

    /// Refuses a change requested by a page of another site.
    ///
    /// # Errors
    /// 403.
    pub(super) fn check_source(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        let is_foreign = site.is_some_and(|site| site != b"same-origin" && site != b"none");
        // Older browsers leave `Origin` out where they send `Referer`.
        let source = [header::ORIGIN, header::REFERER]
            .into_iter()
            .find(|name| headers.contains_key(name));
        let is_own = source.is_none_or(|name| {
            let mut values = headers.get_all(name).iter();
            let only = values.next().filter(|_| values.next().is_none());
            only.is_some_and(|value| self.is_own(value, request))
        });
        if is_own && !is_foreign {
            return Ok(());
        }
        let message = "changes are not taken from the pages of other sites; behind a proxy that changes \
             Host, name the proxy's host in api.hosts";
        Err(ApiError::new(StatusCode::FORBIDDEN, message))
    }

    /// Whether the origin is one of the API's own.
    fn is_own(&self, source: &HeaderValue, request: &Request) -> bool {
        let source = source
            .to_str()
            .ok()
            .and_then(|text| Uri::from_str(text).ok());
        let Some(source) = source else {
            return false;
        };
        let default_port = match source.scheme_str() {
            Some("https") => HTTPS_PORT,
            Some("http") => HTTP_PORT,
            _ => return false,
        };
        let Some(place) = source.authority().and_then(HostPort::of) else {
            return false;
        };
        let port = place.port.unwrap_or(default_port);
        let is_named =
            self.configured.load().iter().any(|known| {
                known.host == place.host && known.port.unwrap_or(default_port) == port
            });
        let target = request.uri().authority().and_then(HostPort::of);
        let target = target.or_else(|| host_header(request.headers()).ok().flatten());
        let is_target = target.is_some_and(|target| {
            target.host == place.host && target.port.unwrap_or(HTTPS_PORT) == port
        });
        is_named || (is_target && default_port == HTTPS_PORT)
    }

    fn serves(&self, host: &Host) -> bool {
        let is_configured = self
            .configured
            .load()
            .iter()
            .any(|known| known.host == *host);
        is_configured
            || self
                .certificate
                .names()
                .iter()
                .any(|name| host.is_named(name))
            || match host {
                Host::Name(name) => name == "localhost",
                Host::Address(ip) => ip.is_loopback() || self.listens_at(*ip),
            }
    }

    /// A listener on all addresses may be reached through any address of the host, or of a router in front of it.
    fn listens_at(&self, ip: IpAddr) -> bool {
        self.listen.iter().any(|listen| match listen.ip() {
            IpAddr::V6(all) if all.is_unspecified() => true,
            IpAddr::V4(all) if all.is_unspecified() => ip.is_ipv4(),
            one => one.to_canonical() == ip,
        })
    }
}

/// The only `Host` header, if there is one.
fn host_header(headers: &HeaderMap) -> Result<Option<HostPort>, ApiError> {
    let mut values = headers.get_all(header::HOST).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let authority = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let place = authority.as_ref().and_then(HostPort::of);
    match (place, values.next()) {
        (Some(place), None) => Ok(Some(place)),
        _ => Err(bad_host()),
    }
}

fn bad_host() -> ApiError {
    ApiError::invalid("expected one Host with the name or address of the API")
}

fn parse_all(hosts: &[String]) -> Vec<HostPort> {
    hosts
        .iter()
        .filter_map(|host| HostPort::of(&host.parse().ok()?))
        .collect()
}

// === impl HostPort ===

impl HostPort {
    /// None if the authority has no host, or names a user.
    fn of(authority: &Authority) -> Option<Self> {
        let text = authority.as_str();
        let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            Some((v6, "")) => (v6, None),
            Some((v6, port)) => (v6, Some(port.strip_prefix(':')?)),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            None | Some("") => None,
            Some(port) => Some(port.parse().ok()?),
        };
        let address = host.parse::<IpAddr>().ok();
        let is_v6 = address.is_some_and(|address| address.is_ipv6());
        if is_v6 != text.starts_with('[') {
            return None;
        }
        let host = match address {
            Some(address) => Host::Address(address.to_canonical()),
            None => Host::Name(name(host)?),
        };
        Some(Self { host, port })
    }
}

/// A host name in canonical form; none if it is invalid.
fn name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !text.is_empty() && text.bytes().all(is_plain);
    is_name.then(|| text.to_ascii_lowercase())
}

// === impl Host ===

impl Host {
    /// Whether a name of a certificate matches this host; `*.` stands for one label (RFC 6125 6.4.3).
    fn is_named(&self, known: &str) -> bool {
        match (self, known.parse::<IpAddr>()) {
            (Self::Address(ip), Ok(known)) => known.to_canonical() == *ip,
            (Self::Name(host), Err(_)) => match known.strip_prefix("*.") {
                Some(domain) => host
                    .split_once('.')
                    .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
                None => host.eq_ignore_ascii_case(known),
            },
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<HostPort> {
        text.parse().ok().as_ref().and_then(HostPort::of)
    }

    #[test]
    fn a_host_is_the_same_however_it_is_written() {
        for (one, other) in [
            ("localhost", "LOCALHOST"),
            ("tracker.example.org", "tracker.example.org."),
            ("tracker.example.org:", "tracker.example.org"),
            ("[::1]:34001", "[0:0::1]:34001"),
            ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ] {
            assert!(place(one).is_some());
            assert_eq!(place(one), place(other), "{one}");
        }
        for (one, other) in [
            ("localhost:1", "localhost:2"),
            ("localhost", "localhost.example.org"),
            ("127.0.0.1", "127.0.0.1.example.org"),
        ] {
            assert_ne!(place(one), place(other), "{one}");
        }
        for bad in [
            "",
            ":34001",
            "user@localhost",
            "localhost:70000",
            "localhost:1:2",
            "::1",
            "[::1",
            "[localhost]",
            "[::1]34001",
            ".",
        ] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_of_a_certificate_may_stand_for_one_label() {
        let is_named = |host: &str, known: &str| place(host).unwrap().host.is_named(known);
        assert!(is_named("a.example.org", "*.Example.org"));
        assert!(is_named("192.0.2.1", "192.0.2.1"));
        for (host, known) in [
            ("example.org", "*.example.org"),
            ("a.b.example.org", "*.example.org"),
            ("evil-example.org", "example.org"),
            ("example.org.evil.net", "example.org"),
            ("192.0.2.1", "*.0.2.1"),
        ] {
            assert!(!is_named(host, known), "{host}");
        }
    }
}
