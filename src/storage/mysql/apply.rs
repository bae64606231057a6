//! Applying batches of the journal: bases, credit and the last number in one transaction.
//!
//! Rows are written in the order of their keys, so that writers meet in the same order, and those
//! of the site last, so that they are locked for the shortest time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mysql_async::Value;

use super::cells::Cells;
use super::credit;
use super::fault::Fault;
use super::hashes::Forms;
use super::link::Session;
use super::read;
use super::rows::{Cell, INSERT_ROWS_MAX, Rows, TABLE_ROWS_MAX};
use super::tables::{Own, begin};
use crate::accounting::coverage::Coverage;
use crate::accounting::peer::PeerAccount;
use crate::change::sums::Credited;
use crate::change::{Batch, PeerKey, PeerRecord, RecordAge};
use crate::ids::{InfoHash, TorrentId};
use crate::storage::schema::{self, Call};
use crate::storage::settle::{
    Base, Held, HeldHistory, HeldPeer, HistoryRow, PeerRow, Settlement, TorrentSum, clamp,
};
use crate::storage::touched::{Known, Named, Touched};
use crate::storage::values::log_refused;
use crate::storage::{CreditRules, batches};

/// The key of a peer.
const PEER_KEY: [&str; 3] = ["user_id", "torrent_id", "peer_id"];

/// Columns of what reports are settled against.
const SESSIONS: [&str; 8] = [
    "base_up",
    "base_down",
    "base_at",
    "sessions",
    "uploaded",
    "downloaded",
    "dip_up",
    "dip_down",
];

/// Columns of a peer after its key. The last [`PEER_SELDOM`] are as they were unless something
/// happened.
const PEER: [&str; 24] = [
    "base_up",
    "base_down",
    "base_at",
    "sessions",
    "uploaded",
    "downloaded",
    "left_bytes",
    "ip4",
    "port4",
    "ip6",
    "port6",
    "speed_up",
    "speed_down",
    "seed_time",
    "announces",
    "first_announce",
    "active",
    "paused",
    "last_announce",
    "dip_up",
    "dip_down",
    "hnr",
    "inactive_since",
    "completed_at",
];
const PEER_SELDOM: usize = 5;

/// The key of a history.
const HISTORY_KEY: [&str; 2] = ["torrent_id", "user_id"];

/// Columns of a history after its key. The last [`HISTORY_SELDOM`] are as they were unless something
/// happened, and the very last one is written once.
const HISTORY: [&str; 11] = [
    "uploaded",
    "downloaded",
    "seed_time",
    "announces",
    "last_announce",
    "seeded_until",
    "completed_at",
    "hnr",
    "seeded_floor",
    "seeded_from",
    "first_announce",
];
const HISTORY_SELDOM: usize = 5;

/// What is read of a peer, and the column where that begins.
const HELD_PEER: &str = "peer.announces, peer.last_announce, peer.active, peer.first_announce, \
    peer.sessions, peer.uploaded, peer.downloaded";
const PEER_AT: usize = 1;

/// What is read of a history, and the column where that begins.
const HELD_HISTORY: &str = "history.announces, history.uploaded, history.downloaded, \
    history.seed_time, history.last_announce, history.completed_at, history.hnr, \
    history.seeded_floor, history.seeded_from, history.seeded_until";
const HISTORY_AT: usize = PEER_AT + 7;

/// Joins peers with a table of keys.
const IS_WANTED: &str = "peer.user_id = wanted.user_id AND peer.torrent_id = wanted.torrent_id \
    AND peer.peer_id = wanted.peer_id";

/// A peer that is to be written.
struct Peer<'a> {
    row: &'a PeerRow<'a>,
    record: &'a PeerRecord,
    history: &'a HeldHistory,
    sessions: &'a [u8],
}

