//! The info hash of a torrent of which a web application keeps the info dictionary, column by column.
//!
//! The site makes the .torrent files that its users download from the same columns, so this is the hash that their
//! clients announce: the rules are those of batter. A value that is 0, empty or null is left out of every dictionary;
//! what has no column (`source`, `name.utf-8`, …) was lost when the file was uploaded.

use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::Value;
use sha1::{Digest as _, Sha1};

use crate::base::ids::InfoHash;

/// Bytes of the hash of a piece.
const PIECE_HASH: usize = 20;

/// The columns of an info dictionary; empty or 0 where the site has nothing.
#[derive(Debug, Default)]
pub(super) struct InfoColumns {
    pub(super) piece_length: i64,
    /// The hashes of the pieces in hexadecimal digits.
    pub(super) pieces: String,
    pub(super) is_private: bool,
    pub(super) name: String,
    pub(super) length: i64,
    pub(super) md5sum: String,
    /// A list in JSON, as it was in the file that was uploaded.
    pub(super) files: String,
}

/// An info hash that was rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RebuiltHash {
    pub(super) info_hash: InfoHash,
    /// The file that was uploaded had a value that is left out, so it has another hash.
    pub(super) is_lossy: bool,
}

/// Bencode, with a note whether a value was left out.
#[derive(Default)]
struct Writer {
    out: Vec<u8>,
    is_lossy: bool,
}

impl InfoColumns {
    /// The info hash of the file that the site makes; an error if clients could not use that file.
    pub(super) fn rebuild(&self) -> Result<RebuiltHash, String> {
        if self.piece_length <= 0 {
            return Err("it has no piece length".into());
        }
        if self.name.is_empty() {
            return Err("it has no name".into());
        }
        let pieces = HEXLOWER_PERMISSIVE.decode(self.pieces.as_bytes());
        let pieces = pieces.map_err(|_| "pieces is not in hexadecimal digits")?;
        if pieces.is_empty() || pieces.len() % PIECE_HASH != 0 {
            return Err(format!(
                "pieces has {} bytes, and not {PIECE_HASH} for each piece",
                pieces.len()
            ));
        }
        let mut writer = Writer::default();
        writer.out.push(b'd');
        self.write_files(&mut writer)?;
        writer.text("name");
        writer.text(&self.name);
        writer.text("piece length");
        writer.number(self.piece_length);
        writer.text("pieces");
        writer.bytes(&pieces);
        if self.is_private {
            writer.text("private");
            writer.number(1);
        }
        writer.out.push(b'e');
        Ok(RebuiltHash {
            info_hash: InfoHash(Sha1::digest(&writer.out).into()),
            is_lossy: writer.is_lossy,
        })
    }

    /// The list of several files, or the length of the only one: the keys that come before `name`.
    fn write_files(&self, writer: &mut Writer) -> Result<(), String> {
        let files: Value = match self.files.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).map_err(|_| "files is not JSON")?,
        };
        match &files {
            Value::Array(list) if list.len() > 1 => {
                writer.text("files");
                return writer.value(&files);
            }
            Value::Array(list) if !list.is_empty() && self.length <= 0 => {
                return Err(
                    "its only file is in a list, which the site leaves out of its downloads".into(),
                );
            }
            Value::Array(_) | Value::Null => {}
            _ => return Err("files is not a list".into()),
        }
        if self.length <= 0 {
            return Err("it has neither a length nor files".into());
        }
        writer.text("length");
        writer.number(self.length);
        if !self.md5sum.is_empty() {
            writer.text("md5sum");
            writer.text(&self.md5sum);
        }
        Ok(())
    }
}

