//! Values that a database refuses, in words: which column, and why.
//!
//! Drivers parse the database's error; texts here never show the value itself, which may be a passkey.

use std::fmt;

use crate::base::ids::InfoHash;

/// Maximum of rows of one batch that the log names.
const REFUSED_SHOWN: usize = 20;

/// Bytes of an info hash.
const HASH_BYTES: usize = 20;

/// A value that a column does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedValue {
    pub table: Option<String>,
    pub column: Option<String>,
    pub why: Misfit,
}

/// Why a column does not take a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// Width of the column and length of the value in characters, if known.
    TooLong {
        limit: Option<u64>,
        has: Option<u64>,
    },
    OutOfRange,
    /// The column's character set, if it is known, lacks characters of the value.
    Characters {
        charset: Option<String>,
    },
    /// Another type of value is expected.
    WrongType,
    /// NULL is not allowed.
    Missing,
    /// A foreign key: the row that it points to does not exist, or others point to this one.
    Reference,
    /// A `CHECK` constraint or a trigger of the site refuses it.
    Rule,
}

impl fmt::Display for RefusedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.column, &self.table) {
            (Some(column), Some(table)) => write!(f, "the column `{column}` of `{table}` ")?,
            (Some(column), None) => write!(f, "the column `{column}` ")?,
            (None, Some(table)) => write!(f, "the table `{table}` ")?,
            (None, None) => f.write_str("the database ")?,
        }
        match &self.why {
            Misfit::TooLong { limit: None, .. } => f.write_str("is too short for this value"),
            Misfit::TooLong {
                limit: Some(limit),
                has,
            } => {
                let has = has.map_or_else(|| "more".into(), |has| has.to_string());
                write!(f, "holds {limit} characters, this has {has}")
            }
            Misfit::OutOfRange => f.write_str("can't hold a number of this size"),
            Misfit::Characters {
                charset: Some(charset),
            } => {
                write!(
                    f,
                    "has the character set {charset}, which lacks some of these characters"
                )
            }
            Misfit::Characters { charset: None } => {
                f.write_str("has a character set that lacks some of these characters")
            }
            Misfit::WrongType => f.write_str("takes another type of value"),
            Misfit::Missing => f.write_str("must not be empty"),
            Misfit::Reference => f.write_str("has a foreign key that forbids this value"),
            Misfit::Rule => f.write_str("has a constraint or a trigger that forbids this value"),
        }
    }
}

/// Logs the rows of credit that the database did not take in full, one text each.
pub(super) fn log_refused(rows: &[String]) {
    for row in rows.iter().take(REFUSED_SHOWN) {
        tracing::error!("credit that the database does not take in full: {row}");
    }
    if rows.len() > REFUSED_SHOWN {
        let more = rows.len() - REFUSED_SHOWN;
        tracing::error!(more, "more rows of credit were not taken in full");
    }
}

/// The 20 bytes of an info hash that a text column holds, from its characters.
///
/// Such columns hold either 40 hexadecimal digits, or the bytes themselves as characters of
/// `latin1`, which in MySQL is Windows-1252 with the five bytes that this lacks as control characters. A
/// column of the type `CHAR` loses blanks at the end: `width` is how many characters it has.
pub(super) fn hash_of_text(text: &str, width: Option<usize>) -> Option<InfoHash> {
    if text.is_ascii() && text.len() == 2 * HASH_BYTES {
        return text.parse().ok();
    }
    let mut bytes = text.chars().map(latin1_byte).collect::<Option<Vec<u8>>>()?;
    if width == Some(HASH_BYTES) && bytes.len() < HASH_BYTES && !bytes.is_empty() {
        bytes.resize(HASH_BYTES, b' ');
    }
    InfoHash::from_slice(&bytes)
}

/// Whether a site has not written an info hash yet: empty, or blanks.
pub(super) fn is_blank_hash(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == b' ')
}

/// Whether bytes are the zeros that an empty value becomes in a `BINARY(20)` of MySQL.
pub(super) fn is_zero_hash(bytes: &[u8]) -> bool {
    bytes == [0; HASH_BYTES]
}

/// The bytes of an info hash as characters of MySQL's `latin1`.
pub(super) fn text_of_hash(hash: &InfoHash) -> String {
    hash.0.iter().map(|&byte| latin1_char(byte)).collect()
}

/// The characters of Windows-1252 at 0x80 to 0x9F.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

fn latin1_char(byte: u8) -> char {
    match byte {
        0x80..=0x9f => WINDOWS_1252[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

fn latin1_byte(char: char) -> Option<u8> {
    match u8::try_from(u32::from(char)) {
        Ok(byte) if !(0x80..=0x9f).contains(&byte) => Some(byte),
        _ => (0x80..=0x9f).find(|&byte| latin1_char(byte) == char),
    }
}

/// A whitelist prefix without invisible characters around it: blanks, line ends, tabs, a BOM, NULs.
pub(super) fn trimmed_prefix(text: &str) -> &str {
    text.trim_matches(|char: char| {
        char.is_whitespace()
            || char.is_control()
            || matches!(char, '\u{200b}'..='\u{200d}' | '\u{feff}')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_is_told_with_its_column() {
        let refused = |why| RefusedValue {
            table: Some("users".into()),
            column: Some("passkey".into()),
            why,
        };
        let long = Misfit::TooLong {
            limit: Some(20),
            has: Some(32),
        };
        assert_eq!(
            refused(long).to_string(),
            "the column `passkey` of `users` holds 20 characters, this has 32"
        );
        let charset = Some("latin1".into());
        let text = refused(Misfit::Characters { charset }).to_string();
        assert!(
            text.contains("`passkey`") && text.contains("latin1"),
            "{text}"
        );
    }

    #[test]
    fn a_hash_in_a_text_column_is_read_back_byte_by_byte() {
        for start in [0_u8, 20, 120, 140, 160, 236] {
            let hash = InfoHash(std::array::from_fn(|at| start.wrapping_add(at as u8)));
            let text = text_of_hash(&hash);
            assert_eq!(text.chars().count(), 20);
            assert_eq!(hash_of_text(&text, None), Some(hash));
            assert_eq!(hash_of_text(&hash.to_string(), None), Some(hash));
            assert_eq!(
                hash_of_text(&hash.to_string().to_uppercase(), None),
                Some(hash)
            );
        }
        let padded = InfoHash(*b"0123456789abcdefgh  ");
        assert_eq!(hash_of_text("0123456789abcdefgh", Some(20)), Some(padded));
        assert_eq!(hash_of_text("0123456789abcdefgh", None), None);
        assert_eq!(hash_of_text("用户", Some(20)), None);
    }

    #[test]
    fn what_is_not_seen_around_a_prefix_is_cut_off() {
        for text in [
            "-TR30 ",
            "-TR30\r\n",
            "\t-TR30",
            "-TR30\u{a0}",
            "\u{feff}-TR30\0",
        ] {
            assert_eq!(trimmed_prefix(text), "-TR30", "{text:?}");
        }
        assert_eq!(trimmed_prefix("-T R-"), "-T R-");
    }
}
