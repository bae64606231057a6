//! Applying batches of the journal: bases, credit and the last number in one transaction.
//!
//! Rows are written in the order of their keys, so that writers meet in the same order, and those
//! of the site last, so that they are locked for the shortest time.

use std::collections::{BTreeMap, HashMap, HashSet};
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
use crate::change::{Batch, Change, PeerChange, PeerKey, Standing};
use crate::ids::{InfoHash, TorrentId, UserId};
use crate::storage::batches;
use crate::storage::schema::{self, Call};
use crate::storage::sums::{CLOCK_SKEW, Sums, clamp};
use crate::storage::values::log_refused;

const PEER_COLUMNS: &str = "user_id, torrent_id, peer_id, base_up, base_down, base_at, dip_up, \
    dip_down, uploaded, downloaded, left_bytes, ip4, port4, ip6, port6, speed_up, speed_down, \
    seed_time, announces, first_announce, active, paused, hnr, inactive_since, completed_at, \
    last_announce";

/// Columns of a record. Of two nodes, the one that heard of the peer last is right about them; with
/// as many announces, the one that says it has left. `active` comes last, because the others are compared by it.
const LATEST: &str = "base_up base_down base_at dip_up dip_down uploaded downloaded left_bytes ip4 \
    port4 ip6 port6 speed_up speed_down seed_time first_announce paused hnr inactive_since active";

const HISTORY_COLUMNS: &str = "torrent_id, user_id, uploaded, downloaded, seed_time, announces, \
    completed_at, hnr, first_announce, last_announce";

/// Applies `batches`, or leaves everything as it was.
pub(super) async fn apply(
    session: &mut Session<'_>,
    own: &Own,
    batches: &[Arc<Batch>],
) -> Result<(), Fault> {
    let Some(Batch { node, number, .. }) = batches.last().map(Arc::as_ref) else {
        return Ok(());
    };
    begin(session).await?;
    let new = batches::not_applied(batches, applied_for_update(session, node).await?)?;
    if !new.is_empty() {
        let changes = || new.iter().flat_map(|batch| &batch.changes);
        let known = Known::of(session, changes()).await?;
        let sums = Sums::of(changes(), |change| Ok::<_, Fault>(known.torrent_of(change)))?;
        write_peers(session, own, &sums).await?;
        write_histories(session, own, &sums).await?;
        let params = vec![Value::from(clamp(*number)), node.as_str().into()];
        let sql = "UPDATE mika_journal SET applied = ? WHERE node = ?";
        session.exec(sql, params).await?;
        write_torrents(session, &sums).await?;
        write_users(session, &sums).await?;
        write_snatches(session, &sums).await?;
    }
    session.run("COMMIT").await?;
    log_refused(&std::mem::take(&mut session.notes));
    Ok(())
}

/// All nodes and the number of the last batch of each.
pub(super) async fn journals(session: &mut Session<'_>) -> Result<Vec<(String, u64)>, Fault> {
    let sql = "SELECT node, applied FROM mika_journal WHERE applied > 0 ORDER BY node";
    let rows = session.query(sql).await?;
    let journal = |cells: Cells<'_>| (cells.text(0), cells.total(1));
    Ok(rows.iter().map(|row| journal(Cells(row))).collect())
}

