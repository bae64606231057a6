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
use super::rows::{Cell, Rows};
use super::tables::{Own, begin};
use crate::accounting::coverage::Coverage;
use crate::change::sums::Credited;
use crate::change::{Batch, PeerKey, PeerRecord, RecordAge};
use crate::ids::{InfoHash, TorrentId};
use crate::storage::schema::{self, Call};
use crate::storage::settle::{
    Base, Held, HeldHistory, HeldPeer, PeerRow, Settlement, TorrentSum, clamp,
};
use crate::storage::touched::{Known, Named, Touched};
use crate::storage::values::log_refused;
use crate::storage::{CreditRules, batches};

const PEER_COLUMNS: &str = "user_id, torrent_id, peer_id, base_up, base_down, base_at, dip_up, \
    dip_down, sessions, uploaded, downloaded, left_bytes, ip4, port4, ip6, port6, speed_up, \
    speed_down, seed_time, announces, first_announce, active, paused, hnr, inactive_since, \
    completed_at, last_announce";

/// Columns of a record: they change together.
const RECORD: &str = "left_bytes ip4 port4 ip6 port6 speed_up speed_down seed_time announces \
    first_announce active paused hnr inactive_since completed_at last_announce";

/// Columns of what reports are settled against.
const SESSIONS: &str = "base_up base_down base_at dip_up dip_down sessions uploaded downloaded";

const HISTORY_COLUMNS: &str = "torrent_id, user_id, uploaded, downloaded, seed_time, announces, \
    last_announce, completed_at, hnr, seeded_floor, seeded_from, seeded_until, first_announce";

/// Columns of a history that an update writes.
const HISTORY: &str = "uploaded downloaded seed_time announces last_announce completed_at hnr \
    seeded_floor seeded_from seeded_until";

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

