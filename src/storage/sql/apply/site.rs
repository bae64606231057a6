//! Writes credit to the tables of a site, which may refuse some of it.
//!
//! A column that is too small for a total, or a constraint or trigger of the site that refuses a row, must
//! not block the credit of all others, and must not go unnoticed. So a call that fails for a value is
//! retried with half of its rows, down to the refused row. The totals of that row are clamped to their
//! columns where the database can do that; otherwise, or if it is refused even then, it is skipped. Either way
//! the row and its credit are logged after the commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::calls::{self, Call};
use super::super::cells::{Cell, SqlRow, SqlRows};
use super::super::database::{SqlFault, SqlResult};
use super::super::hashes::of_hashes;
use super::super::job::Job;
use super::super::misfit::key_taken;
use crate::base::ids::{InfoHash, TorrentId};
use crate::storage::passed_over::Uncredited;
use crate::storage::settle::{Settlement, TorrentSum, clamp};

/// Rows of one call; a refused one costs the more, the more there are.
const AT_ONCE: usize = 2000;

pub(super) async fn write(job: &mut Job<'_>, settled: &Settlement<'_>) -> SqlResult<()> {
    let torrents = SqlRows::of(settled.torrents.iter().map(|(torrent, row)| {
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
    write_rows(job, &calls::CREDIT_TORRENTS, &torrents).await?;
    let users = SqlRows::of(settled.users.iter().map(|(user, sum)| {
        [
            user.0.into(),
            clamp(sum.up),
            clamp(sum.down),
            clamp(sum.snatches),
            clamp(sum.announces),
            clamp(sum.seed_time),
        ]
    }));
    write_rows(job, &calls::CREDIT_USERS, &users).await?;
    write_snatches(job, &settled.snatches).await
}

/// A public tracker learns of a torrent by its first snatch.
async fn write_snatches(job: &mut Job<'_>, snatches: &BTreeMap<InfoHash, u64>) -> SqlResult<()> {
    if snatches.is_empty() {
        return Ok(());
    }
    let mut ids: HashMap<InfoHash, TorrentId> = HashMap::new();
    let hashes: Vec<InfoHash> = snatches.keys().copied().collect();
    for (id, first, second) in of_hashes(job, &hashes).await? {
        ids.extend([first, second].into_iter().flatten().map(|hash| (hash, id)));
    }
    let mut counted: BTreeMap<TorrentId, u64> = BTreeMap::new();
    let [form, _] = job.hash_forms().await?;
    let mut fresh = SqlRows::new(2);
    for (info_hash, count) in snatches {
        if let Some(id) = ids.get(info_hash) {
            *counted.entry(*id).or_default() += count;
            continue;
        }
        let text = form.expressions(info_hash).into_iter().next();
        let bytes = Cell::Bytes(&info_hash.0);
        let cell = text.as_deref().map_or(bytes, Cell::Expression);
        fresh.push(&[cell, Cell::Int(clamp(*count))]);
    }
    let counted = counted.iter();
    let counted = SqlRows::of(counted.map(|(id, count)| [id.0.into(), clamp(*count)]));
    write_rows(job, &calls::CREDIT_SNATCHES, &counted).await?;
    write_rows(job, &calls::ADD_SNATCHED, &fresh).await
}

/// Adds these rows by a call of credit.
async fn write_rows(job: &mut Job<'_>, call: &'static Call, rows: &SqlRows) -> SqlResult<()> {
    for start in (0..rows.len()).step_by(AT_ONCE) {
        // A stack of the parts still to be written, the first on top.
        let mut parts = vec![Arc::new(rows.part(start..rows.len().min(start + AT_ONCE)))];
        while let Some(part) = parts.pop() {
            let Some(fault) = try_to_write(job, call, &part).await? else {
                continue;
            };
            if part.len() > 1 {
                let half = part.len() / 2;
                parts.extend([half..part.len(), 0..half].map(|rows| Arc::new(part.part(rows))));
            } else {
                write_what_fits(job, call, &part, fault).await?;
            }
        }
    }
    Ok(())
}

/// Writes all of these rows, or none; returns why not, if a value is the cause.
async fn try_to_write(
    job: &mut Job<'_>,
    call: &'static Call,
    rows: &Arc<SqlRows>,
) -> SqlResult<Option<SqlFault>> {
    job.savepoint_for(call).await?;
    match job.call_for_columns(call, call.rows, rows).await {
        Ok(written) => {
            note_unmatched(job, call, rows, written.changed);
            Ok(None)
        }
        Err(fault) if fault.refused_row().is_some() || is_other_key(&fault, call) => {
            job.undo().await?;
            Ok(Some(fault))
        }
        Err(fault) => Err(fault),
    }
}

/// Notes rows of credit for which the site's statement changed none: users and torrents that exist, but not for its
/// WHERE or its join.
fn note_unmatched(job: &mut Job<'_>, call: &'static Call, rows: &SqlRows, changed: u64) {
    let table = match call.name {
        name if name == calls::CREDIT_USERS.name => "users",
        name if name == calls::CREDIT_TORRENTS.name => "torrents",
        _ => return,
    };
    // Of others it can't be said how many rows they change for each that they are given.
    let [statement] = job.statements_of(call) else {
        return;
    };
    let is_write = ["insert", "update"]
        .into_iter()
        .any(|word| statement.begins_with(word));
    if !is_write || changed >= rows.len() as u64 {
        return;
    }
    let statement = job.place(call).to_string();
    if changed > 0 {
        job.uncredited
            .push(Uncredited::SomeUnmatched { table, statement });
        return;
    }
    let ids = rows.iter().filter_map(|row| row.id(0).ok());
    job.uncredited.extend(ids.map(|id| Uncredited::Unmatched {
        table,
        id,
        statement: statement.clone(),
    }));
}

/// An added torrent may violate a unique key of the site's.
fn is_other_key(fault: &SqlFault, call: &'static Call) -> bool {
    call.name == calls::ADD_SNATCHED.name && fault.duplicate_key().is_some()
}

/// Writes the one row, clamped to its columns.
async fn write_what_fits(
    job: &mut Job<'_>,
    call: &'static Call,
    row: &Arc<SqlRows>,
    fault: SqlFault,
) -> SqlResult<()> {
    let problem = match fault.duplicate_key() {
        Some(key) => {
            // The site may have added that torrent just now: then the batch is retried, and finds it.
            let known = job
                .call_for_columns(&calls::TORRENTS_OF_HASHES, call.rows, row)
                .await?;
            if !known.is_empty() {
                return Err(fault);
            }
            key_taken(job, key, false).await?
        }
        None => fault.refused_row().unwrap_or_default(),
    };
    let left_out = if job.set_clamping(true).await? {
        let left_out = try_to_write(job, call, row).await;
        job.set_clamping(false).await?;
        left_out?
    } else {
        Some(fault)
    };
    let what = match left_out {
        None => "what fits was written, a total as far as its column goes",
        Some(_) => "the row was left out",
    };
    job.notes.push(format!(
        "{}: {problem}: {what}; to be added were ({}) = ({})",
        call.name,
        call.rows.replace(' ', ", "),
        row.first().map(shown).unwrap_or_default()
    ));
    Ok(())
}

/// A row as the log shows it: bytes in hex.
fn shown(row: SqlRow<'_>) -> String {
    let cell = |column: usize| match row.cell(column) {
        Cell::Bytes(bytes) => data_encoding::HEXLOWER.encode(bytes),
        _ => row.text(column),
    };
    let cells: Vec<String> = (0..row.width()).map(cell).collect();
    cells.join(",")
}
