//! Applying a batch of the journal: bases, credit and the batch's number in one transaction.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::fault::Fault;
use super::tables::begin;
use crate::change::Batch;
use crate::ids::{InfoHash, TorrentId};
use crate::storage::batches;
use crate::storage::sums::{CLOCK_SKEW, Sums, clamp};
use crate::storage::values::log_refused;

/// `column = column + added`, which stops at 2^63−1 and takes a NULL for 0 (rule A8).
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

const PEER: &str = "INSERT INTO peers (user_id, torrent_id, peer_id, base_up, base_down, base_at, \
    dip_up, dip_down, uploaded, downloaded, left_bytes, ip4, port4, ip6, port6, speed_up, \
    speed_down, seed_time, announces, first_announce, last_announce, active, paused, \
    completed_at, hnr) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, \
    ?20, ?21, ?22, ?23, ?24, ?25) \
    ON CONFLICT (user_id, torrent_id, peer_id) DO UPDATE SET base_up = excluded.base_up, \
    base_down = excluded.base_down, base_at = excluded.base_at, dip_up = excluded.dip_up, \
    dip_down = excluded.dip_down, uploaded = excluded.uploaded, downloaded = excluded.downloaded, \
    left_bytes = excluded.left_bytes, ip4 = excluded.ip4, port4 = excluded.port4, \
    ip6 = excluded.ip6, port6 = excluded.port6, speed_up = excluded.speed_up, \
    speed_down = excluded.speed_down, seed_time = excluded.seed_time, \
    announces = excluded.announces, first_announce = excluded.first_announce, \
    last_announce = excluded.last_announce, active = excluded.active, paused = excluded.paused, \
    completed_at = IFNULL(completed_at, excluded.completed_at), hnr = excluded.hnr \
    WHERE excluded.announces > announces OR excluded.last_announce > last_announce + ?26 \
    OR (excluded.announces = announces AND (excluded.active < active \
    OR (excluded.active = active AND excluded.last_announce >= last_announce)))";

const HISTORY: &str = concat!(
    "INSERT INTO history (torrent_id, user_id, uploaded, downloaded, seed_time, announces, ",
    "completed_at, hnr, first_announce, last_announce) ",
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ",
    "ON CONFLICT (torrent_id, user_id) DO UPDATE SET ",
    plus!("uploaded", "excluded.uploaded"),
    ", ",
    plus!("downloaded", "excluded.downloaded"),
    ", ",
    plus!("seed_time", "excluded.seed_time"),
    ", ",
    plus!("announces", "excluded.announces"),
    ", completed_at = IFNULL(completed_at, excluded.completed_at), hnr = excluded.hnr, ",
    "last_announce = MAX(last_announce, excluded.last_announce)"
);

/// Whether the standing is as it was, which it mostly is.
const SAME_STANDING: &str = "SELECT 1 FROM history WHERE torrent_id = ?1 AND user_id = ?2 \
    AND hnr = ?3 AND (completed_at IS NOT NULL OR ?4 IS NULL)";

/// A user's other peers of the torrent have the same standing.
const SIBLINGS: &str = "UPDATE peers SET hnr = ?3, completed_at = IFNULL(completed_at, ?4) \
    WHERE torrent_id = ?1 AND user_id = ?2 \
    AND (hnr <> ?3 OR (completed_at IS NULL AND ?4 IS NOT NULL))";

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

