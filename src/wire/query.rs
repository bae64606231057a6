//! The query string of announces and scrapes: rules Q1 to Q8 of `docs/protocol.md`.

use std::net::{IpAddr, SocketAddr};

use memchr::memchr;

use crate::base::ids::{InfoHash, PeerId, hex_digit};
use crate::wire::{Announce, ClientKey, Event, FormHash, ParseError, PlusMeaning, plus};

/// Info hashes of one scrape that are answered; the rest is ignored (rule S1).
pub const SCRAPE_MAX: usize = 74;

/// A longer `key` of a client is ignored.
const KEY_LEN_MAX: usize = 64;

/// The most bytes of a decoded value that is neither a hash nor a key.
const VALUE_LEN_MAX: usize = 64;

/// Parses the query of an announce.
///
/// # Errors
/// The first of info_hash, peer_id and port that is missing or invalid.
pub fn parse_announce(query: &[u8]) -> Result<Announce, ParseError> {
    let mut raw = RawAnnounce::default();
    each_pair(query, |key, value| raw.take(key, value));
    raw.decode()
}

/// Parses the query of a scrape: its distinct info hashes in order, at most [`SCRAPE_MAX`]. One with an
/// ambiguous raw `+` is included in both readings (rule Q4).
///
/// # Errors
/// No info_hash (rule S1), or an invalid one (rule S2).
pub fn parse_scrape(query: &[u8]) -> Result<Vec<InfoHash>, ParseError> {
    let mut hashes: Vec<InfoHash> = Vec::new();
    let mut all_valid = true;
    each_pair(query, |key, value| {
        if key != b"info_hash" {
            return;
        }
        let Some(hash) = decode_20(value, b'+') else {
            all_valid = false;
            return;
        };
        let form = as_form(value, &hash);
        let meaning = form.map_or(PlusMeaning::Plus, |form| form.meaning);
        let literal = (meaning != PlusMeaning::Space).then_some(InfoHash(hash));
        let form = form.filter(|_| meaning != PlusMeaning::Plus);
        for hash in literal.into_iter().chain(form.map(|form| form.info_hash)) {
            if hashes.len() < SCRAPE_MAX && !hashes.contains(&hash) {
                hashes.push(hash);
            }
        }
    });
    match (all_valid, hashes.is_empty()) {
        (false, _) => Err(ParseError::InvalidInfoHash),
        (true, true) => Err(ParseError::MissingInfoHash),
        (true, false) => Ok(hashes),
    }
}

/// Calls `take` with each raw key and value of a query, whose pairs end at `&` (rule Q1).
fn each_pair<'q>(query: &'q [u8], mut take: impl FnMut(&'q [u8], &'q [u8])) {
    // Few queries have a second `?`. Only those have their segments searched for it.
    let odd = memchr(b'?', query).is_some();
    let mut rest = query;
    while !rest.is_empty() {
        let end = memchr(b'&', rest).unwrap_or(rest.len());
        let segment = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        let (first, second) = if odd {
            split_second_query(segment)
        } else {
            (segment, &[][..])
        };
        for segment in [first, second] {
            if !segment.is_empty() {
                let (key, value) = split_pair(segment);
                take(key, value);
            }
        }
    }
}

/// Splits a pair at its first `=` (rule Q2).
fn split_pair(segment: &[u8]) -> (&[u8], &[u8]) {
    // Keys are short: a plain search is fastest.
    match segment.iter().position(|&byte| byte == b'=') {
        Some(at) => (&segment[..at], &segment[at + 1..]),
        None => (segment, &[]),
    }
}

/// Some clients append `?info_hash=` to an announce URL that already has a query (rule Q1).
fn split_second_query(segment: &[u8]) -> (&[u8], &[u8]) {
    const MARK: &[u8] = b"?info_hash=";
    match segment
        .windows(MARK.len())
        .position(|window| window == MARK)
    {
        Some(at) => (&segment[..at], &segment[at + 1..]),
        None => (segment, &[]),
    }
}

/// The raw values of an announce, the last one of each scalar (rule Q6).
#[derive(Default)]
struct RawAnnounce<'a> {
    info_hash: Option<&'a [u8]>,
    info_hash_differs: bool,
    peer_id: Option<&'a [u8]>,
    port: Option<&'a [u8]>,
    uploaded: &'a [u8],
    downloaded: &'a [u8],
    left: &'a [u8],
    event: &'a [u8],
    numwant: &'a [u8],
    key: &'a [u8],
    compact: &'a [u8],
    no_peer_id: &'a [u8],
    claimed_v4: Option<IpAddr>,
    claimed_v6: Option<IpAddr>,
}

