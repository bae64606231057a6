//! `GET /metrics`: all metrics as text for Prometheus. `docs/metrics.md` explains each name; a test
//! compares the two.

#[cfg(test)]
mod tests;
mod text_format;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};

use self::text_format::MetricsPage;
use super::cost_limit::CostLimitedCache;
use crate::base::clock::{Clock, Seconds};
use crate::journal;
use crate::registry::Registry;
use crate::telemetry::metrics::process::ProcessFigures;
use crate::telemetry::metrics::{ByProtocol, Certificates, Counter, Evictions, Health, Metrics};
use crate::tracker::{Reason, SwarmStats, Tracker};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where the values come from.
#[derive(Clone)]
pub struct Sources {
    pub metrics: Arc<Metrics>,
    pub tracker: Arc<Tracker>,
    pub registry: Arc<Registry>,
    pub journal: journal::JournalHandle,
    pub clock: Clock,
    pub swarm_stats: Arc<CostLimitedCache<SwarmStats>>,
}

/// All metrics as they are now. Counting takes some tens of nanoseconds per swarm: call it on a
/// blocking thread if there may be many.
pub fn text(sources: &Sources) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(sources.clone()));
    let mut out = String::with_capacity(32 * 1024);
    // Writing to a string can't fail.
    if let Err(error) = text::encode_registry(&mut out, &registry) {
        tracing::error!(%error, "the metrics could not be written");
    }
    out
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = MetricsPage(encoder);
        let page = &mut page;
        self.requests(page)?;
        self.clients(page)?;
        self.swarms(page)?;
        self.locks(page)?;
        self.registry(page)?;
        self.journal(page)?;
        self.stores(page)?;
        self.listeners(page)?;
        self.process(page)
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

impl Sources {
    /// Whether storage and cache can be reached, for `GET /readyz`.
    pub fn health(&self) -> Health {
        self.metrics.health()
    }

    #[rustfmt::skip] // a table
    fn requests(&self, page: &mut MetricsPage) -> fmt::Result {
        let metrics = &self.metrics;
        let outcomes = [("answered", &metrics.announces), ("refused", &metrics.announces_refused)];
        page.counters("mika_announces_total", "Announces by protocol and outcome.", by_protocol(outcomes))?;
        let outcomes = [("answered", &metrics.scrapes), ("refused", &metrics.scrapes_refused)];
        page.counters("mika_scrapes_total", "Scrapes by protocol and outcome.", by_protocol(outcomes))?;
        let refusals = Reason::ALL.iter().map(|&reason| ([("reason", reason.name())], metrics.refusals.of(reason).get()));
        page.counters("mika_refusals_total", "Announces and scrapes answered with a failure, by its reason.", refusals)?;
        let durations = metrics.durations.iter();
        let durations = durations.map(|(protocol, histogram)| ([("protocol", protocol.name())], histogram));
        page.histograms("mika_request_duration_seconds", "From a parsed announce or scrape to its encoded reply.", durations)?;
        page.counter("mika_snatches_total", "Downloads completed.", metrics.snatches.get())?;
        page.counter("mika_peers_expired_total", "Peers that fell silent.", metrics.expired.get())?;
        page.counter("mika_peers_replaced_total", "Private peers whose endpoint another client of their user took over.", metrics.replaced.get())?;
        page.counter("mika_reports_implausible_total", "Reports of more traffic than any line carries; not credited.", metrics.implausible.get())?;
        page.counter("mika_torrents_full_total", "Public announces refused because there was no room for another torrent.", metrics.torrents_full.get())?;
        let refused = [("full", &metrics.registrations_full), ("share", &metrics.registrations_share), ("rate", &metrics.registrations_rate)];
        let refused = refused.map(|(reason, number)| ([("reason", reason)], number.get()));
        page.counters("mika_registrations_refused_total", "Snatches of unknown public torrents that were not counted, by what was exceeded.", refused)?;
        page.counter("mika_torrents_forgotten_total", "Public torrents that gave way because nobody used them.", metrics.torrents_forgotten.get())?;
        page.counter("mika_peers_per_ip_exceeded_total", "Public announces refused because of too many peers of one address.", metrics.peers_per_ip.get())?;
        page.counter("mika_blocked_total", "Announces refused because their address or port is blocked.", metrics.blocked.get())
    }

    fn clients(&self, page: &mut MetricsPage) -> fmt::Result {
        let all = self.metrics.clients.all();
        let sessions = all.iter().map(|client| {
            let version = client.version.as_str();
            (
                [("client", client.client), ("version", version)],
                client.sessions,
            )
        });
        let help = "Sessions that clients began, by name and version.";
        page.counters("mika_client_sessions_total", help, sessions)
    }

