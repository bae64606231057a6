//! One turn of a connection: from what has arrived to the replies.

use std::io;
use std::task::{Poll, ready};

use super::conn::{HttpConnection, Next, NonBlockingIo, TurnOutcome};
use super::http1::{self, RequestHead};
use super::respond::Response;

/// Bytes that are read from a connection at once.
pub(super) const INPUT_BYTES: usize = 16 * 1024;

/// Bytes of replies after which they are sent before another request is answered.
const REPLIES_MAX: usize = 16 * 1024;

/// The buffers of a turn. The next turn reuses them, whichever connection it is for.
pub(super) struct Buffers {
    input: Box<[u8]>,
    replies: Vec<u8>,
    /// The body of one reply.
    body: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            input: vec![0; INPUT_BYTES].into(),
            replies: Vec::new(),
            body: Vec::new(),
        }
    }
}

/// One turn of a connection: reads what its socket has, answers every complete request in order (rule H6), and
/// sends the replies as far as the socket takes them. With `is_last` the connection closes after the first reply.
///
/// Returns `Pending` if the socket has nothing. After [`Next::Answer`] it is not read.
pub(super) fn on_readable(
    io: &mut impl NonBlockingIo,
    connection: &mut HttpConnection,
    next: Next,
    buffers: &mut Buffers,
    is_last: bool,
    mut respond: impl FnMut(&RequestHead, &mut Vec<u8>) -> Response,
) -> Poll<io::Result<TurnOutcome>> {
    // Read.
    let length = match next {
        Next::Answer => 0,
        _ => match ready!(io.read(&mut buffers.input))? {
            0 => return Poll::Ready(Ok(TurnOutcome::CLOSED)),
            length => length,
        },
    };
    let received = &buffers.input[..length];
    let (replies, body) = (&mut buffers.replies, &mut buffers.body);
    let mut turn = TurnOutcome::INCOMPLETE;
    if !connection.extend_pending(received) {
        return Poll::Ready(Ok(turn));
    }
    let pending = std::mem::take(&mut connection.pending);
    let mut bytes = if pending.is_empty() {
        received
    } else {
        &pending
    };
    replies.clear();
    turn.next = loop {
        bytes = connection.skip_body(bytes);
        if connection.body_left > 0 {
            break Next::Read { in_request: true };
        }
        bytes = http1::skip_empty_lines(bytes);
        if bytes.is_empty() {
            break Next::Read { in_request: false };
        }
        if replies.len() >= REPLIES_MAX {
            break Next::Answer;
        }
        // Parse.
        let head = match http1::parse(bytes) {
            Ok(Some((head, length))) => {
                bytes = &bytes[length..];
                head
            }
            Ok(None) => break Next::Read { in_request: true },
            Err(error) => {
                turn.answered = true;
                http1::write_head_error(replies, error);
                break Next::Close { linger: true };
            }
        };
        // Decide.
        body.clear();
        let response = respond(&head, body);
        turn.answered = true;
        turn.ticket = turn.ticket.max(response.ticket);
        // Write.
        let end = connection.write_reply(replies, &head, response.status, body, is_last);
        if let Some(end) = end {
            break end;
        }
    };
    connection.pending = if bytes.len() == pending.len() {
        pending
    } else {
        bytes.to_vec()
    };
    // A full buffer: more may wait in the socket.
    let is_full = length >= INPUT_BYTES;
    turn.is_long = is_full || turn.next == Next::Answer;
    if let Next::Close { linger } = &mut turn.next {
        *linger |= is_full || !connection.pending.is_empty();
    }
    connection.send(io, replies, turn.ticket.is_some())?;
    Poll::Ready(Ok(turn))
}