// === impl RawAnnounce ===

impl<'a> RawAnnounce<'a> {
    /// Notes the value of a key. Keys are not decoded, and unknown ones are ignored (rule Q3).
    fn take(&mut self, key: &[u8], value: &'a [u8]) {
        match key {
            b"info_hash" => {
                self.info_hash_differs |=
                    self.info_hash.is_some_and(|first| !same_hash(first, value));
                self.info_hash = Some(value);
            }
            b"peer_id" => self.peer_id = Some(value),
            b"port" => self.port = Some(value),
            b"uploaded" => self.uploaded = value,
            b"downloaded" => self.downloaded = value,
            b"left" => self.left = value,
            b"event" => self.event = value,
            b"numwant" => self.numwant = value,
            b"key" => self.key = value,
            b"compact" => self.compact = value,
            b"no_peer_id" => self.no_peer_id = value,
            b"ip" | b"ipv4" | b"ipv6" => self.claim(value),
            _ => {}
        }
    }

    /// Only literal addresses: names, which BEP 3 allows, are never resolved.
    fn claim(&mut self, value: &[u8]) {
        let ip = decode_text(value).and_then(|text| {
            let text = text.as_str();
            text.parse::<IpAddr>()
                .or_else(|_| text.parse::<SocketAddr>().map(|addr| addr.ip()))
                .ok()
        });
        match ip.map(|ip| ip.to_canonical()) {
            Some(ip @ IpAddr::V4(_)) => self.claimed_v4 = Some(ip),
            Some(ip @ IpAddr::V6(_)) => self.claimed_v6 = Some(ip),
            None => {}
        }
    }

    fn decode(self) -> Result<Announce, ParseError> {
        let raw_hash = self.info_hash.ok_or(ParseError::MissingInfoHash)?;
        let info_hash = decode_20(raw_hash, b'+').ok_or(ParseError::InvalidInfoHash)?;
        if self.info_hash_differs {
            return Err(ParseError::MultipleInfoHash);
        }
        let peer_id = self.peer_id.ok_or(ParseError::MissingPeerId)?;
        let peer_id = decode_20(peer_id, b'+').ok_or(ParseError::InvalidPeerId)?;
        let event = event(self.event);
        let info_hash_as_form = as_form(raw_hash, &info_hash);
        Ok(Announce {
            info_hash: InfoHash(info_hash),
            info_hash_as_form,
            peer_id: PeerId(peer_id),
            port: port(self.port, event)?,
            uploaded: total(self.uploaded),
            downloaded: total(self.downloaded),
            left: integer(self.left),
            event,
            numwant: integer(self.numwant).map(|want| u32::try_from(want).unwrap_or(u32::MAX)),
            key: client_key(self.key),
            claimed_v4: self.claimed_v4,
            claimed_v6: self.claimed_v6,
            list_form: self.compact == b"0",
            no_peer_id: self.no_peer_id == b"1",
        })
    }
}

/// The hash with each raw `+` read as a space; none without a raw `+`.
fn as_form(raw: &[u8], info_hash: &[u8; 20]) -> Option<FormHash> {
    // A raw `+` decodes to a `+`, so a hash without one has no raw `+`.
    if !info_hash.contains(&b'+') {
        return None;
    }
    let as_form = decode_20(raw, b' ').filter(|as_form| as_form != info_hash)?;
    Some(FormHash {
        info_hash: InfoHash(as_form),
        meaning: plus::meaning(raw),
    })
}

/// Whether two spellings are of the same hash. Whether they are valid is checked later.
fn same_hash(first: &[u8], second: &[u8]) -> bool {
    first == second || decode_20(first, b'+') == decode_20(second, b'+')
}

/// A port; 0 for a client that accepts no connections.
fn port(value: Option<&[u8]>, event: Event) -> Result<u16, ParseError> {
    let (port, error) = match value {
        Some(value) => (
            integer(value).and_then(|port| u16::try_from(port).ok()),
            ParseError::InvalidPort,
        ),
        None => (None, ParseError::MissingPort),
    };
    match port {
        Some(port) => Ok(port),
        None if event == Event::Stopped => Ok(0),
        None => Err(error),
    }
}

