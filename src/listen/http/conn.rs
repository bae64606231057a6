//! A connection: its state between two turns, and the socket that a turn reads from and writes to.
//!
//! A turn uses buffers of the worker, so that an idle connection has no buffer at all.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::http1::{
    self, ConnectionHeader, HttpVersion, LINE_MAX, RequestBody, RequestHead, Status,
};
use crate::net::permits::{Permit, Phase};
use crate::tracker::Ticket;

/// The longest body that is skipped, in bytes; a connection with a longer one is closed (rule H4).
const BODY_MAX: u64 = 64 * 1024;

/// The most bytes that are read and discarded while a connection closes.
const DISCARD_MAX: usize = 4 << 20;

/// What a connection keeps between two turns: usually only its client's address.
pub(super) struct HttpConnection {
    pub client: IpAddr,
    /// The beginning of an incomplete request, or pipelined requests that wait.
    pub pending: Vec<u8>,
    /// Bytes of a request's body still to be skipped.
    pub body_left: u64,
    /// Replies that could not be sent at once, or must not be yet.
    pub unsent: Vec<u8>,
}

/// A connection without TLS on its way from one process to the next, which goes on with it.
#[derive(Debug)]
pub struct HandedConnection {
    pub stream: TcpStream,
    pub client: IpAddr,
    /// The beginning of a request that was received.
    pub pending: Vec<u8>,
    /// Bytes of a request's body still to be skipped.
    pub body_left: u64,
}

/// What a turn did, and what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TurnOutcome {
    /// Requests were answered.
    pub answered: bool,
    /// The client sends a lot at once: other connections run before its next turn.
    pub is_long: bool,
    /// The replies wait for this ticket: the last one of all that they acknowledge.
    pub ticket: Option<Ticket>,
    /// What to do once the replies are sent.
    pub next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read more; the client is in the middle of a request, or not.
    Read { in_request: bool },
    /// Answer the requests that are pending.
    Answer,
    /// Close the connection; with `linger`, read and discard what the client sends meanwhile.
    ///
    /// A socket that is closed with bytes unread is reset, and a reset may overtake the reply.
    Close { linger: bool },
}

/// A socket that reads and writes what it can at once, and otherwise returns `Pending`.
pub(super) trait NonBlockingIo {
    /// Reads into the buffer, and returns the number of bytes; 0 at the end of the stream.
    fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes a part of the bytes, and returns its length.
    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

/// A stream of the runtime, within one poll.
pub(super) struct Polled<'a, 'c, S> {
    pub stream: &'a mut S,
    pub context: &'a mut Context<'c>,
}

// === impl HttpConnection ===

impl HttpConnection {
    pub fn new(client: IpAddr) -> Self {
        Self {
            client,
            pending: Vec::new(),
            body_left: 0,
            unsent: Vec::new(),
        }
    }

    /// The state of a connection that the process before this one had, and its socket.
    pub fn resume(handed: HandedConnection) -> (Self, TcpStream) {
        let connection = Self {
            client: handed.client,
            pending: handed.pending,
            body_left: handed.body_left,
            unsent: Vec::new(),
        };
        (connection, handed.stream)
    }

    /// For the next process. All replies must have been sent.
    pub fn hand_over(self, stream: TcpStream) -> HandedConnection {
        HandedConnection {
            stream,
            client: self.client,
            pending: self.pending,
            body_left: self.body_left,
        }
    }

    /// Whether the client is in the middle of a request.
    pub fn is_in_request(&self) -> bool {
        !self.pending.is_empty() || self.body_left > 0
    }

    /// Appends received bytes to an incomplete request, if there is one. Returns false if the request
    /// is certainly still incomplete: without a line end nothing changes, and a client that sends byte
    /// by byte must not have the whole parsed each time.
    pub fn extend_pending(&mut self, received: &[u8]) -> bool {
        if self.pending.is_empty() || received.is_empty() {
            return true;
        }
        self.pending.extend_from_slice(received);
        memchr(b'\n', received).is_some() || self.pending.len() > LINE_MAX
    }

