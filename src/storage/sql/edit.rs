//! Edits of users, torrents and whitelist by `mika-manage` and the API.

use std::collections::{HashMap, HashSet};

use super::calls::{self, Call};
use super::cells::{Cell, SqlRows};
use super::database::{FaultKind, HashForm, SqlFault, SqlResult};
use super::hashes::of_hashes;
use super::job::Job;
use super::misfit::key_taken;
use super::place::StatementPlace;
use super::read;
use crate::base::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::registry::{ClientPrefix, Permille};
use crate::storage::settle::clamp;
use crate::storage::values::{is_blank_hash, is_zero_hash};
use crate::storage::{
    Added, NewTorrent, NewUser, StorageError, TorrentPatch, TorrentRemoval, UserPatch, Wipe,
};

/// Rows are added one by one, so that a refused one does not affect the others.
pub(super) async fn add_users(
    job: &mut Job<'_>,
    users: &[NewUser],
) -> SqlResult<Vec<Added<UserId>>> {
    job.require(&calls::ADD_USER, "adding users")?;
    job.begin().await?;
    job.lock_edits().await?;
    let mut ids = Vec::with_capacity(users.len());
    for user in users {
        if user.can_leech {
            job.savepoint_for(&calls::ADD_USER).await?;
        } else {
            job.savepoint().await?;
        }
        let result = add_user(job, user).await;
        ids.push(row_result(job, result, user.id.is_some()).await?);
    }
    job.commit().await?;
    Ok(ids)
}

/// The result for one row, which may have been given its id. A refused one leaves nothing behind.
async fn row_result<T>(
    job: &mut Job<'_>,
    result: SqlResult<Option<T>>,
    has_id: bool,
) -> SqlResult<Added<T>> {
    let fault = match result {
        Ok(id) => return Ok(Ok(id)),
        Err(fault) => fault,
    };
    let problem = match (&fault.error, &fault.kind) {
        (StorageError::Invalid(problem), _) => problem.clone(),
        (_, FaultKind::Duplicate(key)) => {
            job.undo().await?;
            return Ok(Err(key_taken(job, key, has_id).await?));
        }
        (_, FaultKind::Refused(value)) => value.to_string(),
        _ => return Err(fault),
    };
    job.undo().await?;
    Ok(Err(problem))
}

async fn add_user(job: &mut Job<'_>, user: &NewUser) -> SqlResult<Option<UserId>> {
    if id_of_passkey(job, &user.passkey).await?.is_some() {
        return Ok(None);
    }
    if let Some(id) = user.id
        && is_known(job, &calls::USERS_KNOWN, id.0).await?
    {
        return Ok(None);
    }
    let params = [
        ("id", user.id.map(|id| id.0).into()),
        ("passkey", user.passkey.expose().into()),
        ("username", user.username.as_str().into()),
    ];
    job.call(&calls::ADD_USER, &params).await?;
    let id = id_of_passkey(job, &user.passkey).await?;
    let id = id.ok_or_else(|| SqlFault::broken("the new user's id is not below 2^32"))?;
    is_as_wanted(user.id.map(|id| id.0), id.0, &job.place(&calls::ADD_USER))?;
    if !user.can_leech {
        let patch = UserPatch {
            can_leech: Some(false),
            ..UserPatch::default()
        };
        write_user(job, id, &patch).await?;
    }
    Ok(Some(id))
}

pub(super) async fn update_user(job: &mut Job<'_>, id: UserId, patch: &UserPatch) -> SqlResult<()> {
    job.require(&calls::UPDATE_USER, "changing users")?;
    job.begin().await?;
    must_exist(job, &calls::USERS_KNOWN, "user", id.0).await?;
    if let Some(passkey) = &patch.passkey {
        job.lock_edits().await?;
        let holder = id_of_passkey(job, passkey).await?;
        if holder.is_some_and(|holder| holder != id) {
            return Err(passkey_taken());
        }
    }
    write_user(job, id, patch).await?;
    job.commit().await?;
    Ok(())
}

