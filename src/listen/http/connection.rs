//! A connection: its turns, and the task of one that stays for more than the first.
//!
//! What is read lies in a buffer of the worker and is answered there at once, so that a
//! connection without a request has no buffer at all.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::exchange::{Exchange, Next, Turn};
use super::{Desk, Worker};
use crate::net::places::{Phase, Place};
use crate::tracker::Ticket;

/// Bytes that are thrown away at most while a connection ends.
const LEFTOVER_MAX: usize = 4 << 20;

/// A connection between two turns.
pub(super) struct Connection {
    pub exchange: Exchange,
    /// Replies that could not be sent at once, or must not be yet.
    pub unsent: Vec<u8>,
}

/// A socket as a turn uses it: it takes and gives what it can, and waits for nothing.
pub(super) trait Link {
    /// Reads into the buffer: so many bytes, 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Sends so many of the bytes.
    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

/// A stream of the runtime, within one poll.
struct Polled<'a, 'c, S> {
    stream: &'a mut S,
    context: &'a mut Context<'c>,
}

// === impl Link ===

impl<S: AsyncRead + AsyncWrite + Unpin> Link for Polled<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *self.stream).poll_read(self.context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(self.context, bytes)
    }
}

/// A non-blocking socket that no runtime knows.
impl Link for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        or_pending(io::Read::read(self, buffer))
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        or_pending(io::Write::write(self, bytes))
    }
}

fn or_pending(done: io::Result<usize>) -> Poll<io::Result<usize>> {
    match done {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        done => Poll::Ready(done),
    }
}

// === impl Connection ===

impl Connection {
    pub fn new(exchange: Exchange) -> Self {
        Self {
            exchange,
            unsent: Vec::new(),
        }
    }
}

// === impl Worker ===

impl Worker {
    /// Serves a connection to its end, beginning with what came of its first bytes, if they
    /// were read.
    pub async fn converse<S>(
        &self,
        stream: &mut S,
        mut connection: Connection,
        first: Option<Turn>,
        place: &Place,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut turn = match first {
            Some(turn) => turn,
            None => {
                self.turn(stream, &mut connection, Next::Read { in_request: true })
                    .await?
            }
        };
        loop {
            if let Some(ticket) = turn.ticket {
                place.begin(Phase::Waiting);
                // In a box, because it is large and few connections ever come here.
                Box::pin(self.wait_for(ticket)).await;
            }
            if !connection.unsent.is_empty() {
                place.begin(Phase::Sending);
                stream.write_all(&connection.unsent).await?;
                connection.unsent = Vec::new();
            }
            // TLS may hold some of it back.
            stream.flush().await?;
            match turn.next {
                Next::End { linger } => return leave(stream, linger, place).await,
                Next::GoOn => {}
                Next::Read { in_request } => {
                    let phase = if in_request {
                        Phase::Request
                    } else {
                        Phase::Idle
                    };
                    // A request has to be complete in time counted from its first byte.
                    if turn.answered {
                        place.begin(phase);
                    } else {
                        place.go_on(phase);
                    }
                }
            }
            if turn.is_long {
                tokio::task::yield_now().await;
            }
            turn = self.turn(stream, &mut connection, turn.next).await?;
        }
    }

    async fn turn<S>(
        &self,
        stream: &mut S,
        connection: &mut Connection,
        next: Next,
    ) -> io::Result<Turn>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let turn = |context: &mut Context<'_>| {
            let link = &mut Polled { stream, context };
            self.poll_turn(link, connection, next)
        };
        poll_fn(turn).await
    }

    /// Reads what is there, answers it, and sends the replies as far as the client takes them:
    /// in one go, and with the buffers of the worker. After [`Next::GoOn`] nothing is read.
    pub fn poll_turn(
        &self,
        link: &mut impl Link,
        connection: &mut Connection,
        next: Next,
    ) -> Poll<io::Result<Turn>> {
        let mut desk = self.desk.lock();
        let Desk { input, out, clerk } = &mut *desk;
        let length = match next {
            Next::GoOn => 0,
            _ => match ready!(link.read(input))? {
                0 => return Poll::Ready(Ok(Turn::OVER)),
                length => length,
            },
        };
        out.clear();
        let input = input.get(..length).unwrap_or_default();
        let turn = connection
            .exchange
            .take(input, out, self.is_stopping(), clerk);
        let mut rest = &out[..];
        if turn.ticket.is_none()
            && !rest.is_empty()
            && let Poll::Ready(sent) = link.write(rest)
        {
            rest = rest.get(sent?..).unwrap_or_default();
        }
        connection.unsent.extend_from_slice(rest);
        Poll::Ready(Ok(turn))
    }

    /// Holds replies back until what they acknowledge is durable, or for `ack_timeout`.
    async fn wait_for(&self, ticket: Ticket) {
        let limit = self.service.settings.load().ack_timeout;
        let settled = self.service.tracker.outbox().settled(ticket);
        if tokio::time::timeout(limit, settled).await.is_err() {
            self.service.metrics.ack_timeouts.one();
        }
    }
}

/// Ends a connection whose last reply was sent.
async fn leave<S>(stream: &mut S, linger: bool, place: &Place) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    place.begin(Phase::Leaving);
    stream.shutdown().await?;
    if !linger {
        return Ok(());
    }
    let mut leftover = Vec::with_capacity(4096);
    let mut length = 0;
    while length < LEFTOVER_MAX {
        leftover.clear();
        match stream.read_buf(&mut leftover).await? {
            0 => break,
            read => length += read,
        }
    }
    Ok(())
}
