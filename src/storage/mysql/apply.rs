//! Applying batches of the journal: bases, credit and the last number in one transaction.
//!
//! Rows are written in the order of their keys, so that writers meet in the same order, and those
//! of the site last, so that they are locked for the shortest time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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
use crate::change::{Batch, Change, PeerKey, PeerRecord, RecordAge};
use crate::ids::{InfoHash, PeerId, TorrentId, UserId};
use crate::storage::schema::{self, Call};
use crate::storage::settle::{
    Base, Held, HeldHistory, HeldPeer, HistoryRow, Known, PeerRow, Settlement, clamp, touched,
};
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
    completed_at, hnr, first_announce, last_announce, seeded_floor, seeded_from, seeded_until";

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
        let held = held(session, own, changes()).await?;
        let settled = Settlement::of(changes(), node, &held, rules);
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
async fn held<'a>(
    session: &mut Session<'_>,
    own: &Own,
    changes: impl Iterator<Item = &'a Change> + Clone,
) -> Result<Held, Fault> {
    let known = known(session, changes.clone()).await?;
    let (peers, histories) = touched(changes, &known);
    Ok(Held {
        known,
        peers: held_peers(session, own, &peers).await?,
        histories: held_histories(session, own, &histories).await?,
    })
}

/// Which of the users and torrents that changes name are there.
async fn known<'a>(
    session: &mut Session<'_>,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<Known, Fault> {
    let (mut users, mut torrents) = (HashSet::new(), HashMap::new());
    for change in changes {
        if let Change::Peer(change) = change {
            users.insert(change.key.user.0);
            torrents.insert(change.key.torrent.0, change.info_hash);
        }
    }
    let ids = torrents.keys().copied().collect();
    let users = there(session, &schema::USERS_KNOWN, users).await?;
    let there = there(session, &schema::TORRENTS_KNOWN, ids).await?;
    torrents.retain(|id, _| !there.contains(id));
    let mut moved = HashMap::new();
    if !torrents.is_empty() {
        let found = read::ids_of_hashes(session, torrents.values()).await?;
        moved.extend(
            found
                .iter()
                .filter_map(|(id, first, _)| Some(((*first)?, *id))),
        );
    }
    Ok(Known {
        users,
        torrents: there,
        moved,
    })
}

async fn held_peers(
    session: &mut Session<'_>,
    own: &Own,
    keys: &BTreeSet<PeerKey>,
) -> Result<HashMap<PeerKey, HeldPeer>, Fault> {
    let mut wanted = Rows::default();
    for key in keys {
        push_key(&mut wanted, key);
    }
    let mut held = HashMap::new();
    for table in wanted.tables("user_id torrent_id peer_id") {
        let sql = format!(
            "SELECT peer.user_id, peer.torrent_id, peer.peer_id, peer.announces, \
             peer.last_announce, peer.active, peer.base_up, peer.base_down, peer.base_at, \
             peer.dip_up, peer.dip_down, peer.sessions, peer.uploaded, peer.downloaded, \
             peer.first_announce FROM {table} AS wanted STRAIGHT_JOIN {} AS peer \
             ON peer.user_id = wanted.user_id AND peer.torrent_id = wanted.torrent_id \
             AND peer.peer_id = wanted.peer_id FOR UPDATE",
            own.peers
        );
        for row in session.query(&sql).await? {
            let cells = Cells(&row);
            let key = cells.id(0).and_then(|user| Ok((user, cells.id(1)?)));
            if let (Ok((user, torrent)), Some(peer_id)) = (key, PeerId::from_slice(cells.bytes(2)))
            {
                let key = PeerKey {
                    user: UserId(user),
                    torrent: TorrentId(torrent),
                    peer_id,
                };
                held.insert(key, held_peer(&cells));
            }
        }
    }
    Ok(held)
}

fn held_peer(cells: &Cells<'_>) -> HeldPeer {
    let base = Base {
        up: cells.total(6),
        down: cells.total(7),
        at: cells.integer(8).unwrap_or(0),
        dip_up: cells.integer(9),
        dip_down: cells.integer(10),
    };
    HeldPeer {
        age: RecordAge {
            announces: cells.small(3),
            first_announce: cells.integer(14).unwrap_or(0),
            last_announce: cells.integer(4).unwrap_or(0),
            active: cells.flag(5),
        },
        uploaded: cells.total(12),
        downloaded: cells.total(13),
        account: HeldPeer::account_of(cells.bytes(11), &base),
    }
}

async fn held_histories(
    session: &mut Session<'_>,
    own: &Own,
    keys: &BTreeSet<(TorrentId, UserId)>,
) -> Result<HashMap<(TorrentId, UserId), HeldHistory>, Fault> {
    let keys = keys
        .iter()
        .map(|(torrent, user)| [torrent.0.into(), user.0.into()]);
    let mut held = HashMap::new();
    for table in Rows::of(keys).tables("torrent_id user_id") {
        let sql = format!(
            "SELECT history.torrent_id, history.user_id, history.downloaded, history.seed_time, \
             history.completed_at, history.hnr, history.seeded_floor, history.seeded_from, \
             history.seeded_until FROM {table} AS wanted STRAIGHT_JOIN {} AS history \
             ON history.torrent_id = wanted.torrent_id AND history.user_id = wanted.user_id \
             FOR UPDATE",
            own.history
        );
        for row in session.query(&sql).await? {
            let cells = Cells(&row);
            if let (Ok(torrent), Ok(user)) = (cells.id(0), cells.id(1)) {
                let history = HeldHistory {
                    downloaded: cells.total(2),
                    seed_time: cells.total(3),
                    completed_at: cells.integer(4),
                    hnr: cells.flag(5),
                    covered: Coverage::of(cells.integer(6), cells.integer(7), cells.integer(8)),
                };
                held.insert((TorrentId(torrent), UserId(user)), history);
            }
        }
    }
    Ok(held)
}

