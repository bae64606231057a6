//! Rows of the server as rows of the engine.
//!
//! The result of a prepared statement has numbers as numbers, that of an SQL text has everything as text. Either
//! way a cell is read by the type of its column.

use mysql_async::consts::ColumnType;
use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{Column, Conn, Error, Params, QueryResult, Row, Value};

use crate::storage::sql::cells::{Cell, SqlRows};

/// The number of the character set `binary`.
pub(super) const BINARY: u16 = 63;
/// Maximum of bytes of a character that the server sends.
const UTF8MB4_BYTES: usize = 4;

/// Appends the rows of an SQL text to `rows`.
pub(super) async fn query(conn: &mut Conn, sql: &str, rows: &mut SqlRows) -> Result<(), Error> {
    read(conn.query_iter(sql).await?, rows).await?;
    rows.changed += conn.affected_rows();
    Ok(())
}

/// The rows of an SQL text with parameters, which is prepared once for each connection.
pub(super) async fn exec(conn: &mut Conn, sql: &str, params: Vec<Value>) -> Result<SqlRows, Error> {
    let params = if params.is_empty() {
        Params::Empty
    } else {
        Params::Positional(params)
    };
    let mut rows = SqlRows::default();
    read(conn.exec_iter(sql, params).await?, &mut rows).await?;
    rows.changed = conn.affected_rows();
    Ok(rows)
}

/// Appends the rows of the first result while they arrive.
async fn read<P: Protocol>(
    result: QueryResult<'_, 'static, P>,
    rows: &mut SqlRows,
) -> Result<(), Error> {
    if rows.width() == 0 {
        let changed = rows.changed;
        *rows = rows_of(result.columns_ref());
        rows.changed = changed;
    }
    result.for_each_and_drop(|row| push(rows, &row)).await
}

/// No rows yet, of these columns.
fn rows_of(columns: &[Column]) -> SqlRows {
    let mut rows = SqlRows::new(columns.len());
    rows.pads_with_zeros = true;
    if columns.iter().any(is_char) {
        rows.char_widths = columns.iter().map(char_width).collect();
    }
    rows
}

fn push(rows: &mut SqlRows, row: &Row) {
    for (place, column) in row.columns_ref().iter().enumerate() {
        push_value(rows, column, row.as_ref(place).unwrap_or(&Value::NULL));
    }
}

fn push_value(rows: &mut SqlRows, column: &Column, value: &Value) {
    match value {
        Value::Bytes(bytes) => rows.push_cell(cell_of_bytes(column, bytes)),
        Value::NULL => rows.push_cell(Cell::Null),
        Value::Int(number) => rows.push_cell(Cell::Int(*number)),
        Value::UInt(number) => rows.push_cell(Cell::Int(clamped(*number))),
        Value::Float(number) => rows.push_cell(Cell::Real((*number).into())),
        Value::Double(number) => rows.push_cell(Cell::Real(*number)),
        Value::Date(..) | Value::Time(..) => {
            let quoted = value.as_sql(true);
            rows.push_cell(Cell::Text(quoted.trim_matches('\'')));
        }
    }
}

/// The cell for bytes, which are a number as text, or a text, or bytes. A decimal number stays text, which is
/// exact.
fn cell_of_bytes<'a>(column: &Column, bytes: &'a [u8]) -> Cell<'a> {
    let text = || std::str::from_utf8(bytes).ok();
    let number = match column.column_type() {
        ColumnType::MYSQL_TYPE_TINY
        | ColumnType::MYSQL_TYPE_SHORT
        | ColumnType::MYSQL_TYPE_INT24
        | ColumnType::MYSQL_TYPE_LONG
        | ColumnType::MYSQL_TYPE_LONGLONG
        | ColumnType::MYSQL_TYPE_YEAR => text().and_then(integer).map(Cell::Int),
        ColumnType::MYSQL_TYPE_FLOAT | ColumnType::MYSQL_TYPE_DOUBLE => {
            text().and_then(|text| text.parse().ok()).map(Cell::Real)
        }
        ColumnType::MYSQL_TYPE_BIT => Some(Cell::Int(clamped(bits(bytes)))),
        ColumnType::MYSQL_TYPE_DECIMAL
        | ColumnType::MYSQL_TYPE_NEWDECIMAL
        | ColumnType::MYSQL_TYPE_DATE
        | ColumnType::MYSQL_TYPE_DATETIME
        | ColumnType::MYSQL_TYPE_TIMESTAMP
        | ColumnType::MYSQL_TYPE_TIME => None,
        _ if column.character_set() == BINARY => return Cell::Bytes(bytes),
        _ => None,
    };
    number.unwrap_or(Cell::of_text(bytes))
}

