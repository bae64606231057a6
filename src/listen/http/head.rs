//! Request heads: bytes to values, nothing copied (rules H1, H3 to H8; RFC 9112).
//!
//! Lines end with CRLF or LF. What could be read in two ways is refused, because a proxy in front
//! might read it the other way: a CR elsewhere, a folded line, a space in or after a header's
//! name, more than one length of a body.

use memchr::memchr;

/// Bytes of a request line, method and version included.
pub const LINE_MAX: usize = 16 * 1024;

/// Bytes of a whole head.
pub const HEAD_MAX: usize = 32 * 1024;

/// Headers of a request.
pub const HEADERS_MAX: usize = 64;

/// The head of a request, as far as a tracker minds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub method: &'a [u8],
    /// What stands before the first `?`, without scheme and host.
    pub path: &'a [u8],
    /// What stands after the first `?`.
    pub query: &'a [u8],
    pub version: Version,
    /// The client wants the connection to stay open.
    pub keep_alive: bool,
    pub body: Body,
    headers: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes, often none.
    Bytes(u64),
    /// Something that only a reader of bodies finds the end of.
    Unknown,
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Malformed,
    LineTooLong,
    HeadTooLong,
    TooManyHeaders,
}

/// Reads the head that `bytes` begin with, and its length; none if its end is still to come.
///
/// # Errors
/// It is none, whatever is to come, or is beyond the limits.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head<'_>, usize)>, Fault> {
    match bytes {
        // Nothing yet, or the half of an empty line.
        [] | b"\r" => return Ok(None),
        // Binary protocols, such as TLS, are told so and need not wait.
        [first, ..] if !is_token(*first) => return Err(Fault::Malformed),
        _ => {}
    }
    let Some((line, headers)) = next_line(bytes) else {
        // One byte more may be the CR of its end.
        if bytes.len() > LINE_MAX + 1 {
            return Err(Fault::LineTooLong);
        }
        return Ok(None);
    };
    if line.len() > LINE_MAX {
        return Err(Fault::LineTooLong);
    }
    let (method, target, version) = request_line(line).ok_or(Fault::Malformed)?;
    let mut fields = Fields::default();
    let mut rest = headers;
    loop {
        let next = next_line(rest);
        let read = bytes.len() - next.map_or(0, |(_, tail)| tail.len());
        if read > HEAD_MAX {
            return Err(Fault::HeadTooLong);
        }
        let Some((line, tail)) = next else {
            return Ok(None);
        };
        rest = tail;
        if line.is_empty() {
            break;
        }
        fields.take(line)?;
    }
    let headers = &headers[..headers.len() - rest.len()];
    if has_strays(headers) {
        return Err(Fault::Malformed);
    }
    let (path, query) = split_target(target);
    let head = Head {
        method,
        path,
        query,
        version,
        keep_alive: fields.stays.unwrap_or(version == Version::Http11),
        body: fields.body()?,
        headers,
    };
    Ok(Some((head, bytes.len() - rest.len())))
}

/// What follows the empty lines that `bytes` begin with; clients may send them between requests.
pub fn skip_empty_lines(mut bytes: &[u8]) -> &[u8] {
    loop {
        bytes = match bytes {
            [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => rest,
            _ => return bytes,
        }
    }
}

// === impl Head ===

impl<'a> Head<'a> {
    /// The values of all headers of that name, in order. One that is no text is a `?`.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let lines = self.headers.split(|&byte| byte == b'\n');
        lines.filter_map(move |line| {
            let (name_here, rest) = line.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":")?;
            let is_it = name_here.eq_ignore_ascii_case(name.as_bytes());
            is_it.then(|| str::from_utf8(value.trim_ascii()).unwrap_or("?"))
        })
    }
}

/// What the headers say that matters here.
#[derive(Default)]
struct Fields {
    count: usize,
    /// What `Connection` says; closing outweighs staying.
    stays: Option<bool>,
    length: Option<u64>,
    has_coding: bool,
    expects: bool,
}

// === impl Fields ===

impl Fields {
    fn take(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.count += 1;
        if self.count > HEADERS_MAX {
            return Err(Fault::TooManyHeaders);
        }
        let end = line.iter().position(|&byte| !is_token(byte));
        let (name, rest) = line.split_at(end.unwrap_or(line.len()));
        let (Some((b':', value)), false) = (rest.split_first(), name.is_empty()) else {
            return Err(Fault::Malformed);
        };
        match name.len() {
            6 if name.eq_ignore_ascii_case(b"expect") => self.expects = true,
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = length(value.trim_ascii());
                if length.is_none() || self.length.is_some() {
                    return Err(Fault::Malformed);
                }
                self.length = length;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.has_coding = true,
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                self.stays = Some(false);
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.stays = self.stays.or(Some(true));
            }
        }
    }

    fn body(&self) -> Result<Body, Fault> {
        match (self.has_coding, self.length) {
            (true, Some(_)) => Err(Fault::Malformed),
            (true, None) => Ok(Body::Unknown),
            // It comes or not, depending on when the client sees the reply.
            (false, Some(1..)) if self.expects => Ok(Body::Unknown),
            (false, length) => Ok(Body::Bytes(length.unwrap_or(0))),
        }
    }
}

/// `1*DIGIT` up to 2^64−1.
fn length(value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value).ok()?;
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// The first line without its end, and what follows it.
fn next_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', bytes)?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]))
}

/// Method, target and version, with one space between them.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], Version)> {
    let (rest, version) = line.split_last_chunk()?;
    let version = match version {
        b" HTTP/1.1" => Version::Http11,
        b" HTTP/1.0" => Version::Http10,
        _ => return None,
    };
    let space = rest.iter().position(|&byte| !is_token(byte))?;
    let (method, target) = rest.split_at(space);
    let target = target.strip_prefix(b" ")?;
    let is_fine = !method.is_empty() && !target.is_empty() && !has_gaps(target);
    is_fine.then_some((method, target, version))
}

/// Path and query of a target, with scheme and host before them or without (rule H1).
fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    let (before, query) = match memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &[][..]),
    };
    if before.starts_with(b"/") {
        return (before, query);
    }
    let host = before
        .windows(3)
        .position(|window| window == b"://")
        .map_or(&[][..], |at| &before[at + 3..]);
    let path = memchr(b'/', host).map_or(&[][..], |at| &host[at..]);
    (path, query)
}

/// The letters of methods and of header names (RFC 9110, `token`).
fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let others = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < others.len() {
            table[others[at] as usize] = true;
            at += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
}

/// Whether a target has a space or a control character. Looks at every byte, as does
/// [`has_strays`], so that the compiler can look at many at once.
fn has_gaps(target: &[u8]) -> bool {
    target.iter().fold(false, |any, &byte| any | is_gap(byte))
}

fn is_gap(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

/// Whether header lines hold a control character, or a CR that does not end a line.
fn has_strays(lines: &[u8]) -> bool {
    let next = lines.get(1..).unwrap_or_default();
    let pairs = lines.iter().zip(next);
    pairs.fold(false, |any, (&byte, &next)| any | is_stray(byte, next))
}

fn is_stray(byte: u8, next: u8) -> bool {
    match byte {
        b'\r' => next != b'\n',
        b'\t' | b'\n' => false,
        _ => byte < b' ' || byte == 0x7f,
    }
}
