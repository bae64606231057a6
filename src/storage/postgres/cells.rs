//! Values of the server as cells, from the binary form in which it sends results.

use std::error::Error;
use std::fmt::Write as _;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Kind, Type};

use crate::storage::sql::cells::{Cell, SqlRows};

/// Seconds from 1970 to 2000, from where the server counts.
const EPOCH: i64 = 946_684_800;
const DAY: i64 = 86_400;
/// Bytes before the text of a `char(n)` or `varchar(n)` in the number that describes its type.
const TYPE_HEAD: i32 = 4;

/// The bytes of a value; none for NULL.
struct Raw<'a>(Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Rows for the result of a statement.
pub(super) fn rows_of(statement: &tokio_postgres::Statement) -> SqlRows {
    let columns = statement.columns();
    let mut rows = SqlRows::new(columns.len());
    let width = |modifier: i32| usize::try_from(modifier - TYPE_HEAD).ok();
    let widths = columns.iter().map(|column| match *base(column.type_()) {
        Type::BPCHAR => width(column.type_modifier()),
        _ => None,
    });
    let widths: Vec<Option<usize>> = widths.collect();
    if widths.iter().any(Option::is_some) {
        rows.char_widths = widths;
    }
    rows
}

/// Appends a row.
pub(super) fn push(rows: &mut SqlRows, row: &Row) -> Result<(), tokio_postgres::Error> {
    for (at, column) in row.columns().iter().enumerate() {
        let Raw(raw) = row.try_get(at)?;
        match raw {
            Some(raw) => push_value(rows, base(column.type_()), raw),
            None => rows.push_cell(Cell::Null),
        }
    }
    Ok(())
}

/// The type that a domain is based on.
pub(super) fn base(of: &Type) -> &Type {
    match of.kind() {
        Kind::Domain(inner) => base(inner),
        _ => of,
    }
}

/// Whether a column of that type holds text.
pub(super) fn is_text(of: &Type) -> bool {
    let known = [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME];
    let of = base(of);
    known.contains(of) || of.name() == "citext" || matches!(of.kind(), Kind::Enum(_))
}

/// What has no such form is NULL.
fn push_value(rows: &mut SqlRows, of: &Type, raw: &[u8]) {
    let cell = match *of {
        Type::BOOL => Cell::Int((raw != [0]).into()),
        Type::INT2 => integer(raw, i16::from_be_bytes),
        Type::INT4 => integer(raw, i32::from_be_bytes),
        Type::INT8 => integer(raw, i64::from_be_bytes),
        Type::OID => integer(raw, u32::from_be_bytes),
        Type::FLOAT4 => real(raw, f32::from_be_bytes),
        Type::FLOAT8 => real(raw, f64::from_be_bytes),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => match integer(raw, i64::from_be_bytes) {
            Cell::Int(micros) => Cell::Int(micros.div_euclid(1_000_000).saturating_add(EPOCH)),
            other => other,
        },
        Type::DATE => match integer(raw, i32::from_be_bytes) {
            Cell::Int(days) => Cell::Int(days * DAY + EPOCH),
            other => other,
        },
        Type::BYTEA => Cell::Bytes(raw),
        // The server fills it with blanks.
        Type::BPCHAR => Cell::of_text(without_blanks(raw)),
        Type::JSON | Type::UNKNOWN => Cell::of_text(raw),
        Type::NUMERIC => {
            let number = numeric(raw);
            return rows.push_cell(Cell::text(number.as_deref()));
        }
        _ if is_text(of) => Cell::of_text(raw),
        _ => Cell::Null,
    };
    rows.push_cell(cell);
}

fn integer<const N: usize, T: Into<i64>>(raw: &[u8], read: fn([u8; N]) -> T) -> Cell<'static> {
    let bytes = <[u8; N]>::try_from(raw).ok();
    Cell::maybe(bytes.map(|bytes| read(bytes).into()))
}

