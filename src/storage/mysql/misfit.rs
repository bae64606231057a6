//! A statement that failed for a value: a lookup finds nothing, an edit is refused with the column's name.

use super::fault::MysqlFault;
use super::session::MysqlSession;
use crate::storage::StorageError;
use crate::storage::sql::calls::Call;
use crate::storage::sql::cells::{Cell, SqlRow, SqlRows};
use crate::storage::sql::statements::mentions;
use crate::storage::values::{Misfit, RefusedValue};

/// The outcome of a schema's statement that failed: no rows for a lookup by characters that the column can't
/// hold, because no row has them; otherwise the error, which names the column if a value is the cause.
pub(super) async fn found_or_refused(
    session: &mut MysqlSession<'_>,
    fault: MysqlFault,
    call: &'static Call,
    params: &[(&'static str, Cell<'_>)],
) -> Result<SqlRows, MysqlFault> {
    let Some(refused) = fault.refused() else {
        return Err(fault.within(call, session.statements));
    };
    let is_look_up = !call.columns.is_empty();
    if is_look_up {
        let by_foreign_characters = params.iter().any(|(_, value)| !is_ascii(*value));
        let is_charset = matches!(refused.why, Misfit::Characters { .. });
        return if is_charset && by_foreign_characters {
            Ok(SqlRows::default())
        } else {
            Err(fault.within(call, session.statements))
        };
    }
    let refused = in_full(session, refused, call, params).await?;
    Err(StorageError::Invalid(refused.to_string()).into())
}

fn is_ascii(value: Cell<'_>) -> bool {
    match value {
        Cell::Text(text) => text.is_ascii(),
        Cell::Bytes(bytes) => bytes.is_ascii(),
        _ => true,
    }
}

/// Adds the width of the column and the length of the value.
async fn in_full(
    session: &mut MysqlSession<'_>,
    refused: RefusedValue,
    call: &'static Call,
    params: &[(&'static str, Cell<'_>)],
) -> Result<RefusedValue, MysqlFault> {
    let Some(column) = refused.column.clone() else {
        return Ok(refused);
    };
    let sql = "SELECT table_name, character_maximum_length, character_set_name \
        FROM information_schema.columns WHERE table_schema = DATABASE() AND column_name = ?";
    let rows = session.exec(sql, &[column.as_str().into()]).await?;
    let statements = session.statements_of(call);
    let is_it = |row: &SqlRow<'_>| match &refused.table {
        Some(table) => row.text(0).eq_ignore_ascii_case(table),
        None => mentions(statements, &row.text(0)),
    };
    let mut known = rows.iter().filter(is_it);
    // Two tables of one statement may have a column of that name: the server did not say which.
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
    Ok(RefusedValue {
        table: Some(row.text(0)),
        column: Some(column),
        why,
    })
}

/// The characters of the parameter for a column: the one of its name, or the only text.
fn characters(column: &str, params: &[(&'static str, Cell<'_>)]) -> Option<u64> {
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
