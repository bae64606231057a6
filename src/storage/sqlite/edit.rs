//! Edits of users, torrents and whitelist by `mika-manage` and the API.

use rusqlite::{Connection, Transaction, params};

use super::fault::SqliteFault;
use super::read;
use super::tables::{begin, found};
use crate::base::ids::{Passkey, TorrentId, UserId};
use crate::registry::{ClientPrefix, Permille};
use crate::storage::settle::clamp;
use crate::storage::{
    Added, NewTorrent, NewUser, StorageError, TorrentPatch, TorrentRemoval, UserPatch, Wipe,
};

pub(super) fn add_users(
    connection: &mut Connection,
    users: &[NewUser],
) -> Result<Vec<Added<UserId>>, SqliteFault> {
    let transaction = begin(connection)?;
    let ids = users
        .iter()
        .map(|user| row_result(add_user(&transaction, user)));
    let ids = ids.collect::<Result<_, _>>()?;
    transaction.commit()?;
    Ok(ids)
}

fn add_user(transaction: &Transaction<'_>, user: &NewUser) -> Result<Option<UserId>, SqliteFault> {
    let added = transaction
        .prepare_cached(
            "INSERT INTO users (id, passkey, username, can_leech) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            user.id.map(|id| id.0),
            user.passkey.expose(),
            user.username,
            user.can_leech
        ])
        .map_err(SqliteFault::from);
    match added {
        Ok(_) => Ok(Some(UserId(new_id(transaction)?))),
        Err(fault) => match fault.duplicate_key().as_deref() {
            Some("users.id" | "users.passkey") => Ok(None),
            _ => Err(fault),
        },
    }
}

/// The result for one row. A refused statement is rolled back by itself, and does not affect the others.
fn row_result<T>(result: Result<Option<T>, SqliteFault>) -> Result<Added<T>, SqliteFault> {
    let fault = match result {
        Ok(id) => return Ok(Ok(id)),
        Err(fault) => fault,
    };
    if let Some(key) = fault.duplicate_key() {
        return Ok(Err(format!("another row has the same value in {key}")));
    }
    match fault.refused() {
        Some(refused) => Ok(Err(refused.to_string())),
        None => Err(fault),
    }
}

pub(super) fn update_user(
    connection: &mut Connection,
    id: UserId,
    patch: &UserPatch,
) -> Result<(), SqliteFault> {
    let passkey = patch.passkey.as_ref().map(Passkey::expose);
    let changed = connection
        .prepare_cached(
            "UPDATE users SET passkey = IFNULL(?2, passkey), username = IFNULL(?3, username),
                 enabled = IFNULL(?4, enabled), can_leech = IFNULL(?5, can_leech),
                 uploaded = IFNULL(?6, uploaded), downloaded = IFNULL(?7, downloaded)
             WHERE id = ?1",
        )?
        .execute(params![
            id.0,
            passkey,
            patch.username,
            patch.enabled,
            patch.can_leech,
            patch.uploaded.map(total),
            patch.downloaded.map(total),
        ])
        .map_err(taken)?;
    found(changed, || format!("user {}", id.0))
}

pub(super) fn add_torrents(
    connection: &mut Connection,
    torrents: &[NewTorrent],
) -> Result<Vec<Added<TorrentId>>, SqliteFault> {
    let transaction = begin(connection)?;
    let ids = torrents
        .iter()
        .map(|torrent| row_result(add_torrent(&transaction, torrent)));
    let ids = ids.collect::<Result<_, _>>()?;
    transaction.commit()?;
    Ok(ids)
}

