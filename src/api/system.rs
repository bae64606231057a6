//! The node itself: version, uptime and health.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, CommonErrors};
use crate::view::ServerState;

#[derive(Serialize, ToSchema)]
#[schema(as = Version)]
pub(super) struct VersionInfo {
    #[schema(example = "mika")]
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Uptime {
    /// Seconds since this process started
    process: u64,
    /// Seconds since the machine started
    system: u64,
}

/// Whether the node can do its work.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    storage: ServerState,
    /// None where nodes share nothing
    cache: Option<ServerState>,
}

/// The name and version of this program
#[utoipa::path(get, path = "/api/version", tag = "system", responses((status = 200, body = VersionInfo), CommonErrors))]
pub(super) async fn version() -> Json<VersionInfo> {
    Json(VersionInfo {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// How long the process and the machine have run
#[utoipa::path(get, path = "/api/uptime", tag = "system", responses((status = 200, body = Uptime), CommonErrors))]
pub(super) async fn uptime(State(api): State<Arc<Api>>) -> Result<Json<Uptime>, ApiError> {
    let system = rustix::system::sysinfo().uptime;
    Ok(Json(Uptime {
        process: api.uptime(),
        system: u64::try_from(system).unwrap_or(0),
    }))
}

/// Whether the process responds
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "system",
    security(()),
    responses((status = 200, content_type = "text/plain", body = String, example = "ok\n"))
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the node can do all of its work: without storage or cache it still answers clients and keeps
/// what they report; without storage nothing can be edited
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "system",
    security(()),
    responses(
        (status = 200, body = Readiness),
        (status = 503, body = Readiness, description = "Storage or cache can't be reached")
    )
)]
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let (storage, cache) = server_states(&api);
    let ready = storage.up && cache.as_ref().is_none_or(|state| state.up);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    // Needs no login, so the problem is shown in the log and the stats only.
    let quiet = |state: ServerState| ServerState {
        problem: None,
        ..state
    };
    let readiness = Readiness {
        ready,
        storage: quiet(storage),
        cache: cache.map(quiet),
    };
    (status, Json(readiness)).into_response()
}

/// Storage, and the cache if there is one.
pub(super) fn server_states(api: &Api) -> (ServerState, Option<ServerState>) {
    let health = api.sources.health();
    let storage = ServerState {
        driver: api.about.storage_driver.clone(),
        up: health.storage_up,
        problem: health.storage_problem,
    };
    let cache = api.about.cache_driver.clone().map(|driver| ServerState {
        driver,
        up: health.cache_up.unwrap_or(true),
        problem: health.cache_problem,
    });
    (storage, cache)
}
