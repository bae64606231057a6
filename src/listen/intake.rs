//! What stands between the socket and hyper, for two rules that hyper has no setting for.
//!
//! Clients send `<`, `>`, `"` and `#` raw in their queries (rule Q1) where hyper answers 400:
//! they are escaped on the way in. And a request line longer than the limit is to be answered
//! with 414 (rule H7) where hyper would buffer it or answer 431: its middle is dropped here, so
//! that what arrives is too long by a little and costs no memory.
//!
//! A whole request head without any of that, which is what clients send, passes untouched.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::Activity;

/// Bytes of a request line, method and version included.
const LINE_MAX: usize = 16 * 1024;

/// A target as long as this was cut short, or is too long itself.
pub(super) const TARGET_MAX: usize = LINE_MAX - 16;

/// A stream whose incoming bytes are looked at.
pub(super) struct Intake<S> {
    stream: S,
    scanner: Scanner,
    activity: Arc<Activity>,
}

/// Follows the requests of a connection through whatever pieces they come in.
#[derive(Default)]
struct Scanner {
    state: State,
    /// The header line being read, as far as it matters.
    header: Header,
    /// Bytes of the body that the head announced.
    body: u64,
    /// Rewritten bytes that did not fit the reader's buffer yet.
    pending: Vec<u8>,
    delivered: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between two requests.
    #[default]
    Start,
    /// In a request line, after so many bytes.
    Line(usize),
    Headers,
    /// In a body, with so many bytes to come.
    Body(u64),
    /// A body whose length is told by itself: nothing is looked at from here on.
    Opaque,
}

#[derive(Default)]
struct Header {
    text: [u8; 32],
    len: usize,
}

// === impl Intake ===

impl<S> Intake<S> {
    pub fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            scanner: Scanner::default(),
            activity,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Intake<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.scanner.has_pending() {
            this.scanner.deliver(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let mut swallowed = false;
        if buffer.filled().len() > before && !this.scanner.passes(&buffer.filled()[before..]) {
            this.scanner.rewrite(&buffer.filled()[before..]);
            buffer.set_filled(before);
            this.scanner.deliver(buffer);
            swallowed = buffer.filled().len() == before;
        }
        let in_head = matches!(this.scanner.state, State::Line(_) | State::Headers);
        this.activity.read(in_head);
        if swallowed {
            // Nothing to hand on is not the end of the stream: come back for more.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Intake<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

// === impl Scanner ===

impl Scanner {
    /// Whether these bytes may be handed on as they are: whole heads and nothing to escape.
    fn passes(&mut self, bytes: &[u8]) -> bool {
        match self.state {
            State::Opaque => true,
            State::Start => {
                bytes.len() < LINE_MAX
                    && bytes.ends_with(b"\r\n\r\n")
                    && bytes.starts_with(b"GET ")
                    && !needs_escapes(bytes)
                    && !may_have_body(bytes)
            }
            _ => false,
        }
    }

    /// Follows the bytes one by one, and collects what is to be handed on.
    fn rewrite(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            match self.state {
                State::Opaque => {
                    self.pending.extend_from_slice(rest);
                    return;
                }
                State::Body(left) => {
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.pending.extend_from_slice(&rest[..taken]);
                    let left = left - taken as u64;
                    self.state = if left == 0 {
                        State::Start
                    } else {
                        State::Body(left)
                    };
                    rest = &rest[taken..];
                    continue;
                }
                State::Start => {
                    self.pending.push(byte);
                    if !matches!(byte, b'\r' | b'\n') {
                        self.state = State::Line(1);
                    }
                }
                State::Line(length) => self.line_byte(byte, length),
                State::Headers => {
                    self.pending.push(byte);
                    self.header_byte(byte);
                }
            }
            rest = tail;
        }
    }

    fn line_byte(&mut self, byte: u8, length: usize) {
        if byte == b'\n' {
            if length > LINE_MAX {
                self.pending.extend_from_slice(b" HTTP/1.1\r");
            }
            self.pending.push(byte);
            self.state = State::Headers;
            return;
        }
        let bytes = if needs_escape(byte) { 3 } else { 1 };
        self.state = State::Line(length.saturating_add(bytes));
        if length > LINE_MAX {
            return;
        }
        if needs_escape(byte) {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            self.pending.extend_from_slice(&[b'%', high, low]);
        } else {
            self.pending.push(byte);
        }
    }

    fn header_byte(&mut self, byte: u8) {
        if byte != b'\n' {
            self.header.push(byte);
            return;
        }
        let header = std::mem::take(&mut self.header);
        match header.line() {
            b"" => {
                let body = std::mem::take(&mut self.body);
                self.state = match body {
                    0 => State::Start,
                    u64::MAX => State::Opaque,
                    length => State::Body(length),
                };
            }
            line => {
                if let Some(length) = body_length(line) {
                    // A length too long to be kept whole is not guessed at.
                    let length = if header.is_full() { u64::MAX } else { length };
                    self.body = self.body.max(length);
                }
            }
        }
    }

    fn has_pending(&self) -> bool {
        self.delivered < self.pending.len()
    }

    fn deliver(&mut self, buffer: &mut ReadBuf<'_>) {
        let rest = &self.pending[self.delivered..];
        let now = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..now]);
        self.delivered += now;
        if !self.has_pending() {
            self.pending.clear();
            self.delivered = 0;
        }
    }
}

// === impl Header ===

impl Header {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.len) {
            *place = byte.to_ascii_lowercase();
            self.len += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.len == self.text.len()
    }