async fn write_user(job: &mut Job<'_>, id: UserId, patch: &UserPatch) -> SqlResult<()> {
    let passkey = patch.passkey.as_ref().map(Passkey::expose);
    let params = [
        ("id", id.0.into()),
        ("passkey", passkey.into()),
        ("username", patch.username.as_deref().into()),
        ("enabled", patch.enabled.into()),
        ("can_leech", patch.can_leech.into()),
        ("uploaded", patch.uploaded.map(clamp).into()),
        ("downloaded", patch.downloaded.map(clamp).into()),
    ];
    let updated = job.call(&calls::UPDATE_USER, &params).await;
    updated.map_err(taken)?;
    Ok(())
}

/// Replaces the identity of the database.
pub(super) async fn renew_identity(job: &mut Job<'_>) -> SqlResult<String> {
    job.call(&calls::RENEW_IDENTITY, &[]).await?;
    read::identity(job).await
}

/// What the statements of a site need not keep unique: the ids and info hashes of torrents.
#[derive(Default)]
struct TakenKeys {
    ids: HashSet<u32>,
    hashes: HashSet<InfoHash>,
}

/// All look-ups are made once for all torrents: only the rows themselves are added one by one.
pub(super) async fn add_torrents(
    job: &mut Job<'_>,
    torrents: &[NewTorrent],
) -> SqlResult<Vec<Added<TorrentId>>> {
    job.require(&calls::ADD_TORRENT, "adding torrents")?;
    job.begin().await?;
    job.lock_edits().await?;
    let forms = job.hash_forms().await?;
    let mut taken = TakenKeys::of(job, torrents).await?;
    let mut added = Vec::with_capacity(torrents.len());
    for torrent in torrents {
        if taken.has(torrent) {
            added.push(Ok(None));
            continue;
        }
        job.savepoint_for(&calls::ADD_TORRENT).await?;
        let result = add_torrent(job, &forms, torrent).await;
        let result = row_result(job, result, torrent.id.is_some()).await?;
        if result.is_ok() {
            taken.add(torrent);
        }
        added.push(result);
    }
    let hashes: Vec<InfoHash> = torrents
        .iter()
        .zip(&added)
        .filter(|(_, result)| matches!(result, Ok(Some(()))))
        .map(|(torrent, _)| torrent.info_hash)
        .collect();
    let mut ids = HashMap::new();
    for (id, first, _) in of_hashes(job, &hashes).await? {
        ids.extend(first.map(|hash| (hash, id)));
    }
    let rows = torrents.iter().zip(added);
    let place = job.place(&calls::ADD_TORRENT);
    let ids = rows.map(|(torrent, result)| match result {
        Ok(Some(())) => {
            let id = ids.get(&torrent.info_hash).copied();
            let too_large = || SqlFault::broken("the new torrent's id is not below 2^32");
            let id = id.ok_or_else(too_large)?;
            is_as_wanted(torrent.id.map(|id| id.0), id.0, &place)?;
            Ok(Ok(Some(id)))
        }
        other => Ok(other.map(|_| None)),
    });
    let ids = ids.collect::<SqlResult<_>>()?;
    job.commit().await?;
    Ok(ids)
}

async fn add_torrent(
    job: &mut Job<'_>,
    [first, second]: &[HashForm; 2],
    torrent: &NewTorrent,
) -> SqlResult<Option<()>> {
    let hash = &torrent.info_hash.0;
    if is_blank_hash(hash) || (job.pads_with_zeros() && is_zero_hash(hash)) {
        let text = "20 zeros (or blanks) are no info hash: a BINARY(20) has them where nothing was written";
        return Err(SqlFault::invalid(text));
    }
    let first_text = first.texts(&torrent.info_hash);
    let other = torrent.info_hash_v2.as_ref();
    let second_text = other.map_or_else(Vec::new, |hash| second.texts(hash));
    let params = [
        ("id", torrent.id.map(|id| id.0).into()),
        (
            "info_hash",
            hash_cell(Some(&torrent.info_hash), &first_text),
        ),
        ("info_hash_v2", hash_cell(other, &second_text)),
        ("release_name", torrent.name.as_str().into()),
    ];
    job.call(&calls::ADD_TORRENT, &params).await?;
    Ok(Some(()))
}

