//! HTTP: one worker's listeners and connections (rules H1 to H8, R1, R2).
//!
//! [`serve`] accepts connections and serves them, `turn` answers what becomes readable on one, `conn` is the
//! state of a connection, `proxied` what a balancer sends before its first byte, `http1` is the bytes of
//! requests and replies, and `respond` is where a request meets the tracker.

mod conn;
pub mod http1;
mod listener;
mod proxied;
mod respond;
mod serve;
mod source;
#[cfg(test)]
mod tests;
mod turn;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;

pub use self::conn::HandedConnection;
pub use self::serve::serve;
pub use self::source::Warned;
use crate::base::clock::Clock;
use crate::net::permits::Permits;
use crate::net::tls::Certificate;
use crate::telemetry::metrics::Metrics;
use crate::tracker::Tracker;
use crate::wire::forwarded::{ForwardedHeader, is_trusted};

/// Once half of the connection permits are taken, a network's share is one in `SHARES` of them.
pub const SHARES: usize = 8;

/// The settings that a reload may change.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    pub trusted_proxies: Vec<IpNet>,
    /// They are balancers that name the client in a PROXY header, with which each connection begins.
    pub proxy_protocol: bool,
    /// The header in which they name the client.
    pub forwarded_header: ForwardedHeader,
    /// Which warnings about it were logged since the last reload.
    pub warned: Arc<Warned>,
    /// The longest that a reply waits until what it acknowledges is durable.
    pub ack_timeout: Duration,
    /// Connections open at once, over all workers.
    pub max_connections: usize,
}

/// What all workers share.
#[derive(Clone)]
pub struct HttpService {
    pub tracker: Arc<Tracker>,
    pub settings: Arc<ArcSwap<HttpSettings>>,
    /// If set, connections speak TLS.
    pub certificate: Option<Certificate>,
    pub permits: Arc<Permits>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    /// Connections that are left to the next process.
    pub handed: Arc<Mutex<Vec<HandedConnection>>>,
}

impl HttpSettings {
    /// Whether a connection from there begins with a PROXY header.
    fn is_proxied(&self, peer: IpAddr) -> bool {
        self.proxy_protocol && is_trusted(peer, &self.trusted_proxies)
    }

    fn warn_of_bad_header(&self, peer: IpAddr) {
        if self.warned.about_proxy_header() {
            tracing::warn!(
                proxy = %peer,
                "a trusted proxy sends no valid PROXY header, so its connections are closed: let it send \
                 one (HAProxy: send-proxy-v2, nginx: proxy_protocol on), or turn http.proxy_protocol off"
            );
        }
    }
}
