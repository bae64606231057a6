//! Torrents: register, show, change, disable, list.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::bulk::{self, Addable, BulkResult, BulkRows, Checked};
use super::error::{ApiError, BadBody, CommonErrors, ErrorBody};
use super::extract::{JsonBody, MaybeBody, PathText, Query, whole, whole_if_any};
use super::lists::{PagedList, RowQuery};
use super::peers::PeerView;
use super::{Api, Done};
use crate::base::ids::{InfoHash, TorrentId};
use crate::registry::Permille;
use crate::storage::{Added, Found, NewTorrent, StoredTorrent, TorrentKey, TorrentPatch};
use crate::sync::edit::{EditError, Editor, Saved};
use crate::view::TorrentRow;

/// A torrent with its peers.
#[derive(Serialize, ToSchema)]
#[schema(as = TorrentWithPeers)]
pub(super) struct TorrentDetails {
    #[serde(flatten)]
    torrent: TorrentRow,
    /// The peers in the swarm now, at most 10,000
    peers: Vec<PeerView>,
}

/// A torrent to register; an existing one with this info hash gets the id and the name, and is enabled again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TorrentToRegister {
    #[serde(deserialize_with = "whole")]
    #[schema(format = Int64, minimum = 1, maximum = 2_147_483_647_i64)]
    torrent_id: u32,
    /// 40 hexadecimal digits
    #[schema(pattern = "^[0-9a-fA-F]{40}$")]
    info_hash: String,
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    name: String,
}

/// A torrent of a bulk; one that is registered already stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkTorrent {
    /// 1 to 2147483647; without it the database chooses one
    #[serde(default, deserialize_with = "whole_if_any")]
    #[schema(format = Int64, minimum = 0, maximum = 4_294_967_295_i64)]
    torrent_id: Option<u32>,
    /// 40 hexadecimal digits
    info_hash: String,
    /// The second info hash of a hybrid torrent
    info_hash_v2: Option<String>,
    /// 1 to 255 characters, none of them a control character
    name: String,
}

/// What to change about a torrent; fields that are left out stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TorrentChange {
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    name: Option<String>,
    enabled: Option<bool>,
    /// An empty text removes the reason
    #[schema(max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    reason: Option<String>,
    /// A factor from 0 to 1000, rounded to thousandths
    #[schema(minimum = 0, maximum = 1000)]
    multi_up: Option<f64>,
    /// A factor from 0 to 1000, rounded to thousandths
    #[schema(minimum = 0, maximum = 1000)]
    multi_dn: Option<f64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyDisabled {
    /// What clients are told
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    reason: Option<String>,
}

/// The torrent of an info hash, and its peers
#[utoipa::path(
    get,
    operation_id = "show_torrent",
    path = "/api/torrent/{info_hash}",
    tag = "torrents",
    params(("info_hash" = String, Path, description = "40 hexadecimal digits")),
    responses(
        (status = 200, body = TorrentDetails),
        (status = 404, body = ErrorBody, description = "Not registered"),
        CommonErrors
    )
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    PathText(text): PathText,
) -> Result<Json<TorrentDetails>, ApiError> {
    let stored = find(&api, &text).await?;
    let peers = super::peers::of(&api, &stored.torrent.info_hash);
    let torrent = row(&api, stored);
    Ok(Json(TorrentDetails { torrent, peers }))
}

/// Who is in the swarm of a torrent now, 10,000 at most
#[utoipa::path(
    get,
    operation_id = "show_peers",
    path = "/api/torrent/{info_hash}/peers",
    tag = "torrents",
    params(("info_hash" = String, Path, description = "40 hexadecimal digits")),
    responses(
        (status = 200, body = Vec<PeerView>),
        (status = 404, body = ErrorBody, description = "Not registered"),
        CommonErrors
    )
)]
pub(super) async fn peers(
    State(api): State<Arc<Api>>,
    PathText(text): PathText,
) -> Result<Json<Vec<PeerView>>, ApiError> {
    let stored = find(&api, &text).await?;
    Ok(Json(super::peers::of(&api, &stored.torrent.info_hash)))
}

