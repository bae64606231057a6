//! Bencode (BEP 3): a writer into a `Vec`, and bounded readers.
//!
//! [`parse`] accepts canonical bencode only: dictionary keys sorted and unique, no
//! leading zeros, nothing after the value. [`parse_lenient`] is for .torrent files, which
//! some programs write with unsorted keys, leading zeros or a line break at the end;
//! [`parse_sorted`] is for the parts of them that clients are stricter with. All borrow from
//! their input and bound what they allocate.

use std::ops::Range;

/// How deep lists and dictionaries may be nested, as in libtorrent; .torrent files need
/// about 6, and one for each folder.
const DEPTH_MAX: u32 = 100;

/// The most values in one input, as in libtorrent. A value takes about 60 bytes of memory for as few as 2 of
/// input; the largest .torrent files in use have a few hundred thousand.
const VALUES_MAX: u32 = 3_000_000;

/// The most digits of an integer, and of the length of a string, leading zeros included: otherwise there
/// could be any number of them.
const INT_DIGITS_MAX: usize = 20;
const LENGTH_DIGITS_MAX: usize = 16;

/// A bencoded value with its position in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    pub value: Value<'a>,
    /// The bytes of the input that encode it.
    pub span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Int(i64),
    Bytes(&'a [u8]),
    List(Vec<Node<'a>>),
    /// In the order of the input.
    Dict(Vec<(&'a [u8], Node<'a>)>),
}

/// Why the input can't be parsed, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at}")]
pub struct BencodeError {
    pub problem: &'static str,
    pub at: usize,
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    values: u32,
    form: Form,
}

/// Which deviations from canonical bencode are accepted.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// Unsorted and repeated keys.
    unsorted: bool,
    /// Leading zeros.
    zeros: bool,
    /// Minus zero, zeros after a minus, and numbers of more than 64 bits, which count as 0.
    odd_ints: bool,
}

const CANONICAL: Form = Form {
    unsorted: false,
    zeros: false,
    odd_ints: false,
};

const SORTED: Form = Form {
    odd_ints: true,
    ..CANONICAL
};

const LENIENT: Form = Form {
    unsorted: true,
    zeros: true,
    odd_ints: true,
};

/// Appends `number` as `i…e`.
pub fn write_int(out: &mut Vec<u8>, number: u64) {
    out.push(b'i');
    write_decimal(out, number);
    out.push(b'e');
}

/// Appends `bytes` as `<length>:<bytes>`.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_decimal(out, bytes.len() as u64);
    out.push(b':');
    out.extend_from_slice(bytes);
}

/// Appends the decimal digits of `number`. Faster than `itoa` for up to five digits, as most numbers of
/// a reply have.
pub fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Parses one value that is the whole of `input`.
pub fn parse(input: &[u8]) -> Result<Node<'_>, BencodeError> {
    let mut reader = Reader::new(input, CANONICAL);
    let node = reader.node(DEPTH_MAX)?;
    if reader.at == input.len() {
        Ok(node)
    } else {
        Err(reader.error("something follows the value"))
    }
}

/// Parses one value at the beginning of `input`, and ignores what follows it. Keys may be in any order,
/// numbers may have leading zeros, and an integer of more than 64 bits counts as 0.
/// Of equal keys, [`Node::get`] finds the first.
pub fn parse_lenient(input: &[u8]) -> Result<Node<'_>, BencodeError> {
    Reader::new(input, LENIENT).node(DEPTH_MAX)
}

/// Parses as [`parse_lenient`] does, but keys must be sorted and unique, and leading zeros are refused.
/// This is as strict as libtorrent is with the info dictionary of a v2 torrent.
pub fn parse_sorted(input: &[u8]) -> Result<Node<'_>, BencodeError> {
    Reader::new(input, SORTED).node(DEPTH_MAX)
}

// === impl Node ===

