//! The meaning of a raw `+` in an info hash (rule Q4).
//!
//! By RFC 3986 it is a plus. Form encoders write it for a space, though, and each real plus as `%2B`:
//! newTrackon, older versions of anacrolix/torrent and of MonoTorrent, and other programs that use the
//! form encoder of their language for URLs. Encoders that do not escape a plus, such as JavaScript's
//! `escape` in older versions of WebTorrent, write a space as `%20`, and do not escape other marks either.

use crate::base::ids::InfoHash;

/// The other info hash that a value with a raw `+` may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormHash {
    /// With each raw `+` read as a space.
    pub info_hash: InfoHash,
    pub meaning: PlusMeaning,
}

/// What the rest of a value says about its raw `+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlusMeaning {
    Plus,
    Space,
    /// Nothing certain: a known torrent decides, or else this is likelier.
    LikelyPlus,
    LikelySpace,
}

/// Marks that every form encoder escapes; that of .NET does not escape `!`, `*`, `(` and `)`.
const MARKS: &[u8] = b"@/,:;<>?$";

/// The meaning of the raw `+` in `value`.
pub(super) fn meaning(value: &[u8]) -> PlusMeaning {
    let has = |escape: &[u8]| {
        value
            .windows(3)
            .any(|window| window.eq_ignore_ascii_case(escape))
    };
    match (has(b"%20"), has(b"%2B")) {
        (true, false) => PlusMeaning::Plus,
        (false, true) => PlusMeaning::Space,
        _ if value.iter().any(|byte| MARKS.contains(byte)) => PlusMeaning::Plus,
        // Without any escape, the value may not have been encoded at all.
        (false, false) if value.contains(&b'%') => PlusMeaning::LikelySpace,
        _ => PlusMeaning::LikelyPlus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_value_decides_what_its_plus_is() {
        for (value, expected) in [
            ("a+%20%ff", PlusMeaning::Plus),
            ("a+%2b%ff", PlusMeaning::Space),
            ("a+%2B%ff", PlusMeaning::Space),
            ("a+/%ff", PlusMeaning::Plus),
            ("a+%20%2B%ff", PlusMeaning::LikelyPlus),
            ("a+%20%2B/%ff", PlusMeaning::Plus),
            ("a+%ff-_.~*!()", PlusMeaning::LikelySpace),
            ("a+b", PlusMeaning::LikelyPlus),
        ] {
            assert_eq!(meaning(value.as_bytes()), expected, "{value}");
        }
    }
}
