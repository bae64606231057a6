//! Accepting connections, and answering what becomes readable on them.
//!
//! Most requests have arrived when their connection is accepted, and are answered at once. A client
//! that wants nothing more costs no task, no memory and no permit.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::HttpService;
use super::conn::{HttpConnection, Next, NonBlockingIo, Polled, TurnOutcome, close};
use super::http1::{self, RequestHead};
use super::listener::HttpListener;
use super::respond::{Responder, Response};
use crate::net::permits::{Permit, Phase, WorkerPermits};
use crate::net::tls::Certificate;
use crate::telemetry::pulse::Pulse;
use crate::tracker::Ticket;
use crate::wire::forwarded::is_trusted;

/// Bytes that are read from a connection at once.
pub(super) const INPUT_BYTES: usize = 16 * 1024;

/// Bytes of replies after which they are sent before another request is answered.
const REPLIES_MAX: usize = 16 * 1024;

/// The most connections that are accepted in a row before open connections get their turns.
const ACCEPT_BATCH: usize = 32;

/// How long accepting pauses when the process has no file descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a stop waits for requests in flight.
const DRAIN: Duration = Duration::from_secs(10);

/// One thread with its listeners and connections.
struct Worker {
    service: HttpService,
    permits: WorkerPermits,
    /// Used by this thread only, for one turn at a time; the lock makes the worker `Sync`, which
    /// `tokio::spawn` requires.
    shared: Mutex<(Buffers, Responder)>,
    stopping: AtomicBool,
}

/// The buffers of a turn. The next turn reuses them, whichever connection it is for.
pub(super) struct Buffers {
    input: Box<[u8]>,
    replies: Vec<u8>,
    /// The body of one reply.
    body: Vec<u8>,
}

/// Serves the listeners of worker number `number` on this thread until `stop` turns true, and then
/// finishes the requests in flight. Beats `pulse` every second while the thread is not blocked.
pub async fn serve(
    number: usize,
    listeners: Vec<TcpListener>,
    service: HttpService,
    pulse: Pulse,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let worker = Arc::new(Worker {
        permits: service.permits.of_worker(number),
        shared: Mutex::new((Buffers::default(), Responder::new(service.clone()))),
        service,
        stopping: AtomicBool::new(false),
    });
    let mut accepting = Vec::new();
    for listener in listeners {
        let accept = Arc::clone(&worker).accept(HttpListener::new(listener)?);
        accepting.push(tokio::spawn(accept));
    }
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    // Time in which this process was stopped or starved must not time out connections.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() {
        tokio::select! {
            _ = seconds.tick() => {
                pulse.beat();
                worker.permits.tick();
                let max = worker.service.settings.load().max_connections;
                worker.service.permits.resize(max);
            }
            _ = stop.changed() => break,
        }
    }
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    worker.drain().await;
    Ok(())
}

// === impl Worker ===

