//! `GET /api/stats`: what the tracker does, in numbers for people and for the dashboard.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::error::{ApiError, CommonErrors};
use super::metrics;
use super::system::server_states;
use crate::base::ids::InfoHash;
use crate::change::SwarmCounts;
use crate::telemetry::metrics::process::ProcessFigures;
use crate::telemetry::metrics::{ByProtocol, Counter, Protocol};
use crate::tracker::{Mode, Reason, Roles};
use crate::view::{
    BusySwarm, ClientCount, Connections, JournalState, PeersByFamily, ProtocolCounts,
    RegistrySizes, RoleCounts, TrackerStats,
};

/// How many clients are listed: those that began the most sessions.
const CLIENTS_MAX: usize = 20;

/// How long storage may take to name the torrents.
const NAMES_TIMEOUT: Duration = Duration::from_millis(500);

/// How many swarms are listed.
const BUSIEST_MAX: usize = 10;

/// What the tracker does, in numbers
#[utoipa::path(
    get,
    operation_id = "show_stats",
    path = "/api/stats",
    tag = "system",
    responses((status = 200, body = TrackerStats), CommonErrors)
)]
pub(super) async fn show(State(api): State<Arc<Api>>) -> Result<Json<TrackerStats>, ApiError> {
    let counting = Arc::clone(&api);
    let counted = tokio::task::spawn_blocking(move || {
        let (sources, busiest) = (&counting.sources, &counting.busiest);
        let swarm_stats = sources.swarm_stats.get(|| sources.tracker.swarm_stats());
        let largest = busiest.get(|| sources.tracker.largest(BUSIEST_MAX));
        (swarm_stats, largest)
    });
    let (swarm_stats, largest) = counted.await.map_err(ApiError::internal)?;
    let (storage, cache) = server_states(&api);
    let mut busiest: Vec<BusySwarm> = largest.iter().map(unnamed).collect();
    if storage.up {
        // Storage may go away at this moment; the other figures don't need it.
        let named = name(&api, &largest, &mut busiest);
        let _ = tokio::time::timeout(NAMES_TIMEOUT, named).await;
    }
    let metrics = &api.sources.metrics;
    let (users, torrents, clients) = api.sources.registry.sizes();
    let refusals = Reason::ALL.iter();
    Ok(Json(TrackerStats {
        version: env!("CARGO_PKG_VERSION").into(),
        mode: match api.sources.tracker.mode() {
            Mode::Public => "public".into(),
            Mode::Private => "private".into(),
        },
        node: api.about.node.clone(),
        uptime: api.uptime(),
        announces: by_protocol(&metrics.announces),
        scrapes: by_protocol(&metrics.scrapes),
        udp_connects: metrics.udp_connects.get(),
        refusals: refusals
            .map(|&reason| (reason.name().to_owned(), metrics.refusals.of(reason).get()))
            .filter(|(_, number)| *number > 0)
            .collect(),
        swarms: swarm_stats.swarms,
        peers: PeersByFamily {
            ipv4: by_role(&swarm_stats.v4),
            ipv6: by_role(&swarm_stats.v6),
        },
        snatches: metrics.snatches.get(),
        expired: metrics.expired.get(),
        registry: RegistrySizes {
            users: users as u64,
            torrents: torrents as u64,
            clients: clients as u64,
        },
        journal: journal(&api),
        storage,
        cache,
        connections: Connections {
            open: metrics.connections_open.get(),
            accepted: metrics.connections.get(),
        },
        memory: ProcessFigures::read().resident.unwrap_or(0),
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
    responses((status = 200, content_type = "text/plain", body = String), CommonErrors)
)]
pub(super) async fn prometheus(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let text = tokio::task::spawn_blocking(move || metrics::text(&api.sources));
    let text = text.await.map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

fn unnamed((info_hash, counts): &(InfoHash, SwarmCounts)) -> BusySwarm {
    BusySwarm {
        info_hash: info_hash.to_string(),
        name: None,
        seeders: counts.seeders,
        leechers: counts.leechers,
    }
}

/// Gives the rows of these swarms the names of their torrents.
async fn name(api: &Api, swarms: &[(InfoHash, SwarmCounts)], rows: &mut [BusySwarm]) {
    for ((info_hash, _), row) in swarms.iter().zip(rows) {
        if let Ok(Some(stored)) = api.storage.torrent(*info_hash).await {
            row.name = Some(stored.name);
        }
    }
}

fn by_protocol(counters: &ByProtocol<Counter>) -> ProtocolCounts {
    ProtocolCounts {
        http: counters.of(Protocol::Http).get(),
        https: counters.of(Protocol::Https).get(),
        udp: counters.of(Protocol::Udp).get(),
    }
}

fn by_role(roles: &Roles) -> RoleCounts {
    RoleCounts {
        seeders: roles.seeders,
        leechers: roles.leechers,
        paused: roles.paused,
    }
}

fn journal(api: &Api) -> JournalState {
    let metrics = &api.sources.metrics;
    JournalState {
        pending: api.sources.tracker.outbox().pending() as u64,
        backlog: api.sources.journal.backlog() as u64,
        age: api.sources.journal.lag().into(),
        batches: metrics.batches.get(),
        batch_failures: metrics.batch_failures.get(),
        spilled: metrics.batches_spilled.get(),
    }
}

fn most_clients(api: &Api) -> Vec<ClientCount> {
    let mut clients = api.sources.metrics.clients.all();
    clients.sort_by_key(|client| Reverse(client.sessions));
    clients
        .into_iter()
        .take(CLIENTS_MAX)
        .map(|client| ClientCount {
            client: client.client.to_owned(),
            version: client.version,
            started: client.sessions,
        })
        .collect()
}
