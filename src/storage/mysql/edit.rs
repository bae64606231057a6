//! Editing users, torrents and whitelist, as `mika-manage` and the API do.

use std::collections::HashMap;

use mysql_async::Value;

use super::cells::Cells;
use super::fault::Fault;
use super::link::Session;
use super::read;
use super::rows::Rows;
use super::tables::{begin, lock};
use crate::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::registry::{Client, Permille};
use crate::storage::schema::{self, Call};
use crate::storage::sums::clamp;
use crate::storage::{
    NewTorrent, NewUser, StorageError, TorrentPatch, TorrentRemoval, UserPatch, Wipe,
};

/// Edits that must not find the same thing free come one after the other: a site's tables need
/// not have the keys that would forbid it.
const EDITS: &str = "edit";

pub(super) async fn add_users(
    session: &mut Session<'_>,
    users: &[NewUser],
) -> Result<Vec<Option<UserId>>, Fault> {
    begin(session).await?;
    lock(session, EDITS).await?;
    let mut ids = Vec::with_capacity(users.len());
    for user in users {
        ids.push(add_user(session, user).await?);
    }
    session.run("COMMIT").await?;
    Ok(ids)
}

async fn add_user(session: &mut Session<'_>, user: &NewUser) -> Result<Option<UserId>, Fault> {
    if id_of_passkey(session, &user.passkey).await?.is_some() {
        return Ok(None);
    }
    if let Some(id) = user.id
        && is_known(session, &schema::USERS_KNOWN, id.0).await?
    {
        return Ok(None);
    }
    let params = [
        ("id", user.id.map(|id| id.0).into()),
        ("passkey", user.passkey.expose().into()),
        ("username", user.username.as_str().into()),
    ];
    match session.call(&schema::ADD_USER, &params).await {
        Ok(_) => {}
        Err(fault) if fault.is_duplicate() => return Ok(None),
        Err(fault) => return Err(fault),
    }
    let id = id_of_passkey(session, &user.passkey).await?;
    let id = id.ok_or_else(|| Fault::broken("the new user's id is not below 2^32"))?;
    is_as_wanted(user.id.map(|id| id.0), id.0, &schema::ADD_USER)?;
    if !user.can_leech {
        let patch = UserPatch {
            can_leech: Some(false),
            ..UserPatch::default()
        };
        write_user(session, id, &patch).await?;
    }
    Ok(Some(id))
}

pub(super) async fn update_user(
    session: &mut Session<'_>,
    id: UserId,
    patch: &UserPatch,
) -> Result<(), Fault> {
    begin(session).await?;
    must_exist(session, &schema::USERS_KNOWN, id.0, || {
        format!("user {}", id.0)
    })
    .await?;
    if let Some(passkey) = &patch.passkey {
        lock(session, EDITS).await?;
        let holder = id_of_passkey(session, passkey).await?;
        if holder.is_some_and(|holder| holder != id) {
            return Err(passkey_taken());
        }
    }
    write_user(session, id, patch).await?;
    session.run("COMMIT").await?;
    Ok(())
}

async fn write_user(session: &mut Session<'_>, id: UserId, patch: &UserPatch) -> Result<(), Fault> {
    let passkey = patch.passkey.as_ref().map(Passkey::expose);
    let params = [
        ("id", id.0.into()),
        ("passkey", passkey.into()),
        ("username", patch.username.as_deref().into()),
        ("enabled", patch.enabled.into()),
        ("can_leech", patch.can_leech.into()),
        ("uploaded", patch.uploaded.map(total).into()),
        ("downloaded", patch.downloaded.map(total).into()),
    ];
    let updated = session.call(&schema::UPDATE_USER, &params).await;
    updated.map_err(|fault| taken(fault, passkey_taken))?;
    Ok(())
}