/// Applies `batches`, or leaves everything as it was.
pub(super) async fn apply(
    session: &mut Session<'_>,
    own: &Own,
    batches: &[Arc<Batch>],
    rules: &CreditRules,
) -> Result<Credited, Fault> {
    let Some(Batch { node, number, .. }) = batches.last().map(Arc::as_ref) else {
        return Ok(Credited::default());
    };
    begin(session).await?;
    let new = batches::not_applied(batches, applied_for_update(session, node).await?)?;
    let mut credited = Credited::default();
    if !new.is_empty() {
        let changes = || new.iter().flat_map(|batch| &batch.changes);
        let known = known(session, &Named::by(changes())).await?;
        let touched = Touched::by(changes(), &known);
        let held = held(session, own, &touched).await?;
        let settled = Settlement::of(touched, held, node, rules);
        write_peers(session, own, &settled).await?;
        write_histories(session, own, &settled).await?;
        let params = vec![Value::from(clamp(*number)), node.as_str().into()];
        let sql = "UPDATE mika_journal SET applied = ? WHERE node = ?";
        session.exec(sql, params).await?;
        write_torrents(session, &settled).await?;
        write_users(session, &settled).await?;
        write_snatches(session, &settled).await?;
        credited = settled.into_credited();
    }
    session.run("COMMIT").await?;
    log_refused(&std::mem::take(&mut session.notes));
    Ok(credited)
}

/// All nodes and the number of the last batch of each.
pub(super) async fn journals(session: &mut Session<'_>) -> Result<Vec<(String, u64)>, Fault> {
    let sql = "SELECT node, applied FROM mika_journal ORDER BY node";
    let rows = session.query(sql).await?;
    let journal = |cells: Cells<'_>| (cells.text(0), cells.total(1));
    Ok(rows.iter().map(|row| journal(Cells(row))).collect())
}

/// Passes over batches that are not there up to `number`.
pub(super) async fn begin_at(
    session: &mut Session<'_>,
    node: &str,
    number: u64,
) -> Result<(), Fault> {
    let sql = "INSERT INTO mika_journal (node, applied) VALUES (?, ?) \
               ON DUPLICATE KEY UPDATE applied = GREATEST(applied, VALUES(applied))";
    let params = vec![node.into(), Value::from(clamp(number))];
    session.exec(sql, params).await?;
    Ok(())
}

/// Forgets a journal's number if it is still this one.
pub(super) async fn forget(
    session: &mut Session<'_>,
    node: &str,
    number: u64,
) -> Result<bool, Fault> {
    begin(session).await?;
    let sql = "SELECT applied FROM mika_journal WHERE node = ? FOR UPDATE";
    let rows = session.exec(sql, vec![node.into()]).await?;
    let is_there = rows
        .first()
        .is_some_and(|row| Cells(row).total(0) == number);
    if is_there {
        let sql = "DELETE FROM mika_journal WHERE node = ?";
        session.exec(sql, vec![node.into()]).await?;
    }
    session.run("COMMIT").await?;
    Ok(is_there)
}

/// Waits for a transaction of the same node that is still at work, though its process may be gone.
pub(super) async fn applied(session: &mut Session<'_>, node: &str) -> Result<u64, Fault> {
    let sql = "SELECT applied FROM mika_journal WHERE node = ? FOR UPDATE";
    let rows = session.exec(sql, vec![node.into()]).await?;
    Ok(rows.first().map_or(0, |row| Cells(row).total(0)))
}

/// The number, which nobody else changes until this transaction ends.
async fn applied_for_update(session: &mut Session<'_>, node: &str) -> Result<u64, Fault> {
    let sql = "SELECT applied FROM mika_journal WHERE node = ? FOR UPDATE";
    let rows = session.exec(sql, vec![node.into()]).await?;
    if let Some(row) = rows.first() {
        return Ok(Cells(row).total(0));
    }
    // A row that is not there can't be locked: two first batches would both count.
    let insert = "INSERT IGNORE INTO mika_journal (node, applied) VALUES (?, 0)";
    session.exec(insert, vec![node.into()]).await?;
    let rows = session.exec(sql, vec![node.into()]).await?;
    Ok(rows.first().map_or(0, |row| Cells(row).total(0)))
}

/// Which of the users and torrents that changes name are there.
async fn known(session: &mut Session<'_>, named: &Named) -> Result<Known, Fault> {
    let mut ids: Vec<u32> = named.torrents.iter().map(|(id, _)| *id).collect();
    ids.dedup();
    let mut known = Known::default();
    let users = there(session, &schema::USERS_KNOWN, &named.users).await?;
    known.users.extend(users);
    let torrents = there(session, &schema::TORRENTS_KNOWN, &ids).await?;
    known.torrents.extend(torrents);
    let mut gone = named.torrents.clone();
    gone.retain(|(id, _)| !known.torrents.contains(id));
    if !gone.is_empty() {
        let found = read::ids_of_hashes(session, gone.iter().map(|(_, hash)| hash)).await?;
        let moved = found
            .iter()
            .filter_map(|(id, first, _)| Some(((*first)?, *id)));
        known.moved.extend(moved);
    }
    Ok(known)
}

