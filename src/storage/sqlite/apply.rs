//! Applies batches of a journal: bases, credit and the last number in one transaction.

use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::cells::SqliteCells;
use super::fault::SqliteFault;
use super::tables::begin;
use crate::accounting::coverage::Coverage;
use crate::base::ids::{InfoHash, TorrentId};
use crate::change::sums::Credited;
use crate::change::{Batch, RecordAge};
use crate::storage::settle::{
    Base, HeldHistory, HeldPeer, HeldRows, Settlement, TorrentSum, clamp,
};
use crate::storage::touched::{KnownIds, Named, Touched, TouchedPeer};
use crate::storage::values::log_refused;
use crate::storage::{CreditRules, batches};

/// `column = column + added`, saturating at 2^63−1, with NULL as 0 (rule A8).
macro_rules! plus {
    ($column:literal, $added:literal) => {
        concat!(
            $column,
            " = MIN(9223372036854775807 - ",
            $added,
            ", IFNULL(CAST(",
            $column,
            " AS INTEGER), 0)) + ",
            $added
        )
    };
}

const NEW_PEER: &str = "INSERT INTO peers (user_id, torrent_id, peer_id, base_up, base_down, \
    base_at, dip_up, dip_down, sessions, uploaded, downloaded, left_bytes, ip4, port4, ip6, port6, \
    speed_up, speed_down, seed_time, announces, first_announce, last_announce, active, paused, \
    completed_at, hnr) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, \
    ?20, ?21, ?22, ?23, ?24, ?25, ?26)";

const PEER: &str = concat!(
    "UPDATE peers SET base_up = ?4, base_down = ?5, base_at = ?6, dip_up = ?7, dip_down = ?8, ",
    "sessions = ?9, uploaded = ?10, downloaded = ?11, left_bytes = ?12, ip4 = ?13, port4 = ?14, ip6 = ?15, port6 = ?16, speed_up = ?17, ",
    "speed_down = ?18, seed_time = ?19, announces = ?20, first_announce = ?21, ",
    "last_announce = ?22, active = ?23, paused = ?24, completed_at = ?25, hnr = ?26 ",
    "WHERE user_id = ?1 AND torrent_id = ?2 AND peer_id = ?3"
);

/// A row whose record is newer than the reports that are settled against it.
const PEER_SESSIONS: &str = concat!(
    "UPDATE peers SET base_up = ?4, base_down = ?5, base_at = ?6, dip_up = ?7, dip_down = ?8, ",
    "sessions = ?9, uploaded = ?10, downloaded = ?11 WHERE user_id = ?1 AND torrent_id = ?2 AND peer_id = ?3"
);

/// Rows read by one statement: starting and ending a statement takes longer than finding a row.
const READ_AT_ONCE: usize = 64;

/// `{wanted}` stands for a table of indices and keys. Uses the primary keys, in whose order the rows are:
/// SQLite would choose the shorter index of torrents, and then seek back and forth.
const HELD_PEERS: &str = "SELECT column1, announces, last_announce, active, base_up, base_down, \
    base_at, dip_up, dip_down, sessions, uploaded, downloaded, first_announce \
    FROM {wanted} CROSS JOIN peers INDEXED BY sqlite_autoindex_peers_1 \
    ON user_id = column2 AND torrent_id = column3 AND peer_id = column4";

const HELD_HISTORIES: &str = "SELECT column1, uploaded, downloaded, seed_time, announces, \
    last_announce, completed_at, hnr, seeded_floor, seeded_from, seeded_until \
    FROM {wanted} CROSS JOIN history INDEXED BY sqlite_autoindex_history_1 \
    ON torrent_id = column2 AND user_id = column3";

const NEW_HISTORY: &str = "INSERT INTO history (torrent_id, user_id, uploaded, downloaded, \
    seed_time, announces, last_announce, completed_at, hnr, seeded_floor, seeded_from, \
    seeded_until, first_announce) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

