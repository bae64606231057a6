//! The whitelist: which clients may announce.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::error::{ApiError, BadBody, CommonErrors, ErrorBody};
use super::extract::{JsonBody, PathText};
use super::{Api, Done};
use crate::view::ClientRow;

/// All allowed clients
#[utoipa::path(
    get,
    operation_id = "list_clients",
    path = "/api/whitelist",
    tag = "whitelist",
    responses((status = 200, body = Vec<ClientRow>), CommonErrors)
)]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<ClientRow>>, ApiError> {
    let clients = api.storage.whitelist().await?;
    Ok(Json(clients.into_iter().map(ClientRow::from).collect()))
}

/// Allow a client
#[utoipa::path(
    post,
    operation_id = "add_client",
    path = "/api/whitelist",
    tag = "whitelist",
    request_body = ClientRow,
    responses(
        (status = 201, body = Done),
        (status = 409, body = ErrorBody, description = "The prefix is there already; the message is `ok`"),
        BadBody,
        CommonErrors
    )
)]
pub(super) async fn add(
    State(api): State<Arc<Api>>,
    JsonBody(row): JsonBody<ClientRow>,
) -> Result<(StatusCode, Json<Done>), ApiError> {
    let known = api.storage.whitelist().await?;
    if known.iter().any(|client| client.prefix == row.prefix) {
        // Clients of the first Mika look for this word.
        return Err(ApiError::conflict("ok"));
    }
    let saved = api.editor.add_clients(&[row.into()]).await?;
    Ok((StatusCode::CREATED, Json(api.done(saved.propagation).await)))
}

/// Remove a client from the whitelist
#[utoipa::path(
    delete,
    operation_id = "remove_client",
    path = "/api/whitelist/{prefix}",
    tag = "whitelist",
    params(("prefix" = String, Path, description = "As it is in the list")),
    responses(
        (status = 200, body = Done),
        (status = 404, body = ErrorBody, description = "Not in the list"),
        CommonErrors
    )
)]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    PathText(prefix): PathText,
) -> Result<Json<Done>, ApiError> {
    let saved = api.editor.remove_client(&prefix).await?;
    Ok(Json(api.done(saved.propagation).await))
}