    /// Skips what `bytes` hold of a request's body.
    pub fn skip_body<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let skipped =
            usize::try_from(self.body_left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.body_left -= skipped as u64;
        &bytes[skipped..]
    }

    /// Appends the reply to a request. Returns how the connection closes after it, if it does: because one
    /// side wants it (rule H5), or a body follows that is not skipped (rule H4) or might hide a second request
    /// (rule H3). With `is_last` it does in any case.
    pub fn write_reply(
        &mut self,
        out: &mut Vec<u8>,
        head: &RequestHead,
        status: Status,
        body: &[u8],
        is_last: bool,
    ) -> Option<Next> {
        let is_head = head.method == b"HEAD";
        let has_unread_body = match head.body {
            RequestBody::Bytes(length) if length <= BODY_MAX => {
                self.body_left = length;
                false
            }
            RequestBody::Bytes(_) | RequestBody::Unknown => true,
        };
        // The body of a POST may hold a second request.
        let is_refused = status == Status::MethodNotAllowed && !is_head;
        let closes = !head.keep_alive || is_last || is_refused || has_unread_body;
        let connection = match (closes, head.version) {
            (true, _) => ConnectionHeader::Close,
            (false, HttpVersion::Http10) => ConnectionHeader::KeepAlive,
            (false, HttpVersion::Http11) => ConnectionHeader::Absent,
        };
        if is_head {
            http1::write_head(out, status, connection, body.len());
        } else {
            http1::write_reply(out, status, connection, body);
        }
        let linger = head.keep_alive || is_refused || has_unread_body || self.body_left > 0;
        closes.then_some(Next::Close { linger })
    }

    /// Sends replies as far as the socket takes them, and keeps the rest. With `is_held` nothing is
    /// sent yet.
    pub fn send(
        &mut self,
        io: &mut impl NonBlockingIo,
        mut replies: &[u8],
        is_held: bool,
    ) -> io::Result<()> {
        if !is_held
            && !replies.is_empty()
            && let Poll::Ready(sent) = io.write(replies)
        {
            replies = replies.get(sent?..).unwrap_or_default();
        }
        self.unsent.extend_from_slice(replies);
        Ok(())
    }
}

// === impl TurnOutcome ===

impl TurnOutcome {
    /// Nothing was answered, and the client is in the middle of a request.
    pub const INCOMPLETE: Self = Self {
        answered: false,
        is_long: false,
        ticket: None,
        next: Next::Read { in_request: true },
    };

    /// The client has closed its side, and everything is answered.
    pub const CLOSED: Self = Self {
        next: Next::Close { linger: false },
        ..Self::INCOMPLETE
    };

    /// The phase that the connection enters after the turn.
    pub fn phase(&self, has_unsent: bool) -> Phase {
        match self.next {
            _ if self.ticket.is_some() => Phase::Waiting,
            _ if has_unsent => Phase::Sending,
            Next::Read { in_request: false } => Phase::Idle,
            Next::Read { in_request: true } | Next::Answer => Phase::Request,
            Next::Close { .. } => Phase::Leaving,
        }
    }

    /// Whether nothing is left to do but to send the replies and to close the socket.
    pub fn is_last(&self) -> bool {
        self.ticket.is_none() && self.next == Next::Close { linger: false }
    }
}

// === impl NonBlockingIo ===

impl<S: AsyncRead + AsyncWrite + Unpin> NonBlockingIo for Polled<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *self.stream).poll_read(self.context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(self.context, bytes)
    }
}

/// A non-blocking socket that is not registered with a runtime.
impl NonBlockingIo for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        or_pending(io::Read::read(self, buffer))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        or_pending(io::Write::write(self, bytes))
    }
}

fn or_pending(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// Closes a connection whose last reply was sent.
pub(super) async fn close<S>(stream: &mut S, linger: bool, permit: &Permit) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    permit.begin(Phase::Leaving);
    stream.shutdown().await?;
    if !linger {
        return Ok(());
    }
    let mut discarded = Vec::with_capacity(4096);
    let mut length = 0;
    while length < DISCARD_MAX {
        discarded.clear();
        match stream.read_buf(&mut discarded).await? {
            0 => break,
            read => length += read,
        }
    }
    Ok(())
}
