//! The name of a torrent, sanitized for display and storage.

use std::borrow::Cow;

use encoding_rs::Encoding;

use crate::sync::edit::TEXT_MAX;
use crate::wire::bencode::Node;

/// The bytes of the name. Like clients, prefers the key for UTF-8.
pub(super) fn raw<'a>(info: &Node<'a>) -> Option<&'a [u8]> {
    all(info).next()
}

fn all<'a>(info: &Node<'a>) -> impl Iterator<Item = &'a [u8]> {
    let names = [&b"name.utf-8"[..], b"name"].into_iter();
    names.filter_map(|key| info.get(key)?.as_bytes())
}

/// The name to store; none if it would be blank. `encoding` is the file's declared encoding for text that
/// is not UTF-8.
pub(super) fn of(info: &Node, encoding: Option<&[u8]>) -> Option<String> {
    all(info).find_map(|raw| shown(&decode(raw, encoding)))
}

/// The text made printable, and truncated to what storage holds; none if it would be blank.
pub(super) fn shown(text: &str) -> Option<String> {
    let element = path_element(text.as_bytes());
    let shown: String = element.chars().take(TEXT_MAX).collect();
    (!text.is_empty() && !shown.trim().is_empty()).then_some(shown)
}

fn decode<'a>(raw: &'a [u8], encoding: Option<&[u8]>) -> Cow<'a, str> {
    if let Ok(text) = str::from_utf8(raw) {
        return text.into();
    }
    match encoding.and_then(Encoding::for_label) {
        Some(encoding) => encoding.decode_without_bom_handling(raw).0,
        None => String::from_utf8_lossy(raw),
    }
}

/// A path element as clients use it: without separators and directional marks, with `_` for
/// unprintable characters. Empty for `.` and `..`, which are skipped.
pub(super) fn path_element(raw: &[u8]) -> String {
    if raw.is_empty() {
        return "_".into();
    }
    let mut element = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\0' | '/' | '\\' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' => {}
                _ if letter.is_control() => element.push('_'),
                _ => element.push(letter),
            }
        }
        if !chunk.invalid().is_empty() {
            element.push('_');
        }
    }
    if matches!(element.as_str(), "." | "..") {
        element.clear();
    }
    element
}
