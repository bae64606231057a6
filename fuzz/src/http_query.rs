//! The query of announces and scrapes (rules Q1 to Q8, S1, S2), against a reader that is as plain as the rules.

use std::net::{IpAddr, SocketAddr};

use mika::base::ids::{InfoHash, PeerId};
use mika::wire::query::{SCRAPE_MAX, parse_announce, parse_scrape};
use mika::wire::{Announce, Event, FormHash, ParseError, PlusMeaning};

/// A value is a number, an event or an address only if it has at most this many bytes, decoded.
const VALUE_MAX: usize = 64;

/// Bytes of a `key`: decoded, and as it stands in the query.
const KEY_MAX: usize = 64;
const RAW_KEY_MAX: usize = 3 * KEY_MAX;

pub fn http_query(query: &[u8]) {
    let pairs = pairs(query);
    let mut read = parse_announce(query);
    let expected = announce(&pairs);
    if let (Ok(read), Ok(expected)) = (&mut read, &expected) {
        // How a key is cut to 32 bits is the tracker's own affair, but for one of 8 hex digits.
        let key = last(&pairs, b"key").unwrap_or_default();
        assert_eq!(read.key.is_some(), is_key(key));
        if key.len() == 8
            && let Ok(number) = u32::from_str_radix(&text(key), 16)
            && key[0] != b'+'
        {
            assert_eq!(read.key.map(|key| key.0), Some(number));
        }
        read.key = expected.key;
    }
    assert_eq!(read, expected);
    assert_eq!(parse_scrape(query), scrape(&pairs));
}

type Pair<'a> = (&'a [u8], &'a [u8]);

fn pairs(query: &[u8]) -> Vec<Pair<'_>> {
    let mark = b"?info_hash=";
    let mut pairs = Vec::new();
    for segment in query.split(|&byte| byte == b'&') {
        let again = (0..segment.len()).find(|&at| segment[at..].starts_with(mark));
        let (first, second) = segment.split_at(again.unwrap_or(segment.len()));
        for segment in [first, second.strip_prefix(b"?").unwrap_or_default()] {
            let end = segment.iter().position(|&byte| byte == b'=');
            let (key, value) = segment.split_at(end.unwrap_or(segment.len()));
            if !segment.is_empty() {
                pairs.push((key, value.strip_prefix(b"=").unwrap_or_default()));
            }
        }
    }
    pairs
}

fn all<'a>(pairs: &'a [Pair], key: &'a [u8]) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    let pairs = pairs.iter().filter(move |(name, _)| *name == key);
    pairs.map(|(_, value)| *value)
}

fn last<'a>(pairs: &'a [Pair], key: &'a [u8]) -> Option<&'a [u8]> {
    all(pairs, key).next_back()
}

fn scrape(pairs: &[Pair]) -> Result<Vec<InfoHash>, ParseError> {
    let mut hashes = Vec::new();
    for value in all(pairs, b"info_hash") {
        let hash = twenty(value).ok_or(ParseError::InvalidInfoHash)?;
        let form = form_hash(value);
        let meaning = form.map(|form| form.meaning);
        if meaning != Some(PlusMeaning::Space) && !hashes.contains(&InfoHash(hash)) {
            hashes.push(InfoHash(hash));
        }
        let form = form.filter(|form| form.meaning != PlusMeaning::Plus);
        hashes.extend(
            form.map(|form| form.info_hash)
                .filter(|hash| !hashes.contains(hash)),
        );
    }
    hashes.truncate(SCRAPE_MAX);
    Some(hashes)
        .filter(|hashes| !hashes.is_empty())
        .ok_or(ParseError::MissingInfoHash)
}

