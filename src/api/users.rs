//! Users: register, show, change, list.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::{AccessScope, Caller};
use super::bulk::{self, Addable, BulkResult, BulkRows, Checked, RowResult};
use super::error::{ApiError, BadBody, CommonErrors, ErrorBody};
use super::extract::{JsonBody, PathText, Query, whole, whole_if_any};
use super::lists::{PagedList, RowQuery};
use super::{Api, Done};
use crate::base::ids::{Passkey, UserId};
use crate::storage::{Added, NewUser, StorageError, StoredUser, UserKey, UserPatch};
use crate::sync::edit::{EditError, Editor, Saved, random_passkey};
use crate::view::{UserDetails, UserRow, UserTorrentIds};

/// A user to register.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserToRegister {
    #[serde(deserialize_with = "whole")]
    #[schema(format = Int64, minimum = 1, maximum = 2_147_483_647_i64)]
    user_id: u32,
    /// 8 to 64 letters, digits, `_` or `-`
    #[schema(pattern = "^[A-Za-z0-9_-]{8,64}$")]
    passkey: String,
    /// If it is missing or empty, the name is `user` and the id
    #[schema(max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    name: Option<String>,
    /// Whether the user may download; true by default
    can_leech: Option<bool>,
}

/// A user of a bulk.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkUser {
    /// 1 to 2147483647; without it the database chooses one
    #[serde(default, deserialize_with = "whole_if_any")]
    #[schema(format = Int64, minimum = 0, maximum = 4_294_967_295_i64)]
    user_id: Option<u32>,
    /// Without it, a random one is generated and returned
    passkey: Option<String>,
    /// 1 to 255 characters, none of them a control character
    name: String,
    can_leech: Option<bool>,
}

/// A checked user of a bulk.
#[derive(Clone)]
struct UserToAdd {
    user: NewUser,
    /// The passkey was generated here.
    is_random: bool,
}

/// What to change about a user; fields that are left out stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserChange {
    /// May be left out; otherwise it must be the id in the path
    #[serde(default, deserialize_with = "whole_if_any")]
    #[schema(format = Int64, minimum = 0, maximum = 4_294_967_295_i64)]
    user_id: Option<u32>,
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    username: Option<String>,
    /// The same as `username`, under the name that `POST /api/user` uses; an empty one changes nothing
    #[schema(max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    name: Option<String>,
    /// 8 to 64 letters, digits, `_` or `-`; the old one is refused from then on
    #[schema(pattern = "^[A-Za-z0-9_-]{8,64}$")]
    passkey: Option<String>,
    enabled: Option<bool>,
    can_leech: Option<bool>,
    /// Bytes; later announces add to it
    #[serde(default, deserialize_with = "whole_if_any")]
    #[schema(format = Int64, minimum = 0, maximum = 4_611_686_018_427_387_904_i64)]
    uploaded: Option<u64>,
    /// Bytes; later announces add to it
    #[serde(default, deserialize_with = "whole_if_any")]
    #[schema(format = Int64, minimum = 0, maximum = 4_611_686_018_427_387_904_i64)]
    downloaded: Option<u64>,
}

/// A user
#[utoipa::path(
    get,
    operation_id = "show_user",
    path = "/api/user/{user_id}",
    tag = "users",
    params(("user_id" = i64, Path, minimum = 0, maximum = 4_294_967_295_i64)),
    responses(
        (status = 200, body = UserDetails),
        (status = 404, body = ErrorBody, description = "There is no such user"),
        CommonErrors
    )
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    PathText(text): PathText,
) -> Result<Json<UserDetails>, ApiError> {
    let stored = find(&api, &text).await?;
    Ok(Json(details(stored, caller.scope)))
}

/// Register a user
#[utoipa::path(
    post,
    operation_id = "register_user",
    path = "/api/user",
    tag = "users",
    request_body = UserToRegister,
    responses(
        (status = 200, body = Done),
        (status = 409, body = ErrorBody, description = "The user is known already, or the passkey is another's"),
        BadBody,
        CommonErrors
    )
)]
pub(super) async fn register(
    State(api): State<Arc<Api>>,
    JsonBody(user): JsonBody<UserToRegister>,
) -> Result<Json<Done>, ApiError> {
    bulk::check_id("user_id", Some(user.user_id)).map_err(ApiError::invalid)?;
    let new = NewUser {
        id: Some(UserId(user.user_id)),
        passkey: passkey_of(&user.passkey)?,
        username: user.name(),
        can_leech: user.can_leech.unwrap_or(true),
    };
    let saved = api
        .editor
        .register_users(std::slice::from_ref(&new))
        .await?;
    match saved.value.first() {
        Some(Err(problem)) => Err(ApiError::invalid(problem)),
        Some(Ok(None)) => known_already(&api, &new).await,
        _ => Ok(Json(api.done(saved.propagation).await)),
    }
}

