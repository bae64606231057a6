//! Client versions, as encoded in peer ids.

use std::fmt;

/// Up to four numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientVersion {
    parts: [u8; 4],
    len: u8,
    /// All numbers but the first are shown with two digits.
    is_padded: bool,
}

/// How a client encodes its version in four characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A digit for each number; letters continue from 10. The first n are shown, the others count
    /// builds, or are `s` for stable.
    Digits(u8),
    /// Two digits for each of two numbers.
    Pairs,
    /// Likewise, but shown as 2.09 instead of 2.9.
    PaddedPairs,
    /// Transmission: one digit and two digits up to 3.00, three single digits after that.
    Transmission,
}

// === impl Style ===

impl Style {
    /// None if the text does not have this style.
    pub fn read(self, text: [u8; 4]) -> Option<ClientVersion> {
        match self {
            Self::Digits(len) => {
                let mut parts = [0; 4];
                for (part, &sign) in parts.iter_mut().zip(&text).take(len.into()) {
                    *part = digit(sign)?;
                }
                Some(ClientVersion::new(parts, len))
            }
            Self::Pairs => Some(ClientVersion::new(pairs(text)?, 2)),
            Self::PaddedPairs => Some(ClientVersion::new(pairs(text)?, 2).padded()),
            Self::Transmission if text[0] >= b'4' => Self::Digits(3).read(text),
            Self::Transmission => {
                let minor = two_digits(text[1], text[2])?;
                Some(ClientVersion::new([digit(text[0])?, minor, 0, 0], 2).padded())
            }
        }
    }
}

fn pairs(text: [u8; 4]) -> Option<[u8; 4]> {
    let [a, b, c, d] = text;
    Some([two_digits(a, b)?, two_digits(c, d)?, 0, 0])
}

fn two_digits(tens: u8, ones: u8) -> Option<u8> {
    let is_decimal = tens.is_ascii_digit() && ones.is_ascii_digit();
    is_decimal.then(|| 10 * (tens - b'0') + (ones - b'0'))
}

fn digit(sign: u8) -> Option<u8> {
    match sign {
        b'0'..=b'9' => Some(sign - b'0'),
        b'A'..=b'Z' => Some(sign - b'A' + 10),
        b'a'..=b'z' => Some(sign - b'a' + 10),
        _ => None,
    }
}

/// The numbers of a text such as `1-36-0-`, each up to 255.
pub(super) fn dashed(text: &[u8]) -> Option<ClientVersion> {
    let mut parts = [0; 4];
    let mut numbers = text.split(|&sign| sign == b'-');
    for part in parts.iter_mut().take(3) {
        *part = std::str::from_utf8(numbers.next()?).ok()?.parse().ok()?;
    }
    Some(ClientVersion::new(parts, 3))
}

/// Shadow style: a base-64 digit for each number, then dashes.
pub(super) fn shadow(text: &[u8]) -> Option<ClientVersion> {
    let mut parts = [0; 4];
    let mut len = 0;
    let digits = text.iter().take_while(|&&sign| sign != b'-');
    for (part, &sign) in parts.iter_mut().zip(digits) {
        *part = match sign {
            b'a'..=b'z' => sign - b'a' + 36,
            b'.' => 62,
            _ => digit(sign)?,
        };
        len += 1;
    }
    (len > 0).then(|| ClientVersion::new(parts, len))
}

// === impl ClientVersion ===

impl ClientVersion {
    fn new(parts: [u8; 4], len: u8) -> Self {
        Self {
            parts,
            len: len.min(4),
            is_padded: false,
        }
    }

    fn padded(self) -> Self {
        Self {
            is_padded: true,
            ..self
        }
    }

    /// The version as a number other than 0.
    pub fn code(self) -> u64 {
        let [a, b, c, d] = self.parts;
        u64::from_le_bytes([a, b, c, d, self.len, self.is_padded.into(), 0, 0])
    }

    pub fn of_code(code: u64) -> Option<Self> {
        let [a, b, c, d, len, is_padded, ..] = code.to_le_bytes();
        let version = Self {
            parts: [a, b, c, d],
            len,
            is_padded: is_padded != 0,
        };
        (len > 0).then_some(version)
    }
}

impl fmt::Display for ClientVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts.iter().take(self.len.into()).enumerate() {
            match (at, self.is_padded) {
                (0, _) => write!(f, "{part}")?,
                (_, true) => write!(f, ".{part:02}")?,
                (_, false) => write!(f, ".{part}")?,
            }
        }
        Ok(())
    }
}