pub(super) async fn add_torrents(
    session: &mut Session<'_>,
    torrents: &[NewTorrent],
) -> Result<Vec<Option<TorrentId>>, Fault> {
    begin(session).await?;
    lock(session, EDITS).await?;
    let mut ids = Vec::with_capacity(torrents.len());
    for torrent in torrents {
        ids.push(add_torrent(session, torrent).await?);
    }
    session.run("COMMIT").await?;
    Ok(ids)
}

/// A hash may be the first of one torrent and the second of another, which no constraint forbids.
async fn add_torrent(
    session: &mut Session<'_>,
    torrent: &NewTorrent,
) -> Result<Option<TorrentId>, Fault> {
    let hashes = || {
        [&torrent.info_hash]
            .into_iter()
            .chain(&torrent.info_hash_v2)
    };
    if !read::ids_of_hashes(session, hashes()).await?.is_empty() {
        return Ok(None);
    }
    if let Some(id) = torrent.id
        && is_known(session, &schema::TORRENTS_KNOWN, id.0).await?
    {
        return Ok(None);
    }
    let second = torrent.info_hash_v2.as_ref();
    let params = [
        ("id", torrent.id.map(|id| id.0).into()),
        ("info_hash", torrent.info_hash.0[..].into()),
        ("info_hash_v2", second.map(|hash| &hash.0[..]).into()),
        ("release_name", torrent.name.as_str().into()),
    ];
    session.call(&schema::ADD_TORRENT, &params).await?;
    let added = read::ids_of_hashes(session, hashes()).await?;
    let (id, ..) = added
        .first()
        .ok_or_else(|| Fault::broken("the new torrent's id is not below 2^32"))?;
    is_as_wanted(torrent.id.map(|id| id.0), id.0, &schema::ADD_TORRENT)?;
    Ok(Some(*id))
}

pub(super) async fn update_torrent(
    session: &mut Session<'_>,
    id: TorrentId,
    patch: &TorrentPatch,
) -> Result<(), Fault> {
    begin(session).await?;
    must_exist(session, &schema::TORRENTS_KNOWN, id.0, || {
        format!("torrent {}", id.0)
    })
    .await?;
    let factor = |multiplier: Option<Permille>| multiplier.map(Permille::factor);
    let reason = patch.reason.as_ref().and_then(Option::as_deref);
    let params = [
        ("id", id.0.into()),
        ("release_name", patch.name.as_deref().into()),
        ("enabled", patch.enabled.into()),
        ("has_reason", patch.reason.is_some().into()),
        ("reason", reason.into()),
        ("multi_up", factor(patch.multi_up).into()),
        ("multi_dn", factor(patch.multi_down).into()),
    ];
    session.call(&schema::UPDATE_TORRENT, &params).await?;
    session.run("COMMIT").await?;
    Ok(())
}

/// Harmless if it is done twice, but for the number that it returns.
pub(super) async fn remove_torrents(
    session: &mut Session<'_>,
    torrents: &[TorrentRemoval],
) -> Result<u64, Fault> {
    begin(session).await?;
    let known = read::ids_of_hashes(session, torrents.iter().map(|it| &it.info_hash)).await?;
    let unused: HashMap<InfoHash, Option<u64>> = torrents
        .iter()
        .map(|it| (it.info_hash, it.unused))
        .collect();
    let known = known
        .into_iter()
        .filter_map(|(id, first, _)| Some((id, *unused.get(&first?)?)));
    let known: Vec<(TorrentId, Option<u64>)> = known.collect();
    let rows = known
        .iter()
        .map(|(id, unused)| [id.0.into(), unused.map_or(-1, clamp)]);
    session
        .call_with(&schema::REMOVE_TORRENTS, &Rows::of(rows))
        .await?;
    let ids = Rows::of(known.iter().map(|(id, _)| [i64::from(id.0)]));
    let left = session.call_with(&schema::TORRENTS_KNOWN, &ids).await?;
    session.run("COMMIT").await?;
    Ok((known.len() - left.len()) as u64)
}