fn push_key(rows: &mut Rows, key: &PeerKey) {
    rows.push(&[
        Cell::Number(key.user.0.into()),
        Cell::Number(key.torrent.0.into()),
        Cell::Bytes(&key.peer_id.0),
    ]);
}

async fn there(
    session: &mut Session<'_>,
    call: &'static Call,
    ids: HashSet<u32>,
) -> Result<HashSet<u32>, Fault> {
    let mut ids: Vec<u32> = ids.into_iter().collect();
    ids.sort_unstable();
    let wanted = Rows::of(ids.into_iter().map(|id| [id.into()]));
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
    for (key, row) in &settled.peers {
        match row.record {
            Some(record) => {
                let history = settled.history_of(key).map(|history| &history.now);
                let rows = if row.is_new { &mut new } else { &mut newer };
                push_peer(rows, key, row, record, history);
            }
            None => push_sessions(&mut older, key, row),
        }
    }
    for values in new.values() {
        // Another node may have inserted one of them meanwhile: then all is settled again.
        let sql = format!("INSERT INTO {} ({PEER_COLUMNS}) VALUES {values}", own.peers);
        session.run(&sql).await?;
    }
    let is_value = |column: &str| format!("{column} = VALUES({column})");
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
        push_key(&mut gone, key);
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

/// A sum that stops at 2^63−1 (rule A8).
fn plus(column: &str) -> String {
    format!(
        "{column} = LEAST({column}, {} - VALUES({column})) + VALUES({column})",
        i64::MAX
    )
}

fn push_sessions(rows: &mut Rows, key: &PeerKey, row: &PeerRow<'_>) {
    let base = row.held.base();
    rows.push(&[
        Cell::Number(key.user.0.into()),
        Cell::Number(key.torrent.0.into()),
        Cell::Bytes(&key.peer_id.0),
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

fn push_peer(
    rows: &mut Rows,
    key: &PeerKey,
    row: &PeerRow<'_>,
    record: &PeerRecord,
    history: Option<&HeldHistory>,
) {
    let base = row.held.base();
    let ip4 = record.v4.map(|address| address.ip().to_string());
    let ip6 = record.v6.map(|address| address.ip().to_string());
    rows.push(&[
        Cell::Number(key.user.0.into()),
        Cell::Number(key.torrent.0.into()),
        Cell::Bytes(&key.peer_id.0),
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
        Cell::Number(history.is_some_and(|history| history.hnr).into()),
        Cell::maybe((!record.active).then_some(record.last_announce)),
        Cell::maybe(history.and_then(|history| history.completed_at)),
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
    for ((torrent, user), history) in &settled.histories {
        let HistoryRow { added, now, .. } = history;
        let rows = if history.is_new { &mut new } else { &mut known };
        rows.push(&[
            Cell::Number(torrent.0.into()),
            Cell::Number(user.0.into()),
            Cell::Number(clamp(added.raw_up)),
            Cell::Number(clamp(added.raw_down)),
            Cell::Number(clamp(added.seed_time)),
            Cell::Number(clamp(added.announces)),
            Cell::maybe(now.completed_at),
            Cell::Number(now.hnr.into()),
            Cell::Number(history.first_announce),
            Cell::Number(history.last_announce),
            Cell::maybe(now.covered.and_then(Coverage::floor)),
            Cell::maybe(now.covered.map(|covered| covered.from)),
            Cell::maybe(now.covered.map(|covered| covered.until)),
        ]);
    }
    for values in new.values() {
        let sql = format!(
            "INSERT INTO {} ({HISTORY_COLUMNS}) VALUES {values}",
            own.history
        );
        session.run(&sql).await?;
    }
    let totals = ["uploaded", "downloaded", "seed_time", "announces"].map(plus);
    for values in known.values() {
        let sql = format!(
            "INSERT INTO {} ({HISTORY_COLUMNS}) VALUES {values} ON DUPLICATE KEY UPDATE {}, \
             completed_at = VALUES(completed_at), hnr = VALUES(hnr), \
             last_announce = GREATEST(last_announce, VALUES(last_announce)), \
             seeded_floor = VALUES(seeded_floor), seeded_from = VALUES(seeded_from), \
             seeded_until = VALUES(seeded_until)",
            own.history,
            totals.join(", ")
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
    for ((torrent, user), history) in &settled.histories {
        if history.has_new_standing() {
            changed.push(&[
                Cell::Number(torrent.0.into()),
                Cell::Number(user.0.into()),
                Cell::Number(history.now.hnr.into()),
                Cell::maybe(history.now.completed_at),
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
    let rows = Rows::of(settled.torrents.iter().map(|(torrent, (_, sum, counts))| {
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