fn integer(text: &str) -> Option<i64> {
    let large = || text.parse().ok().map(clamped);
    text.parse().ok().or_else(large)
}

/// The number in a column of the type `BIT`, which has at most 64.
fn bits(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn is_char(column: &Column) -> bool {
    column.column_type() == ColumnType::MYSQL_TYPE_STRING
}

/// The characters of a column of the type `CHAR`.
fn char_width(column: &Column) -> Option<usize> {
    is_char(column).then_some(column.column_length() as usize / UTF8MB4_BYTES)
}

/// A value as a parameter.
pub(super) fn param(cell: &Cell<'_>) -> Value {
    match cell {
        Cell::Null => Value::NULL,
        Cell::Int(number) => Value::Int(*number),
        Cell::Real(number) => Value::Double(*number),
        Cell::Text(text) | Cell::Expression(text) => Value::Bytes(text.as_bytes().to_vec()),
        Cell::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::consts::ColumnType as Type;

    use super::*;

    const UTF8: u16 = 45;

    /// A row of the only cell, in a column of that type.
    fn row_of(kind: Type, charset: u16, value: &Value) -> SqlRows {
        let column = Column::new(kind)
            .with_character_set(charset)
            .with_column_length(80);
        let mut rows = rows_of(std::slice::from_ref(&column));
        push_value(&mut rows, &column, value);
        rows
    }

    #[test]
    fn a_cell_is_read_by_the_type_of_its_column() {
        let of_bytes = |kind, charset, bytes: &[u8]| {
            let rows = row_of(kind, charset, &Value::Bytes(bytes.to_vec()));
            let row = rows.first().unwrap();
            (row.key(0), row.number(0), row.shown(0))
        };
        for (kind, text, key, number) in [
            (Type::MYSQL_TYPE_LONG, "-7", Some(-7), -7.0),
            (Type::MYSQL_TYPE_BIT, "\u{1}", Some(1), 1.0),
            (Type::MYSQL_TYPE_DOUBLE, "2.5", None, 2.5),
            (Type::MYSQL_TYPE_NEWDECIMAL, "2.50", None, 2.5),
            (Type::MYSQL_TYPE_NEWDECIMAL, "12", Some(12), 12.0),
        ] {
            let found = of_bytes(kind, BINARY, text.as_bytes());
            assert_eq!((found.0, found.1), (key, Some(number)), "{kind:?}");
        }
        let large = of_bytes(Type::MYSQL_TYPE_LONGLONG, BINARY, b"18446744073709551615");
        assert_eq!(large.0, Some(i64::MAX));
        let large = row_of(Type::MYSQL_TYPE_LONGLONG, BINARY, &Value::UInt(u64::MAX));
        assert_eq!(large.first().unwrap().key(0), Some(i64::MAX));
    }

    #[test]
    fn text_and_bytes_differ_by_the_character_set() {
        let value = Value::Bytes(b"12".to_vec());
        let bytes = row_of(Type::MYSQL_TYPE_STRING, BINARY, &value);
        assert_eq!(bytes.first().unwrap().cell(0), Cell::Bytes(b"12"));
        let text = row_of(Type::MYSQL_TYPE_STRING, UTF8, &value);
        assert_eq!(text.first().unwrap().cell(0), Cell::Text("12"));
        assert_eq!(text.char_widths, [Some(20)]);
        let date = Value::Date(2026, 2, 3, 4, 5, 6, 0);
        let date = row_of(Type::MYSQL_TYPE_DATETIME, BINARY, &date);
        let row = date.first().unwrap();
        assert_eq!(row.text(0), "2026-02-03 04:05:06");
        assert!(row.site_flag(0, "enabled").is_err());
    }
}
