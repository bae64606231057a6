//! A statement that failed for a value: a lookup finds nothing, an edit is refused with the name of the column or key.

use super::calls::{self, COLUMNS_NAMED};
use super::cells::{Cell, SqlParams, SqlRow, SqlRows};
use super::database::{FaultKind, SqlFault, SqlResult};
use super::job::Job;
use super::statements::{Statement, mentions};
use crate::storage::StorageError;
use crate::storage::values::{Misfit, RefusedValue};

/// The outcome of a schema's statement that failed: no rows for a lookup by characters that the column can't
/// hold, because no row has them; otherwise the error, which names the column if a value is the cause.
pub(super) async fn found_or_refused(
    job: &mut Job<'_>,
    fault: SqlFault,
    statement: &Statement,
    params: &SqlParams<'_>,
) -> SqlResult<SqlRows> {
    let FaultKind::Refused(refused) = &fault.kind else {
        return Err(fault);
    };
    let is_lookup = !statement.call.columns.is_empty();
    if is_lookup {
        let is_foreign = params.iter().any(|(_, value)| !is_ascii(*value));
        let is_charset = matches!(refused.why, Misfit::Characters { .. });
        return if is_charset && is_foreign && job.can_go_on() {
            Ok(SqlRows::default())
        } else {
            Err(fault)
        };
    }
    let refused = refused.as_ref().clone();
    job.recover().await?;
    let refused = in_full(job, refused, statement, params).await?;
    Err(StorageError::Invalid(refused.to_string()).into())
}

/// Why a row is refused that violates a unique key. If the database chose an id that a row has already, its sequence is
/// behind: rows were inserted with ids.
pub(super) async fn key_taken(job: &mut Job<'_>, key: &str, has_id: bool) -> SqlResult<String> {
    let taken = format!("another row has the same value in the key `{key}`");
    if has_id || !job.has(&calls::KEY_SEQUENCE) {
        return Ok(taken);
    }
    let rows = job
        .call(&calls::KEY_SEQUENCE, &[("key", key.into())])
        .await?;
    Ok(rows.first().map_or(taken, |row| {
        let (table, column, sequence) = (row.text(0), row.text(1), row.text(2));
        format!(
            "the sequence {sequence} gave an id that a row of {table} has already, because rows were inserted with ids: \
             run SELECT setval('{sequence}', (SELECT max({column}) FROM {table}))"
        )
    }))
}

fn is_ascii(value: Cell<'_>) -> bool {
    match value {
        Cell::Text(text) => text.is_ascii(),
        Cell::Bytes(bytes) => bytes.is_ascii(),
        _ => true,
    }
}

/// Adds the width of the column and the length of the value. Where the database does not say the column, it is the one
/// that has the name of a parameter and can't hold its value.
async fn in_full(
    job: &mut Job<'_>,
    refused: RefusedValue,
    statement: &Statement,
    params: &SqlParams<'_>,
) -> SqlResult<RefusedValue> {
    let is_it = |row: &SqlRow<'_>| match &refused.table {
        Some(table) => row.text(0).eq_ignore_ascii_case(table),
        None => mentions(std::slice::from_ref(statement), &row.text(0)),
    };
    if let Some(column) = refused.column.clone() {
        let rows = columns_named(job, &column).await?;
        let mut known = rows.iter().filter(is_it);
        // Two tables of one statement may have a column of that name: the database did not say which.
        let (Some(row), None) = (known.next(), known.next()) else {
            return Ok(refused);
        };
        let why = match refused.why {
            Misfit::TooLong { .. } => Misfit::TooLong {
                limit: (!row.is_null(1)).then(|| row.total(1)),
                has: characters(&column, params),
            },
            Misfit::Characters { .. } if !row.is_null(2) => Misfit::Characters {
                charset: Some(row.text(2)),
            },
            other => other,
        };
        let table = Some(row.text(0));
        return Ok(RefusedValue {
            table,
            why,
            ..refused
        });
    }
    if !matches!(refused.why, Misfit::TooLong { .. } | Misfit::OutOfRange) {
        return Ok(refused);
    }
    for (name, value) in params {
        let rows = columns_named(job, name).await?;
        for row in rows.iter().filter(is_it) {
            if let Some(why) = misfit(&row, *value) {
                return Ok(RefusedValue {
                    table: Some(row.text(0)),
                    column: Some((*name).to_owned()),
                    why,
                });
            }
        }
    }
    Ok(refused)
}

async fn columns_named(job: &mut Job<'_>, name: &str) -> SqlResult<SqlRows> {
    let Some(statement) = job.statements_of(&COLUMNS_NAMED).first() else {
        return Ok(SqlRows::default());
    };
    let params = [("name", name.into())];
    job.session().run(statement, &params, "").await
}

/// Why a column of that width in characters, or of that many bits, can't hold the value.
fn misfit(column: &SqlRow<'_>, value: Cell<'_>) -> Option<Misfit> {
    let limit = (!column.is_null(1)).then(|| column.total(1));
    match (value, limit, column.integer(3)) {
        (Cell::Text(text), Some(limit), _) => {
            let has = text.chars().count() as u64;
            (has > limit).then_some(Misfit::TooLong {
                limit: Some(limit),
                has: Some(has),
            })
        }
        (Cell::Int(number), None, Some(16)) if i16::try_from(number).is_err() => {
            Some(Misfit::OutOfRange)
        }
        (Cell::Int(number), None, Some(32)) if i32::try_from(number).is_err() => {
            Some(Misfit::OutOfRange)
        }
        _ => None,
    }
}

/// The characters of the parameter for a column: the one of its name, or the only text.
fn characters(column: &str, params: &SqlParams<'_>) -> Option<u64> {
    let texts = || {
        params.iter().filter_map(|(name, value)| match value {
            Cell::Text(text) => Some((*name, text.chars().count())),
            Cell::Bytes(bytes) => Some((*name, String::from_utf8_lossy(bytes).chars().count())),
            _ => None,
        })
    };
    let named = texts().find(|(name, _)| *name == column);
    let only = || texts().next().filter(|_| texts().count() == 1);
    let (_, count) = named.or_else(only)?;
    Some(count as u64)
}