/// What is there of the rows that changes touch, locked in the order of the peers.
async fn held(session: &mut Session<'_>, own: &Own, touched: &Touched<'_>) -> Result<Held, Fault> {
    let mut held = Held {
        peers: vec![None; touched.peers.len()],
        histories: vec![None; touched.histories.len()],
    };
    let mut without_account = Vec::new();
    let places: Vec<usize> = (0..touched.peers.len()).collect();
    let statements = wanted(touched, &places).map(|table| {
        format!(
            "SELECT wanted.place, {HELD_PEER}, {HELD_HISTORY} FROM {table} AS wanted \
             LEFT JOIN {peers} AS peer ON {IS_WANTED} \
             LEFT JOIN {history} AS history ON history.torrent_id = wanted.torrent_id \
             AND history.user_id = wanted.user_id FOR UPDATE",
            peers = own.peers,
            history = own.history
        )
    });
    let take = |row: &_| {
        let cells = Cells(row);
        let place = cells.total(0) as usize;
        let Some(peer) = touched.peers.get(place) else {
            return;
        };
        if !cells.is_null(HISTORY_AT) {
            held.histories[peer.history] = Some(held_history(&cells));
        }
        if !cells.is_null(PEER_AT) {
            let account = HeldPeer::account_of(cells.bytes(PEER_AT + 4));
            if account.is_none() {
                without_account.push(place);
            }
            held.peers[place] = Some(HeldPeer {
                account: account.unwrap_or_default(),
                ..held_peer(&cells)
            });
        }
    };
    session.query_each(statements, take).await?;
    for (place, account) in accounts(session, own, touched, &without_account).await? {
        if let Some(Some(peer)) = held.peers.get_mut(place) {
            peer.account = account;
        }
    }
    Ok(held)
}

/// Tables of peers that are to be found, by their places.
fn wanted(touched: &Touched<'_>, places: &[usize]) -> impl Iterator<Item = String> {
    places.chunks(TABLE_ROWS_MAX).flat_map(|places| {
        let mut wanted = Rows::default();
        for &place in places {
            let [user, torrent, peer_id] = key_cells(&touched.peers[place].key);
            wanted.push(&[Cell::Number(place as i64), user, torrent, peer_id]);
        }
        let tables = wanted.tables("place user_id torrent_id peer_id");
        tables.collect::<Vec<_>>()
    })
}

/// The accounts of rows of an earlier version, from their bases.
async fn accounts(
    session: &mut Session<'_>,
    own: &Own,
    touched: &Touched<'_>,
    places: &[usize],
) -> Result<Vec<(usize, PeerAccount)>, Fault> {
    let mut accounts = Vec::new();
    for table in wanted(touched, places) {
        let sql = format!(
            "SELECT wanted.place, peer.base_up, peer.base_down, peer.base_at, peer.dip_up, \
             peer.dip_down FROM {table} AS wanted STRAIGHT_JOIN {} AS peer ON {IS_WANTED}",
            own.peers
        );
        for row in session.query(&sql).await? {
            let cells = Cells(&row);
            let base = Base {
                up: cells.total(1),
                down: cells.total(2),
                at: cells.integer(3).unwrap_or(0),
                dip_up: cells.integer(4),
                dip_down: cells.integer(5),
            };
            accounts.push((cells.total(0) as usize, base.account()));
        }
    }
    Ok(accounts)
}

/// All but the account.
fn held_peer(cells: &Cells<'_>) -> HeldPeer {
    HeldPeer {
        age: RecordAge {
            announces: cells.small(PEER_AT),
            last_announce: cells.integer(PEER_AT + 1).unwrap_or(0),
            active: cells.flag(PEER_AT + 2),
            first_announce: cells.integer(PEER_AT + 3).unwrap_or(0),
        },
        uploaded: cells.total(PEER_AT + 5),
        downloaded: cells.total(PEER_AT + 6),
        account: PeerAccount::default(),
    }
}