/// Applies `batches`, or leaves everything as it was.
pub(super) fn apply(connection: &mut Connection, batches: &[Arc<Batch>]) -> Result<(), Fault> {
    // Dropped without a commit, a transaction rolls back; so it does when its COMMIT fails.
    let transaction = begin(connection)?;
    let Some(Batch { node, number, .. }) = batches.last().map(Arc::as_ref) else {
        return Ok(());
    };
    let new = batches::not_applied(batches, applied(&transaction, node)?)?;
    if new.is_empty() {
        return Ok(());
    }
    let changes = new.iter().flat_map(|batch| &batch.changes);
    let mut users = Known::new("SELECT 1 FROM users WHERE id = ?1");
    let mut torrents = Known::new("SELECT 1 FROM torrents WHERE id = ?1");
    let sums = Sums::of(changes, |change| {
        let key = &change.key;
        if !users.has(&transaction, key.user.0)? {
            Ok(None)
        } else if torrents.has(&transaction, key.torrent.0)? {
            Ok(Some(key.torrent))
        } else {
            id_of_hash(&transaction, &change.info_hash)
        }
    })?;
    write_peers(&transaction, &sums)?;
    write_histories(&transaction, &sums)?;
    let mut refused = RefusedRows::default();
    write_users(&transaction, &sums, &mut refused)?;
    write_torrents(&transaction, &sums, &mut refused)?;
    write_snatches(&transaction, &sums, &mut refused)?;
    transaction
        .prepare_cached(
            "INSERT INTO mika_journal (node, applied) VALUES (?1, ?2)
             ON CONFLICT (node) DO UPDATE SET applied = excluded.applied",
        )?
        .execute(params![node, clamp(*number)])?;
    transaction.commit()?;
    log_refused(&refused.0);
    Ok(())
}

