//! The address of a request's client: that of the connection, or the one that a trusted proxy names.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;

use super::HttpSettings;
use super::http1::RequestHead;
use crate::base::addr::canonical;
use crate::telemetry::metrics::Metrics;
use crate::wire::ParseError;
use crate::wire::forwarded::{ForwardedHeader, client_ip, forwarded_hops, is_trusted, list_hops};

/// Headers in which proxies are known to name the client, as a log line shows them.
const KNOWN: &str = "X-Forwarded-For Forwarded X-Real-IP CF-Connecting-IP True-Client-IP \
    Fastly-Client-IP Fly-Client-IP X-Client-IP X-Cluster-Client-IP X-Envoy-External-Address \
    X-Original-Forwarded-For";

/// Warnings that were logged since the settings were loaded.
#[derive(Debug, Default)]
pub struct Warned {
    missing: AtomicBool,
    /// A header that is missing while the request has others that may name the client.
    other: AtomicBool,
    differing: AtomicBool,
    proxy_header: AtomicBool,
}

impl Warned {
    /// Whether this is the first time.
    pub(super) fn about_proxy_header(&self) -> bool {
        !self.proxy_header.swap(true, Ordering::Relaxed)
    }
}

type Source = Result<IpAddr, ParseError>;

/// The client's address; the proxy's own if a trusted proxy does not send the header.
pub(super) fn source(
    connection: IpAddr,
    head: &RequestHead,
    settings: &HttpSettings,
    metrics: &Metrics,
) -> Source {
    let trusted = &settings.trusted_proxies[..];
    if trusted.is_empty() || !is_trusted(connection, trusted) {
        return Ok(canonical(connection));
    }
    let named = match &settings.forwarded_header {
        ForwardedHeader::Forwarded => by_forwarded(head, trusted),
        ForwardedHeader::List(name) => by_list(head, name, trusted),
        ForwardedHeader::Either => {
            let list = by_list(head, "X-Forwarded-For", trusted);
            let forwarded = by_forwarded(head, trusted);
            match (list, forwarded) {
                (Some(one), Some(other)) if one != other => {
                    warn_of_difference(settings);
                    Some(Err(ParseError::InvalidForwarded))
                }
                (list, forwarded) => list.or(forwarded),
            }
        }
    };
    named.unwrap_or_else(|| {
        // A balancer that names clients before the first request speaks for itself here.
        if !settings.proxy_protocol {
            metrics.forwarded_missing.increment();
            warn_of_missing(connection, head, settings);
        }
        Ok(canonical(connection))
    })
}

/// What all lines of the header named `name` say together; none without the header.
fn by_list(head: &RequestHead, name: &str, trusted: &[IpNet]) -> Option<Source> {
    let mut lines = head.values(name).peekable();
    lines.peek()?;
    Some(client_ip(lines.flat_map(list_hops), trusted))
}

fn by_forwarded(head: &RequestHead, trusted: &[IpNet]) -> Option<Source> {
    let mut lines = head.values("Forwarded").peekable();
    lines.peek()?;
    Some(client_ip(lines.flat_map(forwarded_hops), trusted))
}

fn warn_of_missing(proxy: IpAddr, head: &RequestHead, settings: &HttpSettings) {
    if settings.warned.other.load(Ordering::Relaxed) {
        return;
    }
    let is_present = |name: &&str| head.values(name).next().is_some();
    let others: Vec<&str> = KNOWN.split(' ').filter(is_present).collect();
    // A health check by the proxy may have none of the headers, and must not suppress the warning
    // about the requests that have one.
    let warned = if others.is_empty() {
        &settings.warned.missing
    } else {
        &settings.warned.other
    };
    if warned.swap(true, Ordering::Relaxed) {
        return;
    }
    let expected = settings.forwarded_header.name();
    if others.is_empty() {
        tracing::warn!(
            %proxy,
            "a trusted proxy sends no {expected}, so its clients have its own address: let it send \
             the header, or name the one that it sends in http.forwarded_header"
        );
    } else {
        let others = others.join(", ");
        tracing::warn!(
            %proxy,
            "a trusted proxy sends no {expected}, so its clients have its own address; it sends \
             {others}: if the proxy sets that itself, name it in http.forwarded_header"
        );
    }
}

fn warn_of_difference(settings: &HttpSettings) {
    if !settings.warned.differing.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "a request has both X-Forwarded-For and Forwarded, and they name different clients, so it \
             was refused: one is the client's own; name the one that your proxy sets in \
             http.forwarded_header"
        );
    }
}
