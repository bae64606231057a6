//! One log line per change, with the request id that the response carries; for refused strangers, at most one
//! line a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

use super::Api;
use super::auth::Caller;
use crate::base::clock::Seconds;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The most characters of a path that are logged.
const PATH_MAX: usize = 200;

/// The longest id that a client may give its request, in bytes.
const ID_MAX: usize = 64;

/// Logs the request. For a change or failure of an authenticated caller the line has the path, which says what
/// was changed and holds no secret; otherwise only the pattern of the route, because strangers may send anything.
pub(super) async fn requests(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Response {
    let now = api.sources.clock.now().mono;
    let id = id_of(&request);
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(PATH_MAX).collect();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let client = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|client| client.0);
    let mut response = next.run(request).await;

    let status = response.status().as_u16();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let client = client.map(|client| client.ip().to_string());
    let client = client.unwrap_or_default();
    let changes = method != Method::GET && method != Method::HEAD;
    match response.extensions().get::<Caller>() {
        Some(Caller { name: caller, .. }) if status >= 500 => {
            tracing::warn!(request = %id, %method, path, status, caller, client, "API");
        }
        Some(Caller { name: caller, .. }) if changes => {
            tracing::info!(request = %id, %method, path, status, caller, client, "API");
        }
        Some(Caller { name: caller, .. }) => {
            tracing::debug!(request = %id, %method, route, status, caller, client, "API");
        }
        None if matches!(status, 401 | 403 | 421 | 429) && logs_stranger(now) => {
            tracing::info!(request = %id, %method, route, status, client, "API: refused");
        }
        None => tracing::debug!(request = %id, %method, route, status, client, "API"),
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Whether to log a stranger's request: once a second, so that nobody can fill the log.
fn logs_stranger(now: Seconds) -> bool {
    static LAST: AtomicU32 = AtomicU32::new(0);
    LAST.swap(now.0, Ordering::Relaxed) != now.0
}

/// The id that the client gave, if it is fit for the log; else a generated one.
fn id_of(request: &Request) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let given = request.headers().get(REQUEST_ID);
    let given = given.and_then(|value| value.to_str().ok());
    let is_plain = |id: &&str| {
        (1..=ID_MAX).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match given.filter(is_plain) {
        Some(id) => id.to_owned(),
        None => format!("{:08x}", NEXT.fetch_add(1, Ordering::Relaxed)),
    }
}
