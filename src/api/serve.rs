//! The listener of the API: TLS, limits of connections and time, and graceful shutdown.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tower_service::Service;

use crate::net::permits::{Permit, Permits, Phase, WorkerPermits};
use crate::net::tls::Certificate;
use crate::telemetry::metrics::Evictions;

/// How many connections may be open at once. Beyond that, a new one evicts an idle one.
const CONNECTIONS_MAX: usize = 256;

/// Once half of them are taken, a network (a /24 or /48) may hold at most one in this many; this host itself
/// is exempt.
const SHARES: usize = 4;

/// The timeout of the TLS handshake, and of the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may go without accepting a byte of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest head of a request in bytes.
const HEAD_MAX: usize = 16 << 10;

/// How long requests in flight may take at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a shutdown checks whether all connections have ended.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the routes on these listeners until `stop` is true, then finishes requests in flight.
pub async fn serve(
    listeners: Vec<TcpListener>,
    certificate: Certificate,
    routes: Router,
    evicted: Arc<Evictions>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let permits = Permits::new(1, CONNECTIONS_MAX, SHARES, evicted).of_worker(0);
    let (cut, cut_off) = watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let worker = Worker {
            certificate: certificate.clone(),
            routes: routes.clone(),
            stop: stop.clone(),
            cut_off: cut_off.clone(),
        };
        tasks.spawn(accept(listener, worker, permits.clone()));
    }
    signalled(&mut stop).await;
    tasks.shutdown().await;
    if timeout(DRAIN_TIMEOUT, emptied(&permits)).await.is_err() {
        tracing::warn!("requests to the API did not end in time and are cut off");
        cut.send_replace(true);
        emptied(&permits).await;
    }
    Ok(())
}

/// Resolves when no connection is left.
async fn emptied(permits: &WorkerPermits) {
    while !permits.is_empty() {
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

/// What each connection needs.
#[derive(Clone)]
struct Worker {
    certificate: Certificate,
    routes: Router,
    stop: watch::Receiver<bool>,
    /// True when even requests in flight have to end.
    cut_off: watch::Receiver<bool>,
}

async fn accept(listener: tokio::net::TcpListener, worker: Worker, permits: WorkerPermits) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let permit = permits.acquire(limited(client.ip())).await;
                let slot = permit.slot();
                let mut cut_off = worker.cut_off.clone();
                let worker = worker.clone();
                let task = tokio::spawn(async move {
                    let permit = Arc::new(permit);
                    tokio::select! {
                        () = worker.serve(stream, client, &permit) => {}
                        () = signalled(&mut cut_off) => {}
                    }
                });
                permits.served_by(slot, task.abort_handle(), Phase::Request);
            }
            Err(error) => {
                tracing::debug!(%error, "the API could not accept a connection");
                if !permits.evict_for_file() {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Lets an evicted connection end.
        tokio::task::yield_now().await;
    }
}

/// The address whose network has a share of the connections; none for this host, which may be a proxy
/// for all clients.
fn limited(client: IpAddr) -> Option<IpAddr> {
    Some(client.to_canonical()).filter(|client| !client.is_loopback())
}

/// Marks a connection as having a request in flight, until it is dropped.
struct InFlight(Arc<Permit>);

// === impl InFlight ===

impl InFlight {
    fn begin(permit: &Arc<Permit>) -> Self {
        permit.begin(Phase::Waiting);
        Self(Arc::clone(permit))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.begin(Phase::Idle);
    }
}

/// Resolves when the signal is true.
async fn signalled(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

// === impl Worker ===

impl Worker {
    async fn serve(mut self, stream: TcpStream, client: SocketAddr, permit: &Arc<Permit>) {
        let socket = SockRef::from(&stream);
        if let Err(error) = socket.set_tcp_user_timeout(Some(WRITE_TIMEOUT)) {
            tracing::debug!(%error, "the API can't limit how long a client may accept no data");
        }
        let handshake = self.certificate.acceptor().accept(stream);
        let handshake = tokio::select! {
            handshake = timeout(HEAD_TIMEOUT, handshake) => handshake,
            () = signalled(&mut self.stop) => return,
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%client, %error, "the TLS handshake with a client of the API failed");
                return;
            }
            Err(_) => return,
        };
        let routes = self.routes;
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(client));
            let in_flight = InFlight::begin(permit);
            let response = routes.clone().call(request);
            async move {
                let response = response.await?;
                // The closure, and so the request in flight, ends with the body.
                let hold = move |error| {
                    let _in_flight = &in_flight;
                    error
                };
                Ok::<_, Infallible>(response.map(|body| body.map_err(hold)))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = signalled(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%client, %error, "a connection of the API broke");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_exempt_from_shares() {
        let limited = |client: &str| limited(client.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(limited("192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(limited("::ffff:127.0.0.1"), None);
        assert_eq!(limited("::1"), None);
    }
}