/// Forgets a node's number if it is still this one.
pub(super) async fn forget(
    session: &mut Session<'_>,
    node: &str,
    number: u64,
) -> Result<bool, Fault> {
    begin(session).await?;
    let is_there = number > 0 && applied_for_update(session, node).await? == number;
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

/// Which of the users and torrents that some changes name are there.
struct Known {
    users: HashSet<u32>,
    torrents: HashSet<u32>,
    /// Torrents that are not there under the id of a change, and may have got another one meanwhile.
    moved: HashMap<InfoHash, TorrentId>,
}

impl Known {
    async fn of<'a>(
        session: &mut Session<'_>,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<Self, Fault> {
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
        Ok(Self {
            users,
            torrents: there,
            moved,
        })
    }

    fn torrent_of(&self, change: &PeerChange) -> Option<TorrentId> {
        let torrent = change.key.torrent;
        if !self.users.contains(&change.key.user.0) {
            None
        } else if self.torrents.contains(&torrent.0) {
            Some(torrent)
        } else {
            self.moved.get(&change.info_hash).copied()
        }
    }
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

async fn write_peers(session: &mut Session<'_>, own: &Own, sums: &Sums<'_>) -> Result<(), Fault> {
    let mut rows = Rows::default();
    for (key, change) in &sums.peers {
        push_peer(&mut rows, key, change, sums.standing(key, change));
    }
    let is_newer = format!(
        "VALUES(announces) > announces OR VALUES(last_announce) > last_announce + {CLOCK_SKEW} \
         OR VALUES(announces) = announces AND (VALUES(active) < active \
         OR VALUES(active) = active AND VALUES(last_announce) >= last_announce)"
    );
    let set = |column: &str| format!("{column} = IF({is_newer}, VALUES({column}), {column})");
    let sets: Vec<String> = LATEST.split_whitespace().map(set).collect();
    for values in rows.values() {
        // In this order: servers go from left to right, and the comparisons need the old values.
        let sql = format!(
            "INSERT INTO {} ({PEER_COLUMNS}) VALUES {values} ON DUPLICATE KEY UPDATE \
             completed_at = IFNULL(completed_at, VALUES(completed_at)), {}, {}, \
             last_announce = IF(VALUES(announces) = announces, \
                 GREATEST(last_announce, VALUES(last_announce)), last_announce)",
            own.peers,
            sets.join(", "),
            set("announces"),
        );
        session.run(&sql).await?;
    }
    let mut gone = Rows::default();
    for key in &sums.gone {
        let (user, torrent) = (key.user.0.into(), key.torrent.0.into());
        gone.push(&[
            Cell::Number(user),
            Cell::Number(torrent),
            Cell::Bytes(&key.peer_id.0),
        ]);
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

fn push_peer(rows: &mut Rows, key: &PeerKey, change: &PeerChange, standing: &Standing) {
    let record = &change.record;
    let ip4 = record.v4.map(|address| address.ip().to_string());
    let ip6 = record.v6.map(|address| address.ip().to_string());
    rows.push(&[
        Cell::Number(key.user.0.into()),
        Cell::Number(key.torrent.0.into()),
        Cell::Bytes(&key.peer_id.0),
        Cell::Number(clamp(record.base_up)),
        Cell::Number(clamp(record.base_down)),
        Cell::Number(record.base_at),
        Cell::maybe(record.dip_up),
        Cell::maybe(record.dip_down),
        Cell::Number(clamp(record.uploaded)),
        Cell::Number(clamp(record.downloaded)),
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
        Cell::Number(standing.hnr.into()),
        Cell::maybe((!record.active).then_some(record.last_announce)),
        Cell::maybe(standing.completed_at),
        Cell::Number(record.last_announce),
    ]);
}

async fn write_histories(
    session: &mut Session<'_>,
    own: &Own,
    sums: &Sums<'_>,
) -> Result<(), Fault> {
    write_siblings(session, own, sums).await?;
    let mut rows = Rows::default();
    for ((torrent, user), (sum, latest)) in &sums.histories {
        let (record, standing) = (&latest.record, &latest.standing);
        rows.push(&[
            Cell::Number(torrent.0.into()),
            Cell::Number(user.0.into()),
            Cell::Number(clamp(sum.raw_up)),
            Cell::Number(clamp(sum.raw_down)),
            Cell::Number(clamp(sum.seed_time)),
            Cell::Number(clamp(sum.announces)),
            Cell::maybe(standing.completed_at),
            Cell::Number(standing.hnr.into()),
            Cell::Number(record.first_announce),
            Cell::Number(record.last_announce),
        ]);
    }
    let plus = |column: &str| {
        format!(
            "{column} = LEAST({column}, {} - VALUES({column})) + VALUES({column})",
            i64::MAX
        )
    };
    let totals = ["uploaded", "downloaded", "seed_time", "announces"].map(plus);
    for values in rows.values() {
        let sql = format!(
            "INSERT INTO {} ({HISTORY_COLUMNS}) VALUES {values} ON DUPLICATE KEY UPDATE {}, \
             completed_at = IFNULL(completed_at, VALUES(completed_at)), hnr = VALUES(hnr), \
             last_announce = GREATEST(last_announce, VALUES(last_announce))",
            own.history,
            totals.join(", ")
        );
        session.run(&sql).await?;
    }
    Ok(())
}

/// A user's other peers of the torrent have the same standing. It mostly is as it was, which
/// the history tells.
async fn write_siblings(
    session: &mut Session<'_>,
    own: &Own,
    sums: &Sums<'_>,
) -> Result<(), Fault> {
    let keys = sums.histories.keys();
    let keys = Rows::of(keys.map(|(torrent, user)| [torrent.0.into(), user.0.into()]));
    let mut before = HashMap::new();
    for table in keys.tables("torrent_id user_id") {
        let sql = format!(
            "SELECT history.torrent_id, history.user_id, history.hnr, history.completed_at \
             FROM {table} AS wanted STRAIGHT_JOIN {} AS history \
             ON history.torrent_id = wanted.torrent_id AND history.user_id = wanted.user_id",
            own.history
        );
        for row in session.query(&sql).await? {
            let cells = Cells(&row);
            if let (Ok(torrent), Ok(user)) = (cells.id(0), cells.id(1)) {
                let key = (TorrentId(torrent), UserId(user));
                before.insert(key, (cells.flag(2), !cells.is_null(3)));
            }
        }
    }
    let mut changed = Rows::default();
    for (key, (_, latest)) in &sums.histories {
        let standing = &latest.standing;
        let (hnr, is_complete) = before.get(key).copied().unwrap_or_default();
        if hnr == standing.hnr && (is_complete || standing.completed_at.is_none()) {
            continue;
        }
        changed.push(&[
            Cell::Number(key.0.0.into()),
            Cell::Number(key.1.0.into()),
            Cell::Number(standing.hnr.into()),
            Cell::maybe(standing.completed_at),
        ]);
    }
    for table in changed.tables("torrent_id user_id hnr completed_at") {
        let sql = format!(
            "UPDATE {table} AS standing STRAIGHT_JOIN {} AS peer \
             ON peer.user_id = standing.user_id AND peer.torrent_id = standing.torrent_id \
             SET peer.hnr = standing.hnr, \
             peer.completed_at = IFNULL(peer.completed_at, standing.completed_at)",
            own.peers
        );
        session.run(&sql).await?;
    }
    Ok(())
}

async fn write_users(session: &mut Session<'_>, sums: &Sums<'_>) -> Result<(), Fault> {
    let rows = Rows::of(sums.users.iter().map(|(user, sum)| {
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

async fn write_torrents(session: &mut Session<'_>, sums: &Sums<'_>) -> Result<(), Fault> {
    let rows = Rows::of(sums.torrents.iter().map(|(torrent, (sum, counts))| {
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
async fn write_snatches(session: &mut Session<'_>, sums: &Sums<'_>) -> Result<(), Fault> {
    if sums.snatches.is_empty() {
        return Ok(());
    }
    let mut ids: HashMap<InfoHash, TorrentId> = HashMap::new();
    let known = read::ids_of_hashes(session, sums.snatches.keys()).await?;
    for (id, first, second) in known {
        ids.extend([first, second].into_iter().flatten().map(|hash| (hash, id)));
    }
    let mut counted: BTreeMap<TorrentId, u64> = BTreeMap::new();
    let forms = Forms::of(session).await?;
    let mut fresh = Rows::default();
    for (info_hash, count) in &sums.snatches {
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
