//! What a raw `+` in an info hash stands for (rule Q4).
//!
//! By RFC 3986 it is a plus. Encoders of HTML forms write it for a space, though, and then every real
//! plus as `%2B`: so do newTrackon, older versions of anacrolix/torrent and of MonoTorrent, and
//! whatever uses the URL encoder of its language without a second thought. Those that leave a plus
//! as it is, such as JavaScript's `escape` in older versions of WebTorrent, write a space as `%20`, and leave
//! other marks as they are, too.

use crate::base::ids::InfoHash;

/// The other info hash that a value with a raw `+` may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormHash {
    /// Every raw `+` is a space here.
    pub info_hash: InfoHash,
    pub meaning: PlusMeaning,
}

/// What the rest of the value says about its raw `+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlusMeaning {
    Plus,
    Space,
    /// Nothing: the torrents that are known decide, or else this is likelier.
    LikelyPlus,
    LikelySpace,
}

/// Marks that no form encoder leaves as they are; that of .NET leaves `!`, `*`, `(` and `)`.
const MARKS: &[u8] = b"@/,:;<>?$";

/// Looks at a value that has a raw `+`.
pub(super) fn meaning(value: &[u8]) -> PlusMeaning {
    let has = |escape: &[u8]| {
        let mut windows = value.windows(3);
        windows.any(|window| window.eq_ignore_ascii_case(escape))
    };
    match (has(b"%20"), has(b"%2B")) {
        (true, false) => PlusMeaning::Plus,
        (false, true) => PlusMeaning::Space,
        _ if value.iter().any(|byte| MARKS.contains(byte)) => PlusMeaning::Plus,
        // Without any escape nothing tells that the value was encoded at all.
        (false, false) if value.contains(&b'%') => PlusMeaning::LikelySpace,
        _ => PlusMeaning::LikelyPlus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_value_tells_what_its_plus_is() {
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