/// Register a torrent, or give the one with this info hash the id and the name, and enable it
#[utoipa::path(
    post,
    operation_id = "register_torrent",
    path = "/api/torrent",
    tag = "torrents",
    request_body = TorrentToRegister,
    responses(
        (status = 201, body = Done),
        (status = 409, body = ErrorBody, description = "The id belongs to another info hash, or to a deleted torrent that left records"),
        BadBody,
        CommonErrors
    )
)]
pub(super) async fn register(
    State(api): State<Arc<Api>>,
    JsonBody(torrent): JsonBody<TorrentToRegister>,
) -> Result<(StatusCode, Json<Done>), ApiError> {
    bulk::check_id("torrent_id", Some(torrent.torrent_id)).map_err(ApiError::invalid)?;
    bulk::check_name("name", &torrent.name).map_err(ApiError::invalid)?;
    let id = TorrentId(torrent.torrent_id);
    let info_hash = hash_of(&torrent.info_hash)?;
    let saved = api
        .editor
        .register_torrent(id, info_hash, &torrent.name)
        .await?;
    Ok((StatusCode::CREATED, Json(api.done(saved.propagation).await)))
}

/// Change a torrent; fields that are left out stay as they are
#[utoipa::path(
    post,
    operation_id = "change_torrent",
    path = "/api/torrent/{info_hash}",
    tag = "torrents",
    params(("info_hash" = String, Path, description = "40 hexadecimal digits")),
    request_body = TorrentChange,
    responses(
        (status = 200, body = Done),
        (status = 404, body = ErrorBody, description = "Not registered"),
        BadBody,
        CommonErrors
    )
)]
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    PathText(text): PathText,
    JsonBody(change): JsonBody<TorrentChange>,
) -> Result<Json<Done>, ApiError> {
    let info_hash = hash_in_path(&text)?;
    let saved = api
        .editor
        .update_torrent(info_hash, &change.patch()?)
        .await?;
    Ok(Json(api.done(saved.propagation).await))
}

/// Disable a torrent, with a reason that clients are told
#[utoipa::path(
    delete,
    operation_id = "disable_torrent",
    path = "/api/torrent/{info_hash}",
    tag = "torrents",
    params(("info_hash" = String, Path, description = "40 hexadecimal digits")),
    request_body(content = Option<WhyDisabled>, description = "May be left out"),
    responses(
        (status = 200, body = Done),
        (status = 404, body = ErrorBody, description = "Not registered"),
        BadBody,
        CommonErrors
    )
)]
pub(super) async fn disable(
    State(api): State<Arc<Api>>,
    PathText(text): PathText,
    MaybeBody(why): MaybeBody<Option<WhyDisabled>>,
) -> Result<Json<Done>, ApiError> {
    let info_hash = hash_in_path(&text)?;
    let reason = why.flatten().and_then(|why| why.reason);
    let disabled = api.editor.set_torrent_enabled(info_hash, false, reason);
    Ok(Json(api.done(disabled.await?.propagation).await))
}

/// Torrents, page by page
#[utoipa::path(
    get,
    operation_id = "list_torrents",
    path = "/api/torrents",
    tag = "torrents",
    params(RowQuery<TorrentKey>),
    responses(
        (status = 200, body = PagedList<TorrentRow>),
        (status = 400, body = ErrorBody, description = "A parameter is wrong"),
        CommonErrors
    )
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<RowQuery<TorrentKey>>,
) -> Result<Json<PagedList<TorrentRow>>, ApiError> {
    let pages = query.pages()?;
    let info_hash = pages.text.as_deref().and_then(|text| text.parse().ok());
    let found = if let Some(info_hash) = info_hash {
        let rows: Vec<_> = api.storage.torrent(info_hash).await?.into_iter().collect();
        let total = rows.len() as u64;
        Found { rows, total }
    } else {
        let find = pages.find(query.enabled, query.sort, query.order);
        let _permit = api.search().await?;
        api.storage.find_torrents(&find).await?
    };
    let rows = found.rows.into_iter().map(|stored| row(&api, stored));
    Ok(Json(pages.list(found.total, rows.collect())))
}

