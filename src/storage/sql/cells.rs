//! Tables of values between the engine and a driver: the result of a statement, or the rows that one is for.
//!
//! A site may have chosen other column types than Mika's, so each cell is checked where it is read.

use std::ops::Range;
use std::str::FromStr;

use data_encoding::HEXLOWER;

use crate::base::ids::InfoHash;
use crate::registry::Permille;
use crate::storage::values::{hash_of_text, is_blank_hash, is_zero_hash};

/// A value in a row, or of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    Null,
    /// Any integer; one beyond 2^63−1 is given as that.
    Int(i64),
    Real(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Only in rows for a statement: an expression in the driver's dialect, without a comma.
    Expression(&'a str),
}

/// The parameters of a statement, by name.
pub type SqlParams<'a> = [(&'static str, Cell<'a>)];

/// What a driver gives for an info hash that is text, if it can find rows by blobs only.
pub const TEXT_HASH: Cell<'static> = Cell::Bytes(b"text");

/// Rows of the same columns. All texts and bytes are in one buffer.
#[derive(Clone, Debug, Default)]
pub struct SqlRows {
    /// Columns of each row.
    width: usize,
    slots: Vec<Slot>,
    bytes: Vec<u8>,
    /// How many characters the columns of the type `CHAR` have, which lose blanks at the end; empty if
    /// there are none.
    pub char_widths: Vec<Option<usize>>,
    /// Whether a column of 20 bytes has zeros where nothing was written.
    pub pads_with_zeros: bool,
    /// How many rows a statement found and changed.
    pub changed: u64,
}

/// A cell, with where its text or bytes begin in the buffer, and how many they are. Small, because there are many.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Null,
    Int(i64),
    Real(f64),
    Text(usize, u32),
    Bytes(usize, u32),
    Expression(usize, u32),
}

/// One of the rows. Its columns are read by their position in the statement.
#[derive(Clone, Copy, Debug)]
pub struct SqlRow<'a> {
    rows: &'a SqlRows,
    number: usize,
}

// === impl Cell ===

impl<'a> Cell<'a> {
    /// A number, or NULL.
    pub fn maybe(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Int)
    }

    /// A text, or NULL.
    pub fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }

    /// Bytes that a server sent as text: bytes if they are no UTF-8.
    pub fn of_text(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or(Self::Bytes(bytes), Self::Text)
    }
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Cell<'_> {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<f64> for Cell<'_> {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<bool> for Cell<'_> {
    fn from(flag: bool) -> Self {
        Self::Int(flag.into())
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

// === impl SqlRows ===

impl SqlRows {
    /// No rows yet, of so many columns.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            ..Self::default()
        }
    }

    /// The same with room for so many of them.
    pub fn with_capacity(width: usize, rows: usize) -> Self {
        Self {
            slots: Vec::with_capacity(width * rows),
            ..Self::new(width)
        }
    }

    /// Rows of numbers.
    pub fn of<const N: usize>(rows: impl Iterator<Item = [i64; N]>) -> Self {
        let mut all = Self::with_capacity(N, rows.size_hint().0);
        for row in rows {
            all.push(&row.map(Cell::Int));
        }
        all
    }

    /// Rows with one id each.
    pub fn of_ids(ids: impl Iterator<Item = u32>) -> Self {
        Self::of(ids.map(|id| [id.into()]))
    }

    /// Appends a row.
    pub fn push(&mut self, row: &[Cell<'_>]) {
        debug_assert_eq!(row.len(), self.width);
        let slots = row.iter().map(|cell| Slot::of(*cell, &mut self.bytes));
        self.slots.extend(slots);
    }

    /// Appends one cell; a row ends with its last column.
    pub fn push_cell(&mut self, cell: Cell<'_>) {
        self.slots.push(Slot::of(cell, &mut self.bytes));
    }

    fn cell_of(&self, slot: Slot) -> Cell<'_> {
        let bytes = |start: usize, length: u32| self.bytes.get(start..start + length as usize);
        let text = |start, length| {
            let bytes = bytes(start, length).unwrap_or_default();
            std::str::from_utf8(bytes).unwrap_or_default()
        };
        match slot {
            Slot::Null => Cell::Null,
            Slot::Int(number) => Cell::Int(number),
            Slot::Real(number) => Cell::Real(number),
            Slot::Text(start, length) => Cell::Text(text(start, length)),
            Slot::Bytes(start, length) => Cell::Bytes(bytes(start, length).unwrap_or_default()),
            Slot::Expression(start, length) => Cell::Expression(text(start, length)),
        }
    }

    /// Columns of each row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.slots.len().checked_div(self.width).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = SqlRow<'_>> + ExactSizeIterator {
        (0..self.len()).map(|number| SqlRow { rows: self, number })
    }

    pub fn row(&self, number: usize) -> Option<SqlRow<'_>> {
        (number < self.len()).then_some(SqlRow { rows: self, number })
    }

    pub fn first(&self) -> Option<SqlRow<'_>> {
        self.row(0)
    }

    pub fn last(&self) -> Option<SqlRow<'_>> {
        self.row(self.len().checked_sub(1)?)
    }

    /// A copy of some of the rows.
    pub fn part(&self, rows: Range<usize>) -> Self {
        let mut part = Self::with_capacity(self.width, rows.len());
        for row in rows.filter_map(|number| self.row(number)) {
            row.cells().for_each(|cell| part.push_cell(cell));
        }
        part
    }

    /// Appends the rows of `other`, which has the same columns.
    pub fn extend(&mut self, other: &Self) {
        if self.width == 0 {
            self.width = other.width;
            self.char_widths.clone_from(&other.char_widths);
            self.pads_with_zeros = other.pads_with_zeros;
        }
        for row in other.iter() {
            row.cells().for_each(|cell| self.push_cell(cell));
        }
        self.changed += other.changed;
    }
}

