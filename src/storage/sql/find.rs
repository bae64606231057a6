//! Sorted lists and lookups for the API and `mika-manage`.

use super::calls::{self, Call};
use super::cells::{Cell, SqlRow};
use super::database::SqlResult;
use super::decode;
use super::job::Job;
use crate::base::ids::{TorrentId, UserId};
use crate::storage::rows::{SortKey, Unusable};
use crate::storage::{Find, Found, StoredTorrent, StoredUser, TorrentKey, UserKey, UserTorrents};

pub(super) async fn users(
    job: &mut Job<'_>,
    wanted: &Find<UserKey>,
) -> SqlResult<Found<StoredUser>> {
    let calls = (&calls::COUNT_USERS, &calls::FIND_USERS);
    job.require(calls.1, "lists of users")?;
    find(job, wanted, calls, decode::user).await
}

pub(super) async fn torrents(
    job: &mut Job<'_>,
    wanted: &Find<TorrentKey>,
) -> SqlResult<Found<StoredTorrent>> {
    let calls = (&calls::COUNT_TORRENTS, &calls::FIND_TORRENTS);
    job.require(calls.1, "lists of torrents")?;
    find(job, wanted, calls, decode::torrent).await
}

async fn find<K: SortKey, T>(
    job: &mut Job<'_>,
    wanted: &Find<K>,
    (count, list): (&'static Call, &'static Call),
    decode: fn(SqlRow<'_>) -> Result<T, Unusable>,
) -> SqlResult<Found<T>> {
    let pattern = wanted.pattern();
    let params = [
        ("pattern", Cell::text(pattern.as_deref())),
        ("id", wanted.id().into()),
        ("enabled", wanted.enabled.into()),
    ];
    let rows = job.call(count, &params).await?;
    let total = rows.first().map_or(0, |row| row.total(0));
    let rows = job.call_then(list, &params, &wanted.tail()).await?;
    let rows = rows.iter().filter_map(|row| decode(row).ok()).collect();
    Ok(Found { rows, total })
}

pub(super) async fn torrents_of(job: &mut Job<'_>, user: UserId) -> SqlResult<UserTorrents> {
    let params = [("user_id", user.0.into())];
    let histories = job.call(&calls::HISTORIES_OF_USER, &params).await?;
    let peers = job.call(&calls::PEERS_OF_USER, &params).await?;
    let histories = histories.iter().filter_map(|row| {
        let torrent = TorrentId(row.id(0).ok()?);
        Some((torrent, row.flag(1), row.flag(2)))
    });
    let peers = peers.iter().filter_map(|row| {
        let torrent = TorrentId(row.id(0).ok()?);
        Some((torrent, row.flag(1)))
    });
    Ok(UserTorrents::of(histories, peers))
}
