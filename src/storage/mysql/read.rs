//! Reads tables page by page. An unusable row is reported and skipped.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use mysql_async::{Row, Value};

use super::cells::MysqlCells;
use super::fault::MysqlFault;
use super::hashes::Forms;
use super::link::MysqlSession;
use super::rows::{Cell, RowsSql};
use super::tables::Own;
use crate::base::ids::{InfoHash, Passkey, PeerId, TorrentId, UserId};
use crate::change::{PeerKey, PeerRecord};
use crate::registry::{ClientPrefix, Torrent, User};
use crate::storage::rows::{self, Unusable};
use crate::storage::schema::{self, Call};
use crate::storage::{
    BadRow, Page, StoredHistory, StoredPeer, StoredTorrent, StoredUser, UserTotals,
};

const PEER: &str = "SELECT user_id, torrent_id, peer_id, base_up, base_down, base_at, dip_up, \
    dip_down, uploaded, downloaded, left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, \
    seed_time, announces, first_announce, last_announce, active, paused FROM";

const HISTORY: &str = "SELECT torrent_id, user_id, uploaded, downloaded, seed_time, completed_at, \
    hnr FROM";

/// All ids are above this one.
const BEFORE_ALL: i64 = i64::MIN;

type Read<T> = fn(&Row) -> Result<T, Unusable>;

pub(super) async fn newest_announce(
    session: &mut MysqlSession<'_>,
    own: &Own,
) -> Result<Option<i64>, MysqlFault> {
    let sql = format!("SELECT MAX(last_announce) FROM {}", own.peers);
    let rows = session.query(&sql).await?;
    Ok(rows.first().and_then(|row| MysqlCells(row).integer(0)))
}

pub(super) async fn last_gone(
    session: &mut MysqlSession<'_>,
    own: &Own,
    before: i64,
) -> Result<Option<i64>, MysqlFault> {
    let sql = format!(
        "SELECT MAX(inactive_since) FROM {} WHERE inactive_since < {before}",
        own.peers
    );
    let rows = session.query(&sql).await?;
    Ok(rows.first().and_then(|row| MysqlCells(row).integer(0)))
}

pub(super) async fn users(
    session: &mut MysqlSession<'_>,
    after: Option<UserId>,
    limit: u32,
) -> Result<Page<StoredUser>, MysqlFault> {
    by_id(session, &schema::USERS, after.map(|id| id.0), limit, user).await
}

pub(super) async fn torrents(
    session: &mut MysqlSession<'_>,
    after: Option<TorrentId>,
    limit: u32,
) -> Result<Page<StoredTorrent>, MysqlFault> {
    by_id(
        session,
        &schema::TORRENTS,
        after.map(|id| id.0),
        limit,
        torrent,
    )
    .await
}

/// The condition on the key is written out: servers don't use an index for row comparisons.
pub(super) async fn peers(
    session: &mut MysqlSession<'_>,
    own: &Own,
    since: i64,
    after: Option<PeerKey>,
    limit: u32,
) -> Result<Page<StoredPeer>, MysqlFault> {
    let (user, torrent, peer_id) = after.as_ref().map_or((-1, -1, &[][..]), |key| {
        (key.user.0.into(), key.torrent.0.into(), &key.peer_id.0[..])
    });
    let sql = format!(
        "{PEER} {} FORCE INDEX (PRIMARY) WHERE user_id >= ? AND (user_id > ? OR torrent_id > ? \
         OR (torrent_id = ? AND peer_id > ?)) AND (active = 1 OR last_announce >= ?) \
         ORDER BY user_id, torrent_id, peer_id LIMIT ?",
        own.peers
    );
    let (user, torrent) = (Value::Int(user), Value::Int(torrent));
    let params = vec![
        user.clone(),
        user,
        torrent.clone(),
        torrent,
        Value::Bytes(peer_id.to_vec()),
        since.into(),
        one_more(limit),
    ];
    Ok(page(&session.exec(&sql, params).await?, limit, peer))
}

pub(super) async fn histories(
    session: &mut MysqlSession<'_>,
    own: &Own,
    after: Option<(TorrentId, UserId)>,
    limit: u32,
) -> Result<Page<StoredHistory>, MysqlFault> {
    let (torrent, user) = after.map_or((-1, -1), |(torrent, user)| {
        (i64::from(torrent.0), i64::from(user.0))
    });
    let sql = format!(
        "{HISTORY} {} FORCE INDEX (PRIMARY) WHERE torrent_id >= ? \
         AND (torrent_id > ? OR user_id > ?) ORDER BY torrent_id, user_id LIMIT ?",
        own.history
    );
    let params = vec![torrent.into(), torrent.into(), user.into(), one_more(limit)];
    Ok(page(&session.exec(&sql, params).await?, limit, history))
}

