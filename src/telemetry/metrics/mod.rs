//! What the process counts of itself. Knows nobody; anybody may count.

mod certificates;
mod clients;
mod clocks;
mod connections;
mod counter;
mod histogram;
pub mod process;
mod reach;
mod readings;
mod requests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use certificates::Certificates;
pub use clients::{ClientCount, Clients, VERSIONS_MAX};
pub use clocks::ClockSkews;
pub use connections::{Eviction, Evictions};
pub use counter::Counter;
pub use histogram::{BOUNDS, Histogram, Snapshot};
pub use reach::{Health, Reach, Witness};
pub use readings::Readings;
pub use requests::{Asked, ByProtocol, Protocol, Reason, Refusals};

/// Everything that a node counts.
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
    /// Peers that left without a word.
    pub expired: Counter,
    /// Private peers whose place another client of their user took (rule W1a).
    pub replaced: Counter,
    /// Public announces refused because there are as many torrents as there may be, or as their
    /// network may begin.
    pub torrents_full: Counter,
    /// Snatches of public torrents that nobody knew, which were not counted, because the registry
    /// was full, the network had its share, or there were too many in that second.
    pub registrations_full: Counter,
    pub registrations_share: Counter,
    pub registrations_rate: Counter,
    /// Public torrents whose rows gave way because nobody used them.
    pub torrents_forgotten: Counter,
    /// Public announces refused because their address has as many peers in the swarm as it may have.
    pub peers_per_ip: Counter,
    /// Private announces whose credit has to wait because the outbox was full, and public
    /// snatches that were not counted because of it.
    pub outbox_full: Counter,
    /// Replies that went out before what they acknowledge was durable.
    pub ack_timeouts: Counter,
    /// Reports that were not credited because no line is that fast (rule A7).
    pub implausible: Counter,
    /// Connections accepted.
    pub connections: Counter,
    /// Connections of the announce listener that are open, and that may be.
    pub connections_open: Readings,
    pub connections_max: Readings,
    /// Connections of the announce listener that had to give way to others.
    pub connections_evicted: Arc<Evictions>,
    /// The same of the API.
    pub api_connections_evicted: Arc<Evictions>,
    /// Requests that came through a trusted proxy without the header that names the client.
    pub forwarded_missing: Counter,
    /// Until when the certificates of TLS listeners are valid.
    pub certificates: Certificates,
    /// Announces refused because their address or port is blocked by the config.
    pub blocked: Counter,
    /// UDP connects that got an id.
    pub udp_connects: Counter,
    /// UDP connects that were not answered, because their network had asked too often.
    pub udp_connects_limited: Counter,
    /// UDP requests whose connection id is not ours, too old, or another address's.
    pub udp_bad_ids: Counter,
    /// UDP errors that were not sent, because their network had got too many.
    pub udp_errors_limited: Counter,
    /// UDP packets that are no request.
    pub udp_dropped: Counter,
    /// UDP replies that the system did not take.
    pub udp_unsent: Counter,
    /// Batches that storage has applied.
    pub batches: Counter,
    /// Tries to apply a batch that failed.
    pub batch_failures: Counter,
    /// Batches written to the spill file.
    pub batches_spilled: Counter,
    /// Tries to send batches to the cache that failed.
    pub cache_failures: Counter,
    /// Bytes credited to users, multipliers applied, once storage has them.
    pub credited_up: Counter,
    pub credited_down: Counter,
    /// How long storage took to apply batches, and the cache to keep some; of those that worked.
    pub apply_durations: Histogram,
    pub keep_durations: Histogram,
    /// What is wrong with the database's triggers, tables and session, as it was last looked at.
    pub storage_problems: AtomicU64,
    /// How far clocks are from the time that most agree on.
    pub clocks: ClockSkews,
    /// Whether storage and the cache can be reached.
    pub storage: Reach,
    pub cache: Reach,
}

// === impl Metrics ===

impl Metrics {
    /// Counts a request that was answered with a failure.
    pub fn refused(&self, asked: Asked, protocol: Protocol, reason: Reason) {
        match asked {
            Asked::Announce => self.announces_refused.of(protocol).one(),
            Asked::Scrape => self.scrapes_refused.of(protocol).one(),
        }
        self.refusals.of(reason).one();
    }

    /// Whether what the node needs can be reached now.
    pub fn health(&self) -> Health {
        Health {
            storage_up: self.storage.is_up().unwrap_or(true),
            storage_problem: self.storage.problem(),
            cache_up: self.cache.is_up(),
            cache_problem: self.cache.problem(),
        }
    }
}
