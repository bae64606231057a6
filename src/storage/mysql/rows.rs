//! Rows in the text of a statement: numbers, and bytes in hex, so nothing has to be quoted.
//!
//! One statement holds many of them. A joined table of literals was measured to be as fast as JSON or
//! VALUES, and works on every server.

use std::fmt::Write as _;
use std::ops::Range;

use data_encoding::HEXLOWER;

use crate::storage::sql::cells::{Cell, SqlRow, SqlRows};
use crate::storage::sql::statements::{Piece, Statement};

/// Rows of one joined table; more nest the server's parser too deeply.
const TABLE_ROWS_MAX: usize = 250;
/// Rows of one INSERT.
const INSERT_ROWS_MAX: usize = 1000;
/// Bytes of rows in one statement, well below any `max_allowed_packet`.
const BYTES_MAX: usize = 256 * 1024;
/// Bytes of a number, and of what is between two rows.
const NUMBER_BYTES: usize = 20;
const BETWEEN_ROWS: usize = " UNION ALL SELECT ".len();

/// The texts of a statement that is run for many rows.
pub(super) struct TextsForRows<'a> {
    statement: &'a Statement,
    columns: &'a str,
    rows: &'a SqlRows,
    /// The first row of the next text.
    next: usize,
}

impl<'a> TextsForRows<'a> {
    /// The texts for `rows`, which have these columns (names with blanks between them).
    pub(super) fn new(statement: &'a Statement, columns: &'a str, rows: &'a SqlRows) -> Self {
        Self {
            statement,
            columns,
            rows,
            next: 0,
        }
    }

    /// The next rows that fit into one statement, and how many bytes they may have; none at the end.
    fn part(&self) -> Option<(Range<usize>, usize)> {
        let is_table = self.statement.pieces.contains(&Piece::Rows);
        let most = if is_table {
            TABLE_ROWS_MAX
        } else {
            INSERT_ROWS_MAX
        };
        let mut bytes = 0;
        let mut end = self.next;
        while let Some(row) = self.rows.row(end).filter(|_| end < self.next + most) {
            let more = size(row);
            if bytes + more > BYTES_MAX && end > self.next {
                break;
            }
            bytes += more;
            end += 1;
        }
        (end > self.next).then_some((self.next..end, bytes))
    }

    /// A table in parentheses, which can be joined under a name. Its first row names the columns.
    fn write_table(&self, part: Range<usize>, sql: &mut String) {
        for number in part.clone() {
            let is_first = number == part.start;
            sql.push_str(if is_first {
                "(SELECT "
            } else {
                " UNION ALL SELECT "
            });
            let names = self.columns.split(' ');
            for (column, name) in names.enumerate() {
                sql.push_str(if column > 0 { "," } else { "" });
                self.write_cell(number, column, sql);
                if is_first {
                    sql.push_str(" AS ");
                    sql.push_str(name);
                }
            }
        }
        sql.push(')');
    }

    /// A list for `INSERT … VALUES`.
    fn write_list(&self, part: Range<usize>, sql: &mut String) {
        for number in part.clone() {
            sql.push_str(if number > part.start { "),(" } else { "(" });
            for column in 0..self.rows.width() {
                sql.push_str(if column > 0 { "," } else { "" });
                self.write_cell(number, column, sql);
            }
        }
        sql.push(')');
    }

    fn write_cell(&self, row: usize, column: usize, sql: &mut String) {
        let cell = self
            .rows
            .row(row)
            .map_or(Cell::Null, |row| row.cell(column));
        write(cell, sql);
    }
}

impl Iterator for TextsForRows<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let (part, bytes) = self.part()?;
        self.next = part.end;
        let mut sql = String::with_capacity(bytes);
        for piece in &self.statement.pieces {
            match piece {
                Piece::Text(text) => sql.push_str(text),
                Piece::Param(_) => sql.push('?'),
                Piece::Rows => self.write_table(part.clone(), &mut sql),
                Piece::Values => self.write_list(part.clone(), &mut sql),
            }
        }
        Some(sql)
    }
}

/// How many bytes a row has in a statement, at most.
fn size(row: SqlRow<'_>) -> usize {
    let in_hex = |bytes: &[u8]| "X''".len() + 2 * bytes.len();
    let size = |column| match row.cell(column) {
        Cell::Null | Cell::Int(_) | Cell::Real(_) => NUMBER_BYTES,
        Cell::Text(text) => in_hex(text.as_bytes()),
        Cell::Bytes(bytes) => in_hex(bytes),
        Cell::Expression(sql) => sql.len(),
    };
    (0..row.width()).map(size).sum::<usize>() + row.width() + BETWEEN_ROWS
}

fn write(cell: Cell<'_>, sql: &mut String) {
    match cell {
        Cell::Int(number) => sql.push_str(itoa::Buffer::new().format(number)),
        Cell::Text(text) => write_bytes(text.as_bytes(), sql),
        Cell::Bytes(bytes) => write_bytes(bytes, sql),
        Cell::Expression(expression) => sql.push_str(expression),
        Cell::Real(number) if number.is_finite() => {
            let _ = write!(sql, "{number:e}");
        }
        Cell::Null | Cell::Real(_) => sql.push_str("NULL"),
    }
}

fn write_bytes(bytes: &[u8], sql: &mut String) {
    sql.push_str("X'");
    HEXLOWER.encode_append(bytes, sql);
    sql.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sql::calls;
    use crate::storage::sql::place::StatementPlace;
    use crate::storage::sql::statements::split;

    fn texts(sql: &str, rows: &SqlRows) -> Vec<String> {
        let mut statements = split(sql);
        let statement = Statement {
            call: &calls::CREDIT_SNATCHES,
            place: StatementPlace::new(calls::CREDIT_SNATCHES.name, None),
            pieces: statements.remove(0),
        };
        TextsForRows::new(&statement, "id up", rows).collect()
    }

    #[test]
    fn rows_become_tables_and_lists() {
        let mut rows = SqlRows::of([[1, -2]].into_iter());
        rows.push(&[Cell::Null, Cell::Bytes(b"\x00z'")]);
        rows.push(&[Cell::Text("a'"), Cell::Expression("f(2)")]);
        assert_eq!(
            texts("SELECT id FROM {rows} AS x", &rows),
            [
                "SELECT id FROM (SELECT 1 AS id,-2 AS up UNION ALL SELECT NULL,X'007a27' \
                 UNION ALL SELECT X'6127',f(2)) AS x"
            ]
        );
        assert_eq!(
            texts("INSERT INTO x VALUES {values}", &rows),
            ["INSERT INTO x VALUES (1,-2),(NULL,X'007a27'),(X'6127',f(2))"]
        );
        assert!(texts("SELECT {rows}", &SqlRows::new(2)).is_empty());
    }

    #[test]
    fn statements_are_bounded() {
        let rows = SqlRows::of((0..1001).map(|id| [id, 0]));
        assert_eq!(texts("SELECT {rows}", &rows).len(), 5);
        assert_eq!(texts("VALUES {values}", &rows).len(), 2);
        assert_eq!(texts("VALUES {values} {rows}", &rows).len(), 5);
        let mut long = SqlRows::new(2);
        for _ in 0..4 {
            long.push(&[Cell::Bytes(&vec![0; BYTES_MAX / 4]), Cell::Null]);
        }
        assert_eq!(texts("VALUES {values}", &long).len(), 4);
    }
}