const HISTORY: &str = "UPDATE history SET uploaded = ?3, downloaded = ?4, seed_time = ?5, \
    announces = ?6, last_announce = ?7, completed_at = ?8, hnr = ?9, seeded_floor = ?10, \
    seeded_from = ?11, seeded_until = ?12 WHERE torrent_id = ?1 AND user_id = ?2";

/// Copies the standing to the user's other peers of the torrent.
const SIBLINGS: &str = "UPDATE peers SET hnr = ?3, completed_at = IFNULL(completed_at, ?4) \
    WHERE torrent_id = ?1 AND user_id = ?2";

const USER: &str = concat!(
    "UPDATE users SET ",
    plus!("uploaded", "?2"),
    ", ",
    plus!("downloaded", "?3"),
    ", ",
    plus!("snatches", "?4"),
    ", ",
    plus!("announces", "?5"),
    ", ",
    plus!("seed_time", "?6"),
    " WHERE id = ?1"
);

const TORRENT: &str = concat!(
    "UPDATE torrents SET ",
    plus!("uploaded", "?2"),
    ", ",
    plus!("downloaded", "?3"),
    ", ",
    plus!("snatches", "?4"),
    ", ",
    plus!("announces", "?5"),
    ", seeders = ?6, leechers = ?7 WHERE id = ?1"
);

const SNATCH: &str = concat!(
    "UPDATE torrents SET ",
    plus!("snatches", "?2"),
    " WHERE info_hash = ?1 OR info_hash_v2 = ?1"
);

/// Applies `batches`, or changes nothing.
pub(super) fn apply(
    connection: &mut Connection,
    batches: &[Arc<Batch>],
    rules: &CreditRules,
) -> Result<Credited, SqliteFault> {
    // Rolls back if dropped without a commit, or if its COMMIT fails.
    let transaction = begin(connection)?;
    let Some(Batch {
        journal, number, ..
    }) = batches.last().map(Arc::as_ref)
    else {
        return Ok(Credited::default());
    };
    let new = batches::not_applied(batches, last_applied(&transaction, journal)?)?;
    if new.is_empty() {
        return Ok(Credited::default());
    }
    let changes = || new.iter().flat_map(|batch| &batch.changes);
    let known = known(&transaction, &Named::by(changes()))?;
    let touched = Touched::by(changes(), &known);
    let held = held(&transaction, &touched)?;
    let settled = Settlement::of(touched, held, journal, rules);
    write_peers(&transaction, &settled)?;
    write_histories(&transaction, &settled)?;
    let mut refused = RefusedRows::default();
    write_users(&transaction, &settled, &mut refused)?;
    write_torrents(&transaction, &settled, &mut refused)?;
    write_snatches(&transaction, &settled, &mut refused)?;
    transaction
        .prepare_cached(
            "INSERT INTO mika_journal (node, applied) VALUES (?1, ?2)
             ON CONFLICT (node) DO UPDATE SET applied = excluded.applied",
        )?
        .execute(params![journal, clamp(*number)])?;
    transaction.commit()?;
    log_refused(&refused.0);
    Ok(settled.into_credited())
}

/// The rows that changes are settled against. This transaction is the only writer.
fn held(transaction: &Transaction<'_>, touched: &Touched<'_>) -> Result<HeldRows, SqliteFault> {
    let histories = touched
        .histories
        .iter()
        .map(|row| params_of([row.torrent.0, row.user.0]));
    let peers = touched.peers.iter().map(|TouchedPeer { key, .. }| {
        let [user, torrent] = params_of([key.user.0, key.torrent.0]);
        [user, torrent, ValueRef::Blob(&key.peer_id.0)]
    });
    Ok(HeldRows {
        histories: read_all(transaction, HELD_HISTORIES, histories, held_history)?,
        peers: read_all(transaction, HELD_PEERS, peers, held_peer)?,
    })
}

fn params_of<const N: usize>(ids: [u32; N]) -> [ValueRef<'static>; N] {
    ids.map(|id| ValueRef::Integer(id.into()))
}