fn held_history(cells: &Cells<'_>) -> HeldHistory {
    let time = |column: usize| cells.integer(HISTORY_AT + column);
    HeldHistory {
        announces: cells.total(HISTORY_AT),
        uploaded: cells.total(HISTORY_AT + 1),
        downloaded: cells.total(HISTORY_AT + 2),
        seed_time: cells.total(HISTORY_AT + 3),
        last_announce: time(4).unwrap_or(0),
        completed_at: time(5),
        hnr: cells.flag(HISTORY_AT + 6),
        covered: Coverage::of(time(7), time(8), time(9)),
    }
}

fn key_cells(key: &PeerKey) -> [Cell<'_>; 3] {
    [
        Cell::Number(key.user.0.into()),
        Cell::Number(key.torrent.0.into()),
        Cell::Bytes(&key.peer_id.0),
    ]
}

async fn there(
    session: &mut Session<'_>,
    call: &'static Call,
    ids: &[u32],
) -> Result<Vec<u32>, Fault> {
    let wanted = Rows::of(ids.iter().map(|id| [(*id).into()]));
    let rows = session.call_with(call, &wanted).await?;
    Ok(rows
        .iter()
        .filter_map(|row| Cells(row).id(0).ok())
        .collect())
}

async fn write_peers(
    session: &mut Session<'_>,
    own: &Own,
    settled: &Settlement<'_>,
) -> Result<(), Fault> {
    let mut older = Rows::default();
    let parts = settled.peers.chunks(INSERT_ROWS_MAX);
    let statements = parts.flat_map(|part| peers_written(own, settled, part, &mut older));
    // Another node may have inserted one of them meanwhile: then all is settled again.
    session.run_each(statements).await?;
    write_sessions(session, own, &older).await?;
    delete_peers(session, own, settled).await
}