pub(super) async fn records_of(
    session: &mut MysqlSession<'_>,
    own: &Own,
    torrent: TorrentId,
) -> Result<(Vec<StoredHistory>, Vec<StoredPeer>), MysqlFault> {
    let of = |select: &str, table: &str| format!("{select} {table} WHERE torrent_id = ?");
    let params = || vec![Value::from(torrent.0)];
    let rows = session.exec(&of(HISTORY, &own.history), params()).await?;
    let histories = page(&rows, u32::MAX, history).rows;
    let rows = session.exec(&of(PEER, &own.peers), params()).await?;
    Ok((histories, page(&rows, u32::MAX, peer).rows))
}

/// Torrents in one statement.
const ASKED_MAX: usize = 1000;

/// The torrents of these that have any record.
pub(super) async fn with_records(
    session: &mut MysqlSession<'_>,
    own: &Own,
    torrents: &[TorrentId],
) -> Result<Vec<TorrentId>, MysqlFault> {
    let mut found = Vec::new();
    for torrents in torrents.chunks(ASKED_MAX) {
        let ids: Vec<String> = torrents
            .iter()
            .map(|torrent| torrent.0.to_string())
            .collect();
        let ids = ids.join(", ");
        let sql = format!(
            "SELECT torrent_id FROM {} WHERE torrent_id IN ({ids}) \
             UNION SELECT torrent_id FROM {} WHERE torrent_id IN ({ids})",
            own.history, own.peers
        );
        let rows = session.query(&sql).await?;
        let ids = rows.iter().filter_map(|row| MysqlCells(row).id(0).ok());
        found.extend(ids.map(TorrentId));
    }
    Ok(found)
}

pub(super) async fn whitelist(
    session: &mut MysqlSession<'_>,
) -> Result<Vec<ClientPrefix>, MysqlFault> {
    Ok(rows::distinct(clients(session).await?.rows))
}

pub(super) async fn bad_clients(session: &mut MysqlSession<'_>) -> Result<Vec<BadRow>, MysqlFault> {
    Ok(clients(session).await?.bad)
}

/// The clients with their prefixes verbatim, and the unusable rows.
pub(super) async fn clients(
    session: &mut MysqlSession<'_>,
) -> Result<Page<(ClientPrefix, String)>, MysqlFault> {
    let rows = session.call(&schema::WHITELIST, &[]).await?;
    Ok(page(&rows, u32::MAX, client))
}

pub(super) async fn user_by_id(
    session: &mut MysqlSession<'_>,
    id: UserId,
) -> Result<Option<StoredUser>, MysqlFault> {
    one(session, &schema::USER, id.0, user).await
}

pub(super) async fn is_unfinished(
    session: &mut MysqlSession<'_>,
    id: UserId,
) -> Result<bool, MysqlFault> {
    let rows = session.call(&schema::USER, &[("id", id.0.into())]).await?;
    let is_unfinished = |row| matches!(user(row), Err(Unusable::Unfinished));
    Ok(rows.first().is_some_and(is_unfinished))
}

pub(super) async fn users_named(
    session: &mut MysqlSession<'_>,
    name: &str,
) -> Result<Vec<StoredUser>, MysqlFault> {
    let params = [("username", Value::from(name))];
    let rows = session.call(&schema::USERS_NAMED, &params).await?;
    let read = |row| match user(row) {
        Ok(stored) => Ok(stored),
        Err(Unusable::Bad(bad)) => Err(unusable(&bad)),
        Err(Unusable::Unfinished) => Err(rows::no_passkey(&MysqlCells(row).shown(0)).into()),
    };
    rows.iter().map(read).collect()
}

pub(super) async fn torrent_by_id(
    session: &mut MysqlSession<'_>,
    id: TorrentId,
) -> Result<Option<StoredTorrent>, MysqlFault> {
    one(session, &schema::TORRENT, id.0, torrent).await
}

pub(super) async fn torrent_by_hash(
    session: &mut MysqlSession<'_>,
    info_hash: InfoHash,
) -> Result<Option<StoredTorrent>, MysqlFault> {
    let found = ids_of_hashes(session, [info_hash].iter()).await?;
    match found.first() {
        Some((id, ..)) => torrent_by_id(session, *id).await,
        None => Ok(None),
    }
}