/// No constraint prevents that a hash is the first of one torrent and the second of another.
fn add_torrent(
    transaction: &Transaction<'_>,
    torrent: &NewTorrent,
) -> Result<Option<TorrentId>, SqliteFault> {
    let (first, second) = (torrent.info_hash.0, torrent.info_hash_v2.map(|hash| hash.0));
    let id = torrent.id.map(|id| id.0);
    let known = transaction
        .prepare_cached(
            "SELECT 1 FROM torrents
             WHERE id = ?3 OR info_hash IN (?1, ?2) OR info_hash_v2 IN (?1, ?2)",
        )?
        .exists(params![first, second, id])?;
    if known {
        return Ok(None);
    }
    transaction
        .prepare_cached(
            "INSERT INTO torrents (info_hash, info_hash_v2, release_name, id)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![first, second, torrent.name, id])?;
    Ok(Some(TorrentId(new_id(transaction)?)))
}

pub(super) fn update_torrent(
    connection: &mut Connection,
    id: TorrentId,
    patch: &TorrentPatch,
) -> Result<(), SqliteFault> {
    let factor = |multiplier: Option<Permille>| multiplier.map(Permille::factor);
    let transaction = begin(connection)?;
    let changed = transaction
        .prepare_cached(
            "UPDATE torrents SET enabled = IFNULL(?2, enabled),
                 reason = CASE WHEN ?3 THEN ?4 ELSE reason END,
                 multi_up = IFNULL(?5, multi_up), multi_dn = IFNULL(?6, multi_dn),
                 release_name = IFNULL(?7, release_name) WHERE id = ?1",
        )?
        .execute(params![
            id.0,
            patch.enabled,
            patch.reason.is_some(),
            patch.reason.as_ref().and_then(Option::as_ref),
            factor(patch.multi_up),
            factor(patch.multi_down),
            patch.name,
        ])?;
    found(changed, || format!("torrent {}", id.0))?;
    if let Some(new_id) = patch.id.filter(|new_id| *new_id != id) {
        move_torrent(&transaction, id, new_id)?;
    }
    Ok(transaction.commit()?)
}

/// Moves a torrent and its records to another id. Records that a deleted torrent left under that id must
/// not become this one's.
fn move_torrent(
    transaction: &Transaction<'_>,
    id: TorrentId,
    new_id: TorrentId,
) -> Result<(), SqliteFault> {
    let is_taken = transaction
        .prepare_cached(
            "SELECT 1 FROM torrents WHERE id = ?1 UNION ALL SELECT 1 FROM history \
             WHERE torrent_id = ?1 UNION ALL SELECT 1 FROM peers WHERE torrent_id = ?1",
        )?
        .exists([new_id.0])?;
    if is_taken {
        let torrent = format!("torrent {}, or records of one that was deleted,", new_id.0);
        return Err(StorageError::Duplicate(torrent).into());
    }
    for update in [
        "UPDATE torrents SET id = ?2 WHERE id = ?1",
        "UPDATE history SET torrent_id = ?2 WHERE torrent_id = ?1",
        "UPDATE peers SET torrent_id = ?2 WHERE torrent_id = ?1",
    ] {
        transaction
            .prepare_cached(update)?
            .execute([id.0, new_id.0])?;
    }
    Ok(())
}

pub(super) fn remove_torrents(
    connection: &mut Connection,
    torrents: &[TorrentRemoval],
) -> Result<u64, SqliteFault> {
    let transaction = begin(connection)?;
    let mut removed = 0;
    for torrent in torrents {
        let mut delete = transaction.prepare_cached(
            "DELETE FROM torrents WHERE info_hash = ?1
             AND (?2 IS NULL OR (release_name = '' AND enabled = 1 AND snatches <= ?2))",
        )?;
        let unused = torrent.unused.map(clamp);
        removed += delete.execute(params![torrent.info_hash.0, unused])? as u64;
    }
    transaction.commit()?;
    Ok(removed)
}

pub(super) fn add_clients(
    connection: &mut Connection,
    clients: &[ClientPrefix],
) -> Result<(), SqliteFault> {
    let transaction = begin(connection)?;
    for client in clients {
        transaction
            .prepare_cached(
                "INSERT INTO whitelist (peer_id, vstring) VALUES (?1, ?2)
                 ON CONFLICT (peer_id) DO UPDATE SET vstring = excluded.vstring",
            )?
            .execute([&client.prefix, &client.name])?;
    }
    Ok(transaction.commit()?)
}

/// A row whose prefix has blanks around it is removed under the prefix without them.
pub(super) fn remove_client(connection: &mut Connection, prefix: &str) -> Result<(), SqliteFault> {
    let transaction = begin(connection)?;
    let clients = read::clients(&transaction)?.rows;
    let mut removed = 0;
    for (client, written) in clients {
        if client.prefix == prefix {
            removed += transaction
                .prepare_cached("DELETE FROM whitelist WHERE peer_id = ?1")?
                .execute([written])?;
        }
    }
    found(removed, || format!("whitelist entry {prefix}"))?;
    Ok(transaction.commit()?)
}

/// Sets the totals of at most `limit` rows after `after` to 0; returns the last id.
pub(super) fn wipe(
    connection: &mut Connection,
    what: Wipe,
    after: Option<u32>,
    limit: u32,
) -> Result<Option<u32>, SqliteFault> {
    let (table, zeros) = match what {
        Wipe::Users => (
            "users",
            "uploaded = 0, downloaded = 0, snatches = 0, announces = 0, seed_time = 0",
        ),
        Wipe::Torrents => (
            "torrents",
            "uploaded = 0, downloaded = 0, snatches = 0, announces = 0",
        ),
    };
    let transaction = begin(connection)?;
    let after = after.map_or(-1, i64::from);
    let last: Option<u32> = transaction
        .prepare_cached(&format!(
            "SELECT MAX(id) FROM (SELECT id FROM {table} WHERE id > ?1 ORDER BY id LIMIT ?2)"
        ))?
        .query_row([after, limit.into()], |row| row.get(0))?;
    if let Some(last) = last {
        transaction
            .prepare_cached(&format!(
                "UPDATE {table} SET {zeros} WHERE id > ?1 AND id <= ?2"
            ))?
            .execute([after, last.into()])?;
    }
    transaction.commit()?;
    Ok(last)
}

/// A total clamped to what the database can hold.
fn total(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The error for a violated unique column.
fn taken(error: rusqlite::Error) -> SqliteFault {
    let fault = SqliteFault::from(error);
    let what = match fault.duplicate_key().as_deref() {
        None => return fault,
        Some("users.passkey") => "a user with that passkey".into(),
        Some(key) => format!("a row with the same value in {key}"),
    };
    StorageError::Duplicate(what).into()
}

/// The id of the row just inserted; one beyond 32 bits takes the insert back.
fn new_id(transaction: &Transaction<'_>) -> Result<u32, SqliteFault> {
    let id = transaction.last_insert_rowid();
    u32::try_from(id).map_err(|_| SqliteFault::broken(format!("the new id {id} is not below 2^32")))
}