impl<'a> Node<'a> {
    /// The entry of a dictionary; none if this is not a dictionary or has no such key.
    pub fn get(&self, key: &[u8]) -> Option<&Node<'a>> {
        match &self.value {
            // Not a binary search: a leniently parsed dictionary may be unsorted.
            Value::Dict(entries) => entries
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self.value {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    pub fn is_dict(&self) -> bool {
        matches!(self.value, Value::Dict(_))
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn new(input: &'a [u8], form: Form) -> Self {
        Self {
            input,
            at: 0,
            values: 0,
            form,
        }
    }

    fn error(&self, problem: &'static str) -> BencodeError {
        BencodeError {
            problem,
            at: self.at,
        }
    }

    fn peek(&self) -> Result<u8, BencodeError> {
        self.input
            .get(self.at)
            .copied()
            .ok_or_else(|| self.error("the input ends too early"))
    }

    fn node(&mut self, depth: u32) -> Result<Node<'a>, BencodeError> {
        // The end of a list or dictionary counts as a level, too.
        let levels = if matches!(self.peek()?, b'l' | b'd') {
            2
        } else {
            1
        };
        if depth < levels {
            return Err(self.error("too many levels"));
        }
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(self.error("too many values"));
        }
        let start = self.at;
        let value = match self.peek()? {
            b'i' => Value::Int(self.int()?),
            b'l' => Value::List(self.list(depth)?),
            b'd' => Value::Dict(self.dict(depth)?),
            b'0'..=b'9' => Value::Bytes(self.bytes()?),
            _ => return Err(self.error("no value begins like this")),
        };
        Ok(Node {
            value,
            span: start..self.at,
        })
    }

    fn int(&mut self) -> Result<i64, BencodeError> {
        self.at += 1;
        let negative = self.peek()? == b'-';
        if negative {
            self.at += 1;
        }
        let digits = self.digits(b'e', INT_DIGITS_MAX)?;
        let may_have_zeros = self.form.zeros || (negative && self.form.odd_ints);
        if !may_have_zeros {
            self.check_zeros(digits)?;
        }
        if negative && digits == b"0" && !self.form.odd_ints {
            return Err(self.error("minus zero"));
        }
        let magnitude = i128::from(number(digits).unwrap_or(u64::MAX));
        let number = if negative { -magnitude } else { magnitude };
        match i64::try_from(number) {
            Err(_) if !self.form.odd_ints => Err(self.error("the number is too large")),
            number => Ok(number.unwrap_or(0)),
        }
    }

    /// One or more digits up to `end`, which is skipped.
    fn digits(&mut self, end: u8, max: usize) -> Result<&'a [u8], BencodeError> {
        let start = self.at;
        while self.peek()? != end {
            if !self.peek()?.is_ascii_digit() {
                return Err(self.error("this is no number"));
            }
            self.at += 1;
            if self.at - start > max {
                return Err(self.error("the number is too large"));
            }
        }
        if self.at == start {
            return Err(self.error("this is no number"));
        }
        self.at += 1;
        Ok(&self.input[start..self.at - 1])
    }

    fn check_zeros(&self, digits: &[u8]) -> Result<(), BencodeError> {
        if digits.len() > 1 && digits[0] == b'0' {
            return Err(self.error("a number with leading zeros"));
        }
        Ok(())
    }

    fn bytes(&mut self) -> Result<&'a [u8], BencodeError> {
        let digits = self.digits(b':', LENGTH_DIGITS_MAX)?;
        if !self.form.zeros {
            self.check_zeros(digits)?;
        }
        let end = number(digits)
            .and_then(|length| usize::try_from(length).ok())
            .and_then(|length| self.at.checked_add(length))
            .filter(|&end| end <= self.input.len())
            .ok_or_else(|| self.error("the input ends too early"))?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn list(&mut self, depth: u32) -> Result<Vec<Node<'a>>, BencodeError> {
        self.at += 1;
        let mut nodes = Vec::new();
        while self.peek()? != b'e' {
            nodes.push(self.node(depth - 1)?);
        }
        self.at += 1;
        Ok(nodes)
    }

    fn dict(&mut self, depth: u32) -> Result<Vec<(&'a [u8], Node<'a>)>, BencodeError> {
        self.at += 1;
        let mut entries: Vec<(&[u8], Node)> = Vec::new();
        while self.peek()? != b'e' {
            if !self.peek()?.is_ascii_digit() {
                return Err(self.error("a key must be a string"));
            }
            let key = self.bytes()?;
            if !self.form.unsorted && entries.last().is_some_and(|(before, _)| *before >= key) {
                return Err(self.error("the keys are not sorted"));
            }
            entries.push((key, self.node(depth - 1)?));
        }
        self.at += 1;
        Ok(entries)
    }
}

