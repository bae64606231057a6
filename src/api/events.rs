//! `GET /api/events`: live events, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Api;
use super::error::{ApiError, CommonErrors};
use crate::telemetry::events::{LiveEvent, Watch};

/// The keep-alive interval of a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One subscriber.
struct Watcher {
    events: Watch,
    stop: watch::Receiver<bool>,
    renewals: watch::Receiver<u64>,
    _permit: OwnedSemaphorePermit,
}

/// What happens, as server-sent events: `registry`, `snatch` and `refusal`; `lost` says how many
/// were lost because they were read too slowly
#[utoipa::path(
    get,
    operation_id = "watch_events",
    path = "/api/events",
    tag = "system",
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        CommonErrors
    )
)]
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, ApiError> {
    let permit = Arc::clone(&api.watchers).try_acquire_owned();
    let permit = permit.map_err(|_| {
        let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
        ApiError::new(status, "too many event streams are open").retry_after(30)
    })?;
    let watcher = Watcher {
        events: api.events.watch(),
        stop: api.stop.clone(),
        renewals: api.renewals.subscribe(),
        _permit: permit,
    };
    let messages = unfold(watcher, |mut watcher| async move {
        let message = watcher.next().await?;
        Some((Ok(message), watcher))
    });
    Ok(Sse::new(messages).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

impl Watcher {
    /// None once the node stops or the credentials change.
    async fn next(&mut self) -> Option<Message> {
        let Self {
            events,
            stop,
            renewals,
            ..
        } = self;
        tokio::select! {
            event = events.next() => match event {
                Ok(event) => Some(message(&event)),
                Err(RecvError::Lagged(lost)) => Some(named("lost", &json!({ "events": lost }))),
                Err(RecvError::Closed) => None,
            },
            _ = stop.wait_for(|&stop| stop) => None,
            _ = renewals.changed() => None,
        }
    }
}

fn message(event: &LiveEvent) -> Message {
    let registry = |what: &str, id: Option<u32>, info_hash: Option<String>| {
        named(
            "registry",
            &json!({ "what": what, "id": id, "info_hash": info_hash }),
        )
    };
    match event {
        LiveEvent::User(id) => registry("user", Some(id.0), None),
        LiveEvent::Torrent(id, info_hash) => registry(
            "torrent",
            id.map(|id| id.0),
            info_hash.map(|hash| hash.to_string()),
        ),
        LiveEvent::Whitelist => registry("whitelist", None, None),
        LiveEvent::Registry => registry("all", None, None),
        LiveEvent::Snatch(info_hash, user) => named(
            "snatch",
            &json!({ "info_hash": info_hash.to_string(), "user": user.map(|id| id.0) }),
        ),
        LiveEvent::Refusal {
            reason,
            protocol,
            address,
        } => named(
            "refusal",
            &json!({ "reason": reason, "protocol": protocol, "address": address }),
        ),
    }
}

fn named(name: &str, data: &(impl Serialize + ?Sized)) -> Message {
    let data = serde_json::to_value(data).unwrap_or(Value::Null);
    Message::default().event(name).data(data.to_string())
}
