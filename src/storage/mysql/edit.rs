//! Edits of users, torrents and whitelist by `mika-manage` and the API.

use std::collections::HashMap;

use mysql_async::Value;

use super::cells::MysqlCells;
use super::fault::MysqlFault;
use super::hashes::Forms;
use super::link::MysqlSession;
use super::read;
use super::rows::RowsSql;
use super::tables::{Own, begin, lock};
use crate::base::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::registry::{ClientPrefix, Permille};
use crate::storage::schema::{self, Call};
use crate::storage::settle::clamp;
use crate::storage::values::is_no_hash;
use crate::storage::{
    Added, NewTorrent, NewUser, StorageError, TorrentPatch, TorrentRemoval, UserPatch, Wipe,
};

/// A lock that serialises edits which check for uniqueness: a site's tables need not have unique keys.
const EDITS: &str = "edit";

/// Rows are added one by one, so that a refused one does not affect the others.
pub(super) async fn add_users(
    session: &mut MysqlSession<'_>,
    users: &[NewUser],
) -> Result<Vec<Added<UserId>>, MysqlFault> {
    begin(session).await?;
    lock(session, EDITS).await?;
    let mut ids = Vec::with_capacity(users.len());
    for user in users {
        session.run("SAVEPOINT added").await?;
        let result = add_user(session, user).await;
        ids.push(row_result(session, result).await?);
    }
    session.run("COMMIT").await?;
    Ok(ids)
}

/// The result for one row. A refused one leaves nothing behind.
async fn row_result<T>(
    session: &mut MysqlSession<'_>,
    result: Result<Option<T>, MysqlFault>,
) -> Result<Added<T>, MysqlFault> {
    let problem = match result {
        Ok(id) => return Ok(Ok(id)),
        Err(MysqlFault::Storage(StorageError::Invalid(problem))) => problem,
        Err(fault) => match fault.duplicate_key() {
            Some(key) => format!("another row has the same value in the key `{key}`"),
            None => return Err(fault),
        },
    };
    session.run("ROLLBACK TO SAVEPOINT added").await?;
    Ok(Err(problem))
}

async fn add_user(
    session: &mut MysqlSession<'_>,
    user: &NewUser,
) -> Result<Option<UserId>, MysqlFault> {
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
    session.call(&schema::ADD_USER, &params).await?;
    let id = id_of_passkey(session, &user.passkey).await?;
    let id = id.ok_or_else(|| MysqlFault::broken("the new user's id is not below 2^32"))?;
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
    session: &mut MysqlSession<'_>,
    id: UserId,
    patch: &UserPatch,
) -> Result<(), MysqlFault> {
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

async fn write_user(
    session: &mut MysqlSession<'_>,
    id: UserId,
    patch: &UserPatch,
) -> Result<(), MysqlFault> {
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
    updated.map_err(taken)?;
    Ok(())
}

pub(super) async fn add_torrents(
    session: &mut MysqlSession<'_>,
    torrents: &[NewTorrent],
) -> Result<Vec<Added<TorrentId>>, MysqlFault> {
    begin(session).await?;
    lock(session, EDITS).await?;
    let forms = Forms::of(session).await?;
    let mut ids = Vec::with_capacity(torrents.len());
    for torrent in torrents {
        session.run("SAVEPOINT added").await?;
        let result = add_torrent(session, &forms, torrent).await;
        ids.push(row_result(session, result).await?);
    }
    session.run("COMMIT").await?;
    Ok(ids)
}

/// No constraint prevents that a hash is the first of one torrent and the second of another.
async fn add_torrent(
    session: &mut MysqlSession<'_>,
    forms: &Forms,
    torrent: &NewTorrent,
) -> Result<Option<TorrentId>, MysqlFault> {
    if is_no_hash(&torrent.info_hash.0) {
        let text = "20 zeros (or blanks) are no info hash: a BINARY(20) has them where nothing was written";
        return Err(StorageError::Invalid(text.into()).into());
    }
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
        ("info_hash", forms.first.value(&torrent.info_hash)),
        (
            "info_hash_v2",
            second.map_or(Value::NULL, |hash| forms.second.value(hash)),
        ),
        ("release_name", torrent.name.as_str().into()),
    ];
    session.call(&schema::ADD_TORRENT, &params).await?;
    let added = read::ids_of_hashes(session, hashes()).await?;
    let (id, ..) = added
        .first()
        .ok_or_else(|| MysqlFault::broken("the new torrent's id is not below 2^32"))?;
    is_as_wanted(torrent.id.map(|id| id.0), id.0, &schema::ADD_TORRENT)?;
    Ok(Some(*id))
}

