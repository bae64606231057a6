//! Sorted lists and lookups for the API and `mika-manage`.

use mysql_async::{Row, Value};

use super::cells::MysqlCells;
use super::fault::MysqlFault;
use super::link::MysqlSession;
use super::read;
use super::tables::Own;
use crate::base::ids::{TorrentId, UserId};
use crate::storage::rows::{SortKey, Unusable};
use crate::storage::schema::{self, Call};
use crate::storage::{Find, Found, StoredTorrent, StoredUser, TorrentKey, UserKey, UserTorrents};

pub(super) async fn users(
    session: &mut MysqlSession<'_>,
    wanted: &Find<UserKey>,
) -> Result<Found<StoredUser>, MysqlFault> {
    let calls = (&schema::COUNT_USERS, &schema::FIND_USERS);
    find(session, wanted, calls, read::user).await
}

pub(super) async fn torrents(
    session: &mut MysqlSession<'_>,
    wanted: &Find<TorrentKey>,
) -> Result<Found<StoredTorrent>, MysqlFault> {
    let calls = (&schema::COUNT_TORRENTS, &schema::FIND_TORRENTS);
    find(session, wanted, calls, read::torrent).await
}

async fn find<K: SortKey, T>(
    session: &mut MysqlSession<'_>,
    wanted: &Find<K>,
    (count, list): (&'static Call, &'static Call),
    read: fn(&Row) -> Result<T, Unusable>,
) -> Result<Found<T>, MysqlFault> {
    let params = [
        ("pattern", wanted.pattern().into()),
        ("id", wanted.id().into()),
        ("enabled", wanted.enabled.into()),
    ];
    let rows = session.call(count, &params).await?;
    let total = rows.first().map_or(0, |row| MysqlCells(row).total(0));
    let rows = session.call_then(list, &params, &wanted.tail()).await?;
    let rows = rows.iter().filter_map(|row| read(row).ok()).collect();
    Ok(Found { rows, total })
}

pub(super) async fn torrents_of(
    session: &mut MysqlSession<'_>,
    own: &Own,
    user: UserId,
) -> Result<UserTorrents, MysqlFault> {
    let id = || vec![Value::from(user.0)];
    let sql = format!(
        "SELECT torrent_id, completed_at IS NOT NULL, hnr <> 0 FROM {} WHERE user_id = ?",
        own.history
    );
    let histories = session.exec(&sql, id()).await?;
    let sql = format!(
        "SELECT torrent_id, left_bytes <=> 0 FROM {} WHERE user_id = ? AND active = 1",
        own.peers
    );
    let peers = session.exec(&sql, id()).await?;
    let histories = histories.iter().filter_map(|row| {
        let cells = MysqlCells(row);
        Some((
            TorrentId(cells.id(0).ok()?),
            cells.total(1) > 0,
            cells.total(2) > 0,
        ))
    });
    let peers = peers.iter().filter_map(|row| {
        let cells = MysqlCells(row);
        Some((TorrentId(cells.id(0).ok()?), cells.total(1) > 0))
    });
    Ok(UserTorrents::of(histories, peers))
}
