//! The API: JSON over HTTPS for the web application, metrics for monitoring, a dashboard for people.
//!
//! A request passes `guard` (authentication, `auth`), is parsed (`extract`), and ends in a handler of
//! `torrents`, `users`, `whitelist`, `system`, `stats` or `events`. Changes go through [`Editor`], as
//! those of `mika-manage` do. The document at `/api/openapi.json` is generated from the handlers.

mod auth;
mod bulk;
mod cost_limit;
mod error;
mod events;
mod extract;
mod lists;
mod log;
pub mod metrics;
mod origin;
mod page;
mod peers;
mod serve;
mod stats;
mod system;
mod torrents;
mod users;
mod whitelist;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::clock::Seconds;
use crate::base::ids::InfoHash;
use crate::base::limit::SourceLimit;
use crate::change::SwarmCounts;
use crate::storage::Storage;
use crate::sync::RegistryFollower;
use crate::sync::edit::{Editor, Propagation};
use crate::telemetry::events::Events;

use self::cost_limit::CostLimitedCache;
use self::error::ApiError;
use self::metrics::Sources;

pub use auth::{AccessScope, Credentials, Token};
pub use origin::Names;
pub use serve::serve;

/// Concurrent subscribers to the event stream.
const WATCHERS_MAX: usize = 32;

/// Concurrent expensive queries to storage, and how long others wait for a permit.
const SEARCHES_MAX: usize = 2;
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The state that all handlers share.
pub struct Api {
    sources: Sources,
    storage: Arc<dyn Storage>,
    editor: Editor,
    events: Arc<Events>,
    follower: RegistryFollower,
    about: About,
    credentials: ArcSwap<Credentials>,
    names: Names,
    /// Incremented by each change of the credentials.
    renewals: watch::Sender<u64>,
    /// Permits for expensive queries to storage.
    searches: Semaphore,
    /// True once the node shuts down.
    stop: watch::Receiver<bool>,
    failures: SourceLimit,
    watchers: Arc<Semaphore>,
    busiest: CostLimitedCache<Vec<(InfoHash, SwarmCounts)>>,
    document: Vec<u8>,
}

/// What an [`Api`] is made of.
pub struct ApiParts {
    pub sources: Sources,
    pub storage: Arc<dyn Storage>,
    pub editor: Editor,
    pub events: Arc<Events>,
    pub follower: RegistryFollower,
    pub about: About,
    pub names: Names,
    pub stop: watch::Receiver<bool>,
}

/// The name of the node, and its drivers.
pub struct About {
    pub node: String,
    pub storage_driver: String,
    /// None where nodes share nothing.
    pub cache_driver: Option<String>,
}

/// The change was made.
#[derive(Serialize, ToSchema)]
struct Done {
    #[schema(example = "ok")]
    message: &'static str,
    /// Set if other nodes could not be told yet, and why; they follow by themselves
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mika",
        description = "The API of a Mika BitTorrent tracker: users, torrents, the whitelist, and what the tracker does.",
    ),
    modifiers(&Logins),
    security(("basic" = []), ("token" = [])),
    tags(
        (name = "torrents", description = "What may be announced"),
        (name = "users", description = "Who may announce"),
        (name = "whitelist", description = "With which clients"),
        (name = "system", description = "The tracker itself")
    )
)]
struct Document;

/// The two ways to log in.
struct Logins;

// === impl Api ===

impl Api {
    /// An API with these credentials.
    pub fn new(parts: ApiParts, credentials: Credentials) -> Self {
        Self {
            sources: parts.sources,
            storage: parts.storage,
            editor: parts.editor,
            events: parts.events,
            follower: parts.follower,
            about: parts.about,
            credentials: ArcSwap::from_pointee(credentials),
            names: parts.names,
            renewals: watch::Sender::new(0),
            searches: Semaphore::new(SEARCHES_MAX),
            stop: parts.stop,
            failures: SourceLimit::default(),
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            busiest: CostLimitedCache::default(),
            document: document(),
        }
    }

    /// Replaces the credentials. Event streams end, so that their clients authenticate again.
    pub fn set_credentials(&self, credentials: Credentials) {
        if **self.credentials.load() != credentials {
            self.credentials.store(Arc::new(credentials));
            self.renewals.send_modify(|number| *number += 1);
        }
    }

    /// Replaces the configured host names; see [`Names::new`].
    pub fn set_hosts(&self, hosts: &[String]) {
        self.names.set_hosts(hosts);
    }

    /// A permit for an expensive query to storage.
    async fn search(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        let permit = tokio::time::timeout(SEARCH_TIMEOUT, self.searches.acquire()).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| {
            let message = "too many searches are running";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(5)
        })
    }

    /// Seconds since the process started.
    fn uptime(&self) -> u64 {
        self.sources.clock.now().mono.since(Seconds::START).into()
    }

    /// The response to an edit, once this node has applied it.
    async fn done(&self, propagation: Propagation) -> Done {
        self.follower.caught_up().await;
        Done {
            message: "ok",
            warning: match propagation {
                Propagation::Done => None,
                Propagation::Pending(reason) => {
                    tracing::warn!(
                        reason,
                        "an edit is saved, but can't be published to other nodes"
                    );
                    Some("saved; nodes that share the cache follow once it is back".into())
                }
            },
        }
    }
}

/// All routes of the API.
pub fn routes(api: &Arc<Api>) -> Router {
    let (guarded, _) = guarded().split_for_parts();
    let guard = middleware::from_fn_with_state(Arc::clone(api), auth::guard);
    let (open, _) = open().split_for_parts();
    let document = axum::routing::get(openapi);
    guarded
        .route("/api/openapi.json", document)
        .route_layer(guard)
        .merge(open)
        .merge(page::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(
            Arc::clone(api),
            log::requests,
        ))
        .with_state(Arc::clone(api))
}

/// Routes behind the login.
fn guarded() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(system::version))
        .routes(routes!(system::uptime))
        .routes(routes!(torrents::register))
        .routes(routes!(torrents::show, torrents::change, torrents::disable))
        .routes(routes!(torrents::peers))
        .routes(routes!(torrents::list, torrents::bulk))
        .routes(routes!(users::register))
        .routes(routes!(users::show, users::change, users::disable))
        .routes(routes!(users::torrents))
        .routes(routes!(users::list, users::bulk))
        .routes(routes!(whitelist::list, whitelist::add))
        .routes(routes!(whitelist::remove))
        .routes(routes!(events::stream))
        .routes(routes!(stats::show))
        .routes(routes!(stats::prometheus))
}

/// Routes without a login.
fn open() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(system::healthz))
        .routes(routes!(system::readyz))
}

/// The OpenAPI document as JSON.
fn document() -> Vec<u8> {
    let (_, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(guarded())
        .merge(open())
        .split_for_parts();
    document.info.version = env!("CARGO_PKG_VERSION").into();
    serde_json::to_vec(&document).unwrap_or_default()
}

async fn openapi(State(api): State<Arc<Api>>) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, api.document.clone()).into_response()
}

async fn not_found() -> ApiError {
    ApiError::not_found("there is nothing here; the routes are in /api/openapi.json")
}

async fn wrong_method() -> ApiError {
    let message =
        "this route does not accept that method; the Allow header names those that it accepts";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

// === impl Logins ===

impl Modify for Logins {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        for (name, scheme) in [
            ("basic", HttpAuthScheme::Basic),
            ("token", HttpAuthScheme::Bearer),
        ] {
            let scheme = SecurityScheme::Http(Http::new(scheme));
            components.add_security_scheme(name, scheme);
        }
    }
}
