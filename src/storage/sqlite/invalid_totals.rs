//! Impossible totals, left by faulty statements of a web application.

use rusqlite::{Connection, params};

use super::fault::SqliteFault;
use super::tables::begin;
use crate::storage::{InvalidTotals, PLAUSIBLE_MAX, Wipe};

/// The table, and the names of its totals.
fn totals(what: Wipe) -> (&'static str, &'static [&'static str]) {
    match what {
        Wipe::Users => (
            "users",
            &[
                "uploaded",
                "downloaded",
                "snatches",
                "announces",
                "seed_time",
            ],
        ),
        Wipe::Torrents => (
            "torrents",
            &[
                "uploaded",
                "downloaded",
                "snatches",
                "announces",
                "seeders",
                "leechers",
            ],
        ),
    }
}

/// A condition: the column holds an impossible total, or no number at all.
fn is_invalid(column: &str) -> String {
    format!("(typeof({column}) <> 'integer' OR {column} NOT BETWEEN 0 AND {PLAUSIBLE_MAX})")
}

/// Checks `limit` rows after `after`; returns the findings and the last id checked.
pub(super) fn find(
    connection: &Connection,
    what: Wipe,
    after: Option<u32>,
    limit: u32,
) -> Result<(Vec<InvalidTotals>, Option<u32>), SqliteFault> {
    let (table, columns) = totals(what);
    let tests: Vec<String> = columns.iter().map(|column| is_invalid(column)).collect();
    let mut select = connection.prepare_cached(&format!(
        "SELECT id, {} FROM {table} WHERE id > ?1 AND id <= {} ORDER BY id LIMIT ?2",
        tests.join(", "),
        u32::MAX,
    ))?;
    let mut rows = select.query(params![after.map_or(-1, i64::from), limit])?;
    let (mut invalid, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        last = Some(id);
        let mut fields = Vec::new();
        for (place, column) in columns.iter().enumerate() {
            if row.get(place + 1)? {
                fields.push(*column);
            }
        }
        if !fields.is_empty() {
            invalid.push(InvalidTotals { id, fields });
        }
    }
    Ok((invalid, last))
}

pub(super) fn fix(connection: &mut Connection, what: Wipe, ids: &[u32]) -> Result<(), SqliteFault> {
    let (table, columns) = totals(what);
    let sets: Vec<String> = columns
        .iter()
        .map(|column| {
            format!(
                "{column} = CASE WHEN {} THEN 0 ELSE {column} END",
                is_invalid(column)
            )
        })
        .collect();
    let transaction = begin(connection)?;
    {
        let mut update = transaction.prepare_cached(&format!(
            "UPDATE {table} SET {} WHERE id = ?1",
            sets.join(", ")
        ))?;
        for id in ids {
            update.execute([id])?;
        }
    }
    Ok(transaction.commit()?)
}