// === impl Slot ===

impl Slot {
    /// The slot of a cell, whose text or bytes are appended to `buffer`.
    #[inline]
    fn of(cell: Cell<'_>, buffer: &mut Vec<u8>) -> Self {
        let mut keep = |bytes: &[u8]| {
            let start = buffer.len();
            // No database has values of 4 GiB.
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            buffer.extend_from_slice(&bytes[..length as usize]);
            (start, length)
        };
        match cell {
            Cell::Null => Self::Null,
            Cell::Int(number) => Self::Int(number),
            Cell::Real(number) => Self::Real(number),
            Cell::Text(text) => {
                let (start, length) = keep(text.as_bytes());
                Self::Text(start, length)
            }
            Cell::Bytes(bytes) => {
                let (start, length) = keep(bytes);
                Self::Bytes(start, length)
            }
            Cell::Expression(sql) => {
                let (start, length) = keep(sql.as_bytes());
                Self::Expression(start, length)
            }
        }
    }
}

// === impl SqlRow ===

impl<'a> SqlRow<'a> {
    /// The cell of a column; NULL if there is no such column.
    pub fn cell(&self, column: usize) -> Cell<'a> {
        let slot = self.slots().get(column);
        slot.map_or(Cell::Null, |slot| self.rows.cell_of(*slot))
    }

    /// All cells in order.
    pub fn cells(self) -> impl Iterator<Item = Cell<'a>> {
        let rows = self.rows;
        self.slots().iter().map(move |slot| rows.cell_of(*slot))
    }

    fn slots(&self) -> &'a [Slot] {
        let SqlRows { width, slots, .. } = self.rows;
        let start = self.number * width;
        slots.get(start..start + width).unwrap_or_default()
    }

    /// Its columns.
    pub fn width(&self) -> usize {
        self.rows.width
    }

    pub fn is_null(&self, column: usize) -> bool {
        self.cell(column) == Cell::Null
    }

    /// An id that fits the tracker's 32 bits.
    pub fn id(&self, column: usize) -> Result<u32, String> {
        let max = u32::MAX;
        match self.key(column).map(u32::try_from) {
            Some(Ok(id)) => Ok(id),
            Some(Err(_)) => Err(format!("its id is not between 0 and {max}")),
            None => Err(format!(
                "its id is no integer up to {max}: see UUID in docs/schemas.md"
            )),
        }
    }

    /// The key of a row, for the page after it.
    pub fn key(&self, column: usize) -> Option<i64> {
        match self.cell(column) {
            Cell::Int(number) => Some(number),
            Cell::Text(text) => text.parse().ok(),
            Cell::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            Cell::Null | Cell::Real(_) | Cell::Expression(_) => None,
        }
    }

    /// The cell as errors show it: bytes that are no text in hex.
    pub fn shown(&self, column: usize) -> String {
        match self.cell(column) {
            Cell::Bytes(bytes) if std::str::from_utf8(bytes).is_err() => HEXLOWER.encode(bytes),
            _ => self.text(column),
        }
    }

    pub fn text(&self, column: usize) -> String {
        match self.cell(column) {
            Cell::Text(text) | Cell::Expression(text) => text.to_owned(),
            Cell::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Cell::Int(number) => number.to_string(),
            Cell::Real(number) => number.to_string(),
            Cell::Null => String::new(),
        }
    }

    /// The text parsed as a value; none if malformed.
    pub fn parsed<T: FromStr>(&self, column: usize) -> Option<T> {
        match self.cell(column) {
            Cell::Text(text) => text.parse().ok(),
            Cell::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            Cell::Null => None,
            _ => self.text(column).parse().ok(),
        }
    }

    /// A total, clamped to 0..=2^63−1.
    pub fn total(&self, column: usize) -> u64 {
        self.integer(column).unwrap_or(0).max(0).cast_unsigned()
    }

    pub fn small(&self, column: usize) -> u32 {
        u32::try_from(self.total(column)).unwrap_or(u32::MAX)
    }

    /// A number of any type, without its fraction; `as` saturates.
    pub fn integer(&self, column: usize) -> Option<i64> {
        match self.cell(column) {
            Cell::Int(number) => Some(number),
            Cell::Null => None,
            _ => self
                .key(column)
                .or_else(|| Some(self.number(column)? as i64)),
        }
    }

    /// A number of any type.
    pub fn number(&self, column: usize) -> Option<f64> {
        match self.cell(column) {
            Cell::Int(number) => Some(number as f64),
            Cell::Real(number) => Some(number),
            Cell::Text(_) | Cell::Bytes(_) => self.parsed(column),
            Cell::Null | Cell::Expression(_) => None,
        }
    }

    pub fn flag(&self, column: usize) -> bool {
        self.integer(column).is_some_and(|number| number != 0)
    }

    /// A flag that a site writes; on by default.
    pub fn site_flag(&self, column: usize, name: &str) -> Result<bool, String> {
        match self.cell(column) {
            Cell::Null => Ok(true),
            // A bit.
            Cell::Bytes([bit @ (0 | 1)]) => Ok(*bit == 1),
            _ => self
                .key(column)
                .map(|number| number != 0)
                .ok_or_else(|| format!("{name} is neither 0 nor 1")),
        }
    }

    /// A multiplier that a site writes; 1 by default.
    pub fn permille(&self, column: usize, name: &str) -> Result<Permille, String> {
        let factor = if self.is_null(column) {
            1.0
        } else {
            self.number(column).unwrap_or(f64::NAN)
        };
        Permille::from_factor(factor)
            .ok_or_else(|| format!("{name} is not between 0 and {}", Permille::MAX.factor()))
    }

    /// An info hash in a column of bytes or text; none if the site has not written it yet.
    pub fn info_hash(&self, column: usize, name: &str) -> Result<Option<InfoHash>, String> {
        let hash = match self.cell(column) {
            Cell::Null => return Ok(None),
            Cell::Text(text) if is_blank_hash(text.as_bytes()) => return Ok(None),
            Cell::Bytes(bytes) if is_blank_hash(bytes) => return Ok(None),
            TEXT_HASH => {
                return Err(format!(
                    "{name} is text: let the statements give unhex(…) of it, see SQLite in docs/schemas.md"
                ));
            }
            Cell::Bytes(bytes) if self.rows.pads_with_zeros && is_zero_hash(bytes) => {
                return Ok(None);
            }
            Cell::Text(text) => hash_of_text(text, self.char_width(column)),
            Cell::Bytes(bytes) if bytes.len() > 20 => {
                let digits = std::str::from_utf8(bytes).ok();
                digits.and_then(|digits| digits.parse().ok())
            }
            Cell::Bytes(bytes) => InfoHash::from_slice(bytes),
            Cell::Int(_) | Cell::Real(_) | Cell::Expression(_) => {
                return Err(format!("{name} is a number"));
            }
        };
        hash.map(Some)
            .ok_or_else(|| format!("{name} is neither 20 bytes nor 40 hexadecimal digits"))
    }

    fn char_width(&self, column: usize) -> Option<usize> {
        self.rows.char_widths.get(column).copied().flatten()
    }

    /// Whether the site has not written it yet.
    pub fn is_blank(&self, column: usize) -> bool {
        let is_blank = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, 0 | b' '));
        match self.cell(column) {
            Cell::Null => true,
            Cell::Text(text) => is_blank(text.as_bytes()),
            Cell::Bytes(bytes) => is_blank(bytes),
            Cell::Int(_) | Cell::Real(_) | Cell::Expression(_) => false,
        }
    }

    pub fn bytes(&self, column: usize) -> &'a [u8] {
        match self.cell(column) {
            Cell::Bytes(bytes) => bytes,
            Cell::Text(text) => text.as_bytes(),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_give_back_what_was_pushed() {
        let mut rows = SqlRows::new(3);
        rows.push(&[Cell::Int(7), Cell::Text("alice"), Cell::Null]);
        rows.push(&[Cell::Real(1.5), Cell::Bytes(&[255, 0]), Cell::Int(-1)]);
        assert_eq!((rows.len(), rows.width()), (2, 3));
        let (first, last) = (rows.first().unwrap(), rows.last().unwrap());
        assert_eq!((first.id(0), first.text(1)), (Ok(7), "alice".to_owned()));
        assert!(first.is_null(2) && first.is_blank(2) && first.is_null(9));
        assert_eq!((last.integer(0), last.shown(1)), (Some(1), "ff00".into()));
        assert_eq!((last.total(2), last.id(2).is_err()), (0, true));
        let part = rows.part(1..2);
        assert_eq!(part.first().unwrap().bytes(1), [255, 0]);
        assert!(SqlRows::default().is_empty());
    }

    #[test]
    fn numbers_are_read_from_any_type() {
        let mut rows = SqlRows::new(4);
        let cells = [
            Cell::Text("12"),
            Cell::Text("2.75"),
            Cell::Real(1e30),
            Cell::Text("x"),
        ];
        rows.push(&cells);
        let row = rows.first().unwrap();
        assert_eq!((row.id(0), row.integer(1)), (Ok(12), Some(2)));
        assert_eq!(row.total(2), i64::MAX.cast_unsigned());
        assert_eq!((row.integer(3), row.flag(3)), (None, false));
        assert_eq!(row.permille(1, "factor").unwrap(), Permille(2750));
        assert!(row.permille(3, "factor").is_err() && row.site_flag(3, "enabled").is_err());
    }
}
