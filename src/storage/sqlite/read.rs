//! Reads tables page by page. An unusable row is reported and skipped.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use rusqlite::{Connection, Params, Row, Rows, params};

use super::cells::SqliteCells;
use super::fault::SqliteFault;
use crate::base::ids::{InfoHash, Passkey, PeerId, TorrentId, UserId};
use crate::change::{PeerKey, PeerRecord};
use crate::registry::{ClientPrefix, Torrent, User};
use crate::storage::rows::{self, SortKey, Unusable};
use crate::storage::unusable;
use crate::storage::{
    BadRow, Find, Found, Page, StoredHistory, StoredPeer, StoredTorrent, StoredUser, TorrentKey,
    UserKey, UserTorrents, UserTotals,
};

const USER: &str = "SELECT id, passkey, username, enabled, can_leech, \
    uploaded, downloaded, snatches, announces, seed_time FROM users";

const TORRENT: &str = "SELECT id, info_hash, info_hash_v2, release_name, enabled, reason, \
    multi_up, multi_dn, seeders, leechers, snatches, announces, uploaded, downloaded FROM torrents";

const PEER: &str = "SELECT user_id, torrent_id, peer_id, base_up, base_down, base_at, dip_up, \
    dip_down, uploaded, downloaded, left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, \
    seed_time, announces, first_announce, last_announce, active, paused FROM peers";

const HISTORY: &str = "SELECT torrent_id, user_id, uploaded, downloaded, seed_time, completed_at, \
    hnr FROM history";

/// All ids are above this one.
const BEFORE_ALL: i64 = i64::MIN;

pub(super) fn newest_announce(connection: &Connection) -> Result<Option<i64>, SqliteFault> {
    let mut select = connection.prepare_cached("SELECT MAX(last_announce) FROM peers")?;
    Ok(select.query_row([], |row| row.get(0))?)
}

pub(super) fn last_gone(connection: &Connection, before: i64) -> Result<Option<i64>, SqliteFault> {
    let mut select = connection.prepare_cached(
        "SELECT MAX(last_announce) FROM peers WHERE active = 0 AND last_announce < ?1",
    )?;
    Ok(select.query_row([before], |row| row.get(0))?)
}

pub(super) fn users(
    connection: &Connection,
    after: Option<UserId>,
    limit: u32,
) -> Result<Page<StoredUser>, SqliteFault> {
    let after = after.map_or(BEFORE_ALL, |id| id.0.into());
    let mut select = connection.prepare_cached(&format!("{USER} WHERE id > ?1 ORDER BY id"))?;
    page(select.query([after])?, limit, user)
}

pub(super) fn torrents(
    connection: &Connection,
    after: Option<TorrentId>,
    limit: u32,
) -> Result<Page<StoredTorrent>, SqliteFault> {
    let after = after.map_or(BEFORE_ALL, |id| id.0.into());
    let mut select = connection.prepare_cached(&format!("{TORRENT} WHERE id > ?1 ORDER BY id"))?;
    page(select.query([after])?, limit, torrent)
}

pub(super) fn peers(
    connection: &Connection,
    since: i64,
    after: Option<PeerKey>,
    limit: u32,
) -> Result<Page<StoredPeer>, SqliteFault> {
    let (user, torrent, peer_id) = after.as_ref().map_or((BEFORE_ALL, 0_i64, &[][..]), |key| {
        (key.user.0.into(), key.torrent.0.into(), &key.peer_id.0[..])
    });
    let mut select = connection.prepare_cached(&format!(
        "{PEER} WHERE (user_id, torrent_id, peer_id) > (?1, ?2, ?3) \
         AND (active = 1 OR last_announce >= ?4) \
         ORDER BY user_id, torrent_id, peer_id"
    ))?;
    page(
        select.query(params![user, torrent, peer_id, since])?,
        limit,
        peer,
    )
}

pub(super) fn histories(
    connection: &Connection,
    after: Option<(TorrentId, UserId)>,
    limit: u32,
) -> Result<Page<StoredHistory>, SqliteFault> {
    let (torrent, user) = after.map_or((BEFORE_ALL, 0), |(torrent, user)| {
        (torrent.0.into(), i64::from(user.0))
    });
    let mut select = connection.prepare_cached(&format!(
        "{HISTORY} WHERE (torrent_id, user_id) > (?1, ?2) ORDER BY torrent_id, user_id"
    ))?;
    page(select.query([torrent, user])?, limit, history)
}

