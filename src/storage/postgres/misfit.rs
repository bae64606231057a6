//! A statement that failed for a value: a lookup finds nothing, an edit is refused with the column's name.

use super::fault::PostgresFault;
use super::session::PostgresSession;
use crate::storage::StorageError;
use crate::storage::sql::cells::{Cell, SqlRow, SqlRows};
use crate::storage::sql::statements::{Statement, Statements, mentions};
use crate::storage::values::{Misfit, RefusedValue};

/// The error for a parameter that its type can't hold.
pub(super) fn of_parameter(name: &str, why: Misfit) -> StorageError {
    let refused = RefusedValue {
        table: None,
        column: Some(name.to_owned()),
        why,
    };
    StorageError::Invalid(refused.to_string())
}

/// The outcome of a named statement that failed: no rows for a lookup by characters that the database can't
/// hold, because no row has them; otherwise the error, which names the column if a value is the cause.
pub(super) async fn found_or_refused(
    session: &mut PostgresSession<'_>,
    fault: PostgresFault,
    statement: &Statement,
    params: &[(&'static str, Cell<'_>)],
) -> Result<SqlRows, PostgresFault> {
    let call = statement.call;
    let refused = match with_default(fault, statement, session.statements) {
        fault if call.own => return Err(fault),
        fault => match fault.refused() {
            Some(refused) => (refused, fault),
            None => return Err(fault),
        },
    };
    let (refused, fault) = refused;
    if call.columns.is_empty() {
        session.recover().await?;
        let refused = in_full(session, refused, statement, params).await?;
        return Err(StorageError::Invalid(refused.to_string()).into());
    }
    let is_foreign = |(_, value): &(_, Cell<'_>)| match value {
        Cell::Text(text) => !text.is_ascii(),
        _ => false,
    };
    let is_charset = matches!(refused.why, Misfit::Characters { .. });
    if is_charset && params.iter().any(is_foreign) && !session.is_in_transaction() {
        return Ok(SqlRows::default());
    }
    Err(fault)
}

/// The fault of a named statement. A column that it does not set needs a default.
pub(super) fn with_default(
    fault: PostgresFault,
    statement: &Statement,
    all: &Statements,
) -> PostgresFault {
    if let Some(RefusedValue {
        table: Some(table),
        column: Some(column),
        why: Misfit::Missing,
    }) = fault.refused()
        && !mentions(std::slice::from_ref(statement), &column)
    {
        let statement = all.place(statement.call);
        return PostgresFault::NoDefault {
            table,
            column,
            statement,
        };
    }
    fault.within(statement.call, all)
}

/// Adds the column, its width and the length of the value, which the server does not say: the one that has the name
/// of a parameter and can't hold its value.
async fn in_full(
    session: &mut PostgresSession<'_>,
    refused: RefusedValue,
    statement: &Statement,
    params: &[(&'static str, Cell<'_>)],
) -> Result<RefusedValue, PostgresFault> {
    if !matches!(refused.why, Misfit::TooLong { .. } | Misfit::OutOfRange) {
        return Ok(refused);
    }
    let sql = "SELECT c.relname, a.attname, a.atttypmod - 4, t.typlen \
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 \
        JOIN pg_type AS t ON t.oid = a.atttypid \
        WHERE pg_table_is_visible(c.oid) AND c.relkind IN ('r', 'p', 'v') AND a.attname = $1";
    for (name, value) in params {
        let rows = session.query(sql, &[Cell::Text(name)]).await?;
        let is_here = |row: &SqlRow<'_>| mentions(std::slice::from_ref(statement), &row.text(0));
        for row in rows.iter().filter(is_here) {
            if let Some(why) = misfit(&row, *value) {
                return Ok(RefusedValue {
                    table: Some(row.text(0)),
                    column: Some(row.text(1)),
                    why,
                });
            }
        }
    }
    Ok(refused)
}

/// Why a column of that width in characters, or of that many bytes, can't hold the value.
fn misfit(column: &SqlRow<'_>, value: Cell<'_>) -> Option<Misfit> {
    let limit = column.integer(2).filter(|width| *width > 0);
    match (value, limit, column.integer(3)) {
        (Cell::Text(text), Some(limit), _) => {
            let (limit, has) = (limit.cast_unsigned(), text.chars().count() as u64);
            (has > limit).then_some(Misfit::TooLong {
                limit: Some(limit),
                has: Some(has),
            })
        }
        (Cell::Int(number), None, Some(2)) if i16::try_from(number).is_err() => {
            Some(Misfit::OutOfRange)
        }
        (Cell::Int(number), None, Some(4)) if i32::try_from(number).is_err() => {
            Some(Misfit::OutOfRange)
        }
        _ => None,
    }
}
