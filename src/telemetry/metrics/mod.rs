//! Counters and gauges of this process.

mod availability;
mod clients;
mod connections;
mod counter;
mod gauges;
mod histogram;
pub mod process;
mod requests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

pub use availability::{Availability, Health, ProbeSource};
pub use clients::{ClientSessions, Clients, VERSIONS_MAX};
pub use connections::{Eviction, Evictions};
pub use counter::Counter;
pub use gauges::{Certificates, Readings};
pub use histogram::{BOUNDS, Histogram, Snapshot};
pub use requests::{ByProtocol, Protocol, REASONS_MAX, Refusals, RequestKind};

/// All counters of a node.
#[derive(Default)]
pub struct Metrics {
    /// Announces answered with peers and counters.
    pub announces: ByProtocol<Counter>,
    pub scrapes: ByProtocol<Counter>,
    /// Announces answered with a failure.
    pub announces_refused: ByProtocol<Counter>,
    pub scrapes_refused: ByProtocol<Counter>,
    /// Announces and scrapes answered with a failure, by its reason.
    pub refusals: Refusals,
    /// From a request to its reply as bytes, for announces and scrapes.
    pub durations: ByProtocol<Histogram>,
    /// Clients that began a session.
    pub clients: Clients,
    pub snatches: Counter,
    /// Peers that expired without a `stopped`.
    pub expired: Counter,
    /// Private peers replaced by another client of their user (rule W1a).
    pub replaced: Counter,
    /// Public announces refused because the limit of torrents, or the share of their network, is
    /// reached.
    pub torrents_full: Counter,
    /// Snatches of unregistered public torrents that were not counted, because the registry was full,
    /// the network had its share, or there were too many in that second.
    pub registrations_full: Counter,
    pub registrations_share: Counter,
    pub registrations_rate: Counter,
    /// Unused public torrents whose rows were removed.
    pub torrents_forgotten: Counter,
    /// Public announces refused because their address has the maximum of peers in the swarm.
    pub peers_per_ip: Counter,
    /// Private announces whose credit waits because the outbox was full, and public snatches not
    /// counted because of it.
    pub outbox_full: Counter,
    /// Replies that went out before what they acknowledge was durable.
    pub ack_timeouts: Counter,
    /// Reports that were not credited because of an implausible rate (rule A7).
    pub implausible: Counter,
    /// Connections accepted.
    pub connections: Counter,
    /// Open connections of the announce listener, and their limit.
    pub connections_open: Readings,
    pub connections_max: Readings,
    /// Connections of the announce listener that were evicted for others.
    pub connections_evicted: Arc<Evictions>,
    /// Likewise for the API.
    pub api_connections_evicted: Arc<Evictions>,
    /// Requests from a trusted proxy without the header that names the client.
    pub forwarded_missing: Counter,
    /// Connections of a trusted proxy without a valid PROXY header.
    pub proxy_headers_refused: Counter,
    /// Expiry of the TLS listeners' certificates.
    pub certificates: Certificates,
    /// Announces refused because their address or port is blocked by the config.
    pub blocked: Counter,
    /// UDP connects that got an id.
    pub udp_connects: Counter,
    /// UDP connects left unanswered by the rate limit of their network.
    pub udp_connects_limited: Counter,
    /// UDP requests with a connection id that is forged, too old, or another address's.
    pub udp_bad_ids: Counter,
    /// UDP errors suppressed by the rate limit of their network.
    pub udp_errors_limited: Counter,
    /// UDP packets that are not a request.
    pub udp_dropped: Counter,
    /// UDP replies that the system did not accept.
    pub udp_unsent: Counter,
    /// Batches that storage has applied.
    pub batches: Counter,
    /// Failed attempts to apply a batch.
    pub batch_failures: Counter,
    /// Batches written to the spill file.
    pub batches_spilled: Counter,
    /// Failed attempts to send batches to the cache.
    pub cache_failures: Counter,
    /// Bytes credited to users, multipliers applied, once storage has them.
    pub credited_up: Counter,
    pub credited_down: Counter,
    /// Durations of successful applies to storage, and of successful sends to the cache.
    pub apply_durations: Histogram,
    pub keep_durations: Histogram,
    /// Problems with the database's triggers, tables and session at the last check.
    pub storage_problems: AtomicU64,
    /// Batches of other nodes that are not followed yet.
    pub journals_behind: AtomicU64,
    /// By how many seconds each clock was off the time that most agree on when they were last compared.
    pub clocks: Mutex<Vec<(String, u64)>>,
    /// Whether storage and the cache can be reached.
    pub storage: Availability,
    pub cache: Availability,
}

impl Metrics {
    /// Counts a request that was answered with a failure.
    pub fn refused(&self, asked: RequestKind, protocol: Protocol, reason: impl Into<usize>) {
        match asked {
            RequestKind::Announce => self.announces_refused.of(protocol).increment(),
            RequestKind::Scrape => self.scrapes_refused.of(protocol).increment(),
        }
        self.refusals.of(reason).increment();
    }

    /// Whether storage and cache can be reached now.
    pub fn health(&self) -> Health {
        Health {
            storage_up: self.storage.is_up().unwrap_or(true),
            storage_problem: self.storage.problem(),
            cache_up: self.cache.is_up(),
            cache_problem: self.cache.problem(),
        }
    }
}