pub(super) async fn update_torrent(
    session: &mut MysqlSession<'_>,
    own: &Own,
    id: TorrentId,
    patch: &TorrentPatch,
) -> Result<(), MysqlFault> {
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
    if let Some(new_id) = patch.id.filter(|new_id| *new_id != id) {
        move_torrent(session, own, id, new_id).await?;
    }
    session.run("COMMIT").await?;
    Ok(())
}

/// Moves a torrent and its records to another id. Records that a deleted torrent left under that id must
/// not become this one's.
async fn move_torrent(
    session: &mut MysqlSession<'_>,
    own: &Own,
    id: TorrentId,
    new_id: TorrentId,
) -> Result<(), MysqlFault> {
    let refused = |why: &str| MysqlFault::from(StorageError::Duplicate(why.to_owned()));
    if !session.can(&schema::MOVE_TORRENT) {
        return Err(refused(&format!(
            "torrent {}, whose id is the web application's to change,",
            id.0
        )));
    }
    lock(session, EDITS).await?;
    let sql = format!(
        "SELECT 1 FROM {} WHERE torrent_id = ? UNION ALL SELECT 1 FROM {} WHERE torrent_id = ? LIMIT 1",
        own.history, own.peers
    );
    let records = session.exec(&sql, vec![new_id.0.into(); 2]).await?;
    if !records.is_empty() || is_known(session, &schema::TORRENTS_KNOWN, new_id.0).await? {
        return Err(refused(&format!(
            "torrent {}, or records of one that was deleted,",
            new_id.0
        )));
    }
    let params = [("id", id.0.into()), ("new_id", new_id.0.into())];
    session.call(&schema::MOVE_TORRENT, &params).await?;
    for table in [&own.history, &own.peers] {
        let sql = format!("UPDATE {table} SET torrent_id = ? WHERE torrent_id = ?");
        let params = vec![new_id.0.into(), id.0.into()];
        session.exec(&sql, params).await?;
    }
    Ok(())
}

/// Idempotent, except for the number that it returns.
pub(super) async fn remove_torrents(
    session: &mut MysqlSession<'_>,
    torrents: &[TorrentRemoval],
) -> Result<u64, MysqlFault> {
    begin(session).await?;
    let known =
        read::ids_of_hashes(session, torrents.iter().map(|torrent| &torrent.info_hash)).await?;
    let unused: HashMap<InfoHash, Option<u64>> = torrents
        .iter()
        .map(|removal| (removal.info_hash, removal.unused))
        .collect();
    let known: Vec<(TorrentId, Option<u64>)> = known
        .into_iter()
        .filter_map(|(id, first, _)| Some((id, *unused.get(&first?)?)))
        .collect();
    let rows = known
        .iter()
        .map(|(id, unused)| [id.0.into(), unused.map_or(-1, clamp)]);
    session
        .call_with(&schema::REMOVE_TORRENTS, &RowsSql::of(rows))
        .await?;
    let ids = RowsSql::of(known.iter().map(|(id, _)| [i64::from(id.0)]));
    let left = session.call_with(&schema::TORRENTS_KNOWN, &ids).await?;
    session.run("COMMIT").await?;
    Ok((known.len() - left.len()) as u64)
}

pub(super) async fn add_clients(
    session: &mut MysqlSession<'_>,
    clients: &[ClientPrefix],
) -> Result<(), MysqlFault> {
    begin(session).await?;
    lock(session, EDITS).await?;
    for client in clients {
        let params = [
            ("peer_id", client.prefix.as_str().into()),
            ("vstring", client.name.as_str().into()),
        ];
        let added = session.call(&schema::ADD_CLIENT, &params).await;
        added.map_err(|fault| match fault.duplicate_key() {
            Some(_) => alike(&client.prefix),
            None => fault,
        })?;
    }
    // With a case-insensitive key, a prefix may have renamed another one.
    let there = read::whitelist(session).await?;
    let is_there = |client: &&ClientPrefix| !there.iter().any(|row| row.prefix == client.prefix);
    if let Some(client) = clients.iter().find(is_there) {
        return Err(alike(&client.prefix));
    }
    session.run("COMMIT").await?;
    Ok(())
}