/// A web application may have inserted the row itself and now announces it: that is no conflict,
/// unless the tracker knew the user already.
async fn known_already(api: &Api, new: &NewUser) -> Result<Json<Done>, ApiError> {
    let id = new.id.unwrap_or(UserId(0));
    let is_known = api.sources.registry.access(new.passkey.expose());
    let stored = api.storage.user(id).await?;
    let is_same = stored.is_some_and(|stored| stored.user.passkey == new.passkey);
    if is_same && is_known.is_none() {
        let saved = api.editor.publish_user(id).await;
        return Ok(Json(api.done(saved.propagation).await));
    }
    let taken = StorageError::Duplicate(format!("user {}, or the passkey,", id.0));
    Err(taken.into())
}

/// Change a user; fields that are left out stay as they are
#[utoipa::path(
    post,
    operation_id = "change_user",
    path = "/api/user/{user_id}",
    tag = "users",
    params(("user_id" = i64, Path, minimum = 0, maximum = 4_294_967_295_i64)),
    request_body = UserChange,
    responses(
        (status = 200, body = Done),
        (status = 404, body = ErrorBody, description = "There is no such user"),
        (status = 409, body = ErrorBody, description = "The passkey is another's, or the body contradicts the path or itself"),
        BadBody,
        CommonErrors
    )
)]
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    PathText(text): PathText,
    JsonBody(change): JsonBody<UserChange>,
) -> Result<Json<Done>, ApiError> {
    let id = id_of(&text)?;
    let saved = api.editor.update_user(id, &change.patch(id)?).await?;
    Ok(Json(api.done(saved.propagation).await))
}

/// Disable a user, whose totals and history stay
#[utoipa::path(
    delete,
    operation_id = "disable_user",
    path = "/api/user/{user_id}",
    tag = "users",
    params(("user_id" = i64, Path, minimum = 0, maximum = 4_294_967_295_i64)),
    responses(
        (status = 200, body = Done),
        (status = 404, body = ErrorBody, description = "There is no such user"),
        CommonErrors
    )
)]
pub(super) async fn disable(
    State(api): State<Arc<Api>>,
    PathText(text): PathText,
) -> Result<Json<Done>, ApiError> {
    let disabled = api.editor.set_user_enabled(id_of(&text)?, false).await?;
    Ok(Json(api.done(disabled.propagation).await))
}

/// The torrents that a user seeds, downloads or has completed, and those marked as hit and run
#[utoipa::path(
    get,
    operation_id = "show_user_torrents",
    path = "/api/user/{user_id}/torrents",
    tag = "users",
    params(("user_id" = i64, Path, minimum = 0, maximum = 4_294_967_295_i64)),
    responses(
        (status = 200, body = UserTorrentIds),
        (status = 404, body = ErrorBody, description = "There is no such user"),
        CommonErrors
    )
)]
pub(super) async fn torrents(
    State(api): State<Arc<Api>>,
    PathText(text): PathText,
) -> Result<Json<UserTorrentIds>, ApiError> {
    let stored = find(&api, &text).await?;
    let _permit = api.search().await?;
    let torrents = api.storage.torrents_of(stored.user.id).await?;
    Ok(Json(torrents.into()))
}

/// Users, page by page, without their passkeys
#[utoipa::path(
    get,
    operation_id = "list_users",
    path = "/api/users",
    tag = "users",
    params(RowQuery<UserKey>),
    responses(
        (status = 200, body = PagedList<UserRow>),
        (status = 400, body = ErrorBody, description = "A parameter is wrong"),
        CommonErrors
    )
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<RowQuery<UserKey>>,
) -> Result<Json<PagedList<UserRow>>, ApiError> {
    let pages = query.pages()?;
    let find = pages.find(query.enabled, query.sort, query.order);
    let _permit = api.search().await?;
    let found = api.storage.find_users(&find).await?;
    let rows = found.rows.into_iter().map(UserRow::from).collect();
    Ok(Json(pages.list(found.total, rows)))
}

