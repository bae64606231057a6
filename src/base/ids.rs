//! Ids of users, torrents and peers, and passkeys.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

/// A user's number in the web application's database.
///
/// 32 bits hold every id of the known web applications and keep a peer's record small; a row with a larger
/// id is reported as unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub u32);

/// A torrent's number in the web application's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TorrentId(pub u32);

/// The 20 bytes that name a torrent on the wire: SHA-1 of the info dictionary (BEP 3), or SHA-256 truncated to 20
/// bytes for a v2 torrent (BEP 52).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InfoHash(pub [u8; 20]);

/// The 20 arbitrary bytes that a client chooses (BEP 3, BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub [u8; 20]);

/// The secret part of a user's announce URL: `[A-Za-z0-9_-]{8,64}` (rule H2).
///
/// It has no `Display`, and `Debug` masks it, so that it can't reach a log or an error text by accident.
/// [`Passkey::expose`] returns the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Passkey(Box<str>);

/// Why a text is not a passkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a passkey has 8 to 64 letters, digits, '_' or '-'")]
pub struct InvalidPasskey;

/// Why a text is not an info hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an info hash has 40 hexadecimal digits")]
pub struct InvalidInfoHash;

// === impl Passkey ===

impl Passkey {
    pub const LEN_MIN: usize = 8;
    pub const LEN_MAX: usize = 64;

    /// Whether `text` has the form of a passkey (rule H2).
    pub fn is_valid(text: &str) -> bool {
        (Self::LEN_MIN..=Self::LEN_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }

    /// The secret itself: for storage, the cache, and those who may see it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Passkey {
    type Err = InvalidPasskey;

    fn from_str(text: &str) -> Result<Self, InvalidPasskey> {
        if Self::is_valid(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidPasskey)
        }
    }
}

impl Borrow<str> for Passkey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Passkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passkey(masked)")
    }
}

// === impl InfoHash ===

impl InfoHash {
    /// An info hash from exactly 20 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// As two numbers, which hashers take in less time than bytes.
impl Hash for InfoHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let (Some(first), Some(last)) = (self.0.first_chunk(), self.0.last_chunk()) {
            state.write_u128(u128::from_le_bytes(*first));
            state.write_u32(u32::from_le_bytes(*last));
        }
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEXLOWER.encode_mut_str(&self.0, &mut [0; 40]))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InfoHash {
    type Err = InvalidInfoHash;

    fn from_str(text: &str) -> Result<Self, InvalidInfoHash> {
        from_hex(text).map(Self).ok_or(InvalidInfoHash)
    }
}

/// 20 bytes from 40 hexadecimal digits in either case.
fn from_hex(text: &str) -> Option<[u8; 20]> {
    let mut bytes = [0; 20];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    HEXLOWER_PERMISSIVE
        .decode_mut(text.as_bytes(), &mut bytes)
        .ok()?;
    Some(bytes)
}

/// The value of one hexadecimal digit, in either case.
pub fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

// === impl PeerId ===

impl PeerId {
    /// A peer id from exactly 20 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A peer id from 40 hexadecimal digits in either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// Appends the 40 hexadecimal digits that [`Self::from_hex`] reads.
    pub fn append_hex(&self, text: &mut String) {
        HEXLOWER.encode_append(&self.0, text);
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_hash_reads_and_writes_hex_in_either_case() {
        let hash: InfoHash = "00252B263d3b3f20232f7e7f80ffc328615a302d".parse().unwrap();
        assert_eq!(hash.to_string(), "00252b263d3b3f20232f7e7f80ffc328615a302d");
        assert!("00252b".parse::<InfoHash>().is_err());
        assert!(
            "zz252b263d3b3f20232f7e7f80ffc328615a302d"
                .parse::<InfoHash>()
                .is_err()
        );
    }

    #[test]
    fn passkey_keeps_to_its_alphabet_and_never_shows_itself() {
        let passkey: Passkey = "secret_Pass-0".parse().unwrap();
        assert!(!format!("{passkey:?}").contains("secret"));
        for bad in ["short", "has space", "ümlaut-ümlaut", &"x".repeat(65)] {
            assert!(bad.parse::<Passkey>().is_err(), "{bad}");
        }
    }
}