fn alike(prefix: &str) -> MysqlFault {
    StorageError::Duplicate(format!(
        "the prefix {prefix:?}, or one that the key of the column `peer_id` takes for the same (as \
         capitals for small letters),"
    ))
    .into()
}

/// A row whose prefix has blanks around it is removed under the prefix without them.
pub(super) async fn remove_client(
    session: &mut MysqlSession<'_>,
    prefix: &str,
) -> Result<(), MysqlFault> {
    begin(session).await?;
    let clients = read::clients(session).await?.rows;
    let written: Vec<String> = clients
        .into_iter()
        .filter(|(client, _)| client.prefix == prefix)
        .map(|(_, written)| written)
        .collect();
    if written.is_empty() {
        let entry = format!("whitelist entry {prefix}");
        return Err(StorageError::NotFound(entry).into());
    }
    for written in written {
        let params = [("peer_id", written.into())];
        session.call(&schema::REMOVE_CLIENT, &params).await?;
    }
    session.run("COMMIT").await?;
    Ok(())
}

/// Sets the totals of at most `limit` rows after `after` to 0; returns the last id.
pub(super) async fn wipe(
    session: &mut MysqlSession<'_>,
    what: Wipe,
    after: Option<u32>,
    limit: u32,
) -> Result<Option<u32>, MysqlFault> {
    let (page, wipe) = match what {
        Wipe::Users => (&schema::USERS, &schema::WIPE_USERS),
        Wipe::Torrents => (&schema::TORRENTS, &schema::WIPE_TORRENTS),
    };
    begin(session).await?;
    let after = Value::from(after.map_or(-1, i64::from));
    let params = [("after", after.clone()), ("limit", limit.max(1).into())];
    let rows = session.call(page, &params).await?;
    // The last row whose id fits the tracker's 32 bits; later ones are larger.
    let last = rows.iter().rev().find_map(|row| MysqlCells(row).id(0).ok());
    if let Some(last) = last {
        let params = [("after", after), ("last", last.into())];
        session.call(wipe, &params).await?;
    }
    session.run("COMMIT").await?;
    Ok(last)
}

async fn id_of_passkey(
    session: &mut MysqlSession<'_>,
    passkey: &Passkey,
) -> Result<Option<UserId>, MysqlFault> {
    let params = [("passkey", passkey.expose().into())];
    let rows = session.call(&schema::USER_OF_PASSKEY, &params).await?;
    Ok(rows
        .iter()
        .find_map(|row| MysqlCells(row).id(0).ok())
        .map(UserId))
}

async fn must_exist(
    session: &mut MysqlSession<'_>,
    known: &'static Call,
    id: u32,
    what: impl FnOnce() -> String,
) -> Result<(), MysqlFault> {
    if !is_known(session, known, id).await? {
        return Err(StorageError::NotFound(what()).into());
    }
    Ok(())
}

async fn is_known(
    session: &mut MysqlSession<'_>,
    known: &'static Call,
    id: u32,
) -> Result<bool, MysqlFault> {
    let wanted = RowsSql::of([[id.into()]].into_iter());
    Ok(!session.call_with(known, &wanted).await?.is_empty())
}

/// A statement of the config may not support explicit ids.
fn is_as_wanted(wanted: Option<u32>, id: u32, call: &Call) -> Result<(), MysqlFault> {
    if wanted.is_none_or(|wanted| wanted == id) {
        return Ok(());
    }
    Err(MysqlFault::broken(format!(
        "storage.statements.{}: it must write the :id that it is given",
        call.name
    )))
}

/// A total clamped to what the database can hold.
fn total(bytes: u64) -> u64 {
    bytes.min(i64::MAX.cast_unsigned())
}

fn passkey_taken() -> MysqlFault {
    StorageError::Duplicate("a user with that passkey".into()).into()
}

/// The error for a violated unique key of the site's.
fn taken(fault: MysqlFault) -> MysqlFault {
    match fault.duplicate_key() {
        Some(key) => {
            let what = format!("a row with the same value in the key `{key}`");
            StorageError::Duplicate(what).into()
        }
        None => fault,
    }
}
