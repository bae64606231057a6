//! The whitelist: which clients may announce.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, BadBody, ErrorBody, Refused};
use super::extract::{Body, PathText};
use super::{Api, Done};
use crate::registry::Client;

/// An allowed client.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// What its peer ids begin with
    #[schema(
        min_length = 1,
        max_length = 20,
        pattern = r##"^[!"$-~]([ -~]*[!-~])?$"##,
        example = "-TR3000-"
    )]
    prefix: String,
    /// What people call it
    #[schema(
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$",
        example = "Transmission 3.00"
    )]
    client: String,
}

/// All allowed clients
#[utoipa::path(
    get,
    operation_id = "list_clients",
    path = "/api/whitelist",
    tag = "whitelist",
    responses((status = 200, body = Vec<Entry>), Refused)
)]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<Entry>>, ApiError> {
    let clients = api.storage.whitelist().await?;
    let entries = clients.into_iter().map(|client| Entry {
        prefix: client.prefix,
        client: client.name,
    });
    Ok(Json(entries.collect()))
}

/// Allow a client
#[utoipa::path(
    post,
    operation_id = "add_client",
    path = "/api/whitelist",
    tag = "whitelist",
    request_body = Entry,
    responses(
        (status = 201, body = Done),
        (status = 409, body = ErrorBody, description = "The prefix is there already; the message is `ok`"),
        BadBody,
        Refused
    )
)]
pub(super) async fn add(
    State(api): State<Arc<Api>>,
    Body(entry): Body<Entry>,
) -> Result<(StatusCode, Json<Done>), ApiError> {
    let known = api.storage.whitelist().await?;
    if known.iter().any(|client| client.prefix == entry.prefix) {
        // The word that clients of the first Mika look for.
        return Err(ApiError::conflict("ok"));
    }
    let client = Client {
        prefix: entry.prefix,
        name: entry.client,
    };
    let saved = api.control.add_clients(&[client]).await?;
    Ok((StatusCode::CREATED, Json(api.done(saved.propagation).await)))
}

/// Allow a client no longer
#[utoipa::path(
    delete,
    operation_id = "remove_client",
    path = "/api/whitelist/{prefix}",
    tag = "whitelist",
    params(("prefix" = String, Path, description = "As it is in the list")),
    responses(
        (status = 200, body = Done),
        (status = 404, body = ErrorBody, description = "Not in the list"),
        Refused
    )
)]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    PathText(prefix): PathText,
) -> Result<Json<Done>, ApiError> {
    let saved = api.control.remove_client(&prefix).await?;
    Ok(Json(api.done(saved.propagation).await))
}
