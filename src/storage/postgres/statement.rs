//! The text of a named statement with this server's parameters, and how many rows one takes.

use std::fmt::Write as _;
use std::ops::Range;

use super::fault::{PostgresFault, PostgresResult};
use super::values::ColumnKind;
use crate::storage::sql::cells::{Cell, SqlRows};
use crate::storage::sql::statements::{Piece, Statement};

/// Rows of one statement.
const ROWS_MAX: usize = 10_000;
/// Bytes of rows of one statement.
const BYTES_MAX: usize = 4 << 20;
/// Bytes of a number in a row.
const NUMBER_BYTES: usize = 12;

/// The text of a statement with $1, $2 and so on for its parameters, and their names in that order.
pub(super) fn with_params<'s>(statement: &'s Statement, tail: &str) -> (String, Vec<&'s str>) {
    let mut sql = String::new();
    let mut names: Vec<&str> = Vec::new();
    for piece in &statement.pieces {
        match piece {
            Piece::Text(text) => sql.push_str(text),
            Piece::Rows | Piece::Values => {}
            Piece::Param(name) => {
                let known = names.iter().position(|known| known == name);
                let place = known.unwrap_or_else(|| {
                    names.push(name);
                    names.len() - 1
                });
                let _ = write!(sql, "${}", place + 1);
            }
        }
    }
    sql.push_str(tail);
    (sql, names)
}

/// The text of a statement for rows, which has an array for each column.
pub(super) fn with_rows(
    statement: &Statement,
    columns: &str,
    hashes_are_text: bool,
) -> PostgresResult<String> {
    let arrays: Vec<String> = columns
        .split_whitespace()
        .enumerate()
        .map(|(at, name)| {
            let kind = ColumnKind::of(name, hashes_are_text);
            format!("${}::{}", at + 1, kind.array())
        })
        .collect();
    let table = format!(
        "(SELECT * FROM UNNEST({}) AS given ({}))",
        arrays.join(", "),
        columns.replace(' ', ", ")
    );
    let mut sql = String::new();
    for piece in &statement.pieces {
        match piece {
            Piece::Text(text) => sql.push_str(text),
            Piece::Rows => sql.push_str(&table),
            Piece::Param(_) => sql.push_str("NULL"),
            Piece::Values => {
                return Err(PostgresFault::broken(format!(
                    "the statement {}: write INSERT … SELECT … FROM {{rows}} in place of VALUES {{values}}",
                    statement.call.name
                )));
            }
        }
    }
    Ok(sql)
}

/// The rows from `start` on that one statement takes.
pub(super) fn part(rows: &SqlRows, start: usize) -> Range<usize> {
    let mut bytes = 0;
    let fits = |number: &usize| {
        let cells = rows.row(*number).into_iter();
        bytes += cells
            .flat_map(|row| (0..row.width()).map(move |column| row.cell(column)))
            .map(|cell| match cell {
                Cell::Text(text) | Cell::Expression(text) => text.len(),
                Cell::Bytes(bytes) => bytes.len(),
                Cell::Null | Cell::Int(_) | Cell::Real(_) => NUMBER_BYTES,
            })
            .sum::<usize>();
        bytes <= BYTES_MAX
    };
    let count = (start..rows.len()).take(ROWS_MAX).take_while(fits).count();
    start..(start + count.max(1)).min(rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sql::calls::{Call, TORRENTS_OF_HASHES, USERS};
    use crate::storage::sql::place::StatementPlace;
    use crate::storage::sql::statements::split;

    fn statement(call: &'static Call, sql: &str) -> Statement {
        let pieces = split(sql).remove(0);
        Statement {
            call,
            place: StatementPlace::new(call.name, None),
            pieces,
        }
    }

    #[test]
    fn a_parameter_has_one_number_wherever_it_stands() {
        let statement = statement(&USERS, "SELECT :after::int, :limit WHERE a > :after");
        let (sql, names) = with_params(&statement, " LIMIT 3");
        assert_eq!(sql, "SELECT $1::int, $2 WHERE a > $1 LIMIT 3");
        assert_eq!(names, ["after", "limit"]);
    }

    #[test]
    fn rows_are_an_array_for_each_column() {
        let of_hashes = statement(&TORRENTS_OF_HASHES, "SELECT FROM {rows} AS wanted");
        let sql = |is_text| with_rows(&of_hashes, "id info_hash", is_text).unwrap();
        assert_eq!(
            sql(false),
            "SELECT FROM (SELECT * FROM UNNEST($1::bigint[], $2::bytea[]) AS given (id, info_hash)) AS wanted"
        );
        assert!(sql(true).contains("$2::text[]"));
        let values = statement(&TORRENTS_OF_HASHES, "INSERT INTO a VALUES {values}");
        assert!(with_rows(&values, "id", false).is_err());
    }

    #[test]
    fn statements_are_bounded() {
        let rows = SqlRows::of((0..10_001).map(|id| [id]));
        assert_eq!(
            (part(&rows, 0), part(&rows, 10_000)),
            (0..10_000, 10_000..10_001)
        );
        let mut long = SqlRows::new(1);
        for _ in 0..4 {
            long.push(&[Cell::Bytes(&vec![0; BYTES_MAX / 2])]);
        }
        assert_eq!(part(&long, 1), 1..3);
    }
}