    fn swarms(&self, page: &mut MetricsPage) -> fmt::Result {
        let swarm_stats = self.swarm_stats.get(|| self.tracker.swarm_stats());
        page.gauge("mika_swarms", "Swarms in memory.", swarm_stats.swarms)?;
        let peers = [("ipv4", swarm_stats.v4), ("ipv6", swarm_stats.v6)];
        let peers = peers.into_iter().flat_map(|(family, roles)| {
            let peers = |role, number| ([("family", family), ("role", role)], number);
            [
                peers("seeder", roles.seeders),
                peers("leecher", roles.leechers),
                peers("paused", roles.paused),
            ]
        });
        let help = "Peers by address family and role; one that uses both counts in each.";
        page.gauges("mika_peers", help, peers)
    }

    #[rustfmt::skip] // a table
    fn locks(&self, page: &mut MetricsPage) -> fmt::Result {
        let waits = self.tracker.lock_waits();
        let counts = waits.map(|(lock, waits)| ([("lock", lock)], waits.count()));
        page.counters("mika_lock_waits_total", "How often a thread waited for a lock that announces take.", counts)?;
        let seconds = waits.map(|(lock, waits)| ([("lock", lock)], waits.nanoseconds() as f64 / 1e9));
        page.seconds_each("mika_lock_wait_seconds_total", "How long threads waited for them.", seconds)
    }

    #[rustfmt::skip] // a table
    fn registry(&self, page: &mut MetricsPage) -> fmt::Result {
        let (users, torrents, clients) = self.registry.sizes();
        page.gauge("mika_registry_users", "Users.", users as u64)?;
        page.gauge("mika_registry_torrents", "Registered torrents.", torrents as u64)?;
        page.gauge("mika_registry_torrents_disabled", "Registered torrents that are disabled.", self.registry.disabled_torrents() as u64)?;
        page.gauge("mika_registry_whitelist_entries", "Clients on the whitelist.", clients as u64)
    }

    #[rustfmt::skip] // a table
    fn journal(&self, page: &mut MetricsPage) -> fmt::Result {
        let (metrics, outbox) = (&self.metrics, self.tracker.outbox());
        page.gauge("mika_outbox_pending", "Changes that are not durable yet.", outbox.pending() as u64)?;
        page.gauge("mika_outbox_capacity", "Changes that the outbox has room for.", outbox.capacity() as u64)?;
        page.counter("mika_outbox_full_total", "Changes that found no room in the outbox.", metrics.outbox_full.get())?;
        page.counter("mika_ack_timeouts_total", "Replies sent before what they acknowledge was durable.", metrics.ack_timeouts.get())?;
        page.gauge("mika_journal_backlog", "Changes that storage does not have yet.", self.journal.backlog() as u64)?;
        page.gauge("mika_journal_lag_seconds", "Age of the oldest change that storage does not have yet.", u64::from(self.journal.lag()))?;
        page.counter("mika_journal_batches_applied_total", "Batches that storage has applied.", metrics.batches.get())?;
        page.counter("mika_journal_batch_failures_total", "Failed attempts to apply batches.", metrics.batch_failures.get())?;
        page.counter("mika_journal_batches_spilled_total", "Batches written to the spill file.", metrics.batches_spilled.get())?;
        page.counter("mika_journal_send_failures_total", "Failed attempts to send batches to the cache.", metrics.cache_failures.get())?;
        page.histogram("mika_journal_apply_duration_seconds", "How long storage took to apply batches.", &metrics.apply_durations)?;
        page.histogram("mika_journal_keep_duration_seconds", "How long the cache took to keep batches.", &metrics.keep_durations)?;
        page.counter("mika_uploaded_bytes_total", "Upload credited to users, once storage has it.", metrics.credited_up.get())?;
        page.counter("mika_downloaded_bytes_total", "Download charged to users, once storage has it.", metrics.credited_down.get())
    }

    #[rustfmt::skip] // a table
    fn stores(&self, page: &mut MetricsPage) -> fmt::Result {
        let metrics = &self.metrics;
        let is_up = |up: Option<bool>| up.map(u64::from);
        page.gauge("mika_storage_up", "1 if storage can be reached, else 0.", is_up(metrics.storage.is_up()))?;
        page.gauge("mika_journals_behind", "Batches of other nodes that this one has not followed yet.", metrics.journals_behind.load(Ordering::Relaxed))?;
        page.gauge("mika_storage_problems", "What is wrong with the triggers, tables and session of the database.", metrics.storage_problems.load(Ordering::Relaxed))?;
        page.counter("mika_storage_failures_total", "Calls to storage that failed.", metrics.storage.failures.get())?;
        page.counter("mika_storage_reconnects_total", "How often storage came back after calls had failed.", metrics.storage.reconnects.get())?;
        let clocks = metrics.clocks.lock().clone();
        let clocks = clocks.iter().map(|(clock, skew)| ([("clock", clock.as_str())], *skew));
        page.gauges("mika_clock_skew_seconds", "Seconds between a clock and the time that most agree on.", clocks)?;
        page.gauge("mika_cache_up", "1 if the cache can be reached, else 0.", is_up(metrics.cache.is_up()))?;
        page.counter("mika_cache_failures_total", "Calls to the cache that failed.", metrics.cache.failures.get())?;
        page.counter("mika_cache_reconnects_total", "How often the cache came back after calls had failed.", metrics.cache.reconnects.get())
    }