/// The value of decimal digits; none above 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number: u64, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_examples_of_the_standard() {
        let node = parse(b"d3:cowl3:mooi-3ee4:spami42ee").unwrap();
        assert_eq!(node.get(b"spam").unwrap().as_int(), Some(42));
        let cow = node.get(b"cow").unwrap();
        assert_eq!(cow.span, 6..17);
        let Value::List(items) = &cow.value else {
            panic!()
        };
        assert_eq!(items[0].as_bytes(), Some(&b"moo"[..]));
        assert_eq!(items[1].as_int(), Some(-3));
    }

    #[test]
    fn refuses_what_is_not_canonical() {
        for bad in [
            "",
            "i",
            "ie",
            "i-e",
            "i-0e",
            "i03e",
            "i1",
            "i1ee",
            "01:a",
            "2:a",
            "d1:b0:1:a0:e",
            "d1:a0:1:a0:e",
            "di1e0:e",
            "d1:ae",
            "l",
            "x",
            "i99999999999999999999e",
            "99999999999999999999:",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = "l".repeat(100_000);
        assert_eq!(
            parse(deep.as_bytes()).unwrap_err().problem,
            "too many levels"
        );
    }

    #[test]
    fn reads_unsorted_keys_and_a_tail_when_lenient() {
        let input = b"d1:bi1e1:ai2e1:bi3ee\n";
        assert!(parse(input).is_err());
        let node = parse_lenient(input).unwrap();
        assert_eq!(node.span, 0..20);
        assert_eq!(node.get(b"a").unwrap().as_int(), Some(2));
        assert_eq!(node.get(b"b").unwrap().as_int(), Some(1));
        assert!(parse_lenient(b"d1:a").is_err());
    }

    #[test]
    fn odd_numbers_are_read_when_lenient_and_leading_zeros_only_then() {
        let int = |input: &str| parse_lenient(input.as_bytes()).map(|node| node.as_int());
        assert_eq!(int("i-0e"), Ok(Some(0)));
        assert_eq!(int("i007e"), Ok(Some(7)));
        assert_eq!(int("i-07e"), Ok(Some(-7)));
        assert_eq!(int("i-9223372036854775808e"), Ok(Some(i64::MIN)));
        assert_eq!(int("i99999999999999999999e"), Ok(Some(0)));
        assert!(int("i000000000000000000000e").is_err());
        assert!(int("i-e").is_err() && int("ie").is_err() && int("i--1e").is_err());
        assert_eq!(
            parse_lenient(b"00000001:a").unwrap().as_bytes(),
            Some(&b"a"[..])
        );
        assert!(parse_lenient(b"00000000000000001:a").is_err());
        for (input, is_sorted) in [
            ("i-0e", true),
            ("i-07e", true),
            ("i99999999999999999999e", true),
            ("i007e", false),
            ("01:a", false),
            ("d1:b0:1:a0:e", false),
            ("d1:a0:1:a0:e", false),
        ] {
            assert_eq!(parse_sorted(input.as_bytes()).is_ok(), is_sorted, "{input}");
        }
    }

    #[test]
    fn nesting_is_limited_as_in_libtorrent() {
        let nested = |levels: usize| format!("{}{}", "l".repeat(levels), "e".repeat(levels));
        assert!(parse_lenient(nested(99).as_bytes()).is_ok());
        assert!(parse_lenient(nested(100).as_bytes()).is_err());
    }

    #[test]
    fn bounds_the_number_of_values() {
        let input = format!("l{}e", "0:".repeat(VALUES_MAX as usize));
        assert_eq!(
            parse_lenient(input.as_bytes()).unwrap_err().problem,
            "too many values"
        );
    }

    #[test]
    fn parses_what_it_writes() {
        let mut out = Vec::new();
        write_bytes(&mut out, b"spam");
        assert_eq!(out, b"4:spam");
        out.clear();
        write_int(&mut out, u64::MAX);
        assert_eq!(out, b"i18446744073709551615e");
        out.clear();
        write_int(&mut out, 0);
        assert_eq!(parse(&out).unwrap().as_int(), Some(0));
    }
}