impl TakenKeys {
    /// Those that some torrents want and others have.
    async fn of(job: &mut Job<'_>, torrents: &[NewTorrent]) -> SqlResult<Self> {
        let hashes: Vec<InfoHash> = torrents.iter().flat_map(NewTorrent::hashes).collect();
        let mut taken = Self::default();
        for (_, first, second) in of_hashes(job, &hashes).await? {
            taken.hashes.extend(first);
            taken.hashes.extend(second);
        }
        let ids = torrents.iter().filter_map(|torrent| Some(torrent.id?.0));
        let wanted = SqlRows::of_ids(ids);
        let known = job.call_for(&calls::TORRENTS_KNOWN, wanted).await?;
        let known = known.iter().filter_map(|row| row.id(0).ok());
        taken.ids.extend(known);
        Ok(taken)
    }

    /// No constraint prevents that a hash is the first of one torrent and the second of another.
    fn has(&self, torrent: &NewTorrent) -> bool {
        let has_id = torrent.id.is_some_and(|id| self.ids.contains(&id.0));
        has_id || torrent.hashes().any(|hash| self.hashes.contains(&hash))
    }

    fn add(&mut self, torrent: &NewTorrent) {
        self.ids.extend(torrent.id.map(|id| id.0));
        self.hashes.extend(torrent.hashes());
    }
}

pub(super) async fn update_torrent(
    job: &mut Job<'_>,
    id: TorrentId,
    patch: &TorrentPatch,
) -> SqlResult<()> {
    job.require(&calls::UPDATE_TORRENT, "changing torrents")?;
    job.begin().await?;
    must_exist(job, &calls::TORRENTS_KNOWN, "torrent", id.0).await?;
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
    job.call(&calls::UPDATE_TORRENT, &params).await?;
    if let Some(new_id) = patch.id.filter(|new_id| *new_id != id) {
        move_torrent(job, id, new_id).await?;
    }
    job.commit().await?;
    Ok(())
}

/// Moves a torrent and its records to another id. Records that a deleted torrent left under that id must
/// not become this one's.
async fn move_torrent(job: &mut Job<'_>, id: TorrentId, new_id: TorrentId) -> SqlResult<()> {
    let refused = |why: &str| SqlFault::from(StorageError::Duplicate(why.to_owned()));
    if !job.has(&calls::MOVE_TORRENT) {
        return Err(refused(&format!(
            "torrent {}, whose id is the web application's to change,",
            id.0
        )));
    }
    job.lock_edits().await?;
    let records = read::with_records(job, &[new_id]).await?;
    if !records.is_empty() || is_known(job, &calls::TORRENTS_KNOWN, new_id.0).await? {
        return Err(refused(&format!(
            "torrent {}, or records of one that was deleted,",
            new_id.0
        )));
    }
    let params = [("id", id.0.into()), ("new_id", new_id.0.into())];
    job.call(&calls::MOVE_TORRENT, &params).await?;
    job.call(&calls::MOVE_RECORDS, &params).await?;
    Ok(())
}

/// Idempotent, except for the number that it returns.
pub(super) async fn remove_torrents(
    job: &mut Job<'_>,
    torrents: &[TorrentRemoval],
) -> SqlResult<u64> {
    job.begin().await?;
    let hashes: Vec<InfoHash> = torrents.iter().map(|torrent| torrent.info_hash).collect();
    let known = of_hashes(job, &hashes).await?;
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
    job.call_for(&calls::REMOVE_TORRENTS, SqlRows::of(rows))
        .await?;
    let ids = SqlRows::of_ids(known.iter().map(|(id, _)| id.0));
    let left = job.call_for(&calls::TORRENTS_KNOWN, ids).await?;
    job.commit().await?;
    Ok((known.len() - left.len()) as u64)
}

pub(super) async fn add_clients(job: &mut Job<'_>, clients: &[ClientPrefix]) -> SqlResult<()> {
    job.require(&calls::ADD_CLIENT, "changing the whitelist")?;
    job.begin().await?;
    job.lock_edits().await?;
    for client in clients {
        let params = [
            ("peer_id", client.prefix.as_str().into()),
            ("vstring", client.name.as_str().into()),
        ];
        let added = job.call(&calls::ADD_CLIENT, &params).await;
        added.map_err(|fault| match fault.duplicate_key() {
            Some(_) => alike(&client.prefix),
            None => fault,
        })?;
    }
    // With a case-insensitive key, a prefix may have renamed another one.
    let there = read::whitelist(job).await?;
    let is_there = |client: &&ClientPrefix| !there.iter().any(|row| row.prefix == client.prefix);
    if let Some(client) = clients.iter().find(is_there) {
        return Err(alike(&client.prefix));
    }
    job.commit().await?;
    Ok(())
}

