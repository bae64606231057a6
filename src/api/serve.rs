//! The listener of the API: TLS, bounds on connections and time, and the ordered end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tower_service::Service;

use crate::tls::Certificate;

/// Connections open at once; more wait in the kernel.
const CONNECTIONS_MAX: usize = 256;

/// How long a client may take to agree on a key, and to send the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);

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
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let worker = Worker {
            certificate: certificate.clone(),
            routes: routes.clone(),
            permits: Arc::clone(&permits),
            stop: stop.clone(),
        };
        tasks.spawn(accept(listener, worker));
    }
    told(&mut stop).await;
    tasks.shutdown().await;
    // Every connection holds one.
    let closed = permits.acquire_many(CONNECTIONS_MAX as u32);
    if timeout(DRAIN, closed).await.is_err() {
        tracing::warn!("requests to the API did not end in time and are cut off");
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
}

async fn accept(listener: tokio::net::TcpListener, worker: Worker) {
    loop {
        let Ok(permit) = Arc::clone(&worker.permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                let worker = worker.clone();
                tokio::spawn(async move {
                    worker.serve(stream, client).await;
                    drop(permit);
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
        let handshake = self.certificate.acceptor().accept(stream);
        let stream = match timeout(HEAD_TIME, handshake).await {
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