impl Writer {
    fn number(&mut self, number: impl ToString) {
        self.out.push(b'i');
        self.out.extend_from_slice(number.to_string().as_bytes());
        self.out.push(b'e');
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out
            .extend_from_slice(bytes.len().to_string().as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// The parser bounds how deep values are nested. Keys are in the order of their bytes.
    fn value(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Bool(flag) => self.number(u8::from(*flag)),
            Value::Number(number) if !number.is_f64() => self.number(number),
            Value::String(text) => self.text(text),
            Value::Array(list) => {
                self.out.push(b'l');
                list.iter().try_for_each(|item| self.value(item))?;
                self.out.push(b'e');
            }
            Value::Object(entries) => {
                self.out.push(b'd');
                for (key, value) in entries {
                    if is_falsy(value) {
                        self.is_lossy = true;
                        continue;
                    }
                    self.text(key);
                    self.value(value)?;
                }
                self.out.push(b'e');
            }
            Value::Null | Value::Number(_) => {
                return Err(
                    "files has a null or a fraction, which no .torrent file can have".into(),
                );
            }
        }
        Ok(())
    }
}

/// Whether a value is left out of a dictionary.
fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(entries) => entries.values().all(is_falsy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> InfoColumns {
        InfoColumns {
            piece_length: 16384,
            pieces: "ab".repeat(20),
            is_private: true,
            name: "Grüße.bin".into(),
            length: 16000,
            ..InfoColumns::default()
        }
    }

    fn pieces() -> Vec<u8> {
        vec![0xAB; 20]
    }

    /// The hash of an info dictionary around these pieces.
    fn hash_of(before: &str, after: &str) -> InfoHash {
        let dict = [before.as_bytes(), &pieces(), after.as_bytes()].concat();
        InfoHash(Sha1::digest(dict).into())
    }

    fn problem(columns: InfoColumns) -> String {
        columns.rebuild().unwrap_err()
    }

    #[test]
    fn a_single_file_has_its_length() {
        let rebuilt = columns().rebuild().unwrap();
        let before = "d6:lengthi16000e4:name11:Grüße.bin12:piece lengthi16384e6:pieces20:";
        assert_eq!(rebuilt.info_hash, hash_of(before, "7:privatei1ee"));
        assert!(!rebuilt.is_lossy);
        let open = InfoColumns {
            is_private: false,
            md5sum: "0".repeat(32),
            pieces: "AB".repeat(20),
            files: " null ".into(),
            ..columns()
        };
        let before = "d6:lengthi16000e6:md5sum32:000000000000000000000000000000004:name11:Grüße.bin\
            12:piece lengthi16384e6:pieces20:";
        assert_eq!(open.rebuild().unwrap().info_hash, hash_of(before, "e"));
    }

    #[test]
    fn several_files_are_a_list_without_empty_values() {
        let files = r#"[{"path": ["a", ""], "length": 7, "attr": "x"}, {"length": 0, "path": ["b"], "md5sum": null}]"#;
        let several = InfoColumns {
            files: files.into(),
            length: 0,
            ..columns()
        };
        let rebuilt = several.rebuild().unwrap();
        let before = "d5:filesld4:attr1:x6:lengthi7e4:pathl1:a0:eed4:pathl1:beee4:name11:Grüße.bin\
            12:piece lengthi16384e6:pieces20:";
        assert_eq!(rebuilt.info_hash, hash_of(before, "7:privatei1ee"));
        assert!(rebuilt.is_lossy);
        let whole = InfoColumns {
            files: files
                .replace(r#""length": 0"#, r#""length": 1"#)
                .replace("null", "\"m\""),
            ..several
        };
        assert!(!whole.rebuild().unwrap().is_lossy);
    }

    #[test]
    fn what_no_client_could_use_is_refused() {
        let text = |text: &str| text.to_owned();
        let files = |files: &str| {
            problem(InfoColumns {
                files: files.into(),
                length: 0,
                ..columns()
            })
        };
        let pieces = |pieces: &str| {
            problem(InfoColumns {
                pieces: pieces.into(),
                ..columns()
            })
        };
        assert_eq!(pieces("xy"), text("pieces is not in hexadecimal digits"));
        assert!(pieces("abc").contains("hexadecimal"));
        assert!(pieces("abcd").contains("pieces has 2 bytes"));
        assert!(pieces("").contains("pieces has 0 bytes"));
        assert!(files("").contains("neither a length nor files"));
        assert!(files("[]").contains("neither a length nor files"));
        assert!(files(r#"[{"length": 5, "path": ["a"]}]"#).contains("only file is in a list"));
        assert!(files("[1, ").contains("not JSON"));
        assert!(files(&"[".repeat(100_000)).contains("not JSON"));
        assert!(files("7").contains("not a list"));
        assert!(files("[1.5, 2]").contains("fraction"));
        assert!(files("[null, 2]").contains("null"));
        assert!(
            problem(InfoColumns {
                name: String::new(),
                ..columns()
            })
            .contains("no name")
        );
        assert!(
            problem(InfoColumns {
                piece_length: 0,
                ..columns()
            })
            .contains("no piece length")
        );
    }
}
