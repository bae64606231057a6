//! Values for the parameters of a statement, in the types that the server inferred for them.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use bytes::{BufMut as _, BytesMut};
use data_encoding::HEXLOWER;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use super::cells::base;
use crate::storage::sql::cells::{Cell, SqlRow};
use crate::storage::values::Misfit;

/// A parameter.
pub(super) enum PostgresValue<'a> {
    Cell(Cell<'a>),
    Numbers(Vec<Option<i64>>),
    Bytes(Vec<Option<&'a [u8]>>),
    Texts(Vec<Option<Cow<'a, str>>>),
}

/// What a column of the rows for a statement holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Numbers,
    Bytes,
    Texts,
}

// === impl ColumnKind ===

impl ColumnKind {
    /// By the column's name. `hashes_are_text`: info hashes are compared with columns of text.
    pub(super) fn of(column: &str, hashes_are_text: bool) -> Self {
        match column {
            "info_hash" | "info_hash_v2" if hashes_are_text => Self::Texts,
            "info_hash" | "info_hash_v2" | "peer_id" | "sessions" => Self::Bytes,
            "ip4" | "ip6" => Self::Texts,
            _ => Self::Numbers,
        }
    }

    /// The array of that kind.
    pub(super) fn array(self) -> &'static str {
        match self {
            Self::Numbers => "bigint[]",
            Self::Bytes => "bytea[]",
            Self::Texts => "text[]",
        }
    }

    /// The values of a column in these rows.
    pub(super) fn values<'a>(
        self,
        column: usize,
        rows: impl Iterator<Item = SqlRow<'a>>,
    ) -> PostgresValue<'a> {
        match self {
            Self::Numbers => PostgresValue::Numbers(rows.map(|row| row.integer(column)).collect()),
            Self::Bytes => {
                let bytes = |row: SqlRow<'a>| (!row.is_null(column)).then(|| row.bytes(column));
                PostgresValue::Bytes(rows.map(bytes).collect())
            }
            Self::Texts => PostgresValue::Texts(rows.map(|row| text(row.cell(column))).collect()),
        }
    }
}

/// A cell as text. An expression is the text in hex (see `hash_forms`); bytes are a hash.
fn text(cell: Cell<'_>) -> Option<Cow<'_, str>> {
    match cell {
        Cell::Null => None,
        Cell::Int(number) => Some(number.to_string().into()),
        Cell::Real(number) => Some(number.to_string().into()),
        Cell::Text(text) => Some(text.into()),
        Cell::Bytes(bytes) => Some(HEXLOWER.encode(bytes).into()),
        Cell::Expression(hex) => {
            let bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
            Some(String::from_utf8(bytes).ok()?.into())
        }
    }
}

// === impl PostgresValue ===

impl PostgresValue<'_> {
    /// A value for a lookup: what the type can't hold equals nothing, and a number below all is the lowest.
    pub(super) fn for_lookup(self, of: &Type) -> Self {
        match (&self, range(of)) {
            (Self::Cell(Cell::Int(number)), Some((lowest, _))) if *number < lowest => {
                Self::Cell(Cell::Int(lowest))
            }
            _ if self.misfit(of).is_some() => Self::Cell(Cell::Null),
            _ => self,
        }
    }

    /// Why the type can't hold the value.
    pub(super) fn misfit(&self, of: &Type) -> Option<Misfit> {
        match (self, range(of)) {
            (Self::Cell(Cell::Int(number)), Some((lowest, highest)))
                if !(lowest..=highest).contains(number) =>
            {
                Some(Misfit::OutOfRange)
            }
            (Self::Cell(Cell::Text(text)), _) if text.contains('\0') => {
                Some(Misfit::Characters { charset: None })
            }
            _ => None,
        }
    }
}

/// The smallest and the largest number of an integer type of less than 64 bits.
fn range(of: &Type) -> Option<(i64, i64)> {
    match *base(of) {
        Type::INT2 => Some((i16::MIN.into(), i16::MAX.into())),
        Type::INT4 => Some((i32::MIN.into(), i32::MAX.into())),
        _ => None,
    }
}

/// The client library may log parameters, and they may be passkeys.
impl fmt::Debug for PostgresValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl ToSql for PostgresValue<'_> {
    fn to_sql(
        &self,
        of: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let cell = match self {
            Self::Cell(cell) => *cell,
            Self::Numbers(numbers) => return numbers.to_sql(of, out),
            Self::Bytes(bytes) => return bytes.to_sql(of, out),
            Self::Texts(texts) => return texts.to_sql(of, out),
        };
        match cell {
            Cell::Int(number) if *base(of) == Type::BOOL => {
                out.put_slice(if number == 0 { b"f" } else { b"t" });
            }
            Cell::Bytes(bytes) if *base(of) == Type::BYTEA => out.put_slice(bytes),
            other => match text(other) {
                Some(text) => out.put_slice(text.as_bytes()),
                None => return Ok(IsNull::Yes),
            },
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    /// The server reads a text as whatever type the parameter has.
    fn encode_format(&self, of: &Type) -> Format {
        match self {
            Self::Cell(_) if *base(of) != Type::BYTEA => Format::Text,
            _ => Format::Binary,
        }
    }

    fn to_sql_checked(
        &self,
        of: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(of, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(cell: Cell<'_>, of: &Type) -> Option<Vec<u8>> {
        let mut out = BytesMut::new();
        let result = PostgresValue::Cell(cell).to_sql(of, &mut out).unwrap();
        matches!(result, IsNull::No).then(|| out.to_vec())
    }

    #[test]
    fn a_value_is_written_for_its_type() {
        assert_eq!(written(Cell::Int(1), &Type::BOOL).unwrap(), b"t");
        assert_eq!(written(Cell::Int(-1), &Type::NUMERIC).unwrap(), b"-1");
        assert_eq!(written(Cell::Real(1.5), &Type::NUMERIC).unwrap(), b"1.5");
        let bytes = Cell::Bytes(&[0, 255]);
        assert_eq!(written(bytes, &Type::BYTEA).unwrap(), [0, 255]);
        assert_eq!(written(bytes, &Type::TEXT).unwrap(), b"00ff");
        assert_eq!(
            written(Cell::Expression("6162"), &Type::TEXT).unwrap(),
            b"ab"
        );
        assert_eq!(written(Cell::Null, &Type::INT4), None);
    }

    #[test]
    fn what_does_not_fit_is_found_nowhere() {
        let looked_up = |number: i64| {
            let value = PostgresValue::Cell(Cell::Int(number)).for_lookup(&Type::INT4);
            match value {
                PostgresValue::Cell(Cell::Int(number)) => Some(number),
                _ => None,
            }
        };
        assert_eq!(looked_up(i64::MIN), Some(i32::MIN.into()));
        assert_eq!((looked_up(7), looked_up(3_000_000_000)), (Some(7), None));
        let text = PostgresValue::Cell(Cell::Text("a\0b"));
        assert!(text.misfit(&Type::TEXT).is_some());
        assert_eq!(format!("{text:?}"), "…");
    }
}
