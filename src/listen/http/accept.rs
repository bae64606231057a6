//! Accepting connections. One whose first request is there already, as most are, is answered
//! here; if that is all that its client wants, it needs nothing else: no task, no memory, no
//! place among those that are watched.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::Worker;
use super::connection::Connection;
use super::connections::Activity;
use super::exchange::{Exchange, Next, Turn};
use super::listener::Listener;
use super::places::Place;
use crate::tls::Certificate;

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
                // A place first: while there is none, new connections wait in the kernel.
                let place = self.places.take().await;
                match queue.next() {
                    None => continue 'queues,
                    Some(Ok((stream, client))) => {
                        failing = false;
                        self.service.metrics.connections.one();
                        self.receive(stream, client, place);
                    }
                    Some(Err(error)) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Some(Err(error)) => {
                        if !failing {
                            tracing::warn!(%error, "connections can't be accepted; trying again until they can");
                        }
                        failing = true;
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn receive(self: &Arc<Self>, stream: TcpStream, client: IpAddr, place: Place) {
        let mut connection = Connection::new(Exchange::new(client));
        if let Some(certificate) = self.service.certificate.clone() {
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
        self.converse_in_task(stream, connection, first, place);
    }

    fn converse_in_task(
        self: &Arc<Self>,
        stream: TcpStream,
        connection: Connection,
        first: Option<Turn>,
        place: Place,
    ) {
        self.spawn(place, |worker, activity| async move {
            let mut stream = tokio::net::TcpStream::from_std(stream)?;
            worker
                .converse(&mut stream, connection, first, &activity)
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
        self.spawn(place, |worker, activity| async move {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let mut stream = match certificate.acceptor().accept(stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    return Ok(());
                }
            };
            worker
                .converse(&mut stream, connection, None, &activity)
                .await
        });
    }

    /// Serves a connection in a task of its own, which is watched.
    fn spawn<F>(self: &Arc<Self>, place: Place, serve: impl FnOnce(Arc<Self>, Arc<Activity>) -> F)
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let entry = self.connections.enter();
        let number = entry.number();
        let activity = self.connections.activity();
        let served = serve(Arc::clone(self), Arc::clone(&activity));
        let task = tokio::spawn(async move {
            // Clients come and go as they like; what they did wrong was answered to them.
            if let Err(error) = served.await {
                tracing::trace!(%error, "connection ended");
            }
            drop((entry, place));
        });
        self.connections
            .served_by(number, task.abort_handle(), activity);
    }
}
