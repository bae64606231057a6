//! `GET /api/stats`: what the tracker does, in numbers for people and for the page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, Refused};
use super::metrics::{self, Sources};
use super::system::{Side, sides};
use crate::base::ids::InfoHash;
use crate::change::SwarmCounts;
use crate::telemetry::metrics::process::Process;
use crate::telemetry::metrics::{ByProtocol, Counter};
use crate::tracker::{Mode, Roles};

/// Clients that are listed: those that began the most sessions.
const CLIENTS_MAX: usize = 20;

/// How long storage may take to name the torrents.
const NAMES_PATIENCE: Duration = Duration::from_millis(500);

/// Swarms that are listed.
const BUSIEST_MAX: usize = 10;

/// What the tracker does. Totals count since it started.
#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    version: &'static str,
    #[schema(example = "private")]
    mode: &'static str,
    /// The name of this node
    node: String,
    /// Seconds since the process started
    uptime: u64,
    /// Announces answered, by protocol
    announces: BTreeMap<&'static str, u64>,
    /// Scrapes answered, by protocol
    scrapes: BTreeMap<&'static str, u64>,
    udp_connects: u64,
    /// Announces and scrapes refused, by reason; reasons that never were are left out
    refusals: BTreeMap<&'static str, u64>,
    swarms: u64,
    peers: Peers,
    /// Completed downloads
    snatches: u64,
    /// Peers that fell silent
    expired: u64,
    registry: RegistrySizes,
    journal: JournalState,
    storage: Side,
    /// None where nodes share nothing
    cache: Option<Side>,
    connections: Connections,
    /// Resident memory in bytes
    memory: u64,
    /// The clients that began the most sessions
    clients: Vec<ClientCount>,
    /// The largest swarms
    busiest: Vec<Swarm>,
}

#[derive(Serialize, ToSchema)]
struct Peers {
    ipv4: ByRole,
    ipv6: ByRole,
}

#[derive(Serialize, ToSchema)]
struct ByRole {
    seeders: u64,
    leechers: u64,
    paused: u64,
}

#[derive(Serialize, ToSchema)]
struct RegistrySizes {
    users: u64,
    torrents: u64,
    /// Entries of the whitelist
    clients: u64,
}

/// What storage does not have yet, and what became of the rest.
#[derive(Serialize, ToSchema)]
struct JournalState {
    /// Changes that are not in a batch yet
    pending: u64,
    /// Changes that storage does not have yet
    backlog: u64,
    /// Seconds since the oldest of them
    age: u64,
    /// Batches applied to storage
    batches: u64,
    /// Tries that failed
    batch_failures: u64,
    /// Batches written to the spill file
    spilled: u64,
}

/// HTTP connections of clients.
#[derive(Serialize, ToSchema)]
struct Connections {
    open: u64,
    accepted: u64,
}

#[derive(Serialize, ToSchema)]
struct ClientCount {
    client: &'static str,
    version: String,
    /// Sessions that it began
    started: u64,
}

#[derive(Serialize, ToSchema)]
struct Swarm {
    info_hash: String,
    #[serde(skip)]
    torrent: InfoHash,
    /// None for a torrent that nobody registered
    name: Option<String>,
    seeders: u32,
    leechers: u32,
}