/// A running total. One above 2^63−1 does not fit a database, and counts as not reported.
fn total(value: &[u8]) -> Option<u64> {
    integer(value).filter(|&total| i64::try_from(total).is_ok())
}

fn event(value: &[u8]) -> Event {
    if value.contains(&b'%') {
        let text = decode_text(value);
        return text.map_or(Event::None, |text| plain_event(text.as_str().as_bytes()));
    }
    plain_event(value)
}

fn plain_event(value: &[u8]) -> Event {
    let events = [
        (&b"started"[..], Event::Started),
        (b"completed", Event::Completed),
        (b"stopped", Event::Stopped),
        (b"paused", Event::Paused),
    ];
    let known = events
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(value));
    known.map_or(Event::None, |(_, event)| event)
}

/// Eight hex digits are the number that the client would send over UDP (BEP 15); other keys are hashed.
fn client_key(value: &[u8]) -> Option<ClientKey> {
    if value.is_empty() || value.len() > KEY_LEN_MAX * 3 {
        return None;
    }
    if value.len() == 8 && value.iter().all(u8::is_ascii_hexdigit) {
        let key = value
            .iter()
            .filter_map(|&digit| hex_digit(digit))
            .fold(0, |key, digit| key << 4 | u32::from(digit));
        return Some(ClientKey(key));
    }
    let mut length = 0;
    let mut hash: u32 = 0x811c_9dc5; // FNV-1a
    for byte in decode(value, b'+') {
        length += 1;
        hash = (hash ^ u32::from(byte?)).wrapping_mul(0x0100_0193);
    }
    (length <= KEY_LEN_MAX).then_some(ClientKey(hash))
}

/// `1*DIGIT` up to 2^64−1 (rule Q8); anything else is none.
fn integer(value: &[u8]) -> Option<u64> {
    digits(value).or_else(|| {
        let text = value.contains(&b'%').then(|| decode_text(value))??;
        digits(text.as_str().as_bytes())
    })
}

fn digits(value: &[u8]) -> Option<u64> {
    /// This many digits always fit, and need no overflow checks.
    const SAFE: usize = 19;

    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |byte: &u8| u64::from(byte - b'0');
    let (head, tail) = value.split_at(value.len().min(SAFE));
    let number = head
        .iter()
        .fold(0, |number, byte| number * 10 + digit(byte));
    tail.iter().try_fold(number, |number: u64, byte| {
        number.checked_mul(10)?.checked_add(digit(byte))
    })
}

/// A short decoded text, without an allocation.
struct Text {
    bytes: [u8; VALUE_LEN_MAX],
    len: usize,
}

// === impl Text ===