/// All nodes and the number of the last batch of each.
pub(super) fn journals(connection: &Connection) -> Result<Vec<(String, u64)>, Fault> {
    let mut select = connection.prepare_cached("SELECT node, applied FROM mika_journal")?;
    let rows = select.query_map([], |row| {
        let applied: i64 = row.get(1)?;
        Ok((row.get(0)?, applied.max(0).cast_unsigned()))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn applied(connection: &Connection, node: &str) -> Result<u64, Fault> {
    let applied: Option<i64> = connection
        .prepare_cached("SELECT applied FROM mika_journal WHERE node = ?1")?
        .query_row([node], |row| row.get(0))
        .optional()?;
    Ok(applied.unwrap_or(0).max(0).cast_unsigned())
}

/// Forgets a node's number if it is still this one.
pub(super) fn forget(connection: &Connection, node: &str, number: u64) -> Result<bool, Fault> {
    let gone = connection
        .prepare_cached("DELETE FROM mika_journal WHERE node = ?1 AND applied = ?2")?
        .execute(params![node, clamp(number)])?;
    Ok(gone > 0)
}

/// A torrent that is not there under the id of a change may have got another one meanwhile.
fn id_of_hash(
    transaction: &Transaction<'_>,
    info_hash: &InfoHash,
) -> Result<Option<TorrentId>, Fault> {
    let id: Option<u32> = transaction
        .prepare_cached("SELECT id FROM torrents WHERE info_hash = ?1")?
        .query_row([info_hash.0], |row| row.get(0))
        .optional()?;
    Ok(id.map(TorrentId))
}

fn write_peers(transaction: &Transaction<'_>, sums: &Sums<'_>) -> Result<(), Fault> {
    let mut upsert = transaction.prepare_cached(PEER)?;
    for (key, change) in &sums.peers {
        let record = &change.record;
        let standing = sums.standing(key, change);
        upsert.execute(params![
            key.user.0,
            key.torrent.0,
            key.peer_id.0,
            clamp(record.base_up),
            clamp(record.base_down),
            record.base_at,
            record.dip_up,
            record.dip_down,
            clamp(record.uploaded),
            clamp(record.downloaded),
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
            standing.completed_at,
            standing.hnr,
            CLOCK_SKEW,
        ])?;
    }
    let mut delete = transaction.prepare_cached(
        "DELETE FROM peers WHERE user_id = ?1 AND torrent_id = ?2 AND peer_id = ?3",
    )?;
    for key in &sums.gone {
        delete.execute(params![key.user.0, key.torrent.0, key.peer_id.0])?;
    }
    Ok(())
}

fn write_histories(transaction: &Transaction<'_>, sums: &Sums<'_>) -> Result<(), Fault> {
    let mut same = transaction.prepare_cached(SAME_STANDING)?;
    let mut upsert = transaction.prepare_cached(HISTORY)?;
    let mut siblings = transaction.prepare_cached(SIBLINGS)?;
    for ((torrent, user), (sum, latest)) in &sums.histories {
        let (record, standing) = (&latest.record, &latest.standing);
        let new_standing = params![torrent.0, user.0, standing.hnr, standing.completed_at];
        if !same.exists(new_standing)? {
            siblings.execute(new_standing)?;
        }
        upsert.execute(params![
            torrent.0,
            user.0,
            clamp(sum.raw_up),
            clamp(sum.raw_down),
            clamp(sum.seed_time),
            clamp(sum.announces),
            standing.completed_at,
            standing.hnr,
            record.first_announce,
            record.last_announce,
        ])?;
    }
    Ok(())
}

fn write_users(
    transaction: &Transaction<'_>,
    sums: &Sums<'_>,
    refused: &mut RefusedRows,
) -> Result<(), Fault> {
    let mut update = transaction.prepare_cached(USER)?;
    for (user, sum) in &sums.users {
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
    sums: &Sums<'_>,
    refused: &mut RefusedRows,
) -> Result<(), Fault> {
    let mut update = transaction.prepare_cached(TORRENT)?;
    for (torrent, (sum, counts)) in &sums.torrents {
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
    sums: &Sums<'_>,
    refused: &mut RefusedRows,
) -> Result<(), Fault> {
    let mut update = transaction.prepare_cached(SNATCH)?;
    let mut insert =
        transaction.prepare_cached("INSERT INTO torrents (info_hash, snatches) VALUES (?1, ?2)")?;
    for (info_hash, count) in &sums.snatches {
        let row = params![info_hash.0, clamp(*count)];
        let shown = || format!("torrent {info_hash}, {count} snatches");
        if refused.note(transaction, update.execute(row), shown)? == Some(0) {
            refused.note(transaction, insert.execute(row), shown)?;
        }
    }
    Ok(())
}

/// Rows that a constraint or trigger of the site refuses. They are left out, so that the credit of
/// everybody else is written, and the log says so once the others are committed.
#[derive(Default)]
struct RefusedRows(Vec<String>);

/// Which ids a table has, asked once each.
struct Known {
    sql: &'static str,
    ids: HashMap<u32, bool>,
}

// === impl RefusedRows ===

impl RefusedRows {
    /// How many rows a statement changed; none if it was refused for a value.
    fn note(
        &mut self,
        transaction: &Transaction<'_>,
        written: rusqlite::Result<usize>,
        row: impl FnOnce() -> String,
    ) -> Result<Option<usize>, Fault> {
        let fault = match written {
            Ok(changed) => return Ok(Some(changed)),
            Err(error) => Fault::from(error),
        };
        if transaction.is_autocommit() {
            // What came after it would stay alone.
            let text =
                "a trigger ends the transaction: let it use RAISE(ABORT, …) and not ROLLBACK";
            return Err(Fault::broken(text));
        }
        let Some(why) = fault.refused() else {
            return Err(fault);
        };
        self.0
            .push(format!("{why}: the row was left out: {}", row()));
        Ok(None)
    }
}

// === impl Known ===

impl Known {
    fn new(sql: &'static str) -> Self {
        Self {
            sql,
            ids: HashMap::new(),
        }
    }

    fn has(&mut self, transaction: &Transaction<'_>, id: u32) -> Result<bool, Fault> {
        if let Some(known) = self.ids.get(&id) {
            return Ok(*known);
        }
        let known = transaction.prepare_cached(self.sql)?.exists([id])?;
        self.ids.insert(id, known);
        Ok(known)
    }
}