pub(super) fn records_of(
    connection: &Connection,
    torrent: TorrentId,
) -> Result<(Vec<StoredHistory>, Vec<StoredPeer>), SqliteFault> {
    let mut select = connection.prepare_cached(&format!("{HISTORY} WHERE torrent_id = ?1"))?;
    let histories = page(select.query([torrent.0])?, u32::MAX, history)?;
    let mut select = connection.prepare_cached(&format!("{PEER} WHERE torrent_id = ?1"))?;
    let peers = page(select.query([torrent.0])?, u32::MAX, peer)?;
    Ok((histories.rows, peers.rows))
}

/// Those of `torrents` that have any record.
pub(super) fn with_records(
    connection: &Connection,
    torrents: &[TorrentId],
) -> Result<Vec<TorrentId>, SqliteFault> {
    let mut select = connection.prepare_cached(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM history WHERE torrent_id = ?1)
         OR EXISTS (SELECT 1 FROM peers WHERE torrent_id = ?1)",
    )?;
    let mut found = Vec::new();
    for torrent in torrents {
        if select.exists([torrent.0])? {
            found.push(*torrent);
        }
    }
    Ok(found)
}

/// The usable clients; [`unusable_rows`] has the others.
pub(super) fn whitelist(connection: &Connection) -> Result<Vec<ClientPrefix>, SqliteFault> {
    Ok(rows::distinct(clients(connection)?.rows))
}

pub(super) fn user_by_id(
    connection: &Connection,
    id: UserId,
) -> Result<Option<StoredUser>, SqliteFault> {
    one(connection, &format!("{USER} WHERE id = ?1"), [id.0], user)
}

pub(super) fn is_unfinished(connection: &Connection, id: UserId) -> Result<bool, SqliteFault> {
    let mut select = connection.prepare_cached(&format!("{USER} WHERE id = ?1"))?;
    let mut rows = select.query([id.0])?;
    let row = rows.next()?;
    Ok(row.is_some_and(|row| matches!(user(row), Err(Unusable::Unfinished))))
}

pub(super) fn users_named(
    connection: &Connection,
    name: &str,
) -> Result<Vec<StoredUser>, SqliteFault> {
    let mut select =
        connection.prepare_cached(&format!("{USER} WHERE username = ?1 ORDER BY id"))?;
    let mut rows = select.query([name])?;
    let mut users = Vec::new();
    while let Some(row) = rows.next()? {
        users.push(match user(row) {
            Ok(stored) => stored,
            Err(Unusable::Bad(bad)) => return Err(unusable(&bad)),
            Err(Unusable::Unfinished) => {
                return Err(rows::no_passkey(&SqliteCells(row).shown(0)).into());
            }
        });
    }
    Ok(users)
}

pub(super) fn torrent_by_id(
    connection: &Connection,
    id: TorrentId,
) -> Result<Option<StoredTorrent>, SqliteFault> {
    one(
        connection,
        &format!("{TORRENT} WHERE id = ?1"),
        [id.0],
        torrent,
    )
}

pub(super) fn torrent_by_hash(
    connection: &Connection,
    info_hash: InfoHash,
) -> Result<Option<StoredTorrent>, SqliteFault> {
    let sql = format!("{TORRENT} WHERE info_hash = ?1 OR info_hash_v2 = ?1");
    one(connection, &sql, [info_hash.0], torrent)
}

/// The condition that count and list have in common.
const FIND_USERS: &str = "WHERE (?1 IS NULL OR username LIKE ?1 ESCAPE '!' OR id = ?2) \
    AND (?3 IS NULL OR (enabled <> 0) = ?3)";

const FIND_TORRENTS: &str = "WHERE (?1 IS NULL OR release_name LIKE ?1 ESCAPE '!' OR id = ?2) \
    AND (?3 IS NULL OR (enabled <> 0) = ?3)";

pub(super) fn find_users(
    connection: &Connection,
    find: &Find<UserKey>,
) -> Result<Found<StoredUser>, SqliteFault> {
    let count = format!("SELECT COUNT(*) FROM users {FIND_USERS}");
    self::find(
        connection,
        find,
        &count,
        &format!("{USER} {FIND_USERS}"),
        user,
    )
}

pub(super) fn find_torrents(
    connection: &Connection,
    find: &Find<TorrentKey>,
) -> Result<Found<StoredTorrent>, SqliteFault> {
    let count = format!("SELECT COUNT(*) FROM torrents {FIND_TORRENTS}");
    let list = format!("{TORRENT} {FIND_TORRENTS}");
    self::find(connection, find, &count, &list, torrent)
}