/// The torrents that have one of these info hashes as their first or second: their ids, and both.
pub(super) async fn ids_of_hashes(
    session: &mut MysqlSession<'_>,
    hashes: impl Iterator<Item = &InfoHash>,
) -> Result<Vec<(TorrentId, Option<InfoHash>, Option<InfoHash>)>, MysqlFault> {
    let hashes: Vec<&InfoHash> = hashes.collect();
    let forms = Forms::of(session).await?;
    let (mut bytes, mut texts) = (RowsSql::default(), RowsSql::default());
    for hash in &hashes {
        bytes.push(&[Cell::Bytes(&hash.0)]);
        for text in forms.first.texts(hash) {
            texts.push(&[Cell::Sql(&text)]);
        }
    }
    let call = &schema::TORRENTS_OF_HASHES;
    let mut rows = session.call_with(call, &texts).await?;
    rows.extend(session.call_with(call, &bytes).await?);
    let mut known: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            let cells = MysqlCells(row);
            let hash = |column| cells.info_hash(column, "").ok().flatten();
            Some((TorrentId(cells.id(0).ok()?), hash(1), hash(2)))
        })
        // A collation may treat other bytes as equal.
        .filter(|(_, first, second)| {
            let both = [first, second].into_iter().flatten();
            both.into_iter().any(|hash| hashes.contains(&hash))
        })
        .collect();
    known.sort_unstable();
    known.dedup();
    Ok(known)
}

/// Reads until there are `limit` good rows, so that a page of bad ones does not look like the end.
async fn by_id<T>(
    session: &mut MysqlSession<'_>,
    call: &'static Call,
    after: Option<u32>,
    limit: u32,
    read: Read<T>,
) -> Result<Page<T>, MysqlFault> {
    let limit = limit.max(1);
    let mut after = after.map_or(BEFORE_ALL, i64::from);
    let mut whole = Page::empty();
    whole.last = false;
    loop {
        let wanted = limit - u32::try_from(whole.rows.len()).unwrap_or(limit);
        let params = [("after", after.into()), ("limit", one_more(wanted))];
        let rows = session.call(call, &params).await?;
        let part = page(&rows, wanted, read);
        let is_full = part.rows.len() == wanted as usize;
        let is_end = rows.len() <= wanted as usize;
        whole.rows.extend(part.rows);
        whole.bad.extend(part.bad);
        whole.unfinished += part.unfinished;
        let key = rows.last().and_then(|row| MysqlCells(row).key(0));
        match key {
            _ if is_full && !part.last => return Ok(whole),
            Some(key) if !is_end && key > after => after = key,
            _ => {
                whole.last = true;
                return Ok(whole);
            }
        }
    }
}

/// Reads one row beyond the page to know whether there are more.
fn one_more(limit: u32) -> Value {
    Value::from(u64::from(limit.max(1)) + 1)
}

fn page<T>(rows: &[Row], limit: u32, read: Read<T>) -> Page<T> {
    let limit = usize::try_from(limit.max(1)).unwrap_or(usize::MAX);
    let mut page = Page::empty();
    for row in rows {
        if page.rows.len() == limit {
            page.last = false;
            break;
        }
        page.push(read(row));
    }
    page
}

/// A single row: an error if it is unusable, none if the site has not finished it.
async fn one<T>(
    session: &mut MysqlSession<'_>,
    call: &'static Call,
    id: u32,
    read: Read<T>,
) -> Result<Option<T>, MysqlFault> {
    let rows = session.call(call, &[("id", id.into())]).await?;
    match rows.first().map(read) {
        None | Some(Err(Unusable::Unfinished)) => Ok(None),
        Some(Ok(row)) => Ok(Some(row)),
        Some(Err(Unusable::Bad(bad))) => Err(unusable(&bad)),
    }
}

fn unusable(bad: &BadRow) -> MysqlFault {
    MysqlFault::broken(format!(
        "the row {} of {} can't be used: {}",
        bad.id, bad.table, bad.problem
    ))
}

// --- one row each; the columns as the statements give them ---

pub(super) fn user(row: &Row) -> Result<StoredUser, Unusable> {
    let cells = MysqlCells(row);
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

pub(super) fn torrent(row: &Row) -> Result<StoredTorrent, Unusable> {
    let cells = MysqlCells(row);
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

fn client(row: &Row) -> Result<(ClientPrefix, String), Unusable> {
    let cells = MysqlCells(row);
    let written = cells.text(0);
    let client = rows::client(&written, cells.text(1));
    // In quotes, because it may consist of blanks.
    let client = client.map_err(|problem| BadRow {
        id: format!("{:?}", cells.shown(0)),
        ..bad("whitelist", &cells, problem)
    })?;
    Ok((client, written))
}

fn peer(row: &Row) -> Result<StoredPeer, Unusable> {
    let cells = MysqlCells(row);
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

fn port(cells: &MysqlCells<'_>, column: usize) -> Option<u16> {
    u16::try_from(cells.integer(column)?).ok()
}

fn history(row: &Row) -> Result<StoredHistory, Unusable> {
    let cells = MysqlCells(row);
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

fn bad(table: &'static str, cells: &MysqlCells<'_>, problem: String) -> BadRow {
    BadRow {
        table,
        id: cells.shown(0),
        problem,
    }
}
