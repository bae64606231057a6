//! HTTP/1: request heads to values, and replies to bytes (rules H1, H3 to H8, R1, R2; RFC 9112).
//!
//! Lines end with CRLF or LF. An ambiguous head is refused, because a proxy in front might read it
//! differently: a CR elsewhere, a folded line, a space in or after a header's name, more than one
//! body length.
//!
//! Not `httparse`: it is as strict about syntax and some 100 ns per request faster, but it also refuses
//! lines whose end is still to come, and has none of the limits. Most of this code would remain around it.

use memchr::memchr;

/// Bytes of a request line, including method and version.
pub const LINE_MAX: usize = 16 * 1024;

/// Bytes of a whole head.
pub const HEAD_MAX: usize = 32 * 1024;

/// Headers of a request.
pub const HEADERS_MAX: usize = 64;

/// The parts of a request head that matter to a tracker. Nothing is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    pub method: &'a [u8],
    /// The target up to the first `?`, without scheme and host.
    pub path: &'a [u8],
    /// The target after the first `?`.
    pub query: &'a [u8],
    pub version: HttpVersion,
    /// The client wants the connection to stay open.
    pub keep_alive: bool,
    pub body: RequestBody,
    headers: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    Http10,
    Http11,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// This many bytes, usually 0.
    Bytes(u64),
    /// A length that only a decoder of the body could find out.
    Unknown,
}

/// Why a request head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    Malformed,
    LineTooLong,
    HeadTooLong,
    TooManyHeaders,
}

/// Parses the head at the beginning of `bytes`. Returns it with its length; none if it is incomplete.
///
/// # Errors
/// The head is malformed (rule H8) or beyond the limits (rule H7), whatever bytes follow.
pub fn parse(bytes: &[u8]) -> Result<Option<(RequestHead<'_>, usize)>, HeadError> {
    match bytes {
        // Nothing yet, or half of an empty line.
        [] | b"\r" => return Ok(None),
        // Binary protocols, such as TLS, are refused at once.
        [first, ..] if !is_token(*first) => return Err(HeadError::Malformed),
        _ => {}
    }
    let Some((line, headers)) = next_line(bytes) else {
        // One more byte may be the CR of the line end.
        if bytes.len() > LINE_MAX + 1 {
            return Err(HeadError::LineTooLong);
        }
        return Ok(None);
    };
    if line.len() > LINE_MAX {
        return Err(HeadError::LineTooLong);
    }
    let (method, target, version) = request_line(line).ok_or(HeadError::Malformed)?;
    let mut fields = Fields::default();
    let mut rest = headers;
    loop {
        let next = next_line(rest);
        let read = bytes.len() - next.map_or(0, |(_, tail)| tail.len());
        if read > HEAD_MAX {
            return Err(HeadError::HeadTooLong);
        }
        let Some((line, tail)) = next else {
            return Ok(None);
        };
        rest = tail;
        if line.is_empty() {
            break;
        }
        fields.add(line)?;
    }
    let headers = &headers[..headers.len() - rest.len()];
    if has_strays(headers) {
        return Err(HeadError::Malformed);
    }
    let (path, query) = split_target(target);
    let head = RequestHead {
        method,
        path,
        query,
        version,
        keep_alive: fields.keep_alive.unwrap_or(version == HttpVersion::Http11),
        body: fields.body()?,
        headers,
    };
    Ok(Some((head, bytes.len() - rest.len())))
}

/// Skips empty lines, which clients may send between requests.
pub fn skip_empty_lines(mut bytes: &[u8]) -> &[u8] {
    loop {
        bytes = match bytes {
            [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => rest,
            _ => return bytes,
        }
    }
}

// === impl RequestHead ===

impl<'a> RequestHead<'a> {
    /// The values of all headers named `name`, in order. One that is not UTF-8 becomes a `?`.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.headers
            .split(|&byte| byte == b'\n')
            .filter_map(move |line| {
                let (line_name, rest) = line.split_at_checked(name.len())?;
                let value = rest.strip_prefix(b":")?;
                let is_same = line_name.eq_ignore_ascii_case(name.as_bytes());
                is_same.then(|| str::from_utf8(value.trim_ascii()).unwrap_or("?"))
            })
    }
}

/// What the headers say about the connection and the body.
#[derive(Default)]
struct Fields {
    count: usize,
    /// What `Connection` says; `close` overrides `keep-alive`.
    keep_alive: Option<bool>,
    length: Option<u64>,
    has_encoding: bool,
    expects: bool,
}

// === impl Fields ===

impl Fields {
    fn add(&mut self, line: &[u8]) -> Result<(), HeadError> {
        self.count += 1;
        if self.count > HEADERS_MAX {
            return Err(HeadError::TooManyHeaders);
        }
        let end = line.iter().position(|&byte| !is_token(byte));
        let (name, rest) = line.split_at(end.unwrap_or(line.len()));
        let (Some((b':', value)), false) = (rest.split_first(), name.is_empty()) else {
            return Err(HeadError::Malformed);
        };
        match name.len() {
            6 if name.eq_ignore_ascii_case(b"expect") => self.expects = true,
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = length(value.trim_ascii());
                if length.is_none() || self.length.is_some() {
                    return Err(HeadError::Malformed);
                }
                self.length = length;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.has_encoding = true,
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                self.keep_alive = Some(false);
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = self.keep_alive.or(Some(true));
            }
        }
    }

    fn body(&self) -> Result<RequestBody, HeadError> {
        match (self.has_encoding, self.length) {
            (true, Some(_)) => Err(HeadError::Malformed),
            (true, None) => Ok(RequestBody::Unknown),
            // The body is sent or not, depending on when the client sees the reply.
            (false, Some(1..)) if self.expects => Ok(RequestBody::Unknown),
            (false, length) => Ok(RequestBody::Bytes(length.unwrap_or(0))),
        }
    }
}

