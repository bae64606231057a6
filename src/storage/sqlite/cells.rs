//! Cells of a row as Rust values. SQLite lets a site write any type anywhere, so each is checked.

use std::str::FromStr;

use data_encoding::HEXLOWER;
use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::base::ids::InfoHash;
use crate::registry::Permille;

/// A row whose columns are read by their position in the statement.
pub(super) struct SqliteCells<'a>(pub(super) &'a Row<'a>);

impl SqliteCells<'_> {
    fn cell(&self, column: usize) -> ValueRef<'_> {
        self.0.get_ref_unwrap(column)
    }

    pub(super) fn is_null(&self, column: usize) -> bool {
        self.cell(column) == ValueRef::Null
    }

    /// An id that fits the tracker's 32 bits.
    pub(super) fn id(&self, column: usize) -> Result<u32, String> {
        match self.cell(column) {
            ValueRef::Integer(id) => u32::try_from(id).ok(),
            _ => None,
        }
        .ok_or_else(|| format!("its id is not between 0 and {}", u32::MAX))
    }

    /// The cell as errors show it: bytes that are no text in hex.
    pub(super) fn shown(&self, column: usize) -> String {
        match self.cell(column) {
            ValueRef::Blob(bytes) => HEXLOWER.encode(bytes),
            _ => self.text(column),
        }
    }

    pub(super) fn text(&self, column: usize) -> String {
        match self.cell(column) {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Null => String::new(),
        }
    }

    /// The text parsed as a value; none if it is no text or malformed.
    pub(super) fn parsed<T: FromStr>(&self, column: usize) -> Option<T> {
        self.cell(column).as_str().ok()?.parse().ok()
    }

    /// A total, clamped to 0..=2^63−1.
    pub(super) fn total(&self, column: usize) -> u64 {
        self.integer(column).unwrap_or(0).max(0).cast_unsigned()
    }

    pub(super) fn small(&self, column: usize) -> u32 {
        u32::try_from(self.total(column)).unwrap_or(u32::MAX)
    }

    pub(super) fn integer(&self, column: usize) -> Option<i64> {
        match self.cell(column) {
            ValueRef::Integer(number) => Some(number),
            // A total that overflowed in SQL becomes a float; `as` saturates.
            ValueRef::Real(number) => Some(number as i64),
            _ => None,
        }
    }

    pub(super) fn flag(&self, column: usize) -> bool {
        self.integer(column).is_some_and(|number| number != 0)
    }

    /// A flag that a site writes; on by default.
    pub(super) fn site_flag(&self, column: usize, name: &str) -> Result<bool, String> {
        match self.cell(column) {
            ValueRef::Null => Ok(true),
            ValueRef::Integer(number) => Ok(number != 0),
            _ => Err(format!("{name} is neither 0 nor 1")),
        }
    }

    /// A multiplier that a site writes; 1 by default.
    pub(super) fn permille(&self, column: usize, name: &str) -> Result<Permille, String> {
        let factor = match self.cell(column) {
            ValueRef::Null => 1.0,
            ValueRef::Integer(number) => number as f64,
            ValueRef::Real(number) => number,
            _ => f64::NAN,
        };
        Permille::from_factor(factor)
            .ok_or_else(|| format!("{name} is not between 0 and {}", Permille::MAX.factor()))
    }

    /// An info hash; none if the site has not written it yet.
    pub(super) fn info_hash(&self, column: usize, name: &str) -> Result<Option<InfoHash>, String> {
        let hash = match self.cell(column) {
            _ if self.is_blank(column) => return Ok(None),
            ValueRef::Blob(bytes) => InfoHash::from_slice(bytes),
            _ => None,
        };
        hash.map(Some)
            .ok_or_else(|| format!("{name} is not a blob of 20 bytes"))
    }

    /// Whether the site has not written it yet.
    pub(super) fn is_blank(&self, column: usize) -> bool {
        match self.cell(column) {
            ValueRef::Null => true,
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.iter().all(|byte| *byte == b' '),
            ValueRef::Integer(_) | ValueRef::Real(_) => false,
        }
    }

    pub(super) fn bytes(&self, column: usize) -> &[u8] {
        match self.cell(column) {
            ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes,
            _ => &[],
        }
    }
}
