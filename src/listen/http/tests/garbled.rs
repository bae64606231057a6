//! Garbled requests: parsed as by a simple reference parser, and answered the same however they are cut.

use super::{GET, talk};
use crate::listen::http::http1::{HeadError, RequestBody, parse};

/// The outcome of a parser in a form that is easy to compare.
type Outcome = Result<Option<(Vec<u8>, bool, Option<u64>, usize)>, HeadError>;

fn outcome(bytes: &[u8]) -> Outcome {
    Ok(parse(bytes)?.map(|(head, length)| {
        let body = match head.body {
            RequestBody::Bytes(length) => Some(length),
            RequestBody::Unknown => None,
        };
        let text = [head.method, b" ", head.path, b" ", head.query].concat();
        (text, head.keep_alive, body, length)
    }))
}

/// The reference parser: line by line, without regard to speed.
fn plainly(bytes: &[u8]) -> Outcome {
    match bytes {
        [] | b"\r" => return Ok(None),
        [first, ..] if !is_token(&[*first]) => return Err(HeadError::Malformed),
        _ => {}
    }
    let (lines, length) = plain_lines(bytes);
    let Some((first, headers)) = lines.split_first() else {
        return Ok(None);
    };
    let (method, target, is_11) = plain_request_line(first)?;
    let mut fields = Vec::new();
    for line in headers.iter().take_while(|line| !line.is_empty()) {
        fields.push(plain_header(line)?);
    }
    let body = plain_body(&fields);
    // A length that is invalid or repeated is refused at once, anything else at the end of the head.
    if body == Err(true) {
        return Err(HeadError::Malformed);
    }
    if lines.last().is_some_and(|line| !line.is_empty()) {
        return Ok(None);
    }
    let has_strays = fields.iter().any(|field| field.has_strays);
    let body = body
        .ok()
        .filter(|_| !has_strays)
        .ok_or(HeadError::Malformed)?;
    let options = values(&fields, "connection").join(",");
    let options: Vec<&str> = options.split(',').map(str::trim).collect();
    let keep_alive = !options.contains(&"close") && (is_11 || options.contains(&"keep-alive"));
    let (path, query) = plain_target(target);
    let text = [method, b" ", path, b" ", query].concat();
    Ok(Some((text, keep_alive, body, length)))
}

/// A header in lower case.
struct Field {
    name: String,
    value: String,
    has_strays: bool,
}

fn values<'f>(fields: &'f [Field], name: &str) -> Vec<&'f str> {
    fields
        .iter()
        .filter(|field| field.name == name)
        .map(|field| &*field.value)
        .collect()
}

fn is_token(text: &[u8]) -> bool {
    let others = b"!#$%&'*+-.^_`|~";
    let is_fine = |byte: &u8| byte.is_ascii_alphanumeric() || others.contains(byte);
    !text.is_empty() && text.iter().all(is_fine)
}

/// The complete lines up to the first empty one, and their length in bytes.
fn plain_lines(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut start = 0;
    while lines.last().is_none_or(|line| !line.is_empty()) {
        let Some(length) = bytes[start..].iter().position(|&byte| byte == b'\n') else {
            break;
        };
        let line = &bytes[start..start + length];
        lines.push(line.strip_suffix(b"\r").unwrap_or(line));
        start += length + 1;
    }
    (lines, start)
}

fn plain_request_line(line: &[u8]) -> Result<(&[u8], &[u8], bool), HeadError> {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, target, version @ (b"HTTP/1.0" | b"HTTP/1.1")] = words[..] else {
        return Err(HeadError::Malformed);
    };
    let is_bad = target.iter().any(u8::is_ascii_control) || target.is_empty();
    if is_bad || !is_token(method) {
        return Err(HeadError::Malformed);
    }
    Ok((method, target, version == b"HTTP/1.1"))
}

fn plain_header(line: &[u8]) -> Result<Field, HeadError> {
    let colon = line.iter().position(|&byte| byte == b':');
    let (name, value) = line.split_at(colon.ok_or(HeadError::Malformed)?);
    if !is_token(name) {
        return Err(HeadError::Malformed);
    }
    let is_stray = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii()).to_ascii_lowercase();
    Ok(Field {
        name: text(name),
        value: text(&value[1..]),
        has_strays: value.iter().any(is_stray),
    })
}