/// `1*DIGIT` up to 2^64−1.
fn length(value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value).ok()?;
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// Splits off the first line, without its line end.
fn next_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', bytes)?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]))
}

/// Method, target and version, separated by one space each.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], HttpVersion)> {
    let (rest, version) = line.split_last_chunk()?;
    let version = match version {
        b" HTTP/1.1" => HttpVersion::Http11,
        b" HTTP/1.0" => HttpVersion::Http10,
        _ => return None,
    };
    let space = rest.iter().position(|&byte| !is_token(byte))?;
    let (method, target) = rest.split_at(space);
    let target = target.strip_prefix(b" ")?;
    let is_valid = !method.is_empty() && !target.is_empty() && !has_gaps(target);
    is_valid.then_some((method, target, version))
}

/// Path and query of a target, with or without scheme and host (rule H1).
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

/// Whether a byte may be part of a method or a header name (RFC 9110, `token`).
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

/// Whether a target has a space or a control character. Does not stop at the first one, nor does
/// [`has_strays`], so that the compiler can vectorise the loop.
fn has_gaps(target: &[u8]) -> bool {
    target.iter().fold(false, |any, &byte| any | is_gap(byte))
}

fn is_gap(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

/// Whether header lines have a control character, or a CR that does not end a line.
fn has_strays(lines: &[u8]) -> bool {
    let next = lines.get(1..).unwrap_or_default();
    lines
        .iter()
        .zip(next)
        .fold(false, |any, (&byte, &next)| any | is_stray(byte, next))
}

fn is_stray(byte: u8, next: u8) -> bool {
    match byte {
        b'\r' => next != b'\n',
        b'\t' | b'\n' => false,
        _ => byte < b' ' || byte == 0x7f,
    }
}

// === replies ===

/// The status of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    UriTooLong,
    HeadersTooLarge,
}

/// The `Connection` header of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionHeader {
    /// The connection stays open, the default of HTTP/1.1.
    Absent,
    /// The connection stays open, which is not the default of HTTP/1.0.
    KeepAlive,
    Close,
}

/// The first lines of every reply. There is no `Date`: replies are not cached, and it would be a tenth
/// of a short one.
macro_rules! reply_head {
    ($status:literal) => {
        concat!(
            "HTTP/1.1 ",
            $status,
            "\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n"
        )
    };
}

// === impl Status ===

impl Status {
    fn head_lines(self) -> &'static str {
        match self {
            Self::Ok => reply_head!("200 OK"),
            Self::BadRequest => reply_head!("400 Bad Request"),
            Self::NotFound => reply_head!("404 Not Found"),
            Self::MethodNotAllowed => {
                concat!(reply_head!("405 Method Not Allowed"), "Allow: GET\r\n")
            }
            Self::UriTooLong => reply_head!("414 URI Too Long"),
            Self::HeadersTooLarge => reply_head!("431 Request Header Fields Too Large"),
        }
    }
}

// === impl ConnectionHeader ===

impl ConnectionHeader {
    fn line(self) -> &'static str {
        match self {
            Self::Absent => "",
            Self::KeepAlive => "Connection: keep-alive\r\n",
            Self::Close => "Connection: close\r\n",
        }
    }
}

/// Appends the head of a reply with a body of `length` bytes (rule R2).
pub fn write_head(out: &mut Vec<u8>, status: Status, connection: ConnectionHeader, length: usize) {
    out.extend_from_slice(status.head_lines().as_bytes());
    out.extend_from_slice(connection.line().as_bytes());
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a whole reply.
pub fn write_reply(out: &mut Vec<u8>, status: Status, connection: ConnectionHeader, body: &[u8]) {
    write_head(out, status, connection, body.len());
    out.extend_from_slice(body);
}

/// Appends the reply to a head that is refused, after which the connection closes.
pub fn write_head_error(out: &mut Vec<u8>, error: HeadError) {
    let (status, text) = match error {
        HeadError::Malformed => (Status::BadRequest, "Bad Request\n"),
        // Transmission looks for this text, and then asks for fewer torrents at once.
        HeadError::LineTooLong => (Status::UriTooLong, "Request-URI Too Long\n"),
        HeadError::HeadTooLong => (Status::HeadersTooLarge, "request head too long\n"),
        HeadError::TooManyHeaders => (Status::HeadersTooLarge, "too many headers\n"),
    };
    write_reply(out, status, ConnectionHeader::Close, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(status: Status, connection: ConnectionHeader, body: &[u8]) -> String {
        let mut out = Vec::new();
        write_reply(&mut out, status, connection, body);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_are_written_byte_for_byte() {
        assert_eq!(
            written(Status::Ok, ConnectionHeader::Absent, b"de"),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n\
             Content-Length: 2\r\n\r\nde"
        );
        assert_eq!(
            written(Status::MethodNotAllowed, ConnectionHeader::Close, b""),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain\r\n\
             Cache-Control: no-store\r\nAllow: GET\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let kept = written(Status::NotFound, ConnectionHeader::KeepAlive, b"x\n");
        assert!(kept.starts_with("HTTP/1.1 404 Not Found\r\n"), "{kept}");
        assert!(kept.contains("\r\nConnection: keep-alive\r\n"), "{kept}");
    }
}
