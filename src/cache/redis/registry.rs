//! Users and torrents in one scan, for a start: going through all keys is what takes the server longest.

use redis::{Cmd, Value, cmd};

use super::link::RedisLink;
use super::scan::RowScan;
use super::{keys, rows};
use crate::base::ids::{InfoHash, UserId};
use crate::cache::{CacheError, RegistryCursor, RegistryScan};
use crate::registry::{BadRow, Torrent, User};

/// A key of one of them.
#[derive(Clone, Copy)]
enum RowKey {
    User(UserId),
    Torrent(InfoHash),
}

enum Row {
    User(User),
    Torrent(Torrent),
}

const ROWS: RowScan<RowKey, Row> = RowScan {
    pattern: keys::ALL_ROWS,
    id: key_of,
    read,
    row,
};

pub(super) async fn scan(
    link: &RedisLink,
    cursor: RegistryCursor,
) -> Result<RegistryScan, CacheError> {
    // One scan for both.
    let (RegistryCursor::Users(at) | RegistryCursor::Torrents(at)) = cursor;
    let scan = ROWS.scan(link, at).await?;
    let (mut users, mut torrents) = (Vec::new(), Vec::new());
    for row in scan.rows {
        match row {
            Row::User(user) => users.push(user),
            Row::Torrent(torrent) => torrents.push(torrent),
        }
    }
    Ok(RegistryScan {
        users,
        torrents,
        bad: scan.bad,
        next: scan.next.map(RegistryCursor::Users),
    })
}

fn key_of(key: &str) -> Option<RowKey> {
    let user = || keys::user_of(key).map(RowKey::User);
    keys::torrent_of(key).map(RowKey::Torrent).or_else(user)
}

fn read(key: RowKey) -> Cmd {
    match key {
        RowKey::User(id) => cmd("HMGET")
            .arg(keys::user(id))
            .arg(&rows::ACCESS_FIELDS.map(|place| rows::USER_FIELDS[place])[..])
            .take(),
        RowKey::Torrent(info_hash) => cmd("HMGET")
            .arg(keys::torrent(info_hash))
            .arg(&rows::RULE_FIELDS.map(|place| rows::TORRENT_FIELDS[place])[..])
            .take(),
    }
}

fn row(key: RowKey, values: Vec<Value>) -> Option<Result<Row, BadRow>> {
    Some(match key {
        RowKey::User(id) => {
            let values = rows::placed::<{ rows::USER_FIELDS.len() }>(&rows::ACCESS_FIELDS, values);
            rows::user(id, values)?.map(|row| Row::User(row.user))
        }
        RowKey::Torrent(info_hash) => {
            let values = rows::placed::<{ rows::TORRENT_FIELDS.len() }>(&rows::RULE_FIELDS, values);
            rows::torrent(info_hash, values)?.map(|row| Row::Torrent(row.torrent))
        }
    })
}
