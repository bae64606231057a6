//! A named statement as SQLite runs it, and values on their way in and out.

use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::fault::SqliteFault;
use crate::storage::sql::cells::{Cell, SqlRows, TEXT_HASH};
use crate::storage::sql::statements::{Piece, Statement};
use crate::storage::values::is_blank_hash;

/// Rows that a statement with `{rows}` gets at once: starting and ending a statement takes longer than
/// finding a row.
const READ_AT_ONCE: usize = 64;

/// The text of a statement for rows of certain columns. The cell of row `r` and column `c` is the parameter
/// with the number `r * columns + c + 1`.
pub(super) struct SqliteStatement {
    pub(super) sql: String,
    /// Rows that one run is for.
    at_once: usize,
    /// Whether each column of the result is an info hash.
    hashes: Vec<bool>,
}

impl SqliteStatement {
    /// `columns` names the cells of a row: parameters with other names are NULL. `tail` is appended.
    pub(super) fn new(statement: &Statement, columns: &[&str], tail: &str) -> Self {
        let has = |wanted: fn(&Piece) -> bool| statement.pieces.iter().any(wanted);
        let is_for_one = has(|piece| matches!(piece, Piece::Param(_) | Piece::Values));
        let at_once = if has(|piece| *piece == Piece::Rows) && !is_for_one {
            READ_AT_ONCE
        } else {
            1
        };
        let mut sql = String::new();
        for piece in &statement.pieces {
            match piece {
                Piece::Text(text) => sql.push_str(text),
                Piece::Param(name) => match columns.iter().position(|column| column == name) {
                    Some(place) => sql.push_str(&parameter(place)),
                    None => sql.push_str("NULL"),
                },
                Piece::Rows => sql.push_str(&table(columns, at_once)),
                Piece::Values => sql.push_str(&values(columns.len(), at_once)),
            }
        }
        sql.push_str(tail);
        let results = statement.call.columns.split_whitespace();
        Self {
            sql,
            at_once,
            hashes: results.map(|name| name.starts_with("info_hash")).collect(),
        }
    }

    /// Runs it for all of the rows, and at least once. Returns the results of all runs.
    pub(super) fn run(
        &self,
        connection: &Connection,
        rows: &SqlRows,
    ) -> Result<SqlRows, SqliteFault> {
        let mut statement = connection.prepare_cached(&self.sql)?;
        let (parameters, changes) = (statement.parameter_count(), !statement.readonly());
        let width = statement.column_count();
        let mut found = SqlRows::with_capacity(width, rows.len());
        let mut wanted = rows.iter();
        for _ in 0..rows.len().div_ceil(self.at_once).max(1) {
            if wanted.len() < self.at_once {
                // The parameters of rows that the last run does not have are NULL.
                statement.clear_bindings();
            }
            let mut bound = 0;
            for row in wanted.by_ref().take(self.at_once) {
                for cell in row.cells().take(parameters - bound) {
                    bound += 1;
                    statement.raw_bind_parameter(bound, value(cell))?;
                }
            }
            let mut results = statement.raw_query();
            while let Some(result) = results.next()? {
                for column in 0..width {
                    let is_hash = self.hashes.get(column).copied().unwrap_or_default();
                    found.push_cell(cell(result.get_ref(column)?, is_hash));
                }
            }
            drop(results);
            if changes {
                found.changed += connection.changes();
            }
        }
        Ok(found)
    }
}

fn parameter(place: usize) -> String {
    format!("?{}", place + 1)
}

/// Rows of parameters, such as `(?1, ?2), (?3, ?4)`.
fn values(width: usize, rows: usize) -> String {
    let row = |row: usize| {
        let cells: Vec<String> = (row * width..(row + 1) * width).map(parameter).collect();
        format!("({})", cells.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    rows.join(", ")
}

/// The same as a table. The last run has fewer rows; the first column of a row is never NULL.
fn table(columns: &[&str], rows: usize) -> String {
    let names = columns.iter().enumerate();
    let names: Vec<String> = names
        .map(|(place, name)| format!("column{} AS {name}", place + 1))
        .collect();
    format!(
        "(SELECT {} FROM (VALUES {}) WHERE column1 IS NOT NULL)",
        names.join(", "),
        values(columns.len(), rows)
    )
}

/// A value for SQLite. Its info hashes are bytes, so none is an expression.
fn value(cell: Cell<'_>) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match cell {
        Cell::Null => ValueRef::Null,
        Cell::Int(number) => ValueRef::Integer(number),
        Cell::Real(number) => ValueRef::Real(number),
        Cell::Text(text) | Cell::Expression(text) => ValueRef::Text(text.as_bytes()),
        Cell::Bytes(bytes) => ValueRef::Blob(bytes),
    })
}

/// A value of SQLite, which lets a site write any type anywhere.
fn cell(value: ValueRef<'_>, is_hash: bool) -> Cell<'_> {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Int(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(text) if is_hash && !is_blank_hash(text) => TEXT_HASH,
        ValueRef::Text(text) => Cell::of_text(text),
        ValueRef::Blob(bytes) => Cell::Bytes(bytes),
    }
}
