//! Accepting connections. One whose first request is there already, as most are, is answered
//! here; if that is all that its client wants, it needs nothing else: no task, no memory, no
//! place among those that are counted.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::Worker;
use super::connection::Connection;
use super::exchange::{Exchange, Next, Turn};
use super::listener::Listener;
use crate::net::places::{Phase, Place};
use crate::net::tls::Certificate;
use crate::wire::forwarded::is_trusted;

/// Connections that are accepted in a row before those that are open have their turn.
const ROW: usize = 32;

/// How long accepting pauses when the process has no file left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// === impl Worker ===

impl Worker {
    /// Accepts connections for ever.
    pub async fn accept(self: Arc<Self>, listener: Listener) {
        let mut failing = false;
        'queues: while let Ok(mut queue) = listener.connections().await {
            for _ in 0..ROW {
                match queue.next() {
                    None => continue 'queues,
                    Some(Ok((stream, client))) => {
                        failing = false;
                        self.service.metrics.connections.one();
                        self.receive(stream, client).await;
                    }
                    Some(Err(error)) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Some(Err(error)) => {
                        if !failing {
                            tracing::warn!(%error, "connections can't be accepted; trying again until they can");
                        }
                        failing = true;
                        // The file of a connection that is evicted is free in a moment.
                        if self.places.free_a_file() {
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

    async fn receive(self: &Arc<Self>, stream: TcpStream, client: IpAddr) {
        let mut connection = Connection::new(Exchange::new(client));
        if let Some(certificate) = self.service.certificate.clone() {
            let place = self.place(client).await;
            return self.converse_in_secret(stream, connection, certificate, place);
        }
        let mut link = &stream;
        let next = Next::Read { in_request: true };
        // Whatever goes wrong with one connection must not end the accepting of others.
        let first = catch_unwind(AssertUnwindSafe(|| {
            self.poll_turn(&mut link, &mut connection, next)
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
        let place = match self.places.try_take(self.limited(client)) {
            Some(place) => place,
            // It has its reply, and need not stay.
            None if phase == Phase::Idle => return,
            None => self.place(client).await,
        };
        self.converse_in_task(stream, connection, first, phase, place);
    }

    /// A place for a connection that stays. Others may have to give theirs up, so only while all
    /// have a request in flight does it wait, and new connections wait in the kernel.
    async fn place(&self, client: IpAddr) -> Place {
        self.places.take(self.limited(client)).await
    }

    /// Whose network has a share of the places: not a proxy, which stands for many clients.
    fn limited(&self, client: IpAddr) -> Option<IpAddr> {
        let settings = self.service.settings.load();
        let is_proxy = is_trusted(client, &settings.trusted_proxies);
        (!is_proxy).then_some(client)
    }

    fn converse_in_task(
        self: &Arc<Self>,
        stream: TcpStream,
        connection: Connection,
        first: Option<Turn>,
        phase: Phase,
        place: Place,
    ) {
        self.spawn(place, phase, |worker, place| async move {
            let mut stream = tokio::net::TcpStream::from_std(stream)?;
            worker
                .converse(&mut stream, connection, first, &place)
                .await
        });
    }

    fn converse_in_secret(
        self: &Arc<Self>,
        stream: TcpStream,
        connection: Connection,
        certificate: Certificate,
        place: Place,
    ) {
        self.spawn(place, Phase::Request, |worker, place| async move {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let mut stream = match certificate.acceptor().accept(stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    return Ok(());
                }
            };
            worker.converse(&mut stream, connection, None, &place).await
        });
    }

    /// Serves a connection in a task of its own, which owns its place.
    fn spawn<F>(
        self: &Arc<Self>,
        place: Place,
        phase: Phase,
        serve: impl FnOnce(Arc<Self>, Place) -> F,
    ) where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let slot = place.slot();
        let served = serve(Arc::clone(self), place);
        let task = tokio::spawn(async move {
            // Clients come and go as they like; what they did wrong was answered to them.
            if let Err(error) = served.await {
                tracing::trace!(%error, "connection ended");
            }
        });
        self.places.served_by(slot, task.abort_handle(), phase);
    }
}
