//! The listener of the API: TLS, bounds on connections and time, and the ordered end.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tower_service::Service;

use crate::limit::Network;
use crate::tls::Certificate;

/// Connections open at once; more wait in the kernel.
const CONNECTIONS_MAX: usize = 256;

/// How long a client may take to agree on a key, and to send the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Connections that one network (a /24 or /48) may have, this host's own excepted.
const CONNECTIONS_OF_ONE: usize = 64;

/// How long a client may take no byte of an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The largest head of a request in bytes.
const HEAD_MAX: usize = 16 << 10;

/// How long requests in flight may take once the node is to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// How long to wait after the system could not accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the routes on these listeners until `stop` says true; what is in flight is finished.
pub async fn serve(
    listeners: Vec<TcpListener>,
    certificate: Certificate,
    routes: Router,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (cut, cut_off) = watch::channel(false);
    let sources = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let worker = Worker {
            certificate: certificate.clone(),
            routes: routes.clone(),
            permits: Arc::clone(&permits),
            stop: stop.clone(),
            cut_off: cut_off.clone(),
            sources: Arc::clone(&sources),
        };
        tasks.spawn(accept(listener, worker));
    }
    told(&mut stop).await;
    tasks.shutdown().await;
    // Every connection holds one.
    let closed = permits.acquire_many(CONNECTIONS_MAX as u32);
    if timeout(DRAIN, closed).await.is_err() {
        tracing::warn!("requests to the API did not end in time and are cut off");
        cut.send_replace(true);
        let _ = permits.acquire_many(CONNECTIONS_MAX as u32).await;
    }
    Ok(())
}

/// What each connection needs.
#[derive(Clone)]
struct Worker {
    certificate: Certificate,
    routes: Router,
    permits: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
    /// Says true when even what is in flight has to end.
    cut_off: watch::Receiver<bool>,
    sources: Arc<Sources>,
}

/// Connections that are open, by the network of whoever opened them.
#[derive(Default)]
struct Sources(Mutex<HashMap<Network, usize>>);

/// The place of a connection among those of its network, until it is dropped.
struct Place {
    sources: Arc<Sources>,
    network: Network,
}

async fn accept(listener: tokio::net::TcpListener, worker: Worker) {
    loop {
        let Ok(permit) = Arc::clone(&worker.permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                let Some(place) = Sources::place(&worker.sources, client.ip()) else {
                    continue;
                };
                let mut cut_off = worker.cut_off.clone();
                let worker = worker.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = worker.serve(stream, client) => {}
                        () = told(&mut cut_off) => {}
                    }
                    drop((permit, place));
                });
            }
            Err(error) => {
                tracing::debug!(%error, "the API could not accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Resolves when it is time to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

// === impl Worker ===

impl Worker {
    async fn serve(mut self, stream: TcpStream, client: SocketAddr) {
        // Who takes no byte for so long has no use for the rest.
        let socket = SockRef::from(&stream);
        if let Err(error) = socket.set_tcp_user_timeout(Some(SILENCE_MAX)) {
            tracing::debug!(%error, "the API can't limit how long a client takes nothing");
        }
        let handshake = self.certificate.acceptor().accept(stream);
        let handshake = tokio::select! {
            handshake = timeout(HEAD_TIME, handshake) => handshake,
            () = told(&mut self.stop) => return,
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%client, %error, "no TLS with a client of the API");
                return;
            }
            Err(_) => return,
        };
        let routes = self.routes;
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(client));
            routes.clone().call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = told(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%client, %error, "a connection of the API broke");
        }
    }
}

// === impl Sources ===

impl Sources {
    /// A place for a connection from there; none if its network has too many.
    fn place(sources: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let client = client.to_canonical();
        let network = Network::of(client);
        let mut open = sources.0.lock();
        let number = open.entry(network).or_default();
        if *number >= CONNECTIONS_OF_ONE && !client.is_loopback() {
            return None;
        }
        *number += 1;
        Some(Place {
            sources: Arc::clone(sources),
            network,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sources.0.lock();
        if let Some(number) = open.get_mut(&self.network) {
            *number -= 1;
            if *number == 0 {
                open.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_does_not_take_all_connections() {
        let sources = Arc::default();
        let place = |client: &str| Sources::place(&sources, client.parse().unwrap());
        let taken: Vec<Place> = (0..CONNECTIONS_OF_ONE)
            .filter_map(|_| place("192.0.2.1"))
            .collect();
        assert_eq!(taken.len(), CONNECTIONS_OF_ONE);
        assert!(place("192.0.2.77").is_none());
        let mine: Vec<Place> = (0..100).filter_map(|_| place("127.0.0.1")).collect();
        assert_eq!(mine.len(), 100);
        assert!(place("2001:db8::1").is_some());
        drop(taken);
        assert!(place("192.0.2.77").is_some());
        drop(mine);
        assert!(sources.0.lock().is_empty());
    }
}