    fn line(&self) -> &[u8] {
        self.text[..self.len].trim_ascii_end()
    }
}

/// Characters that clients send raw and that hyper refuses, or takes for a fragment.
fn needs_escape(byte: u8) -> bool {
    matches!(byte, b'<' | b'>' | b'"' | b'#')
}

/// Looks at every byte, so that the compiler can look at many at once.
fn needs_escapes(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .fold(false, |any, &byte| any | needs_escape(byte))
}

/// The length of the body that a header line announces; `u64::MAX` if only the body itself tells.
fn body_length(line: &[u8]) -> Option<u64> {
    if line.starts_with(b"transfer-encoding:") {
        return Some(u64::MAX);
    }
    let value = line.strip_prefix(b"content-length:")?;
    let length = str::from_utf8(value.trim_ascii())
        .ok()
        .and_then(|text| text.parse().ok());
    Some(length.unwrap_or(u64::MAX))
}

/// Whether a head might announce a body. Wrongly yes costs a slower look, no more.
fn may_have_body(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|end| {
        let name = bytes.get(end + 1..end + 15).unwrap_or_default();
        name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encod")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that comes out for these pieces, through buffers of that size.
    fn through(pieces: &[&[u8]], buffer_size: usize) -> (Vec<u8>, State) {
        let mut scanner = Scanner::default();
        let mut out = Vec::new();
        for piece in pieces {
            if scanner.passes(piece) {
                out.extend_from_slice(piece);
                continue;
            }
            scanner.rewrite(piece);
            while scanner.has_pending() {
                let mut space = vec![0; buffer_size];
                let mut buffer = ReadBuf::new(&mut space);
                scanner.deliver(&mut buffer);
                out.extend_from_slice(buffer.filled());
            }
        }
        (out, scanner.state)
    }

    const HEAD: &[u8] = b"GET /announce?a=b HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn ordinary_requests_pass_as_they_are_in_any_pieces() {
        for size in 1..HEAD.len() {
            let pieces: Vec<&[u8]> = HEAD.chunks(size).collect();
            assert_eq!(through(&pieces, 3), (HEAD.to_vec(), State::Start), "{size}");
        }
        let two = [HEAD, HEAD].concat();
        assert_eq!(through(&[&two], 10).0, two);
    }

    #[test]
    fn raw_characters_of_the_request_line_are_escaped_and_others_left() {
        let raw = b"GET /a?x=<>\"# HTTP/1.1\r\nUser-Agent: <x>\r\n\r\n";
        let escaped = b"GET /a?x=%3C%3E%22%23 HTTP/1.1\r\nUser-Agent: <x>\r\n\r\n";
        for size in 1..raw.len() {
            let pieces: Vec<&[u8]> = raw.chunks(size).collect();
            assert_eq!(through(&pieces, 2).0, escaped, "{size}");
        }
    }

    #[test]
    fn bodies_are_no_request_lines() {
        let request = b"POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\n<##>GET /<> HTTP/1.1\r\n\r\n";
        let expected =
            b"POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\n<##>GET /%3C%3E HTTP/1.1\r\n\r\n";
        assert_eq!(through(&[request], 100).0, expected);
        let long = b"GET /a HTTP/1.1\r\nContent-Length: 00000000000000000004\r\n\r\n<##>GET /<> HTTP/1.1\r\n\r\n";
        assert_eq!(through(&[long], 100), (long.to_vec(), State::Opaque));
        let chunked = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n<\r\n0\r\n\r\n";
        assert_eq!(through(&[chunked], 100), (chunked.to_vec(), State::Opaque));
    }

    #[test]
    fn an_endless_request_line_costs_no_more_than_the_limit() {
        let mut line = b"GET /announce?info_hash=".to_vec();
        line.resize(1 << 20, b'x');
        let pieces: Vec<&[u8]> = line
            .chunks(5000)
            .chain([&b" HTTP/1.1\r\nHost: x\r\n\r\n"[..]])
            .collect();
        let (out, state) = through(&pieces, 4096);
        assert_eq!(state, State::Start);
        assert!(out.ends_with(b"x HTTP/1.1\r\nHost: x\r\n\r\n"));
        let target = out.iter().position(|&byte| byte == b'\n').unwrap() - "GET  HTTP/1.1\r".len();
        assert!((TARGET_MAX..LINE_MAX + 8).contains(&target), "{target}");
    }
}
