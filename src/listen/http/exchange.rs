//! One connection's requests and replies, without its socket (rules H3 to H7).

use std::net::IpAddr;

use memchr::memchr;

use super::head::{self, Body, Fault, Head, LINE_MAX, Version};
use super::reply::{self, After, Status};
use super::service::Answers;
use crate::net::places::Phase;
use crate::tracker::Ticket;

/// Bytes that are read from a connection at once.
pub(super) const INPUT_BYTES: usize = 16 * 1024;

/// Bytes of replies beyond which no further request is answered before they are sent.
const REPLIES_MAX: usize = 16 * 1024;

/// Bytes of a body that are passed over; a connection with a longer one is closed (rule H4).
const BODY_MAX: u64 = 64 * 1024;

/// What a connection keeps between two reads: as a rule nothing.
pub(super) struct Exchange {
    pub client: IpAddr,
    /// The beginning of a request whose end is still to come, or requests that wait.
    kept: Vec<u8>,
    /// Bytes of a body that are still to be passed over.
    body: u64,
}

/// What came of the bytes that were read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Requests were answered.
    pub answered: bool,
    /// The client asks for much at once: others have their turn before it goes on.
    pub is_long: bool,
    /// The replies wait until this is settled: the last of all that are waited for.
    pub ticket: Option<Ticket>,
    /// What to do once they are sent.
    pub next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read on; the client is in the middle of a request, or not.
    Read { in_request: bool },
    /// Answer on: requests wait that were read already.
    GoOn,
    /// Close the connection; with `linger`, see first that what the client sends meanwhile is read.
    ///
    /// A socket that is closed with bytes unread is reset, and a reset may overtake the reply.
    End { linger: bool },
}

// === impl Turn ===

impl Turn {
    /// The client has closed its side, and everything is answered.
    pub const OVER: Self = Self {
        answered: false,
        is_long: false,
        ticket: None,
        next: Next::End { linger: false },
    };

    /// What the connection does after it, first of all.
    pub fn phase(&self, has_unsent: bool) -> Phase {
        match self.next {
            _ if self.ticket.is_some() => Phase::Waiting,
            _ if has_unsent => Phase::Sending,
            Next::Read { in_request: false } => Phase::Idle,
            Next::Read { in_request: true } | Next::GoOn => Phase::Request,
            Next::End { .. } => Phase::Leaving,
        }
    }

    /// Nothing is left to do but to close the connection, once the replies are sent.
    pub fn is_last(&self) -> bool {
        self.ticket.is_none() && self.next == Next::End { linger: false }
    }
}

// === impl Exchange ===

impl Exchange {
    pub fn new(client: IpAddr) -> Self {
        Self {
            client,
            kept: Vec::new(),
            body: 0,
        }
    }

    /// Takes what was read (after [`Next::GoOn`] nothing), and appends the replies to `out`.
    ///
    /// With `last`, a reply is the last one of its connection.
    pub fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        last: bool,
        answers: &mut impl Answers,
    ) -> Turn {
        let mut turn = Turn {
            next: Next::Read { in_request: true },
            ..Turn::OVER
        };
        if self.kept.is_empty() {
            let rest = self.answer_all(input, out, last, answers, &mut turn);
            self.kept.extend_from_slice(rest);
        } else {
            let mut kept = std::mem::take(&mut self.kept);
            kept.extend_from_slice(input);
            // Without the end of a line, what was no request yet is none now: this spares those
            // who send byte by byte a look at the whole each time.
            let is_same = memchr(b'\n', input).is_none() && kept.len() <= LINE_MAX;
            if is_same && !input.is_empty() {
                self.kept = kept;
                return turn;
            }
            let rest = self.answer_all(&kept, out, last, answers, &mut turn).len();
            // Gives back the memory of what is dealt with.
            if rest > 0 {
                self.kept = kept.split_off(kept.len() - rest);
            }
        }
        // More may wait in the socket.
        let is_full = input.len() >= INPUT_BYTES;
        turn.is_long = is_full || turn.next == Next::GoOn;
        if let Next::End { linger } = &mut turn.next {
            *linger |= is_full || !self.kept.is_empty();
        }
        turn
    }

    /// Answers the requests that `bytes` hold; what is left of them.
    fn answer_all<'b>(
        &mut self,
        mut bytes: &'b [u8],
        out: &mut Vec<u8>,
        last: bool,
        answers: &mut impl Answers,
        turn: &mut Turn,
    ) -> &'b [u8] {
        let sent = out.len();
        loop {
            bytes = self.pass_over_body(bytes);
            if self.body > 0 {
                turn.next = Next::Read { in_request: true };
                return bytes;
            }
            bytes = head::skip_empty_lines(bytes);
            if bytes.is_empty() {
                turn.next = Next::Read { in_request: false };
                return bytes;
            }
            if out.len() - sent >= REPLIES_MAX {
                turn.next = Next::GoOn;
                return bytes;
            }
            match head::parse(bytes) {
                Ok(Some((head, length))) => {
                    bytes = &bytes[length..];
                    if let Some(end) = self.reply(&head, out, last, answers, turn) {
                        turn.next = end;
                        return bytes;
                    }
                }
                Ok(None) => {
                    turn.next = Next::Read { in_request: true };
                    return bytes;
                }
                Err(fault) => {
                    let (status, text) = refusal(fault);
                    reply::write(out, status, After::Closes, text.as_bytes());
                    turn.answered = true;
                    turn.next = Next::End { linger: true };
                    return bytes;
                }
            }
        }
    }

    fn pass_over_body<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let here = usize::try_from(self.body).map_or(bytes.len(), |body| body.min(bytes.len()));
        self.body -= here as u64;
        &bytes[here..]
    }

    /// Replies to one request; how the connection ends, if it does.
    fn reply(
        &mut self,
        head: &Head,
        out: &mut Vec<u8>,
        last: bool,
        answers: &mut impl Answers,
        turn: &mut Turn,
    ) -> Option<Next> {
        let (answer, body) = answers.answer(head, self.client);
        turn.answered = true;
        turn.ticket = turn.ticket.max(answer.ticket);
        let is_head = head.method == b"HEAD";
        let body_follows = match head.body {
            Body::Bytes(length) if length <= BODY_MAX => {
                self.body = length;
                false
            }
            Body::Bytes(_) | Body::Unknown => true,
        };
        // The body of a POST may hold a second request (rule H3).
        let is_odd = answer.status == Status::MethodNotAllowed && !is_head;
        let closes = !head.keep_alive || last || is_odd || body_follows;
        let after = match (closes, head.version) {
            (true, _) => After::Closes,
            (false, Version::Http10) => After::StaysAsAsked,
            (false, Version::Http11) => After::Stays,
        };
        if is_head {
            reply::write_head(out, answer.status, after, body.len());
        } else {
            reply::write(out, answer.status, after, body);
        }
        let linger = head.keep_alive || is_odd || body_follows || self.body > 0;
        closes.then_some(Next::End { linger })
    }
}

fn refusal(fault: Fault) -> (Status, &'static str) {
    match fault {
        Fault::Malformed => (Status::BadRequest, "Bad Request\n"),
        // What Transmission looks for before it asks for less at once.
        Fault::LineTooLong => (Status::UriTooLong, "Request-URI Too Long\n"),
        Fault::HeadTooLong => (Status::HeadersTooLarge, "request head too long\n"),
        Fault::TooManyHeaders => (Status::HeadersTooLarge, "too many headers\n"),
    }
}
