//! Cells of a row as Rust values. A site may have chosen other column types, so each is checked.

use std::borrow::Cow;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use mysql_async::consts::ColumnType;
use mysql_async::{Row, Value};

use crate::base::ids::InfoHash;
use crate::registry::Permille;
use crate::storage::values::{hash_of_text, is_no_hash};

/// The number of the character set `binary`.
pub(super) const BINARY: u16 = 63;
/// Maximum of bytes of a character that the server sends.
const UTF8MB4_BYTES: usize = 4;

/// A row whose columns are read by their position in the statement.
pub(super) struct MysqlCells<'a>(pub(super) &'a Row);

impl MysqlCells<'_> {
    fn cell(&self, column: usize) -> &Value {
        self.0.as_ref(column).unwrap_or(&Value::NULL)
    }

    pub(super) fn is_null(&self, column: usize) -> bool {
        *self.cell(column) == Value::NULL
    }

    /// An id that fits the tracker's 32 bits.
    pub(super) fn id(&self, column: usize) -> Result<u32, String> {
        self.exact(column)
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| format!("its id is not between 0 and {}", u32::MAX))
    }

    /// The cell as errors show it: bytes that are no text in hex.
    pub(super) fn shown(&self, column: usize) -> String {
        match self.cell(column) {
            Value::Bytes(bytes) if std::str::from_utf8(bytes).is_err() => HEXLOWER.encode(bytes),
            _ => self.text(column),
        }
    }

    pub(super) fn text(&self, column: usize) -> String {
        match self.cell(column) {
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Int(number) => number.to_string(),
            Value::UInt(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Double(number) => number.to_string(),
            Value::NULL | Value::Date(..) | Value::Time(..) => String::new(),
        }
    }

    /// The text parsed as a value; none if malformed.
    pub(super) fn parsed<T: FromStr>(&self, column: usize) -> Option<T> {
        self.ascii(column)?.parse().ok()
    }

    /// A total, clamped to 0..=2^63−1.
    pub(super) fn total(&self, column: usize) -> u64 {
        self.integer(column).unwrap_or(0).max(0).cast_unsigned()
    }

    pub(super) fn small(&self, column: usize) -> u32 {
        u32::try_from(self.total(column)).unwrap_or(u32::MAX)
    }

    pub(super) fn integer(&self, column: usize) -> Option<i64> {
        // A total in a DECIMAL or DOUBLE: `as` saturates.
        self.exact(column)
            .or_else(|| Some(self.number(column)? as i64))
    }

    /// The key of a row, for the page after it.
    pub(super) fn key(&self, column: usize) -> Option<i64> {
        self.exact(column)
    }

    pub(super) fn flag(&self, column: usize) -> bool {
        self.integer(column).is_some_and(|number| number != 0)
    }

    /// A flag that a site writes; on by default.
    pub(super) fn site_flag(&self, column: usize, name: &str) -> Result<bool, String> {
        match self.cell(column) {
            Value::NULL => Ok(true),
            // A BIT(1).
            Value::Bytes(bytes) if matches!(bytes[..], [0 | 1]) => Ok(bytes[0] == 1),
            _ => self
                .exact(column)
                .map(|number| number != 0)
                .ok_or_else(|| format!("{name} is neither 0 nor 1")),
        }
    }

    /// A multiplier that a site writes; 1 by default.
    pub(super) fn permille(&self, column: usize, name: &str) -> Result<Permille, String> {
        let factor = if self.is_null(column) {
            1.0
        } else {
            self.number(column).unwrap_or(f64::NAN)
        };
        Permille::from_factor(factor)
            .ok_or_else(|| format!("{name} is not between 0 and {}", Permille::MAX.factor()))
    }

    /// An info hash in a column of bytes or text; none if the site has not written it yet. An empty one in a
    /// `BINARY(20)` is 20 zeros.
    pub(super) fn info_hash(&self, column: usize, name: &str) -> Result<Option<InfoHash>, String> {
        let bytes = match self.cell(column) {
            Value::NULL => return Ok(None),
            Value::Bytes(bytes) if is_no_hash(bytes) => return Ok(None),
            Value::Bytes(bytes) => bytes,
            _ => return Err(format!("{name} is a number")),
        };
        let hash = match std::str::from_utf8(bytes) {
            Ok(text) if self.is_text(column) => hash_of_text(text, self.char_width(column)),
            Ok(digits) if bytes.len() > 20 => digits.parse().ok(),
            _ => InfoHash::from_slice(bytes),
        };
        hash.map(Some)
            .ok_or_else(|| format!("{name} is neither 20 bytes nor 40 hexadecimal digits"))
    }

    /// Whether the site has not written it yet.
    pub(super) fn is_blank(&self, column: usize) -> bool {
        match self.cell(column) {
            Value::NULL => true,
            Value::Bytes(bytes) => bytes.iter().all(|byte| matches!(byte, 0 | b' ')),
            _ => false,
        }
    }

    /// Whether the server sent it as text, converted from the column's character set.
    fn is_text(&self, column: usize) -> bool {
        let column = self.0.columns_ref().get(column);
        column.is_some_and(|column| column.character_set() != BINARY)
    }

    /// The characters of a column of the type `CHAR`.
    fn char_width(&self, column: usize) -> Option<usize> {
        let column = self.0.columns_ref().get(column)?;
        let is_char = column.column_type() == ColumnType::MYSQL_TYPE_STRING;
        is_char.then_some(column.column_length() as usize / UTF8MB4_BYTES)
    }

    pub(super) fn bytes(&self, column: usize) -> &[u8] {
        match self.cell(column) {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    fn ascii(&self, column: usize) -> Option<Cow<'_, str>> {
        match self.cell(column) {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Value::NULL => None,
            _ => Some(Cow::Owned(self.text(column))),
        }
    }

    fn exact(&self, column: usize) -> Option<i64> {
        match self.cell(column) {
            Value::Int(number) => Some(*number),
            Value::UInt(number) => Some(i64::try_from(*number).unwrap_or(i64::MAX)),
            Value::Bytes(_) => self.parsed(column),
            _ => None,
        }
    }

    fn number(&self, column: usize) -> Option<f64> {
        match self.cell(column) {
            Value::Int(number) => Some(*number as f64),
            Value::UInt(number) => Some(*number as f64),
            Value::Float(number) => Some((*number).into()),
            Value::Double(number) => Some(*number),
            Value::Bytes(_) => self.parsed(column),
            _ => None,
        }
    }
}