pub(super) async fn add_clients(
    session: &mut Session<'_>,
    clients: &[Client],
) -> Result<(), Fault> {
    begin(session).await?;
    lock(session, EDITS).await?;
    for client in clients {
        let params = [
            ("peer_id", client.prefix.as_str().into()),
            ("vstring", client.name.as_str().into()),
        ];
        session.call(&schema::ADD_CLIENT, &params).await?;
    }
    session.run("COMMIT").await?;
    Ok(())
}

pub(super) async fn remove_client(session: &mut Session<'_>, prefix: &str) -> Result<(), Fault> {
    begin(session).await?;
    let rows = session.call(&schema::WHITELIST, &[]).await?;
    if !rows.iter().any(|row| Cells(row).text(0) == prefix) {
        let entry = format!("whitelist entry {prefix}");
        return Err(StorageError::NotFound(entry).into());
    }
    let params = [("peer_id", prefix.into())];
    session.call(&schema::REMOVE_CLIENT, &params).await?;
    session.run("COMMIT").await?;
    Ok(())
}

/// Sets the totals of at most `limit` rows after `after` to 0; returns the last id that it did.
pub(super) async fn wipe(
    session: &mut Session<'_>,
    what: Wipe,
    after: Option<u32>,
    limit: u32,
) -> Result<Option<u32>, Fault> {
    let (page, wipe) = match what {
        Wipe::Users => (&schema::USERS, &schema::WIPE_USERS),
        Wipe::Torrents => (&schema::TORRENTS, &schema::WIPE_TORRENTS),
    };
    begin(session).await?;
    let after = Value::from(after.map_or(-1, i64::from));
    let params = [("after", after.clone()), ("limit", limit.max(1).into())];
    let rows = session.call(page, &params).await?;
    // The last row whose id the tracker can hold; those behind it have larger ones.
    let last = rows.iter().rev().find_map(|row| Cells(row).id(0).ok());
    if let Some(last) = last {
        let params = [("after", after), ("last", last.into())];
        session.call(wipe, &params).await?;
    }
    session.run("COMMIT").await?;
    Ok(last)
}

async fn id_of_passkey(
    session: &mut Session<'_>,
    passkey: &Passkey,
) -> Result<Option<UserId>, Fault> {
    let params = [("passkey", passkey.expose().into())];
    let rows = session.call(&schema::USER_OF_PASSKEY, &params).await?;
    let mut ids = rows.iter().filter_map(|row| Cells(row).id(0).ok());
    Ok(ids.next().map(UserId))
}

async fn must_exist(
    session: &mut Session<'_>,
    known: &'static Call,
    id: u32,
    what: impl FnOnce() -> String,
) -> Result<(), Fault> {
    if !is_known(session, known, id).await? {
        return Err(StorageError::NotFound(what()).into());
    }
    Ok(())
}

async fn is_known(session: &mut Session<'_>, known: &'static Call, id: u32) -> Result<bool, Fault> {
    let wanted = Rows::of([[id.into()]].into_iter());
    Ok(!session.call_with(known, &wanted).await?.is_empty())
}

/// A statement of the config need not have been written for ids that are given.
fn is_as_wanted(wanted: Option<u32>, id: u32, call: &Call) -> Result<(), Fault> {
    if wanted.is_none_or(|wanted| wanted == id) {
        return Ok(());
    }
    Err(Fault::broken(format!(
        "storage.statements.{}: it must write the :id that it is given",
        call.name
    )))
}

/// A total as the databases can hold it.
fn total(bytes: u64) -> u64 {
    bytes.min(i64::MAX.cast_unsigned())
}

fn passkey_taken() -> Fault {
    StorageError::Duplicate("a user with that passkey".into()).into()
}

fn taken(fault: Fault, duplicate: fn() -> Fault) -> Fault {
    if fault.is_duplicate() {
        return duplicate();
    }
    fault
}