/// Statements that write peers. Those whose record is newer than the reports are added to `older`.
fn peers_written(
    own: &Own,
    settled: &Settlement<'_>,
    peers: &[PeerRow<'_>],
    older: &mut Rows,
) -> Vec<String> {
    let (mut new, mut plain, mut others) = (Rows::default(), Rows::default(), Rows::default());
    let mut sessions = Vec::new();
    for row in peers {
        row.held.pack(&mut sessions);
        let Some(record) = row.record else {
            push_sessions(older, row, &sessions);
            continue;
        };
        let peer = Peer {
            row,
            record,
            history: settled.history_of(row),
            sessions: &sessions,
        };
        if row.is_new {
            push_peer(&mut new, &peer, PEER.len());
        } else if settled.stays_plain(row) {
            push_peer(&mut plain, &peer, PEER.len() - PEER_SELDOM);
        } else {
            push_peer(&mut others, &peer, PEER.len());
        }
    }
    let often = &PEER[..PEER.len() - PEER_SELDOM];
    let mut statements = inserts(&own.peers, &PEER_KEY, &PEER, &new);
    statements.extend(updates(&own.peers, &PEER_KEY, often, &plain));
    statements.extend(updates(&own.peers, &PEER_KEY, &PEER, &others));
    statements
}

/// Statements for rows that are not there yet.
fn inserts(table: &str, key: &[&str], columns: &[&str], rows: &Rows) -> Vec<String> {
    let columns = [key, columns].concat().join(", ");
    let insert = |values| format!("INSERT INTO {table} ({columns}) VALUES {values}");
    rows.values().map(insert).collect()
}

/// Statements for rows that are there, and locked: the one kind that takes many of them as a plain list.
fn updates(table: &str, key: &[&str], columns: &[&str], rows: &Rows) -> Vec<String> {
    let is_value = |column: &&str| format!("{column} = VALUES({column})");
    let sets: Vec<String> = columns.iter().map(is_value).collect();
    let sets = format!(" ON DUPLICATE KEY UPDATE {}", sets.join(", "));
    let inserts = inserts(table, key, columns, rows);
    inserts.into_iter().map(|insert| insert + &sets).collect()
}

/// Rows whose record is newer than the reports that were settled against them.
async fn write_sessions(session: &mut Session<'_>, own: &Own, older: &Rows) -> Result<(), Fault> {
    let columns = [&PEER_KEY[..], &SESSIONS].concat().join(" ");
    let set = |column: &str| format!("peer.{column} = wanted.{column}");
    let sets = SESSIONS.map(set).join(", ");
    for table in older.tables(&columns) {
        let sql = format!(
            "UPDATE {table} AS wanted STRAIGHT_JOIN {} AS peer ON {IS_WANTED} SET {sets}",
            own.peers
        );
        session.run(&sql).await?;
    }
    Ok(())
}

async fn delete_peers(
    session: &mut Session<'_>,
    own: &Own,
    settled: &Settlement<'_>,
) -> Result<(), Fault> {
    let mut gone = Rows::default();
    for key in &settled.gone {
        gone.push(&key_cells(key));
    }
    for table in gone.tables("user_id torrent_id peer_id") {
        let sql = format!(
            "DELETE peer FROM {table} AS wanted STRAIGHT_JOIN {} AS peer ON {IS_WANTED}",
            own.peers
        );
        session.run(&sql).await?;
    }
    Ok(())
}

fn push_sessions(rows: &mut Rows, row: &PeerRow<'_>, sessions: &[u8]) {
    let base = row.held.base();
    let [user, torrent, peer_id] = key_cells(&row.key);
    rows.push(&[
        user,
        torrent,
        peer_id,
        Cell::Number(clamp(base.up)),
        Cell::Number(clamp(base.down)),
        Cell::Number(base.at),
        Cell::Bytes(sessions),
        Cell::Number(clamp(row.held.uploaded)),
        Cell::Number(clamp(row.held.downloaded)),
        Cell::maybe(base.dip_up),
        Cell::maybe(base.dip_down),
    ]);
}

/// Adds the key, and as many of the columns [`PEER`].
fn push_peer(rows: &mut Rows, peer: &Peer<'_>, columns: usize) {
    let Peer {
        row,
        record,
        history,
        sessions,
    } = peer;
    let base = row.held.base();
    let [user, torrent, peer_id] = key_cells(&row.key);
    let ip4 = record.v4.map(|address| address.ip().to_string());
    let ip6 = record.v6.map(|address| address.ip().to_string());
    let cells = [
        user,
        torrent,
        peer_id,
        Cell::Number(clamp(base.up)),
        Cell::Number(clamp(base.down)),
        Cell::Number(base.at),
        Cell::Bytes(sessions),
        Cell::Number(clamp(row.held.uploaded)),
        Cell::Number(clamp(row.held.downloaded)),
        Cell::maybe(record.left.map(clamp)),
        Cell::text(ip4.as_deref()),
        Cell::maybe(record.v4.map(|address| address.port().into())),
        Cell::text(ip6.as_deref()),
        Cell::maybe(record.v6.map(|address| address.port().into())),
        Cell::Number(record.speed_up.into()),
        Cell::Number(record.speed_down.into()),
        Cell::Number(record.seed_time.into()),
        Cell::Number(record.announces.into()),
        Cell::Number(record.first_announce),
        Cell::Number(record.active.into()),
        Cell::Number(record.paused.into()),
        Cell::Number(record.last_announce),
        Cell::maybe(base.dip_up),
        Cell::maybe(base.dip_down),
        Cell::Number(history.hnr.into()),
        Cell::maybe((!record.active).then_some(record.last_announce)),
        Cell::maybe(history.completed_at),
    ];
    rows.push(&cells[..PEER_KEY.len() + columns]);
}

async fn write_histories(
    session: &mut Session<'_>,
    own: &Own,
    settled: &Settlement<'_>,
) -> Result<(), Fault> {
    write_siblings(session, own, settled).await?;
    let parts = settled.histories.chunks(INSERT_ROWS_MAX);
    let statements = parts.flat_map(|part| histories_written(own, part));
    session.run_each(statements).await
}

/// Statements that write histories.
fn histories_written(own: &Own, histories: &[HistoryRow]) -> Vec<String> {
    let (mut new, mut grown, mut others) = (Rows::default(), Rows::default(), Rows::default());
    for row in histories {
        if row.is_new {
            push_history(&mut new, row, HISTORY.len());
        } else if row.only_grew() {
            push_history(&mut grown, row, HISTORY.len() - HISTORY_SELDOM);
        } else {
            push_history(&mut others, row, HISTORY.len() - 1);
        }
    }
    let often = &HISTORY[..HISTORY.len() - HISTORY_SELDOM];
    let all = &HISTORY[..HISTORY.len() - 1];
    let mut statements = inserts(&own.history, &HISTORY_KEY, &HISTORY, &new);
    statements.extend(updates(&own.history, &HISTORY_KEY, often, &grown));
    statements.extend(updates(&own.history, &HISTORY_KEY, all, &others));
    statements
}

/// Adds the key, and as many of the columns [`HISTORY`].
fn push_history(rows: &mut Rows, row: &HistoryRow, columns: usize) {
    let now = &row.now;
    let cells = [
        Cell::Number(row.torrent.0.into()),
        Cell::Number(row.user.0.into()),
        Cell::Number(clamp(now.uploaded)),
        Cell::Number(clamp(now.downloaded)),
        Cell::Number(clamp(now.seed_time)),
        Cell::Number(clamp(now.announces)),
        Cell::Number(now.last_announce),
        Cell::maybe(now.covered.map(|covered| covered.until)),
        Cell::maybe(now.completed_at),
        Cell::Number(now.hnr.into()),
        Cell::maybe(now.covered.and_then(Coverage::floor)),
        Cell::maybe(now.covered.map(|covered| covered.from)),
        Cell::Number(row.first_announce),
    ];
    rows.push(&cells[..HISTORY_KEY.len() + columns]);
}

/// A user's other peers of the torrent show the same standing.
async fn write_siblings(
    session: &mut Session<'_>,
    own: &Own,
    settled: &Settlement<'_>,
) -> Result<(), Fault> {
    let mut changed = Rows::default();
    for row in &settled.histories {
        if row.has_new_standing() {
            changed.push(&[
                Cell::Number(row.torrent.0.into()),
                Cell::Number(row.user.0.into()),
                Cell::Number(row.now.hnr.into()),
                Cell::maybe(row.now.completed_at),
            ]);
        }
    }
    for table in changed.tables("torrent_id user_id hnr completed_at") {
        let sql = format!(
            "UPDATE {table} AS standing STRAIGHT_JOIN {} AS peer \
             ON peer.user_id = standing.user_id AND peer.torrent_id = standing.torrent_id \
             SET peer.hnr = standing.hnr, peer.completed_at = standing.completed_at",
            own.peers
        );
        session.run(&sql).await?;
    }
    Ok(())
}

async fn write_users(session: &mut Session<'_>, settled: &Settlement<'_>) -> Result<(), Fault> {
    let rows = Rows::of(settled.users.iter().map(|(user, sum)| {
        [
            user.0.into(),
            clamp(sum.up),
            clamp(sum.down),
            clamp(sum.snatches),
            clamp(sum.announces),
            clamp(sum.seed_time),
        ]
    }));
    credit::write(session, &schema::CREDIT_USERS, &rows).await
}

async fn write_torrents(session: &mut Session<'_>, settled: &Settlement<'_>) -> Result<(), Fault> {
    let rows = Rows::of(settled.torrents.iter().map(|(torrent, row)| {
        let TorrentSum { sum, counts, .. } = row;
        [
            torrent.0.into(),
            clamp(sum.raw_up),
            clamp(sum.raw_down),
            clamp(sum.snatches),
            clamp(sum.announces),
            counts.seeders.into(),
            counts.leechers.into(),
        ]
    }));
    credit::write(session, &schema::CREDIT_TORRENTS, &rows).await
}

/// A public tracker learns of a torrent by its first snatch.
async fn write_snatches(session: &mut Session<'_>, settled: &Settlement<'_>) -> Result<(), Fault> {
    if settled.snatches.is_empty() {
        return Ok(());
    }
    let mut ids: HashMap<InfoHash, TorrentId> = HashMap::new();
    let known = read::ids_of_hashes(session, settled.snatches.keys()).await?;
    for (id, first, second) in known {
        ids.extend([first, second].into_iter().flatten().map(|hash| (hash, id)));
    }
    let mut counted: BTreeMap<TorrentId, u64> = BTreeMap::new();
    let forms = Forms::of(session).await?;
    let mut fresh = Rows::default();
    for (info_hash, count) in &settled.snatches {
        if let Some(id) = ids.get(info_hash) {
            *counted.entry(*id).or_default() += count;
            continue;
        }
        let text = forms.first.texts(info_hash).into_iter().next();
        let bytes = Cell::Bytes(&info_hash.0);
        let cell = text.as_deref().map_or(bytes, Cell::Sql);
        fresh.push(&[cell, Cell::Number(clamp(*count))]);
    }
    let counted = Rows::of(
        counted
            .iter()
            .map(|(id, count)| [id.0.into(), clamp(*count)]),
    );
    credit::write(session, &schema::CREDIT_SNATCHES, &counted).await?;
    credit::write(session, &schema::ADD_SNATCHED, &fresh).await
}