/// The rows that changes are settled against, locked until this transaction ends.
async fn held(session: &mut Session<'_>, own: &Own, touched: &Touched<'_>) -> Result<Held, Fault> {
    Ok(Held {
        peers: held_peers(session, own, touched).await?,
        histories: held_histories(session, own, touched).await?,
    })
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

async fn held_peers(
    session: &mut Session<'_>,
    own: &Own,
    touched: &Touched<'_>,
) -> Result<Vec<Option<HeldPeer>>, Fault> {
    let mut wanted = Rows::default();
    for (place, peer) in touched.peers.iter().enumerate() {
        let [user, torrent, peer_id] = key_cells(&peer.key);
        wanted.push(&[Cell::Number(place as i64), user, torrent, peer_id]);
    }
    let mut held = vec![None; touched.peers.len()];
    for table in wanted.tables("place user_id torrent_id peer_id") {
        let sql = format!(
            "SELECT wanted.place, peer.announces, peer.last_announce, peer.active, \
             peer.first_announce, peer.base_up, peer.base_down, peer.base_at, peer.dip_up, \
             peer.dip_down, peer.sessions, peer.uploaded, peer.downloaded \
             FROM {table} AS wanted STRAIGHT_JOIN {} AS peer \
             ON peer.user_id = wanted.user_id AND peer.torrent_id = wanted.torrent_id \
             AND peer.peer_id = wanted.peer_id FOR UPDATE",
            own.peers
        );
        for row in session.query(&sql).await? {
            let cells = Cells(&row);
            if let Some(held) = held.get_mut(cells.total(0) as usize) {
                *held = Some(held_peer(&cells));
            }
        }
    }
    Ok(held)
}

fn held_peer(cells: &Cells<'_>) -> HeldPeer {
    let base = Base {
        up: cells.total(5),
        down: cells.total(6),
        at: cells.integer(7).unwrap_or(0),
        dip_up: cells.integer(8),
        dip_down: cells.integer(9),
    };
    HeldPeer {
        age: RecordAge {
            announces: cells.small(1),
            first_announce: cells.integer(4).unwrap_or(0),
            last_announce: cells.integer(2).unwrap_or(0),
            active: cells.flag(3),
        },
        uploaded: cells.total(11),
        downloaded: cells.total(12),
        account: HeldPeer::account_of(cells.bytes(10), &base),
    }
}

async fn held_histories(
    session: &mut Session<'_>,
    own: &Own,
    touched: &Touched<'_>,
) -> Result<Vec<Option<HeldHistory>>, Fault> {
    let wanted = touched.histories.iter().enumerate();
    let wanted = wanted.map(|(place, row)| [place as i64, row.torrent.0.into(), row.user.0.into()]);
    let mut held = vec![None; touched.histories.len()];
    for table in Rows::of(wanted).tables("place torrent_id user_id") {
        let sql = format!(
            "SELECT wanted.place, history.uploaded, history.downloaded, history.seed_time, \
             history.announces, history.last_announce, history.completed_at, history.hnr, \
             history.seeded_floor, history.seeded_from, history.seeded_until \
             FROM {table} AS wanted STRAIGHT_JOIN {} AS history \
             ON history.torrent_id = wanted.torrent_id AND history.user_id = wanted.user_id \
             FOR UPDATE",
            own.history
        );
        for row in session.query(&sql).await? {
            let cells = Cells(&row);
            if let Some(held) = held.get_mut(cells.total(0) as usize) {
                *held = Some(held_history(&cells));
            }
        }
    }
    Ok(held)
}

fn held_history(cells: &Cells<'_>) -> HeldHistory {
    HeldHistory {
        uploaded: cells.total(1),
        downloaded: cells.total(2),
        seed_time: cells.total(3),
        announces: cells.total(4),
        last_announce: cells.integer(5).unwrap_or(0),
        completed_at: cells.integer(6),
        hnr: cells.flag(7),
        covered: Coverage::of(cells.integer(8), cells.integer(9), cells.integer(10)),
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
    let (mut new, mut newer, mut older) = (Rows::default(), Rows::default(), Rows::default());
    for row in &settled.peers {
        match row.record {
            Some(record) => {
                let rows = if row.is_new { &mut new } else { &mut newer };
                push_peer(rows, row, record, settled.history_of(row));
            }
            None => push_sessions(&mut older, row),
        }
    }
    for values in new.values() {
        // Another node may have inserted one of them meanwhile: then all is settled again.
        let sql = format!("INSERT INTO {} ({PEER_COLUMNS}) VALUES {values}", own.peers);
        session.run(&sql).await?;
    }
    let columns = SESSIONS.split_whitespace().chain(RECORD.split_whitespace());
    let columns: Vec<String> = columns.map(is_value).collect();
    for values in newer.values() {
        let sql = format!(
            "INSERT INTO {} ({PEER_COLUMNS}) VALUES {values} ON DUPLICATE KEY UPDATE {}",
            own.peers,
            columns.join(", ")
        );
        session.run(&sql).await?;
    }
    write_sessions(session, own, &older).await?;
    delete_peers(session, own, settled).await
}

/// Rows whose record is newer than the reports that were settled against them.
async fn write_sessions(session: &mut Session<'_>, own: &Own, older: &Rows) -> Result<(), Fault> {
    let columns = format!("user_id torrent_id peer_id {SESSIONS}");
    let set = |column: &str| format!("peer.{column} = report.{column}");
    let sets: Vec<String> = SESSIONS.split_whitespace().map(set).collect();
    for table in older.tables(&columns) {
        let sql = format!(
            "UPDATE {table} AS report STRAIGHT_JOIN {} AS peer ON peer.user_id = report.user_id \
             AND peer.torrent_id = report.torrent_id AND peer.peer_id = report.peer_id SET {}",
            own.peers,
            sets.join(", ")
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
            "DELETE peer FROM {table} AS gone STRAIGHT_JOIN {} AS peer ON peer.user_id = gone.user_id \
             AND peer.torrent_id = gone.torrent_id AND peer.peer_id = gone.peer_id",
            own.peers
        );
        session.run(&sql).await?;
    }
    Ok(())
}

/// Writes the value of a column that an INSERT gives.
fn is_value(column: &str) -> String {
    format!("{column} = VALUES({column})")
}

fn push_sessions(rows: &mut Rows, row: &PeerRow<'_>) {
    let base = row.held.base();
    let [user, torrent, peer_id] = key_cells(&row.key);
    rows.push(&[
        user,
        torrent,
        peer_id,
        Cell::Number(clamp(base.up)),
        Cell::Number(clamp(base.down)),
        Cell::Number(base.at),
        Cell::maybe(base.dip_up),
        Cell::maybe(base.dip_down),
        Cell::Bytes(&row.held.packed()),
        Cell::Number(clamp(row.held.uploaded)),
        Cell::Number(clamp(row.held.downloaded)),
    ]);
}

fn push_peer(rows: &mut Rows, row: &PeerRow<'_>, record: &PeerRecord, history: &HeldHistory) {
    let base = row.held.base();
    let [user, torrent, peer_id] = key_cells(&row.key);
    let ip4 = record.v4.map(|address| address.ip().to_string());
    let ip6 = record.v6.map(|address| address.ip().to_string());
    rows.push(&[
        user,
        torrent,
        peer_id,
        Cell::Number(clamp(base.up)),
        Cell::Number(clamp(base.down)),
        Cell::Number(base.at),
        Cell::maybe(base.dip_up),
        Cell::maybe(base.dip_down),
        Cell::Bytes(&row.held.packed()),
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
        Cell::Number(history.hnr.into()),
        Cell::maybe((!record.active).then_some(record.last_announce)),
        Cell::maybe(history.completed_at),
        Cell::Number(record.last_announce),
    ]);
}

async fn write_histories(
    session: &mut Session<'_>,
    own: &Own,
    settled: &Settlement<'_>,
) -> Result<(), Fault> {
    write_siblings(session, own, settled).await?;
    let (mut new, mut known) = (Rows::default(), Rows::default());
    for row in &settled.histories {
        let rows = if row.is_new { &mut new } else { &mut known };
        let HeldHistory { covered, .. } = &row.now;
        rows.push(&[
            Cell::Number(row.torrent.0.into()),
            Cell::Number(row.user.0.into()),
            Cell::Number(clamp(row.now.uploaded)),
            Cell::Number(clamp(row.now.downloaded)),
            Cell::Number(clamp(row.now.seed_time)),
            Cell::Number(clamp(row.now.announces)),
            Cell::Number(row.now.last_announce),
            Cell::maybe(row.now.completed_at),
            Cell::Number(row.now.hnr.into()),
            Cell::maybe(covered.and_then(Coverage::floor)),
            Cell::maybe(covered.map(|covered| covered.from)),
            Cell::maybe(covered.map(|covered| covered.until)),
            Cell::Number(row.first_announce),
        ]);
    }
    for values in new.values() {
        let sql = format!(
            "INSERT INTO {} ({HISTORY_COLUMNS}) VALUES {values}",
            own.history
        );
        session.run(&sql).await?;
    }
    let columns: Vec<String> = HISTORY.split_whitespace().map(is_value).collect();
    for values in known.values() {
        let sql = format!(
            "INSERT INTO {} ({HISTORY_COLUMNS}) VALUES {values} ON DUPLICATE KEY UPDATE {}",
            own.history,
            columns.join(", ")
        );
        session.run(&sql).await?;
    }
    Ok(())
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