    #[rustfmt::skip] // a table
    fn listeners(&self, page: &mut MetricsPage) -> fmt::Result {
        let metrics = &self.metrics;
        page.counter("mika_http_connections_total", "Connections accepted by the announce listener.", metrics.connections.get())?;
        page.gauge("mika_http_connections_open", "Connections of the announce listener that are open.", metrics.connections_open.get())?;
        page.gauge("mika_http_connections_max", "Connections that may be open at once.", metrics.connections_max.get())?;
        page.counters("mika_http_connections_evicted_total", "Connections that had to give way to others.", evictions(&metrics.connections_evicted))?;
        page.counters("mika_api_connections_evicted_total", "Connections of the API that had to give way to others.", evictions(&metrics.api_connections_evicted))?;
        page.counter("mika_http_forwarded_missing_total", "Requests of trusted proxies without the header that names the client.", metrics.forwarded_missing.get())?;
        page.counter("mika_http_proxy_headers_refused_total", "Connections of trusted proxies without a valid PROXY header.", metrics.proxy_headers_refused.get())?;
        page.counter("mika_udp_connects_total", "UDP connects that got an id.", metrics.udp_connects.get())?;
        page.counter("mika_udp_connects_limited_total", "UDP connects left unanswered, because their network had asked too often.", metrics.udp_connects_limited.get())?;
        page.counter("mika_udp_bad_ids_total", "UDP requests with a connection id that is not valid.", metrics.udp_bad_ids.get())?;
        page.counter("mika_udp_errors_limited_total", "UDP errors that were not sent, because their network had got too many.", metrics.udp_errors_limited.get())?;
        page.counter("mika_udp_dropped_total", "UDP packets that are not requests.", metrics.udp_dropped.get())?;
        page.counter("mika_udp_unsent_total", "UDP replies that the system did not take.", metrics.udp_unsent.get())?;
        let expiries = expiries(&metrics.certificates);
        page.gauges("mika_certificate_expiry_timestamp_seconds", "Unix time at which the certificate of a listener expires.", expiries)
    }

    #[rustfmt::skip] // a table
    fn process(&self, page: &mut MetricsPage) -> fmt::Result {
        let process = ProcessFigures::read();
        let started = self.clock.now().to_unix(Seconds::START);
        page.gauge("mika_process_resident_memory_bytes", "Memory of the process.", process.resident)?;
        page.gauge("mika_process_memory_limit_bytes", "Memory that the process may use.", process.memory_max)?;
        page.gauge("mika_process_open_fds", "Open files.", process.files_open)?;
        page.gauge("mika_process_max_fds", "Files that may be open at once.", process.files_max)?;
        page.gauge("mika_process_threads", "Threads.", process.threads)?;
        page.seconds("mika_process_cpu_seconds_total", "Time on all cores.", process.cpu_seconds)?;
        page.gauge("mika_process_start_time_seconds", "Unix time of the start.", u64::try_from(started).ok())?;
        page.gauges("mika_build_info", "Always 1; says which version runs.", [([("version", env!("CARGO_PKG_VERSION"))], 1)])
    }
}

type Labels<const N: usize> = [(&'static str, &'static str); N];

fn by_protocol(
    outcomes: [(&'static str, &ByProtocol<Counter>); 2],
) -> impl Iterator<Item = (Labels<2>, u64)> {
    outcomes.into_iter().flat_map(|(outcome, counters)| {
        counters.iter().map(move |(protocol, number)| {
            let labels = [("protocol", protocol.name()), ("outcome", outcome)];
            (labels, number.get())
        })
    })
}

/// Evictions by reason.
fn evictions(evicted: &Evictions) -> impl Iterator<Item = (Labels<1>, u64)> {
    let evicted = evicted.iter();
    evicted.map(|(reason, number)| ([("reason", reason.name())], number.get()))
}

fn expiries(certificates: &Certificates) -> impl Iterator<Item = (Labels<1>, u64)> {
    let all = certificates.all().into_iter();
    all.map(|(listener, at)| ([("listener", listener)], u64::try_from(at).unwrap_or(0)))
}