fn alike(prefix: &str) -> SqlFault {
    StorageError::Duplicate(format!(
        "the prefix {prefix:?}, or one that the key of the column `peer_id` takes for the same (as \
         capitals for small letters),"
    ))
    .into()
}

/// A row whose prefix has blanks around it is removed under the prefix without them.
pub(super) async fn remove_client(job: &mut Job<'_>, prefix: &str) -> SqlResult<()> {
    job.require(&calls::REMOVE_CLIENT, "changing the whitelist")?;
    job.begin().await?;
    let clients = read::clients(job).await?.rows;
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
        let params = [("peer_id", written.as_str().into())];
        job.call(&calls::REMOVE_CLIENT, &params).await?;
    }
    job.commit().await?;
    Ok(())
}

/// Sets the totals of at most `limit` rows after `after` to 0; returns the last id.
pub(super) async fn wipe(
    job: &mut Job<'_>,
    what: Wipe,
    after: Option<u32>,
    limit: u32,
) -> SqlResult<Option<u32>> {
    let (page, wipe) = match what {
        Wipe::Users => (&calls::USERS, &calls::WIPE_USERS),
        Wipe::Torrents => (&calls::TORRENTS, &calls::WIPE_TORRENTS),
    };
    job.require(wipe, "wiping totals")?;
    job.begin().await?;
    let after = Cell::Int(after.map_or(-1, i64::from));
    let params = [("after", after), ("limit", limit.max(1).into())];
    let rows = job.call(page, &params).await?;
    // The last row whose id fits the tracker's 32 bits; later ones are larger.
    let last = rows.iter().rev().find_map(|row| row.id(0).ok());
    if let Some(last) = last {
        let params = [("after", after), ("last", last.into())];
        job.call(wipe, &params).await?;
    }
    job.commit().await?;
    Ok(last)
}

async fn id_of_passkey(job: &mut Job<'_>, passkey: &Passkey) -> SqlResult<Option<UserId>> {
    let params = [("passkey", passkey.expose().into())];
    let rows = job.call(&calls::USER_OF_PASSKEY, &params).await?;
    Ok(rows.iter().find_map(|row| row.id(0).ok()).map(UserId))
}

/// [`StorageError::NotFound`] without a row of that id.
pub(super) async fn must_exist(
    job: &mut Job<'_>,
    known: &'static Call,
    noun: &str,
    id: u32,
) -> SqlResult<()> {
    if !is_known(job, known, id).await? {
        return Err(StorageError::NotFound(format!("{noun} {id}")).into());
    }
    Ok(())
}

async fn is_known(job: &mut Job<'_>, known: &'static Call, id: u32) -> SqlResult<bool> {
    let wanted = SqlRows::of_ids([id].into_iter());
    Ok(!job.call_for(known, wanted).await?.is_empty())
}

/// An info hash as its column takes it: the first of its texts, or bytes where there are none.
pub(super) fn hash_cell<'a>(hash: Option<&'a InfoHash>, texts: &'a [String]) -> Cell<'a> {
    match (texts.first(), hash) {
        (Some(text), _) => Cell::Text(text),
        (None, Some(hash)) => Cell::Bytes(&hash.0),
        (None, None) => Cell::Null,
    }
}

/// A statement of the config may not support explicit ids.
fn is_as_wanted(wanted: Option<u32>, id: u32, place: &StatementPlace) -> SqlResult<()> {
    if wanted.is_none_or(|wanted| wanted == id) {
        return Ok(());
    }
    let problem = "it must write the :id that it is given";
    Err(SqlFault::broken(place.of_config(problem)))
}

fn passkey_taken() -> SqlFault {
    StorageError::Duplicate("a user with that passkey".into()).into()
}

/// The error for a violated unique key of the site's.
fn taken(fault: SqlFault) -> SqlFault {
    match fault.duplicate_key() {
        Some(key) => {
            let what = format!("a row with the same value in the key `{key}`");
            StorageError::Duplicate(what).into()
        }
        None => fault,
    }
}
