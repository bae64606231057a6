//! Rows as SQL text: numbers, and bytes in hexadecimal digits, so nothing has to be quoted.
//!
//! One statement holds many of them. Measured, a joined table of literals is as fast as one of
//! JSON or of VALUES, and every server understands it.

use std::fmt::{self, Write as _};

/// Rows of one joined table; more make the server's parser deep.
const TABLE_ROWS_MAX: usize = 250;
/// Rows of one INSERT.
const INSERT_ROWS_MAX: usize = 1000;
/// Bytes of rows in one statement, well below any `max_allowed_packet`.
const BYTES_MAX: usize = 256 * 1024;

/// A value in SQL text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    Null,
    Number(i64),
    Bytes(&'a [u8]),
    /// An expression, without a comma.
    Sql(&'a str),
}

/// Rows of one shape, each written out.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<String>,
}

// === impl Rows ===

impl Rows {
    pub(super) fn of<const N: usize>(rows: impl Iterator<Item = [i64; N]>) -> Self {
        let mut written = Self::default();
        for row in rows {
            written.push(&row.map(Cell::Number));
        }
        written
    }

    pub(super) fn push(&mut self, cells: &[Cell<'_>]) {
        let mut row = String::with_capacity(12 * cells.len());
        for (column, cell) in cells.iter().enumerate() {
            if column > 0 {
                row.push(',');
            }
            // Writing to a string can't fail.
            let _ = write!(row, "{cell}");
        }
        self.rows.push(row);
    }

    /// Tables with these columns, in parentheses, that can be joined under a name.
    pub(super) fn tables(&self, columns: &str) -> impl Iterator<Item = String> {
        self.parts(TABLE_ROWS_MAX).map(move |rows| {
            let mut table = String::from("(SELECT ");
            for (number, row) in rows.iter().enumerate() {
                if number > 0 {
                    table.push_str(" UNION ALL SELECT ");
                    table.push_str(row);
                    continue;
                }
                // The first row names the columns.
                for (column, (cell, name)) in row.split(',').zip(columns.split(' ')).enumerate() {
                    table.push_str(if column > 0 { ", " } else { "" });
                    let _ = write!(table, "{cell} AS {name}");
                }
            }
            table.push(')');
            table
        })
    }

    /// Adds a row as SQL, with commas between its cells.
    pub(super) fn push_written(&mut self, row: String) {
        self.rows.push(row);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows of one table each, as [`Rows::tables`] has them.
    pub(super) fn portions(&self) -> impl Iterator<Item = Self> {
        self.parts(TABLE_ROWS_MAX).map(|rows| Self {
            rows: rows.to_vec(),
        })
    }

    /// The first half of them, and the rest.
    pub(super) fn halves(&self) -> [Self; 2] {
        let (first, second) = self.rows.split_at(self.rows.len() / 2);
        [first, second].map(|rows| Self {
            rows: rows.to_vec(),
        })
    }

    /// The first row as it is written.
    pub(super) fn first(&self) -> &str {
        self.rows.first().map_or("", String::as_str)
    }

    /// Lists for `INSERT … VALUES`.
    pub(super) fn values(&self) -> impl Iterator<Item = String> {
        self.parts(INSERT_ROWS_MAX)
            .map(|rows| format!("({})", rows.join("),(")))
    }

    fn parts(&self, rows_max: usize) -> impl Iterator<Item = &[String]> {
        let mut rest = &self.rows[..];
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fits = |row: &&String| {
                bytes += row.len() + " UNION ALL SELECT ".len();
                bytes <= BYTES_MAX
            };
            let count = rest.iter().take(rows_max).take_while(fits).count();
            let (part, others) = rest.split_at(count.max(1).min(rest.len()));
            rest = others;
            (!part.is_empty()).then_some(part)
        })
    }
}

// === impl Cell ===

impl<'a> Cell<'a> {
    pub(super) fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, |text| Self::Bytes(text.as_bytes()))
    }

    pub(super) fn maybe(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Sql(sql) => f.write_str(sql),
            Self::Bytes(bytes) => {
                f.write_str("X'")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("'")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_tables_and_lists() {
        let mut rows = Rows::of([[1, -2]].into_iter());
        rows.push(&[Cell::Null, Cell::Bytes(b"\x00z'")]);
        let tables: Vec<_> = rows.tables("id up").collect();
        assert_eq!(
            tables,
            ["(SELECT 1 AS id, -2 AS up UNION ALL SELECT NULL,X'007a27')"]
        );
        let lists: Vec<_> = rows.values().collect();
        assert_eq!(lists, ["(1,-2),(NULL,X'007a27')"]);
        assert_eq!(Rows::default().tables("id").count(), 0);
    }

    #[test]
    fn statements_are_bounded() {
        let rows = Rows::of((0..1001).map(|id| [id]));
        assert_eq!(rows.tables("id").count(), 5);
        assert_eq!(rows.values().count(), 2);
        let mut long = Rows::default();
        for _ in 0..4 {
            long.push(&[Cell::Bytes(&vec![0; BYTES_MAX / 4])]);
        }
        assert_eq!(long.values().count(), 4);
    }
}