fn find<K: SortKey, T>(
    connection: &Connection,
    find: &Find<K>,
    count: &str,
    list: &str,
    read: impl Fn(&Row<'_>) -> Result<T, Unusable>,
) -> Result<Found<T>, SqliteFault> {
    let params = params![find.pattern(), find.id(), find.enabled];
    let total: i64 = connection.query_row(count, params, |row| row.get(0))?;
    let mut select = connection.prepare(&format!("{list}{}", find.tail()))?;
    let rows = page(select.query(params)?, u32::MAX, read)?.rows;
    let total = total.cast_unsigned();
    Ok(Found { rows, total })
}

pub(super) fn torrents_of(
    connection: &Connection,
    user: UserId,
) -> Result<UserTorrents, SqliteFault> {
    let mut select = connection.prepare_cached(
        "SELECT torrent_id, completed_at IS NOT NULL, hnr <> 0 FROM history WHERE user_id = ?1",
    )?;
    let histories = select.query_map([user.0], |row| {
        Ok((TorrentId(row.get(0)?), row.get(1)?, row.get(2)?))
    })?;
    let histories: Vec<_> = histories.collect::<Result<_, _>>()?;
    let mut select = connection.prepare_cached(
        "SELECT torrent_id, left_bytes IS 0 FROM peers WHERE user_id = ?1 AND active <> 0",
    )?;
    let peers = select.query_map([user.0], |row| Ok((TorrentId(row.get(0)?), row.get(1)?)))?;
    let peers: Vec<_> = peers.collect::<Result<_, _>>()?;
    Ok(UserTorrents::of(histories, peers))
}

/// The unusable rows of the tables that a site writes.
pub(super) fn unusable_rows(
    connection: &Connection,
) -> Result<unusable::UnusableRows, SqliteFault> {
    let mut found = unusable::UnusableRows::default();
    let mut select = connection.prepare(USER)?;
    let users = page(select.query([])?, u32::MAX, |row| user(row).map(drop))?;
    let mut select = connection.prepare(TORRENT)?;
    let torrents = page(select.query([])?, u32::MAX, |row| torrent(row).map(drop))?;
    let clients = clients(connection)?;
    found.users_unfinished = users.unfinished;
    found.torrents_unfinished = torrents.unfinished;
    found.bad = [users.bad, torrents.bad, clients.bad].concat();
    found.unmatched_prefixes = unusable::unmatched(&clients.rows);
    let untidy = clients
        .rows
        .into_iter()
        .filter(|(client, written)| client.prefix != *written);
    found.untidy_prefixes = untidy.map(|(_, written)| written).collect();
    Ok(found)
}

/// The clients with their prefixes verbatim, and the unusable rows.
pub(super) fn clients(
    connection: &Connection,
) -> Result<Page<(ClientPrefix, String)>, SqliteFault> {
    let sql = "SELECT peer_id, vstring FROM whitelist ORDER BY peer_id";
    let mut select = connection.prepare_cached(sql)?;
    page(select.query([])?, u32::MAX, client)
}

/// Reads until there are `limit` good rows, so that a page of bad ones does not look like the end.
fn page<T>(
    mut rows: Rows<'_>,
    limit: u32,
    read: impl Fn(&Row<'_>) -> Result<T, Unusable>,
) -> Result<Page<T>, SqliteFault> {
    let limit = usize::try_from(limit.max(1)).unwrap_or(usize::MAX);
    let mut page = Page::empty();
    while let Some(row) = rows.next()? {
        if page.rows.len() == limit {
            page.last = false;
            break;
        }
        page.push(read(row));
    }
    Ok(page)
}

/// A single row: an error if it is unusable, none if the site has not finished it.
fn one<T>(
    connection: &Connection,
    sql: &str,
    key: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, Unusable>,
) -> Result<Option<T>, SqliteFault> {
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query(key)?;
    match rows.next()?.map(read) {
        None | Some(Err(Unusable::Unfinished)) => Ok(None),
        Some(Ok(row)) => Ok(Some(row)),
        Some(Err(Unusable::Bad(bad))) => Err(unusable(&bad)),
    }
}

fn unusable(bad: &BadRow) -> SqliteFault {
    SqliteFault::broken(format!(
        "the row {} of {} can't be used: {}",
        bad.id, bad.table, bad.problem
    ))
}

// --- one row each; the columns as in the statements above ---

fn user(row: &Row<'_>) -> Result<StoredUser, Unusable> {
    let cells = SqliteCells(row);
    if cells.is_blank(1) {
        return Err(Unusable::Unfinished);
    }
    let read = || {
        let passkey: Option<Passkey> = cells.parsed(1);
        Ok(User {
            id: UserId(cells.id(0)?),
            passkey: passkey.ok_or("its passkey is not 8 to 64 letters, digits, '_' or '-'")?,
            username: cells.text(2),
            enabled: cells.site_flag(3, "enabled")?,
            can_leech: cells.site_flag(4, "can_leech")?,
        })
    };
    Ok(StoredUser {
        user: read().map_err(|problem: String| bad("users", &cells, problem))?,
        totals: UserTotals {
            uploaded: cells.total(5),
            downloaded: cells.total(6),
            snatches: cells.total(7),
            announces: cells.total(8),
            seed_time: cells.total(9),
        },
    })
}

fn torrent(row: &Row<'_>) -> Result<StoredTorrent, Unusable> {
    let cells = SqliteCells(row);
    let first = cells.info_hash(1, "info_hash");
    let first = first.map_err(|problem| bad("torrents", &cells, problem))?;
    let info_hash = first.ok_or(Unusable::Unfinished)?;
    let read = || {
        Ok(Torrent {
            id: TorrentId(cells.id(0)?),
            info_hash,
            info_hash_v2: cells.info_hash(2, "info_hash_v2")?,
            enabled: cells.site_flag(4, "enabled")?,
            reason: (!cells.is_null(5)).then(|| cells.text(5)),
            multi_up: cells.permille(6, "multi_up")?,
            multi_down: cells.permille(7, "multi_dn")?,
            snatches: cells.small(10),
        })
    };
    Ok(StoredTorrent {
        torrent: read().map_err(|problem: String| bad("torrents", &cells, problem))?,
        name: cells.text(3),
        seeders: cells.small(8),
        leechers: cells.small(9),
        announces: cells.total(11),
        uploaded: cells.total(12),
        downloaded: cells.total(13),
    })
}

fn client(row: &Row<'_>) -> Result<(ClientPrefix, String), Unusable> {
    let cells = SqliteCells(row);
    let written = cells.text(0);
    let client = rows::client(&written, cells.text(1));
    // In quotes, because it may consist of blanks.
    let client = client.map_err(|problem| BadRow {
        id: format!("{:?}", cells.shown(0)),
        ..bad("whitelist", &cells, problem)
    })?;
    Ok((client, written))
}

fn peer(row: &Row<'_>) -> Result<StoredPeer, Unusable> {
    let cells = SqliteCells(row);
    let key = || {
        Ok(PeerKey {
            user: UserId(cells.id(0)?),
            torrent: TorrentId(cells.id(1)?),
            peer_id: PeerId::from_slice(cells.bytes(2)).ok_or("its peer id is not 20 bytes")?,
        })
    };
    Ok(StoredPeer {
        key: key().map_err(|problem: String| bad("peers", &cells, problem))?,
        record: PeerRecord {
            base_up: cells.total(3),
            base_down: cells.total(4),
            start_up: None,
            start_down: None,
            base_at: cells.integer(5).unwrap_or(0),
            dip_up: cells.integer(6),
            dip_down: cells.integer(7),
            uploaded: cells.total(8),
            downloaded: cells.total(9),
            left: (!cells.is_null(10)).then(|| cells.total(10)),
            v4: cells
                .parsed(11)
                .zip(port(&cells, 12))
                .map(|(ip, port): (Ipv4Addr, _)| SocketAddrV4::new(ip, port)),
            v6: cells
                .parsed(13)
                .zip(port(&cells, 14))
                .map(|(ip, port): (Ipv6Addr, _)| SocketAddrV6::new(ip, port, 0, 0)),
            v4_at: None,
            v6_at: None,
            speed_up: cells.small(15),
            speed_down: cells.small(16),
            seed_time: cells.small(17),
            announces: cells.small(18),
            first_announce: cells.integer(19).unwrap_or(0),
            last_announce: cells.integer(20).unwrap_or(0),
            active: cells.flag(21),
            paused: cells.flag(22),
        },
    })
}

fn port(cells: &SqliteCells<'_>, column: usize) -> Option<u16> {
    u16::try_from(cells.integer(column)?).ok()
}

fn history(row: &Row<'_>) -> Result<StoredHistory, Unusable> {
    let cells = SqliteCells(row);
    let ids = cells.id(0).and_then(|torrent| Ok((torrent, cells.id(1)?)));
    let (torrent, user) = ids.map_err(|problem| bad("history", &cells, problem))?;
    Ok(StoredHistory {
        user: UserId(user),
        torrent: TorrentId(torrent),
        uploaded: cells.total(2),
        downloaded: cells.total(3),
        seed_time: cells.total(4),
        completed_at: cells.integer(5),
        hnr: cells.flag(6),
    })
}

fn bad(table: &'static str, cells: &SqliteCells<'_>, problem: String) -> BadRow {
    BadRow {
        table,
        id: cells.shown(0),
        problem,
    }
}