/// The length of the body, none if it is unknown; or whether the error is found before the end of the
/// head.
fn plain_body(fields: &[Field]) -> Result<Option<u64>, bool> {
    let lengths = values(fields, "content-length");
    let mut numbers = Vec::new();
    for text in lengths {
        let number = text.parse::<u64>().map_err(|_| true)?;
        if text.starts_with('+') {
            return Err(true);
        }
        numbers.push(number);
    }
    let has_coding = !values(fields, "transfer-encoding").is_empty();
    let expects = !values(fields, "expect").is_empty();
    match numbers[..] {
        [] if has_coding => Ok(None),
        [] => Ok(Some(0)),
        [_] if has_coding => Err(false),
        [length] => Ok(Some(length).filter(|&length| length == 0 || !expects)),
        _ => Err(true),
    }
}

fn plain_target(target: &[u8]) -> (&[u8], &[u8]) {
    let mut halves = target.splitn(2, |&byte| byte == b'?');
    let mut path = halves.next().unwrap();
    let query = halves.next().unwrap_or_default();
    if path[..path.len().min(1)] != *b"/" {
        let host = path.windows(3).position(|window| window == b"://");
        path = host.map_or(&[], |at| &path[at + 3..]);
        let slash = path.iter().position(|&byte| byte == b'/');
        path = slash.map_or(&[], |at| &path[at..]);
    }
    (path, query)
}

/// Fragments with a meaning, and some that are invalid.
const SPICE: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b"?",
    b"/",
    b"\0",
    b"\x7f",
    b"\xff",
    b"close",
    b"Connection: close\r\n",
    b"Connection: keep-alive\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.0",
    b"GET ",
    b"GET / HTTP/1.1\r\n",
    b"http://a",
    b"0",
    b"9",
    b"x",
];

const SEEDS: &[&[u8]] = &[
    GET,
    b"GET http://a:1/b/announce?c HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /a HTTP/1.1\nContent-Length: 5\n\nabcde",
    b"GET /a?b HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: x, close\r\n\r\n0\r\n\r\n",
    b"GET /a HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\nForwarded: for=1.2.3.4\r\n\r\nabc",
];

fn mutate(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..8)).min(bytes.len());
        let spice = SPICE[rng.usize(..SPICE.len())];
        match rng.u8(..4) {
            0 => drop(bytes.splice(at..at, spice.iter().copied())),
            1 => drop(bytes.splice(at..end, spice.iter().copied())),
            2 => drop(bytes.drain(at..end)),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.u8(..8);
                }
            }
        }
    }
}

#[test]
fn garbled_heads_are_parsed_as_by_the_reference_parser() {
    let mut rng = fastrand::Rng::with_seed(4);
    let mut outcomes = [0_usize; 3];
    for seed in SEEDS {
        for _ in 0..4000 {
            let mut bytes = seed.to_vec();
            mutate(&mut bytes, &mut rng);
            let expected = plainly(&bytes);
            assert_eq!(outcome(&bytes), expected, "{}", bytes.escape_ascii());
            outcomes[match expected {
                Ok(Some(_)) => 0,
                Ok(None) => 1,
                Err(_) => 2,
            }] += 1;
        }
    }
    assert!(outcomes.iter().all(|&count| count > 500), "{outcomes:?}");
}

/// The same replies, and the same end.
#[test]
fn garbled_pipelines_have_the_same_replies_however_they_are_cut() {
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..5000 {
        let mut bytes = Vec::new();
        for _ in 0..rng.usize(1..5) {
            bytes.extend_from_slice(SEEDS[rng.usize(..SEEDS.len())]);
        }
        mutate(&mut bytes, &mut rng);
        let whole = talk([&bytes[..]]);
        let (first, rest) = bytes.split_at(rng.usize(..=bytes.len()));
        let pieces = talk([first].into_iter().chain(rest.chunks(rng.usize(1..40))));
        let text = bytes.escape_ascii();
        assert_eq!(pieces.replies, whole.replies, "{text}");
        assert_eq!(pieces.end.is_some(), whole.end.is_some(), "{text}");
        assert_eq!(pieces.in_request, whole.in_request, "{text}");
    }
}
