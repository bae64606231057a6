//! One line in the log for each request that changes something or fails, under an id that the
//! answer carries too.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

use super::auth::Caller;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that a client may give its request, in bytes.
const ID_MAX: usize = 64;

/// Writes the line. The route is named by its pattern: a path may hold what a log should not.
pub(super) async fn requests(request: Request, next: Next) -> Response {
    let id = id_of(&request);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let client = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|client| client.0);
    let mut response = next.run(request).await;

    let status = response.status().as_u16();
    let caller = response.extensions().get::<Caller>();
    let caller = caller.map_or("nobody", |caller| caller.0.as_str());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let client = client.map(|client| client.ip().to_string());
    let client = client.unwrap_or_default();
    let changes = method != Method::GET && method != Method::HEAD;
    match status {
        500.. => tracing::warn!(request = %id, %method, route, status, caller, client, "API"),
        401 | 403 | 429 => {
            tracing::info!(request = %id, %method, route, status, caller, client, "API");
        }
        _ if changes => {
            tracing::info!(request = %id, %method, route, status, caller, client, "API");
        }
        _ => tracing::debug!(request = %id, %method, route, status, caller, client, "API"),
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The id that the client gave, if it can stand in a log; else one of our own.
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