impl Worker {
    /// Accepts connections until it is cancelled.
    async fn accept(self: Arc<Self>, listener: HttpListener) {
        let mut failing = false;
        'queues: while let Ok(mut queue) = listener.connections().await {
            for _ in 0..ACCEPT_BATCH {
                match queue.next() {
                    None => continue 'queues,
                    Some(Ok((stream, client))) => {
                        failing = false;
                        self.service.metrics.connections.increment();
                        self.on_connection(stream, client).await;
                    }
                    Some(Err(error)) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Some(Err(error)) => {
                        if !failing {
                            tracing::warn!(%error, "connections can't be accepted; trying again until they can");
                        }
                        failing = true;
                        // The file of an evicted connection is closed when its task ends.
                        if self.permits.evict_for_file() {
                            tokio::task::yield_now().await;
                        } else {
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Answers what has arrived on a new connection. Spawns a task only if the connection stays.
    async fn on_connection(self: &Arc<Self>, stream: TcpStream, client: IpAddr) {
        let mut connection = HttpConnection::new(client);
        if let Some(certificate) = self.service.certificate.clone() {
            let permit = self.permits.acquire(self.limited(client)).await;
            return self.spawn_tls(stream, connection, certificate, permit);
        }
        // A panic over one connection must not stop others from being accepted.
        let first = catch_unwind(AssertUnwindSafe(|| {
            let (buffers, responder) = &mut *self.shared.lock();
            on_readable(
                &mut &stream,
                &mut connection,
                Next::Read { in_request: true },
                buffers,
                self.is_stopping(),
                |head, body| responder.respond(head, client, body),
            )
        }));
        let first = match first {
            Ok(Poll::Ready(Ok(turn))) => {
                if turn.is_last() && connection.unsent.is_empty() {
                    return;
                }
                Some(turn)
            }
            Ok(Poll::Pending) => None,
            Ok(Poll::Ready(Err(_))) | Err(_) => return,
        };
        let phase = match &first {
            Some(turn) => turn.phase(!connection.unsent.is_empty()),
            None => Phase::Request,
        };
        let permit = match self.permits.try_acquire(self.limited(client)) {
            Some(permit) => permit,
            // The client has its reply.
            None if phase == Phase::Idle => return,
            // New connections wait in the kernel meanwhile.
            None => self.permits.acquire(self.limited(client)).await,
        };
        self.spawn_plain(stream, connection, first, phase, permit);
    }

    /// The address whose network has a share of the permits; none for a trusted proxy, which stands
    /// for many clients.
    fn limited(&self, client: IpAddr) -> Option<IpAddr> {
        let settings = self.service.settings.load();
        let is_proxy = is_trusted(client, &settings.trusted_proxies);
        (!is_proxy).then_some(client)
    }

    fn spawn_plain(
        self: &Arc<Self>,
        stream: TcpStream,
        connection: HttpConnection,
        first: Option<TurnOutcome>,
        phase: Phase,
        permit: Permit,
    ) {
        self.spawn(permit, phase, |worker, permit| async move {
            let mut stream = tokio::net::TcpStream::from_std(stream)?;
            worker.run(&mut stream, connection, first, &permit).await
        });
    }

    fn spawn_tls(
        self: &Arc<Self>,
        stream: TcpStream,
        connection: HttpConnection,
        certificate: Certificate,
        permit: Permit,
    ) {
        self.spawn(permit, Phase::Request, |worker, permit| async move {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let mut stream = match certificate.acceptor().accept(stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    return Ok(());
                }
            };
            worker.run(&mut stream, connection, None, &permit).await
        });
    }

    /// Serves a connection in a task of its own, which owns its permit.
    fn spawn<F>(
        self: &Arc<Self>,
        permit: Permit,
        phase: Phase,
        serve: impl FnOnce(Arc<Self>, Permit) -> F,
    ) where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let slot = permit.slot();
        let served = serve(Arc::clone(self), permit);
        let task = tokio::spawn(async move {
            // Clients disconnect at any time.
            if let Err(error) = served.await {
                tracing::trace!(%error, "connection ended");
            }
        });
        self.permits.served_by(slot, task.abort_handle(), phase);
    }

    /// Serves a connection to its end, beginning with the outcome of its first turn, if it had one.
    async fn run<S>(
        &self,
        stream: &mut S,
        mut connection: HttpConnection,
        mut first: Option<TurnOutcome>,
        permit: &Permit,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut next = Next::Read { in_request: true };
        loop {
            let turn = match first.take() {
                Some(first) => first,
                None => {
                    poll_fn(|context| {
                        let (buffers, responder) = &mut *self.shared.lock();
                        let client = connection.client;
                        let io = &mut Polled { stream, context };
                        let is_last = self.is_stopping();
                        on_readable(io, &mut connection, next, buffers, is_last, |head, body| {
                            responder.respond(head, client, body)
                        })
                    })
                    .await?
                }
            };
            if let Some(ticket) = turn.ticket {
                permit.begin(Phase::Waiting);
                // Boxed, because it is large and few connections ever wait.
                Box::pin(self.wait_for(ticket)).await;
            }
            if !connection.unsent.is_empty() {
                permit.begin(Phase::Sending);
                stream.write_all(&connection.unsent).await?;
                connection.unsent = Vec::new();
            }
            // TLS may have buffered some of it.
            stream.flush().await?;
            match turn.next {
                Next::Close { linger } => return close(stream, linger, permit).await,
                Next::Answer => {}
                Next::Read { in_request } => {
                    let phase = if in_request {
                        Phase::Request
                    } else {
                        Phase::Idle
                    };
                    // The timeout of a request runs from its first byte.
                    if turn.answered {
                        permit.begin(phase);
                    } else {
                        permit.ensure(phase);
                    }
                }
            }
            if turn.is_long {
                tokio::task::yield_now().await;
            }
            next = turn.next;
        }
    }

    /// Waits until what the replies acknowledge is durable, for `ack_timeout` at most.
    async fn wait_for(&self, ticket: Ticket) {
        let limit = self.service.settings.load().ack_timeout;
        let settled = self.service.tracker.outbox().durable(ticket);
        if tokio::time::timeout(limit, settled).await.is_err() {
            self.service.metrics.ack_timeouts.increment();
        }
    }

    /// Whether each reply is now the last one of its connection.
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Waits for requests in flight, and closes idle connections.
    async fn drain(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let drained = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while !self.permits.is_empty() {
                self.permits.close_idle();
                ticks.tick().await;
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("some requests were cut off: they took too long to end");
        }
    }
}

// === impl Buffers ===

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
