//! Rows as SQL text: numbers, and bytes in hex, so nothing has to be quoted.
//!
//! One statement holds many of them. A joined table of literals was measured to be as fast as JSON or
//! VALUES, and works on every server.

use std::fmt::Write as _;
use std::ops::Range;

use data_encoding::HEXLOWER;

/// Rows of one joined table; more nest the server's parser too deeply.
pub(super) const TABLE_ROWS_MAX: usize = 250;
/// Rows of one INSERT.
pub(super) const INSERT_ROWS_MAX: usize = 1000;
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

/// Rows of one shape as SQL text.
#[derive(Debug, Default)]
pub(super) struct RowsSql {
    text: String,
    /// Where in the text each row ends.
    ends: Vec<usize>,
}

// === impl RowsSql ===

impl RowsSql {
    pub(super) fn of<const N: usize>(rows: impl Iterator<Item = [i64; N]>) -> Self {
        let mut written = Self::default();
        for row in rows {
            written.push(&row.map(Cell::Number));
        }
        written
    }

    pub(super) fn push(&mut self, cells: &[Cell<'_>]) {
        for (column, cell) in cells.iter().enumerate() {
            if column > 0 {
                self.text.push(',');
            }
            cell.write(&mut self.text);
        }
        self.ends.push(self.text.len());
    }

    /// Tables with these columns, in parentheses, that can be joined under a name.
    pub(super) fn tables(&self, columns: &str) -> impl Iterator<Item = String> {
        self.parts(TABLE_ROWS_MAX).map(move |rows| {
            let mut table = String::from("(SELECT ");
            for number in rows.clone() {
                let row = self.row(number);
                if number > rows.start {
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
    pub(super) fn push_written(&mut self, row: &str) {
        self.text.push_str(row);
        self.ends.push(self.text.len());
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The rows of one table each, as [`RowsSql::tables`] has them.
    pub(super) fn portions(&self) -> impl Iterator<Item = Self> {
        self.parts(TABLE_ROWS_MAX).map(|rows| self.some(rows))
    }

    /// Splits them in two halves.
    pub(super) fn halves(&self) -> [Self; 2] {
        let half = self.len() / 2;
        [0..half, half..self.len()].map(|rows| self.some(rows))
    }

    /// The first row as it is written.
    pub(super) fn first(&self) -> &str {
        if self.ends.is_empty() {
            ""
        } else {
            self.row(0)
        }
    }

    /// Lists for `INSERT … VALUES`.
    pub(super) fn values(&self) -> impl Iterator<Item = String> {
        self.parts(INSERT_ROWS_MAX).map(|rows| {
            let bytes = self.end(rows.end) - self.end(rows.start);
            let mut list = String::with_capacity(bytes + "),(".len() * rows.len());
            for number in rows.clone() {
                list.push_str(if number > rows.start { "),(" } else { "(" });
                list.push_str(self.row(number));
            }
            list.push(')');
            list
        })
    }

    /// Where the first `count` rows end.
    fn end(&self, count: usize) -> usize {
        count.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    fn row(&self, number: usize) -> &str {
        &self.text[self.end(number)..self.end(number + 1)]
    }

    fn some(&self, rows: Range<usize>) -> Self {
        let mut some = Self::default();
        for number in rows {
            some.push_written(self.row(number));
        }
        some
    }

    /// Ranges of rows that fit into one statement each, at most `rows_max`.
    fn parts(&self, rows_max: usize) -> impl Iterator<Item = Range<usize>> {
        let mut begin = 0;
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fits = |number: &usize| {
                bytes += self.row(*number).len() + " UNION ALL SELECT ".len();
                bytes <= BYTES_MAX
            };
            let rest = begin..self.len();
            let count = rest.clone().take(rows_max).take_while(fits).count();
            let part = begin..(begin + count.max(1)).min(rest.end);
            begin = part.end;
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

    fn write(&self, text: &mut String) {
        match self {
            Self::Null => text.push_str("NULL"),
            Self::Number(number) => text.push_str(itoa::Buffer::new().format(*number)),
            Self::Sql(sql) => text.push_str(sql),
            Self::Bytes(bytes) => {
                text.push_str("X'");
                HEXLOWER.encode_append(bytes, text);
                text.push('\'');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_tables_and_lists() {
        let mut rows = RowsSql::of([[1, -2]].into_iter());
        rows.push(&[Cell::Null, Cell::Bytes(b"\x00z'")]);
        let tables: Vec<_> = rows.tables("id up").collect();
        assert_eq!(
            tables,
            ["(SELECT 1 AS id, -2 AS up UNION ALL SELECT NULL,X'007a27')"]
        );
        let lists: Vec<_> = rows.values().collect();
        assert_eq!(lists, ["(1,-2),(NULL,X'007a27')"]);
        assert_eq!(RowsSql::default().tables("id").count(), 0);
    }

    #[test]
    fn statements_are_bounded() {
        let rows = RowsSql::of((0..1001).map(|id| [id]));
        assert_eq!(rows.tables("id").count(), 5);
        assert_eq!(rows.values().count(), 2);
        let mut long = RowsSql::default();
        for _ in 0..4 {
            long.push(&[Cell::Bytes(&vec![0; BYTES_MAX / 4])]);
        }
        assert_eq!(long.values().count(), 4);
    }
}
