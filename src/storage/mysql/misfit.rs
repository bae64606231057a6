//! A statement that failed for a value: a lookup finds nothing, an edit is refused with the column's name.

use mysql_async::{Row, Value};

use super::cells::MysqlCells;
use super::fault::MysqlFault;
use super::link::{MysqlSession, within};
use crate::storage::StorageError;
use crate::storage::schema::{Call, mentions};
use crate::storage::values::{Misfit, RefusedValue};

/// The outcome of a named statement that failed: no rows for a lookup by characters that the column can't
/// hold, because no row has them; otherwise the error, which names the column if a value is the cause.
pub(super) async fn found_or_refused(
    session: &mut MysqlSession<'_>,
    fault: MysqlFault,
    call: &'static Call,
    params: &[(&str, Value)],
) -> Result<Vec<Row>, MysqlFault> {
    let Some(refused) = fault.refused() else {
        return Err(within(fault, call));
    };
    let is_look_up = !call.columns.is_empty();
    if is_look_up {
        let by_foreign_characters = params.iter().any(|(_, value)| !is_ascii(value));
        let is_charset = matches!(refused.why, Misfit::Characters { .. });
        return if is_charset && by_foreign_characters {
            Ok(Vec::new())
        } else {
            Err(within(fault, call))
        };
    }
    let refused = in_full(session, refused, call, params).await?;
    Err(StorageError::Invalid(refused.to_string()).into())
}

fn is_ascii(value: &Value) -> bool {
    !matches!(value, Value::Bytes(bytes) if !bytes.is_ascii())
}

/// Adds the width of the column and the length of the value.
async fn in_full(
    session: &mut MysqlSession<'_>,
    refused: RefusedValue,
    call: &'static Call,
    params: &[(&str, Value)],
) -> Result<RefusedValue, MysqlFault> {
    let Some(column) = refused.column.clone() else {
        return Ok(refused);
    };
    let sql = "SELECT table_name, character_maximum_length, character_set_name \
        FROM information_schema.columns WHERE table_schema = DATABASE() AND column_name = ?";
    let rows = session.exec(sql, vec![column.as_str().into()]).await?;
    let statements = session.statements_of(call);
    let is_it = |cells: &MysqlCells<'_>| match &refused.table {
        Some(table) => cells.text(0).eq_ignore_ascii_case(table),
        None => mentions(statements, &cells.text(0)),
    };
    let mut known = rows.iter().map(MysqlCells).filter(is_it);
    // Two tables of one statement may have a column of that name: the server did not say which.
    let (Some(cells), None) = (known.next(), known.next()) else {
        return Ok(refused);
    };
    let why = match refused.why {
        Misfit::TooLong { .. } => Misfit::TooLong {
            limit: (!cells.is_null(1)).then(|| cells.total(1)),
            has: characters(&column, params),
        },
        Misfit::Characters { .. } if !cells.is_null(2) => Misfit::Characters {
            charset: Some(cells.text(2)),
        },
        other => other,
    };
    Ok(RefusedValue {
        table: Some(cells.text(0)),
        column: Some(column),
        why,
    })
}

/// The characters of the parameter for a column: the one of its name, or the only text.
fn characters(column: &str, params: &[(&str, Value)]) -> Option<u64> {
    let texts = || {
        params.iter().filter_map(|(name, value)| match value {
            Value::Bytes(bytes) => Some((*name, bytes)),
            _ => None,
        })
    };
    let named = texts().find(|(name, _)| *name == column);
    let only = || texts().next().filter(|_| texts().count() == 1);
    let (_, bytes) = named.or_else(only)?;
    Some(String::from_utf8_lossy(bytes).chars().count() as u64)
}