fn real<const N: usize, T: Into<f64>>(raw: &[u8], read: fn([u8; N]) -> T) -> Cell<'static> {
    let bytes = <[u8; N]>::try_from(raw);
    bytes.map_or(Cell::Null, |bytes| Cell::Real(read(bytes).into()))
}

fn without_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().rev().take_while(|byte| **byte == b' ');
    &text[..text.len() - blanks.count()]
}

/// A `numeric` as its digits. The server sends groups of four, the place of the first, the sign, and how many
/// digits are behind the point.
fn numeric(raw: &[u8]) -> Option<String> {
    let word = |at: usize| {
        Some(i16::from_be_bytes(
            raw.get(2 * at..2 * at + 2)?.try_into().ok()?,
        ))
    };
    let (first, sign, scale) = (word(1)?, word(2)?, word(3)?);
    let groups = usize::try_from(word(0)?).ok()?;
    let sign = match sign.cast_unsigned() {
        0 => "",
        0x4000 => "-",
        // Not a number, or infinite.
        _ => return Some("NaN".into()),
    };
    let scale = usize::try_from(scale).ok()?;
    let group = |place: i32| {
        let at = usize::try_from(i32::from(first) - place).ok();
        at.filter(|at| *at < groups)
            .map_or(Some(0), |at| word(4 + at))
    };
    let mut text = String::new();
    for place in (0..=i32::from(first)).rev() {
        write!(text, "{:04}", group(place)?).ok()?;
    }
    let whole = text.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let mut behind = String::new();
    for place in 1..=scale.div_ceil(4) {
        write!(behind, "{:04}", group(-i32::try_from(place).ok()?)?).ok()?;
    }
    behind.truncate(scale);
    let point = if behind.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{behind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric_of(first: i16, sign: u16, scale: i16, groups: &[i16]) -> Option<String> {
        let head = [groups.len() as i16, first, sign.cast_signed(), scale];
        let words = head.iter().chain(groups);
        let raw: Vec<u8> = words.flat_map(|word| word.to_be_bytes()).collect();
        numeric(&raw)
    }

    #[test]
    fn a_numeric_keeps_all_of_its_digits() {
        let cases = [
            (numeric_of(0, 0, 3, &[1, 5000]), "1.500"),
            (numeric_of(0, 0, 0, &[]), "0"),
            (numeric_of(-1, 0, 3, &[25]), "0.002"),
            (numeric_of(-2, 0, 8, &[25]), "0.00000025"),
            (numeric_of(1, 0x4000, 0, &[12, 3456]), "-123456"),
            (
                numeric_of(4, 0, 0, &[1844, 6744, 737, 955, 1615]),
                "18446744073709551615",
            ),
            (numeric_of(1, 0, 2, &[1]), "10000.00"),
            (numeric_of(0, 0xc000, 0, &[]), "NaN"),
        ];
        for (found, expected) in cases {
            assert_eq!(found.as_deref(), Some(expected));
        }
        assert_eq!(numeric(&[0, 1]), None);
    }

    #[test]
    fn values_become_cells() {
        let cell = |of: Type, raw: &[u8]| {
            let mut rows = SqlRows::new(1);
            push_value(&mut rows, &of, raw);
            rows.first().map(|row| row.shown(0)).unwrap_or_default()
        };
        assert_eq!(cell(Type::BOOL, &[1]), "1");
        assert_eq!(cell(Type::INT2, &[0xff, 0xfe]), "-2");
        assert_eq!(cell(Type::TIMESTAMPTZ, &[0; 8]), EPOCH.to_string());
        assert_eq!(cell(Type::DATE, &[0, 0, 0, 1]), (EPOCH + DAY).to_string());
        assert_eq!(cell(Type::BPCHAR, b"ab  "), "ab");
        assert_eq!(cell(Type::TEXT, b"ab  "), "ab  ");
        assert_eq!(cell(Type::BYTEA, &[255]), "ff");
        assert_eq!(cell(Type::INT8, &[0]), "");
        assert_eq!(cell(Type::INET, &[2, 32]), "");
    }
}
