//! Accepting connections, and answering what becomes readable on them.
//!
//! Most requests have arrived when their connection is accepted, and are answered at once. A client
//! that wants nothing more costs no task, no memory and no permit.
//!
//! When the next process takes over, connections without TLS that wait for their client go to it as they
//! are. The state of a TLS session can't be passed on: those are closed, after some seconds in which each
//! reply has announced that.

use std::future::Future;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;

use super::HttpService;
use super::conn::{HandedConnection, HttpConnection, Next, Polled, TurnOutcome, close};
use super::listener::HttpListener;
use super::proxied;
use super::respond::Responder;
use super::turn::{Buffers, on_readable};
use crate::base::memory::GiveBackTimer;
use crate::listen::ListenState;
use crate::net::permits::{Permit, Phase, WorkerPermits};
use crate::net::tls::Certificate;
use crate::telemetry::pulse::Pulse;
use crate::tracker::Ticket;
use crate::wire::forwarded::is_trusted;
use crate::wire::proxy_header::{Proxied, ProxyHeaderReader};

/// The most connections that are accepted in a row before open connections get their turns.
const ACCEPT_BATCH: usize = 32;

/// How long accepting pauses when the process has no file descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a stop waits for requests in flight.
const DRAIN: Duration = Duration::from_secs(10);

/// How long a hand-over waits for them: all other clients wait for the next process meanwhile.
const HAND_OVER_DRAIN: Duration = Duration::from_secs(3);

/// One thread with its listeners and connections.
struct Worker {
    service: HttpService,
    permits: WorkerPermits,
    /// Used by this thread only, for one turn at a time; the lock makes the worker `Sync`, which
    /// `tokio::spawn` requires.
    shared: Mutex<(Buffers, Responder)>,
    state: watch::Receiver<ListenState>,
    /// Each reply is the last one of its connection.
    closing: AtomicBool,
    /// Connections that wait for their client are left to the next process.
    handing_over: AtomicBool,
    /// Wakes them when that begins.
    leave: Notify,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    /// It is left to the next process.
    Left,
}

/// Serves the listeners of worker number `number` on this thread, and the connections that the process before
/// this one had, until `state` says to stop; then finishes the requests in flight. Beats `pulse` every second
/// while the thread is not blocked.
pub async fn serve(
    number: usize,
    listeners: Vec<TcpListener>,
    connections: Vec<HandedConnection>,
    service: HttpService,
    pulse: Pulse,
    mut state: watch::Receiver<ListenState>,
) -> io::Result<()> {
    let worker = Arc::new(Worker {
        permits: service.permits.of_worker(number),
        shared: Mutex::new((Buffers::default(), Responder::new(service.clone()))),
        service,
        state: state.clone(),
        closing: AtomicBool::new(false),
        handing_over: AtomicBool::new(false),
        leave: Notify::new(),
    });
    for handed in connections {
        worker.resume(handed).await;
    }
    let mut accepting = Vec::new();
    for listener in listeners {
        let accept = Arc::clone(&worker).accept(HttpListener::new(listener)?);
        accepting.push(tokio::spawn(accept));
    }
    let clock = worker.service.clock;
    let mut memory_timer = GiveBackTimer::start(clock.now().mono);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    // Time in which this process was stopped or starved must not time out connections.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while worker.follow(*state.borrow_and_update()) {
        tokio::select! {
            _ = seconds.tick() => {
                pulse.beat();
                memory_timer.tick(clock.now().mono);
                worker.permits.tick();
                let max = worker.service.settings.load().max_connections;
                worker.service.permits.resize(max);
            }
            changed = state.changed() => if changed.is_err() { break },
        }
    }
    worker.drain(accepting).await;
    Ok(())
}

impl Worker {
    /// Does what `state` asks for; returns whether connections are still accepted.
    fn follow(&self, state: ListenState) -> bool {
        let has_tls = self.service.certificate.is_some();
        let is_handing_over = state >= ListenState::HandingOver && !has_tls;
        let is_closing = state >= ListenState::Closing && !is_handing_over;
        self.closing.store(is_closing, Ordering::Relaxed);
        self.handing_over.store(is_handing_over, Ordering::Relaxed);
        if is_handing_over {
            self.leave.notify_waiters();
        }
        state <= ListenState::Closing
    }

    /// Resolves when nothing is to be accepted any more.
    async fn stopped(&self) {
        let mut state = self.state.clone();
        // Without a sender nobody is left to say so.
        let _ = state.wait_for(|state| *state > ListenState::Closing).await;
    }