/// What the tracker does, in numbers
#[utoipa::path(
    get,
    operation_id = "show_stats",
    path = "/api/stats",
    tag = "system",
    responses((status = 200, body = Stats), Refused)
)]
pub(super) async fn show(State(api): State<Arc<Api>>) -> Result<Json<Stats>, ApiError> {
    let counting = Arc::clone(&api);
    let counted = tokio::task::spawn_blocking(move || {
        let Sources {
            tracker, census, ..
        } = &counting.sources;
        let census = census.get(|| tracker.swarm_stats());
        let busiest = &counting.busiest;
        (census, busiest.get(|| tracker.largest(BUSIEST_MAX)))
    });
    let (census, largest) = counted.await.map_err(ApiError::internal)?;
    let (storage, cache) = sides(&api);
    let mut busiest: Vec<Swarm> = largest.into_iter().map(Swarm::from).collect();
    if storage.is_up() {
        // It may just have gone; the rest is true without it.
        let _ = tokio::time::timeout(NAMES_PATIENCE, name(&api, &mut busiest)).await;
    }
    let it = &api.sources.metrics;
    let (users, torrents, clients) = api.sources.registry.sizes();
    let refusals = it.refusals.iter();
    let refusals = refusals.map(|(reason, number)| (reason.name(), number.get()));
    Ok(Json(Stats {
        version: env!("CARGO_PKG_VERSION"),
        mode: match api.sources.tracker.mode() {
            Mode::Public => "public",
            Mode::Private => "private",
        },
        node: api.about.node.clone(),
        uptime: api.uptime(),
        announces: by_protocol(&it.announces),
        scrapes: by_protocol(&it.scrapes),
        udp_connects: it.udp_connects.get(),
        refusals: refusals.filter(|(_, number)| *number > 0).collect(),
        swarms: census.swarms,
        peers: Peers {
            ipv4: census.v4.into(),
            ipv6: census.v6.into(),
        },
        snatches: it.snatches.get(),
        expired: it.expired.get(),
        registry: RegistrySizes {
            users: users as u64,
            torrents: torrents as u64,
            clients: clients as u64,
        },
        journal: journal(&api),
        storage,
        cache,
        connections: Connections {
            open: it.connections_open.get(),
            accepted: it.connections.get(),
        },
        memory: Process::read().resident.unwrap_or(0),
        clients: most_clients(&api),
        busiest,
    }))
}

/// All metrics, for Prometheus
#[utoipa::path(
    get,
    operation_id = "show_metrics",
    path = "/metrics",
    tag = "system",
    responses((status = 200, content_type = "text/plain", body = String), Refused)
)]
pub(super) async fn prometheus(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let text = tokio::task::spawn_blocking(move || metrics::text(&api.sources));
    let text = text.await.map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// Gives swarms the names of their torrents.
async fn name(api: &Api, swarms: &mut [Swarm]) {
    for swarm in swarms {
        let Ok(Some(stored)) = api.storage.torrent(swarm.torrent).await else {
            continue;
        };
        swarm.name = Some(stored.name);
    }
}

fn by_protocol(counters: &ByProtocol<Counter>) -> BTreeMap<&'static str, u64> {
    let counters = counters.iter();
    counters
        .map(|(protocol, counter)| (protocol.name(), counter.get()))
        .collect()
}

fn journal(api: &Api) -> JournalState {
    let it = &api.sources.metrics;
    JournalState {
        pending: api.sources.tracker.outbox().pending() as u64,
        backlog: api.sources.journal.backlog() as u64,
        age: api.sources.journal.lag().into(),
        batches: it.batches.get(),
        batch_failures: it.batch_failures.get(),
        spilled: it.batches_spilled.get(),
    }
}

fn most_clients(api: &Api) -> Vec<ClientCount> {
    let mut clients = api.sources.metrics.clients.all();
    clients.sort_by_key(|it| std::cmp::Reverse(it.sessions));
    clients.truncate(CLIENTS_MAX);
    let clients = clients.into_iter().map(|it| ClientCount {
        client: it.client,
        version: it.version,
        started: it.sessions,
    });
    clients.collect()
}

// === impl Swarm ===

impl From<(InfoHash, SwarmCounts)> for Swarm {
    fn from((info_hash, counts): (InfoHash, SwarmCounts)) -> Self {
        Self {
            info_hash: info_hash.to_string(),
            torrent: info_hash,
            name: None,
            seeders: counts.seeders,
            leechers: counts.leechers,
        }
    }
}

// === impl ByRole ===

impl From<Roles> for ByRole {
    fn from(roles: Roles) -> Self {
        Self {
            seeders: roles.seeders,
            leechers: roles.leechers,
            paused: roles.paused,
        }
    }
}
