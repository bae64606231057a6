//! Editing users, torrents and whitelist, as `mika-manage` and the API do.

use std::collections::HashMap;

use mysql_async::Value;

use super::cells::Cells;
use super::fault::Fault;
use super::hashes::Forms;
use super::link::Session;
use super::read;
use super::rows::Rows;
use super::tables::{Own, begin, lock};
use crate::base::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::registry::{ClientPrefix, Permille};
use crate::storage::schema::{self, Call};
use crate::storage::settle::clamp;
use crate::storage::values::is_no_hash;
use crate::storage::{
    Added, NewTorrent, NewUser, StorageError, TorrentPatch, TorrentRemoval, UserPatch, Wipe,
};

/// Edits that must not find the same thing free come one after the other: a site's tables need
/// not have the keys that would forbid it.
const EDITS: &str = "edit";

/// Rows are added each by itself, so that one that the database refuses leaves the others in.
pub(super) async fn add_users(
    session: &mut Session<'_>,
    users: &[NewUser],
) -> Result<Vec<Added<UserId>>, Fault> {
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

/// What became of a row. Of one that is refused, nothing stays.
async fn row_result<T>(
    session: &mut Session<'_>,
    result: Result<Option<T>, Fault>,
) -> Result<Added<T>, Fault> {
    let problem = match result {
        Ok(id) => return Ok(Ok(id)),
        Err(Fault::Storage(StorageError::Invalid(problem))) => problem,
        Err(fault) => match fault.duplicate_key() {
            Some(key) => format!("another row has the same value in the key `{key}`"),
            None => return Err(fault),
        },
    };
    session.run("ROLLBACK TO SAVEPOINT added").await?;
    Ok(Err(problem))
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
    session.call(&schema::ADD_USER, &params).await?;
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
    updated.map_err(taken)?;
    Ok(())
}

pub(super) async fn add_torrents(
    session: &mut Session<'_>,
    torrents: &[NewTorrent],
) -> Result<Vec<Added<TorrentId>>, Fault> {
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

/// A hash may be the first of one torrent and the second of another, which no constraint forbids.
async fn add_torrent(
    session: &mut Session<'_>,
    forms: &Forms,
    torrent: &NewTorrent,
) -> Result<Option<TorrentId>, Fault> {
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
        .ok_or_else(|| Fault::broken("the new torrent's id is not below 2^32"))?;
    is_as_wanted(torrent.id.map(|id| id.0), id.0, &schema::ADD_TORRENT)?;
    Ok(Some(*id))
}

pub(super) async fn update_torrent(
    session: &mut Session<'_>,
    own: &Own,
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
    if let Some(new_id) = patch.id.filter(|new_id| *new_id != id) {
        move_torrent(session, own, id, new_id).await?;
    }
    session.run("COMMIT").await?;
    Ok(())
}

/// Gives a torrent, and what is recorded of it, another id. Records that a deleted torrent left under
/// that id must not become this one's.
async fn move_torrent(
    session: &mut Session<'_>,
    own: &Own,
    id: TorrentId,
    new_id: TorrentId,
) -> Result<(), Fault> {
    let refused = |why: &str| Fault::from(StorageError::Duplicate(why.to_owned()));
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
    clients: &[ClientPrefix],
) -> Result<(), Fault> {
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
    // Where the key takes capitals for small letters, a prefix may have renamed another one.
    let there = read::whitelist(session).await?;
    let is_there = |client: &&ClientPrefix| !there.iter().any(|it| it.prefix == client.prefix);
    if let Some(client) = clients.iter().find(is_there) {
        return Err(alike(&client.prefix));
    }
    session.run("COMMIT").await?;
    Ok(())
}

fn alike(prefix: &str) -> Fault {
    StorageError::Duplicate(format!(
        "the prefix {prefix:?}, or one that the key of the column `peer_id` takes for the same (as \
         capitals for small letters),"
    ))
    .into()
}

/// A row whose prefix has blanks around it is removed under the prefix without them.
pub(super) async fn remove_client(session: &mut Session<'_>, prefix: &str) -> Result<(), Fault> {
    begin(session).await?;
    let clients = read::clients(session).await?.rows;
    let meant = clients
        .into_iter()
        .filter(|(client, _)| client.prefix == prefix);
    let written: Vec<String> = meant.map(|(_, written)| written).collect();
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

/// A value that another row has in a key of the site's own.
fn taken(fault: Fault) -> Fault {
    match fault.duplicate_key() {
        Some(key) => {
            let what = format!("a row with the same value in the key `{key}`");
            StorageError::Duplicate(what).into()
        }
        None => fault,
    }
}