/// Register up to 10,000 torrents; what is registered already stays as it is
#[utoipa::path(
    post,
    operation_id = "register_torrents",
    path = "/api/torrents",
    tag = "torrents",
    request_body = BulkRows<BulkTorrent>,
    responses((status = 200, body = BulkResult), BadBody, CommonErrors)
)]
pub(super) async fn bulk(
    State(api): State<Arc<Api>>,
    JsonBody(rows): JsonBody<BulkRows<BulkTorrent>>,
) -> Result<Json<BulkResult>, ApiError> {
    let rows = rows.checked()?.into_iter().map(BulkTorrent::torrent);
    Ok(Json(bulk::run(&api, rows.collect()).await?))
}

/// The torrent with the counts of its swarm.
fn row(api: &Api, stored: StoredTorrent) -> TorrentRow {
    let counts = api.sources.tracker.counts(&stored.torrent.info_hash);
    TorrentRow::new(stored, counts)
}

async fn find(api: &Api, text: &str) -> Result<StoredTorrent, ApiError> {
    let info_hash = hash_in_path(text)?;
    let stored = api.storage.torrent(info_hash).await?;
    stored.ok_or_else(|| ApiError::not_found(format!("there is no torrent {info_hash}")))
}

/// A path that is not an info hash names no torrent.
fn hash_in_path(text: &str) -> Result<InfoHash, ApiError> {
    text.parse()
        .map_err(|error| ApiError::not_found(format!("there is no such torrent: {error}")))
}

fn hash_of(text: &str) -> Result<InfoHash, ApiError> {
    text.parse()
        .map_err(|error| ApiError::invalid(format!("info_hash: {error}")))
}

// === impl NewTorrent ===

impl Addable for NewTorrent {
    async fn add(editor: &Editor, rows: &[Self]) -> Result<Saved<Vec<Added<u32>>>, EditError> {
        let saved = editor.add_torrents(rows).await?;
        let number = |added: Added<TorrentId>| added.map(|id| id.map(|id| id.0));
        Ok(saved.map(|ids| ids.into_iter().map(number).collect()))
    }
}

// === impl TorrentChange and BulkTorrent ===

impl TorrentChange {
    fn patch(self) -> Result<TorrentPatch, ApiError> {
        let factor = |name: &str, factor: Option<f64>| {
            let permille = |factor| {
                Permille::from_factor(factor)
                    .ok_or_else(|| ApiError::invalid(format!("{name}: expected 0 to 1000")))
            };
            factor.map(permille).transpose()
        };
        if let Some(name) = &self.name {
            bulk::check_name("name", name).map_err(ApiError::invalid)?;
        }
        Ok(TorrentPatch {
            id: None,
            name: self.name,
            enabled: self.enabled,
            reason: self
                .reason
                .map(|reason| (!reason.is_empty()).then_some(reason)),
            multi_up: factor("multi_up", self.multi_up)?,
            multi_down: factor("multi_dn", self.multi_dn)?,
        })
    }
}

impl BulkTorrent {
    fn torrent(self) -> Checked<NewTorrent> {
        let hash = |text: &str| text.parse::<InfoHash>();
        let info_hash = hash(&self.info_hash).map_err(|error| format!("info_hash: {error}"))?;
        let second = self.info_hash_v2.as_deref().map(hash).transpose();
        bulk::check_id("torrent_id", self.torrent_id)?;
        bulk::check_name("name", &self.name)?;
        Ok(NewTorrent {
            id: self.torrent_id.map(TorrentId),
            info_hash,
            info_hash_v2: second.map_err(|error| format!("info_hash_v2: {error}"))?,
            name: self.name,
        })
    }
}