fn announce(pairs: &[Pair]) -> Result<Announce, ParseError> {
    let raw = last(pairs, b"info_hash").ok_or(ParseError::MissingInfoHash)?;
    let info_hash = twenty(raw).ok_or(ParseError::InvalidInfoHash)?;
    if all(pairs, b"info_hash").any(|other| twenty(other) != Some(info_hash)) {
        return Err(ParseError::MultipleInfoHash);
    }
    let peer_id = last(pairs, b"peer_id").ok_or(ParseError::MissingPeerId)?;
    let peer_id = twenty(peer_id).ok_or(ParseError::InvalidPeerId)?;
    let value = |key: &'static [u8]| last(pairs, key).unwrap_or_default();
    let event = event(value(b"event"));
    let port = match last(pairs, b"port").map(number) {
        Some(Some(port @ 0..=65_535)) => port as u16,
        _ if event == Event::Stopped => 0,
        None => return Err(ParseError::MissingPort),
        Some(_) => return Err(ParseError::InvalidPort),
    };
    let total = |key| number(value(key)).filter(|&total| total < 1 << 63);
    let claims: Vec<IpAddr> = pairs.iter().filter_map(claim).collect();
    Ok(Announce {
        info_hash: InfoHash(info_hash),
        info_hash_as_form: form_hash(raw),
        peer_id: PeerId(peer_id),
        port,
        uploaded: total(b"uploaded"),
        downloaded: total(b"downloaded"),
        left: number(value(b"left")),
        event,
        numwant: number(value(b"numwant")).map(|want| want.min(u32::MAX.into()) as u32),
        key: None,
        claimed_v4: claims.iter().rfind(|ip| ip.is_ipv4()).copied(),
        claimed_v6: claims.iter().rfind(|ip| ip.is_ipv6()).copied(),
        list_form: value(b"compact") == b"0",
        no_peer_id: value(b"no_peer_id") == b"1",
    })
}

/// The other reading of a value with a raw `+` (rule Q4).
fn form_hash(raw: &[u8]) -> Option<FormHash> {
    let spaces = raw
        .iter()
        .map(|&byte| if byte == b'+' { b' ' } else { byte });
    let spaces: Vec<u8> = spaces.collect();
    let info_hash = twenty(raw.contains(&b'+').then_some(&spaces)?)?;
    let upper = text(raw).to_ascii_uppercase();
    let meaning = match (upper.contains("%20"), upper.contains("%2B")) {
        (true, false) => PlusMeaning::Plus,
        (false, true) => PlusMeaning::Space,
        _ if raw.iter().any(|byte| b"$,/:;<>?@".contains(byte)) => PlusMeaning::Plus,
        (false, false) if raw.contains(&b'%') => PlusMeaning::LikelySpace,
        _ => PlusMeaning::LikelyPlus,
    };
    Some(FormHash {
        info_hash: InfoHash(info_hash),
        meaning,
    })
}

fn claim((key, value): &Pair) -> Option<IpAddr> {
    if ![&b"ip"[..], b"ipv4", b"ipv6"].contains(key) {
        return None;
    }
    let text = String::from_utf8(short(value)?).ok()?;
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    let ip = text.parse().or_else(|_| with_port()).ok()?;
    Some(IpAddr::to_canonical(&ip))
}

fn event(value: &[u8]) -> Event {
    match &*short(value).unwrap_or_default().to_ascii_lowercase() {
        b"started" => Event::Started,
        b"completed" => Event::Completed,
        b"stopped" => Event::Stopped,
        b"paused" => Event::Paused,
        _ => Event::None,
    }
}

fn number(value: &[u8]) -> Option<u64> {
    // Without an escape there is nothing to decode, and a number may be as long as it likes.
    let digits = if value.contains(&b'%') {
        short(value)?
    } else {
        value.to_vec()
    };
    let are_digits = digits.iter().all(u8::is_ascii_digit);
    are_digits.then(|| text(&digits).parse().ok()).flatten()
}

fn is_key(value: &[u8]) -> bool {
    let is_short = |key: Vec<u8>| key.len() <= KEY_MAX;
    !value.is_empty() && value.len() <= RAW_KEY_MAX && decoded(value).is_some_and(is_short)
}

fn twenty(value: &[u8]) -> Option<[u8; 20]> {
    decoded(value)?.try_into().ok()
}

fn short(value: &[u8]) -> Option<Vec<u8>> {
    decoded(value).filter(|value| value.len() <= VALUE_MAX)
}

fn decoded(value: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        let len = if first == b'%' {
            let digits = tail.get(..2)?;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
            3
        } else {
            bytes.push(first);
            1
        };
        rest = &rest[len..];
    }
    Some(bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