impl Text {
    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

fn decode_text(value: &[u8]) -> Option<Text> {
    let mut text = Text {
        bytes: [0; VALUE_LEN_MAX],
        len: 0,
    };
    for byte in decode(value, b'+') {
        *text.bytes.get_mut(text.len)? = byte?;
        text.len += 1;
    }
    Some(text)
}

/// Exactly 20 decoded bytes (rule Q7).
fn decode_20(value: &[u8], plus: u8) -> Option<[u8; 20]> {
    let mut decoded = [0; 20];
    let mut rest = value;
    for byte in &mut decoded {
        let (&first, tail) = rest.split_first()?;
        (*byte, rest) = match first {
            b'%' => {
                let (&[high, low], tail) = tail.split_first_chunk()?;
                let (high, low) = (HEX[usize::from(high)], HEX[usize::from(low)]);
                if (high | low) & NO_DIGIT != 0 {
                    return None;
                }
                (high << 4 | low, tail)
            }
            b'+' => (plus, tail),
            plain => (plain, tail),
        };
    }
    rest.is_empty().then_some(decoded)
}

/// Marks a byte in [`HEX`] that is not a hexadecimal digit.
const NO_DIGIT: u8 = 0x80;

/// The value of each byte as a hexadecimal digit. A table, because a query is mostly hashes.
static HEX: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

/// The bytes of a value, decoded once (rule Q4); none for an invalid escape (rule Q5).
fn decode(value: &[u8], plus: u8) -> impl Iterator<Item = Option<u8>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                rest = tail;
                Some(
                    hex_digit(*high)
                        .zip(hex_digit(*low))
                        .map(|(high, low)| high << 4 | low),
                )
            }
            (b'%', _) => {
                rest = &[];
                Some(None)
            }
            (b'+', tail) => {
                rest = tail;
                Some(Some(plus))
            }
            (plain, tail) => {
                rest = tail;
                Some(Some(plain))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IH: &str = "%00%25%2B%26%3D%3B%3F%20%23%2F~%7F%80%FF%C3%28aZ0-";
    const PID: &str = "-MK0001-abcdefghijkl";
    const IH_HEX: &str = "00252b263d3b3f20232f7e7f80ffc328615a302d";

    /// The announce of the vectors with `change` applied: `x=y` appends, `-x` takes `x` out.
    fn query(change: &str) -> String {
        let mut parts = vec![
            format!("info_hash={IH}"),
            format!("peer_id={PID}"),
            "port=6881".into(),
            "uploaded=0".into(),
            "downloaded=0".into(),
            "left=16384".into(),
            "compact=1".into(),
        ];
        for one in change.split(',').filter(|one| !one.is_empty()) {
            match one.strip_prefix('-') {
                Some(name) => parts.retain(|part| !part.starts_with(&format!("{name}="))),
                None => parts.push(one.into()),
            }
        }
        parts.join("&")
    }

    fn parse(change: &str) -> Result<Announce, ParseError> {
        parse_announce(query(change).as_bytes())
    }

    #[test]
    fn every_spelling_of_a_hash_is_the_same_torrent() {
        let mut all = String::new();
        for pair in IH_HEX.as_bytes().chunks(2) {
            all.push('%');
            all.extend(pair.iter().map(|&digit| char::from(digit)));
        }
        let minimal = "%00%25+%26=;?%20%23/~%7F%80%FF%C3(aZ0-";
        let spellings = [
            IH.to_owned(),
            IH.to_lowercase().replace("az0", "aZ0"),
            all,
            minimal.into(),
        ];
        for spelling in spellings {
            let query = format!("info_hash={spelling}&peer_id={PID}&port=1");
            let announce = parse_announce(query.as_bytes()).unwrap();
            assert_eq!(announce.info_hash.to_string(), IH_HEX, "{spelling}");
        }
        let plus =
            parse_announce(format!("info_hash={minimal}&peer_id={PID}&port=1").as_bytes()).unwrap();
        assert_eq!(plus.info_hash_as_form.unwrap().info_hash.0[2], b' ');
        assert_eq!(parse("").unwrap().info_hash_as_form, None);
    }

    #[test]
    fn missing_parameters_are_refused() {
        let twenty = "%00".repeat(20);
        let table: &[(&str, Option<ParseError>)] = &[
            ("", None),
            ("-info_hash", Some(ParseError::MissingInfoHash)),
            (
                "-info_hash,info_hash=short",
                Some(ParseError::InvalidInfoHash),
            ),
            (
                "-info_hash,info_hash=00252b263d3b3f20232f7e7f80ffc328615a302d",
                Some(ParseError::InvalidInfoHash),
            ),
            (
                "-info_hash,info_hash=%zz234567890123456789",
                Some(ParseError::InvalidInfoHash),
            ),
            (
                "-info_hash,info_hash=1234567890123456789%4",
                Some(ParseError::InvalidInfoHash),
            ),
            (
                "info_hash=12345678901234567890",
                Some(ParseError::MultipleInfoHash),
            ),
            (&format!("info_hash={IH}"), None),
            ("-peer_id", Some(ParseError::MissingPeerId)),
            (
                "-peer_id,peer_id=-MK0001-abcdefghijk",
                Some(ParseError::InvalidPeerId),
            ),
            (
                "-peer_id,peer_id=-MK0001-abcdefghijklm",
                Some(ParseError::InvalidPeerId),
            ),
            (&format!("-peer_id,peer_id={twenty}"), None),
            ("-port", Some(ParseError::MissingPort)),
            ("-port,port=", Some(ParseError::InvalidPort)),
            ("-port,port=65536", Some(ParseError::InvalidPort)),
            ("-port,port=abc", Some(ParseError::InvalidPort)),
            ("-port,port=-1", Some(ParseError::InvalidPort)),
            ("-port,event=stopped", None),
            ("port=0", None),
            ("uploaded=-1", None),
        ];
        for (change, expected) in table {
            assert_eq!(parse(change).err(), *expected, "{change}");
        }
    }

    #[test]
    fn odd_segments_are_ignored() {
        for odd in ["&&", "&", "&=b", "&a", "&a=b=c", "&%zz=%zz", "&left"] {
            for query in [
                format!("{}{odd}", query("")),
                format!("{odd}&{}", query("")),
            ] {
                assert!(parse_announce(query.as_bytes()).is_ok(), "{query}");
            }
        }
        let second = format!("foo=bar?info_hash={IH}&peer_id={PID}&port=1");
        assert_eq!(
            parse_announce(second.as_bytes())
                .unwrap()
                .info_hash
                .to_string(),
            IH_HEX
        );
        // A semicolon is data.
        assert_eq!(
            parse("port=6882;left=0").err(),
            Some(ParseError::InvalidPort)
        );
    }

    #[test]
    fn numbers_follow_their_rules() {
        let left = |text: &str| parse(&format!("-left{text}")).unwrap().left;
        assert_eq!(left(""), None);
        assert_eq!(left(",left="), None);
        assert_eq!(left(",left=-1"), None);
        assert_eq!(left(",left=abc"), None);
        assert_eq!(left(",left=0"), Some(0));
        assert_eq!(left(",left=000"), Some(0));
        assert_eq!(left(",left=%30"), Some(0));
        assert_eq!(left(",left=18446744073709551615"), Some(u64::MAX));
        assert_eq!(left(",left=99999999999999999999"), None);
        let uploaded = |text: &str| parse(&format!("uploaded={text}")).unwrap().uploaded;
        assert_eq!(uploaded("9223372036854775807"), Some(u64::MAX >> 1));
        assert_eq!(uploaded("9223372036854775808"), None);
        assert_eq!(uploaded("-1"), None);
        let numwant = |text: &str| parse(&format!("numwant={text}")).unwrap().numwant;
        assert_eq!(numwant("0"), Some(0));
        assert_eq!(numwant("-1"), None);
        assert_eq!(numwant("99999999999"), Some(u32::MAX));
        assert_eq!(parse("port=6881,port=7000").unwrap().port, 7000);
    }

    #[test]
    fn events_are_parsed_in_any_case() {
        let event = |text: &str| parse(&format!("event={text}")).unwrap().event;
        let table = [
            ("started", Event::Started),
            ("STARTED", Event::Started),
            ("st%61rted", Event::Started),
            ("completed", Event::Completed),
            ("stopped", Event::Stopped),
            ("paused", Event::Paused),
            ("", Event::None),
            ("empty", Event::None),
            ("none", Event::None),
            ("update", Event::None),
            ("bogus", Event::None),
            ("%zz", Event::None),
        ];
        for (text, expected) in table {
            assert_eq!(event(text), expected, "{text}");
        }
    }

    #[test]
    fn keys_of_every_client_are_accepted() {
        let key = |text: &str| parse(&format!("key={text}")).unwrap().key;
        assert_eq!(key("1234ABCD"), Some(ClientKey(0x1234_abcd)));
        assert!(key("-12345").is_some());
        assert!(key("%00%01%02%03%04%05%06%07").is_some());
        assert_eq!(key(&"x".repeat(65)), None);
        assert_eq!(key(""), None);
    }

    #[test]
    fn claimed_addresses_are_literals_only() {
        let announce = parse("ip=example.org,ipv4=8.8.8.8:6881,ipv6=%5B2a00::1%5D:1").unwrap();
        assert_eq!(announce.claimed_v4, Some("8.8.8.8".parse().unwrap()));
        assert_eq!(announce.claimed_v6, Some("2a00::1".parse().unwrap()));
        assert_eq!(parse("ip=x.i2p").unwrap().claimed_v4, None);
    }

    #[test]
    fn a_scrape_takes_the_first_distinct_hashes() {
        let hash = |n: usize| format!("info_hash=%{n:02x}2345678901234567890");
        let many: Vec<String> = (0..75).map(hash).collect();
        assert_eq!(
            parse_scrape(many.join("&").as_bytes()).unwrap().len(),
            SCRAPE_MAX
        );
        let twice = format!("{}&{}", hash(1), hash(1));
        assert_eq!(parse_scrape(twice.as_bytes()).unwrap().len(), 1);
        assert_eq!(parse_scrape(b"a=b"), Err(ParseError::MissingInfoHash));
        assert_eq!(
            parse_scrape(b"info_hash=abc"),
            Err(ParseError::InvalidInfoHash)
        );
    }
}