/// Register up to 10,000 users; those known already stay as they are
#[utoipa::path(
    post,
    operation_id = "register_users",
    path = "/api/users",
    tag = "users",
    request_body = BulkRows<BulkUser>,
    responses((status = 200, body = BulkResult), BadBody, CommonErrors)
)]
pub(super) async fn bulk(
    State(api): State<Arc<Api>>,
    JsonBody(rows): JsonBody<BulkRows<BulkUser>>,
) -> Result<Json<BulkResult>, ApiError> {
    let rows = rows.checked()?.into_iter().map(BulkUser::user);
    Ok(Json(bulk::run(&api, rows.collect()).await?))
}

async fn find(api: &Api, text: &str) -> Result<StoredUser, ApiError> {
    let id = id_of(text)?;
    let stored = api.storage.user(id).await?;
    stored.ok_or_else(|| ApiError::not_found(format!("there is no user {}", id.0)))
}

/// A path that is not an id names no user.
fn id_of(text: &str) -> Result<UserId, ApiError> {
    // To JSON Schema, 7.0 is an integer, too.
    let id = text.strip_suffix(".0").unwrap_or(text).parse().map(UserId);
    id.map_err(|_| ApiError::not_found("there is no such user: an id is a number"))
}

fn passkey_of(text: &str) -> Result<Passkey, ApiError> {
    text.parse()
        .map_err(|error| ApiError::invalid(format!("passkey: {error}")))
}

/// The passkey is only for callers that may change the user: it is all that is needed to announce as them.
fn details(stored: StoredUser, scope: AccessScope) -> UserDetails {
    let passkey = || stored.user.passkey.expose().to_owned();
    UserDetails {
        passkey: (scope >= AccessScope::Write).then(passkey),
        key: format!("t:u:{}", stored.user.id.0),
        user: stored.into(),
    }
}

// === impl UserToRegister and UserChange ===

impl UserToRegister {
    fn name(&self) -> String {
        let name = self.name.as_ref().filter(|name| !name.is_empty());
        name.map_or_else(|| format!("user {}", self.user_id), Clone::clone)
    }
}

impl UserChange {
    fn patch(self, id: UserId) -> Result<UserPatch, ApiError> {
        if self.user_id.is_some_and(|user_id| user_id != id.0) {
            let message = format!("user_id: expected {}, the id of the path", id.0);
            return Err(ApiError::conflict(message));
        }
        let name = self.name.filter(|name| !name.is_empty());
        let username = match (self.username, name) {
            (Some(username), Some(name)) if username != name => {
                let message =
                    "name, username: expected only one of them, or the same value in both";
                return Err(ApiError::conflict(message));
            }
            (username, name) => username.or(name),
        };
        Ok(UserPatch {
            passkey: self.passkey.as_deref().map(passkey_of).transpose()?,
            username,
            enabled: self.enabled,
            can_leech: self.can_leech,
            uploaded: self.uploaded,
            downloaded: self.downloaded,
        })
    }
}

// === impl UserToAdd ===

impl Addable for UserToAdd {
    async fn add(editor: &Editor, rows: &[Self]) -> Result<Saved<Vec<Added<u32>>>, EditError> {
        let users: Vec<NewUser> = rows.iter().map(|row| row.user.clone()).collect();
        let saved = editor.register_users(&users).await?;
        let number = |added: Added<UserId>| added.map(|id| id.map(|id| id.0));
        Ok(saved.map(|ids| ids.into_iter().map(number).collect()))
    }

    fn result(&self, id: Option<u32>) -> RowResult {
        let passkey = || self.user.passkey.expose().to_owned();
        RowResult::of(id).with_passkey(self.is_random.then(passkey))
    }
}

// === impl BulkUser ===

impl BulkUser {
    fn user(self) -> Checked<UserToAdd> {
        bulk::check_id("user_id", self.user_id)?;
        bulk::check_name("name", &self.name)?;
        let is_random = self.passkey.is_none();
        let passkey = match self.passkey {
            Some(text) => text.parse().map_err(|error| format!("passkey: {error}"))?,
            None => random_passkey().map_err(|error| error.to_string())?,
        };
        let user = NewUser {
            id: self.user_id.map(UserId),
            username: self.name,
            passkey,
            can_leech: self.can_leech.unwrap_or(true),
        };
        Ok(UserToAdd { user, is_random })
    }
}