/// The rows of these keys, in their order.
fn read_all<'a, T, const N: usize>(
    transaction: &Transaction<'_>,
    select: &str,
    keys: impl ExactSizeIterator<Item = [ValueRef<'a>; N]>,
    read: fn(&SqliteCells<'_>) -> T,
) -> Result<Vec<Option<T>>, SqliteFault> {
    let key = ", ?".repeat(N);
    let wanted: Vec<String> = (0..READ_AT_ONCE)
        .map(|place| format!("({place}{key})"))
        .collect();
    let wanted = format!("(VALUES {})", wanted.join(", "));
    let mut select = transaction.prepare_cached(&select.replace("{wanted}", &wanted))?;
    let mut found: Vec<Option<T>> = (0..keys.len()).map(|_| None).collect();
    let mut keys = keys.fuse();
    for found in found.chunks_mut(READ_AT_ONCE) {
        // The unused parameters match nothing.
        let keys = keys.by_ref().chain(std::iter::repeat([ValueRef::Null; N]));
        for (number, param) in keys.take(READ_AT_ONCE).flatten().enumerate() {
            select.raw_bind_parameter(number + 1, ToSqlOutput::Borrowed(param))?;
        }
        let mut rows = select.raw_query();
        while let Some(row) = rows.next()? {
            let cells = SqliteCells(row);
            if let Some(found) = found.get_mut(cells.total(0) as usize) {
                *found = Some(read(&cells));
            }
        }
    }
    Ok(found)
}

/// The users and torrents named by changes that exist.
fn known(transaction: &Transaction<'_>, named: &Named) -> Result<KnownIds, SqliteFault> {
    let mut known = KnownIds::default();
    let mut select = transaction.prepare_cached("SELECT 1 FROM users WHERE id = ?1")?;
    for user in &named.users {
        if select.exists([user])? {
            known.users.insert(*user);
        }
    }
    let mut select = transaction.prepare_cached("SELECT 1 FROM torrents WHERE id = ?1")?;
    for (torrent, info_hash) in &named.torrents {
        if select.exists([torrent])? {
            known.torrents.insert(*torrent);
        } else if let Some(id) = id_of_hash(transaction, info_hash)? {
            known.moved.insert(*info_hash, id);
        }
    }
    Ok(known)
}

fn held_peer(cells: &SqliteCells<'_>) -> HeldPeer {
    let base = Base {
        up: cells.total(4),
        down: cells.total(5),
        at: cells.integer(6).unwrap_or(0),
        dip_up: cells.integer(7),
        dip_down: cells.integer(8),
    };
    HeldPeer {
        age: RecordAge {
            announces: cells.small(1),
            first_announce: cells.integer(12).unwrap_or(0),
            last_announce: cells.integer(2).unwrap_or(0),
            active: cells.flag(3),
        },
        uploaded: cells.total(10),
        downloaded: cells.total(11),
        account: HeldPeer::account_of(cells.bytes(9)).unwrap_or_else(|| base.account()),
    }
}

fn held_history(cells: &SqliteCells<'_>) -> HeldHistory {
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

/// All journals, with the number of the last batch of each.
pub(super) fn journals(connection: &Connection) -> Result<Vec<(String, u64)>, SqliteFault> {
    let mut select = connection.prepare_cached("SELECT node, applied FROM mika_journal")?;
    let rows = select.query_map([], |row| {
        let applied: i64 = row.get(1)?;
        Ok((row.get(0)?, applied.max(0).cast_unsigned()))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn last_applied(connection: &Connection, node: &str) -> Result<u64, SqliteFault> {
    let applied: Option<i64> = connection
        .prepare_cached("SELECT applied FROM mika_journal WHERE node = ?1")?
        .query_row([node], |row| row.get(0))
        .optional()?;
    Ok(applied.unwrap_or(0).max(0).cast_unsigned())
}

/// Gives up missing batches up to `number`.
pub(super) fn begin_at(
    connection: &Connection,
    node: &str,
    number: u64,
) -> Result<(), SqliteFault> {
    connection
        .prepare_cached(
            "INSERT INTO mika_journal (node, applied) VALUES (?1, ?2)
             ON CONFLICT (node) DO UPDATE SET applied = MAX(applied, excluded.applied)",
        )?
        .execute(params![node, clamp(number)])?;
    Ok(())
}

/// Forgets a journal's number if it is still this one.
pub(super) fn forget(
    connection: &Connection,
    node: &str,
    number: u64,
) -> Result<bool, SqliteFault> {
    let gone = connection
        .prepare_cached("DELETE FROM mika_journal WHERE node = ?1 AND applied = ?2")?
        .execute(params![node, clamp(number)])?;
    Ok(gone > 0)
}

/// A torrent that is missing under the id of a change may have got another one meanwhile.
fn id_of_hash(
    transaction: &Transaction<'_>,
    info_hash: &InfoHash,
) -> Result<Option<TorrentId>, SqliteFault> {
    let id: Option<u32> = transaction
        .prepare_cached("SELECT id FROM torrents WHERE info_hash = ?1")?
        .query_row([info_hash.0], |row| row.get(0))
        .optional()?;
    Ok(id.map(TorrentId))
}

fn write_peers(transaction: &Transaction<'_>, settled: &Settlement<'_>) -> Result<(), SqliteFault> {
    let mut insert = transaction.prepare_cached(NEW_PEER)?;
    let mut update = transaction.prepare_cached(PEER)?;
    let mut update_sessions = transaction.prepare_cached(PEER_SESSIONS)?;
    let mut sessions = Vec::new();
    for row in &settled.peers {
        row.held.pack(&mut sessions);
        let (key, base) = (&row.key, row.held.base());
        let Some(record) = row.record else {
            update_sessions.execute(params![
                key.user.0,
                key.torrent.0,
                key.peer_id.0,
                clamp(base.up),
                clamp(base.down),
                base.at,
                base.dip_up,
                base.dip_down,
                sessions,
                clamp(row.held.uploaded),
                clamp(row.held.downloaded),
            ])?;
            continue;
        };
        let history = settled.history_of(row);
        let write = if row.is_new { &mut insert } else { &mut update };
        write.execute(params![
            key.user.0,
            key.torrent.0,
            key.peer_id.0,
            clamp(base.up),
            clamp(base.down),
            base.at,
            base.dip_up,
            base.dip_down,
            sessions,
            clamp(row.held.uploaded),
            clamp(row.held.downloaded),
            record.left.map(clamp),
            record.v4.map(|address| address.ip().to_string()),
            record.v4.map(|address| address.port()),
            record.v6.map(|address| address.ip().to_string()),
            record.v6.map(|address| address.port()),
            record.speed_up,
            record.speed_down,
            record.seed_time,
            record.announces,
            record.first_announce,
            record.last_announce,
            record.active,
            record.paused,
            history.completed_at,
            history.hnr,
        ])?;
    }
    let mut delete = transaction.prepare_cached(
        "DELETE FROM peers WHERE user_id = ?1 AND torrent_id = ?2 AND peer_id = ?3",
    )?;
    for key in &settled.gone {
        delete.execute(params![key.user.0, key.torrent.0, key.peer_id.0])?;
    }
    Ok(())
}

fn write_histories(
    transaction: &Transaction<'_>,
    settled: &Settlement<'_>,
) -> Result<(), SqliteFault> {
    let mut insert = transaction.prepare_cached(NEW_HISTORY)?;
    let mut update = transaction.prepare_cached(HISTORY)?;
    let mut siblings = transaction.prepare_cached(SIBLINGS)?;
    for row in &settled.histories {
        let (torrent, user, history) = (row.torrent.0, row.user.0, &row.now);
        if row.has_new_standing() {
            siblings.execute(params![torrent, user, history.hnr, history.completed_at])?;
        }
        let HeldHistory { covered, .. } = history;
        let write = if row.is_new { &mut insert } else { &mut update };
        let cells = params![
            torrent,
            user,
            clamp(history.uploaded),
            clamp(history.downloaded),
            clamp(history.seed_time),
            clamp(history.announces),
            history.last_announce,
            history.completed_at,
            history.hnr,
            covered.and_then(Coverage::floor),
            covered.map(|covered| covered.from),
            covered.map(|covered| covered.until),
            row.first_announce,
        ];
        // Updates omit the last one.
        let count = if row.is_new {
            cells.len()
        } else {
            cells.len() - 1
        };
        write.execute(&cells[..count])?;
    }
    Ok(())
}

fn write_users(
    transaction: &Transaction<'_>,
    settled: &Settlement<'_>,
    refused: &mut RefusedRows,
) -> Result<(), SqliteFault> {
    let mut update = transaction.prepare_cached(USER)?;
    for (user, sum) in &settled.users {
        let (up, down) = (clamp(sum.up), clamp(sum.down));
        let written = update.execute(params![
            user.0,
            up,
            down,
            clamp(sum.snatches),
            clamp(sum.announces),
            clamp(sum.seed_time),
        ]);
        let row = || format!("user {}, uploaded {up}, downloaded {down}", user.0);
        refused.note(transaction, written, row)?;
    }
    Ok(())
}

fn write_torrents(
    transaction: &Transaction<'_>,
    settled: &Settlement<'_>,
    refused: &mut RefusedRows,
) -> Result<(), SqliteFault> {
    let mut update = transaction.prepare_cached(TORRENT)?;
    for (torrent, TorrentSum { sum, counts, .. }) in &settled.torrents {
        let (up, down) = (clamp(sum.raw_up), clamp(sum.raw_down));
        let written = update.execute(params![
            torrent.0,
            up,
            down,
            clamp(sum.snatches),
            clamp(sum.announces),
            counts.seeders,
            counts.leechers,
        ]);
        let row = || format!("torrent {}, uploaded {up}, downloaded {down}", torrent.0);
        refused.note(transaction, written, row)?;
    }
    Ok(())
}

/// A public tracker learns of a torrent by its first snatch.
fn write_snatches(
    transaction: &Transaction<'_>,
    settled: &Settlement<'_>,
    refused: &mut RefusedRows,
) -> Result<(), SqliteFault> {
    let mut update = transaction.prepare_cached(SNATCH)?;
    let mut insert =
        transaction.prepare_cached("INSERT INTO torrents (info_hash, snatches) VALUES (?1, ?2)")?;
    for (info_hash, count) in &settled.snatches {
        let row = params![info_hash.0, clamp(*count)];
        let shown = || format!("torrent {info_hash}, {count} snatches");
        if refused.note(transaction, update.execute(row), shown)? == Some(0) {
            refused.note(transaction, insert.execute(row), shown)?;
        }
    }
    Ok(())
}

/// Rows that a constraint or trigger of the site refuses. They are skipped, so that all other credit is
/// written, and logged after the commit.
#[derive(Default)]
struct RefusedRows(Vec<String>);

impl RefusedRows {
    /// Number of rows that a statement changed; none if it was refused for a value.
    fn note(
        &mut self,
        transaction: &Transaction<'_>,
        written: rusqlite::Result<usize>,
        row: impl FnOnce() -> String,
    ) -> Result<Option<usize>, SqliteFault> {
        let fault = match written {
            Ok(changed) => return Ok(Some(changed)),
            Err(error) => SqliteFault::from(error),
        };
        if transaction.is_autocommit() {
            // The trigger has rolled back the transaction: later statements would be committed alone.
            let text =
                "a trigger ends the transaction: let it use RAISE(ABORT, …) and not ROLLBACK";
            return Err(SqliteFault::broken(text));
        }
        let Some(why) = fault.refused() else {
            return Err(fault);
        };
        self.0
            .push(format!("{why}: the row was left out: {}", row()));
        Ok(None)
    }
}
