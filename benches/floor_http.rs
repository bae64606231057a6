//! The floor under the HTTP figures: hyper on the runtime that Mika uses, with Mika's
//! socket options and Mika's reply headers, answering every request with the same bytes.
//! `scripts/bench http` starts it; `docs/bench.md` explains it.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// The one that Mika uses; a floor on another allocator would measure allocators.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let (address, body) = arguments()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(address, body))
}

fn arguments() -> anyhow::Result<(SocketAddr, Bytes)> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, size] = arguments.as_slice() else {
        bail!("usage: floor_http ADDRESS:PORT BODY_BYTES");
    };
    let address = address.parse().context("ADDRESS:PORT")?;
    let size = size.parse().context("BODY_BYTES")?;
    Ok((address, Bytes::from(vec![b'x'; size])))
}

async fn serve(address: SocketAddr, body: Bytes) -> anyhow::Result<()> {
    let listener = listen(address).with_context(|| format!("listening on {address}"))?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(answer(stream, body.clone()));
    }
}

/// Mika's own listener, so that the sockets are the same.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = mika::listen::bind(address, 1)?.pop();
    TcpListener::from_std(listener.ok_or(std::io::ErrorKind::AddrNotAvailable)?)
}

/// Serves one connection until the client leaves it. hyper adds `Content-Length` and `Date`.
async fn answer(stream: TcpStream, body: Bytes) {
    let service = service_fn(move |_: Request<Incoming>| {
        let mut response = Response::new(Full::new(body.clone()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        async move { Ok::<_, Infallible>(response) }
    });
    // A client that goes away in the middle of a request is no news here.
    let _ = http1::Builder::new()
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