    /// Accepts connections until the listeners are to stop. One that was accepted is served in any case.
    async fn accept(self: Arc<Self>, listener: HttpListener) {
        let mut failing = false;
        let mut stopped = pin!(self.stopped());
        'queues: loop {
            let queue = tokio::select! {
                biased;
                () = &mut stopped => return,
                queue = listener.connections() => queue,
            };
            let Ok(mut queue) = queue else { return };
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

    /// Finds out who the client of a new connection is: a balancer names it in a header before everything else.
    async fn on_connection(self: &Arc<Self>, stream: TcpStream, peer: IpAddr) {
        if !self.service.settings.load().is_proxied(peer) {
            return self.on_client(stream, peer).await;
        }
        let mut reader = ProxyHeaderReader::default();
        match proxied::try_read(&stream, &mut reader) {
            Poll::Ready(Ok(proxied)) => self.on_client(stream, client_of(proxied, peer)).await,
            Poll::Ready(Err(error)) => self.on_bad_header(peer, &error),
            Poll::Pending => {
                let permit = self.permits.acquire(None).await;
                self.spawn_proxied(stream, peer, reader, permit);
            }
        }
    }

    /// A connection that should have begun with a PROXY header is closed.
    fn on_bad_header(&self, peer: IpAddr, error: &io::Error) {
        // A health check may only connect.
        if error.kind() == ErrorKind::InvalidData {
            self.service.metrics.proxy_headers_refused.increment();
            self.service.settings.load().warn_of_bad_header(peer);
        }
    }

    /// Answers what has arrived on a new connection. Spawns a task only if the connection stays.
    async fn on_client(self: &Arc<Self>, stream: TcpStream, client: IpAddr) {
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
                self.is_closing(),
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

    /// Goes on with a connection of the process before this one.
    async fn resume(self: &Arc<Self>, handed: HandedConnection) {
        if self.service.certificate.is_some() {
            return; // the config has changed, and the client does not speak TLS
        }
        let (connection, stream) = HttpConnection::resume(handed);
        let phase = if connection.is_in_request() {
            Phase::Request
        } else {
            Phase::Idle
        };
        let permit = self.permits.acquire(self.limited(connection.client)).await;
        self.spawn_plain(stream, connection, None, phase, permit);
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
            let stream = tokio::net::TcpStream::from_std(stream)?;
            worker.serve_plain(stream, connection, first, &permit).await
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
            let acceptor = certificate.acceptor();
            worker
                .serve_tls(stream, connection, &acceptor, &permit)
                .await
        });
    }

    /// Waits for the rest of a PROXY header first.
    fn spawn_proxied(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        reader: ProxyHeaderReader,
        permit: Permit,
    ) {
        self.spawn(permit, Phase::Request, |worker, permit| async move {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let proxied = match proxied::read(&stream, reader).await {
                Ok(proxied) => proxied,
                Err(error) => {
                    worker.on_bad_header(peer, &error);
                    return Ok(());
                }
            };
            let connection = HttpConnection::new(client_of(proxied, peer));
            match worker.service.certificate.clone() {
                Some(certificate) => {
                    let acceptor = certificate.acceptor();
                    worker
                        .serve_tls(stream, connection, &acceptor, &permit)
                        .await
                }
                None => worker.serve_plain(stream, connection, None, &permit).await,
            }
        });
    }

    /// Serves a connection, and leaves it to the next process if that takes over.
    async fn serve_plain(
        &self,
        mut stream: tokio::net::TcpStream,
        mut connection: HttpConnection,
        first: Option<TurnOutcome>,
        permit: &Permit,
    ) -> io::Result<()> {
        let end = self.run(&mut stream, &mut connection, first, permit);
        if end.await? == End::Left {
            let handed = connection.hand_over(stream.into_std()?);
            self.service.handed.lock().push(handed);
        }
        Ok(())
    }

    async fn serve_tls(
        &self,
        stream: tokio::net::TcpStream,
        mut connection: HttpConnection,
        acceptor: &TlsAcceptor,
        permit: &Permit,
    ) -> io::Result<()> {
        let mut stream = match acceptor.accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "TLS handshake failed");
                return Ok(());
            }
        };
        self.run(&mut stream, &mut connection, None, permit).await?;
        Ok(())
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
        connection: &mut HttpConnection,
        mut first: Option<TurnOutcome>,
        permit: &Permit,
    ) -> io::Result<End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut leave = pin!(self.leave.notified());
        let mut next = Next::Read { in_request: true };
        loop {
            let turn = if let Some(first) = first.take() {
                first
            } else {
                let turn = poll_fn(|context| {
                    let turn = self.poll_turn(stream, connection, next, context);
                    let is_left = turn.is_pending()
                        && (self.is_handing_over() || leave.as_mut().poll(context).is_ready());
                    if is_left {
                        return Poll::Ready(None);
                    }
                    turn.map(Some)
                });
                match turn.await {
                    Some(turn) => turn?,
                    None => return Ok(End::Left),
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
                Next::Close { linger } => {
                    close(stream, linger, permit).await?;
                    return Ok(End::Closed);
                }
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

    /// A turn of a connection that the runtime knows.
    fn poll_turn<S>(
        &self,
        stream: &mut S,
        connection: &mut HttpConnection,
        next: Next,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<TurnOutcome>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (buffers, responder) = &mut *self.shared.lock();
        let client = connection.client;
        let io = &mut Polled { stream, context };
        let is_last = self.is_closing();
        on_readable(io, connection, next, buffers, is_last, |head, body| {
            responder.respond(head, client, body)
        })
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
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn is_handing_over(&self) -> bool {
        self.handing_over.load(Ordering::Relaxed)
    }

    /// Waits for requests in flight. Idle connections are closed, or left to the next process.
    async fn drain(&self, accepting: Vec<JoinHandle<()>>) {
        let drained = async {
            for task in accepting {
                // A panic was logged, and has ended the task.
                let _ = task.await;
            }
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while !self.permits.is_empty() {
                if !self.is_handing_over() {
                    self.permits.close_idle();
                }
                ticks.tick().await;
            }
        };
        let limit = match *self.state.borrow() {
            ListenState::HandingOver | ListenState::HandedOver => HAND_OVER_DRAIN,
            _ => DRAIN,
        };
        if tokio::time::timeout(limit, drained).await.is_err() {
            tracing::warn!("some requests were cut off: they took too long to end");
        }
    }
}

/// The client that a header names, or the balancer itself.
fn client_of(proxied: Proxied, peer: IpAddr) -> IpAddr {
    match proxied {
        Proxied::Client(client) => client,
        Proxied::Nobody => peer,
    }
}
