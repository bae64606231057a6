//! A load for HTTPS trackers on this host: one thread, some connections at once, each with as many announces as it is
//! told, or with its handshake only. Sessions are resumed, or never. Every reply is checked. The result is one line of
//! JSON. `scripts/bench https` starts it; `docs/bench.md` explains it.

// The rule that time is an argument is for the tracker; a load reads the clock itself.
#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use memchr::memmem;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{ClientSessionMemoryCache, Resumption};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme, SupportedProtocolVersion,
};

use crate::histogram::Histogram;

#[path = "load_udp/histogram.rs"]
#[allow(dead_code)] // the other load also shows the longest delay
mod histogram;

/// Where a request ends; those of announces have no body.
const END: &[u8] = b"\r\n\r\n";

/// Bytes of a reply's head that are read at most.
const HEAD_MAX: usize = 4096;

#[derive(Parser)]
#[command(about = "A load for HTTPS trackers on this host")]
struct Options {
    /// The tracker. Its certificate is not verified.
    #[arg(long)]
    server: SocketAddr,
    /// A file with HTTP requests, one after the other, which are sent in turns.
    #[arg(long)]
    requests: PathBuf,
    /// Requests on each connection; 0 for handshakes only.
    #[arg(long)]
    each: u64,
    /// Resume the last session; else every handshake is a full one.
    #[arg(long)]
    resume: bool,
    /// The version of the protocol.
    #[arg(long, value_enum, default_value = "1.3")]
    tls: Version,
    /// Connections open at once.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    #[arg(long, default_value_t = 8)]
    seconds: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

/// What all connections share.
struct Load {
    options: Options,
    requests: Vec<Vec<u8>>,
    end: Instant,
    tally: RefCell<Tally>,
}

#[derive(Default)]
struct Tally {
    full: u64,
    resumed: u64,
    replies: u64,
    /// Of a connection with its handshake, if it has one request at most; else of a request.
    delays: Histogram,
}

/// Accepts any certificate, and checks no signature: the load has to cost less than the server.
#[derive(Debug)]
struct NoVerifier;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let requests = read_requests(&options.requests)?;
    let start = Instant::now();
    let load = Rc::new(Load {
        end: start + Duration::from_secs(options.seconds),
        options,
        requests,
        tally: RefCell::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(LocalSet::new().run_until(run_all(Rc::clone(&load))))?;
    let tally = load.tally.borrow();
    let result = json!({
        "full": tally.full,
        "resumed": tally.resumed,
        "replies": tally.replies,
        "seconds": start.elapsed().as_secs_f64(),
        "p50_ms": tally.delays.within_ms(0.5),
        "p99_ms": tally.delays.within_ms(0.99),
    });
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}

fn read_requests(file: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let ends = memmem::find_iter(&bytes, END).map(|at| at + END.len());
    let mut begin = 0;
    let mut requests = Vec::new();
    for end in ends {
        requests.push(bytes[begin..end].to_vec());
        begin = end;
    }
    ensure!(!requests.is_empty(), "{} has no request", file.display());
    Ok(requests)
}

async fn run_all(load: Rc<Load>) -> anyhow::Result<()> {
    let lanes: Vec<_> = (0..load.options.connections)
        .map(|number| tokio::task::spawn_local(run(Rc::clone(&load), number)))
        .collect();
    for lane in lanes {
        lane.await??;
    }
    Ok(())
}

/// One connection after the other, each by the session of the one before. The lanes begin at different requests.
async fn run(load: Rc<Load>, number: usize) -> anyhow::Result<()> {
    let connector = TlsConnector::from(Arc::new(client_config(&load.options)));
    let mut at = load.requests.len() / load.options.connections * number;
    while !load.is_over() {
        let start = Instant::now();
        let mut stream = connect(&load, &connector).await?;
        let mut received = Vec::new();
        for _ in 0..load.options.each {
            if load.options.each > 1 && load.is_over() {
                break;
            }
            let start = Instant::now();
            let request = &load.requests[at % load.requests.len()];
            at += 1;
            stream.write_all(request).await?;
            read_reply(&mut stream, &mut received).await?;
            let mut tally = load.tally.borrow_mut();
            tally.replies += 1;
            if load.options.each > 1 {
                tally.delays.add(start.elapsed());
            }
        }
        // Until both sides have closed, so that the server's work is done, and its tickets are read.
        if load.options.each != 1 {
            stream.shutdown().await?;
        }
        // A server may end the connection without the closing message of TLS.
        let _ = stream.read_to_end(&mut received).await;
        let mut tally = load.tally.borrow_mut();
        match stream.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Resumed) => tally.resumed += 1,
            _ => tally.full += 1,
        }
        if load.options.each <= 1 {
            tally.delays.add(start.elapsed());
        }
    }
    Ok(())
}

async fn connect(load: &Load, connector: &TlsConnector) -> anyhow::Result<TlsStream<TcpStream>> {
    let server = load.options.server;
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(server.ip());
    connector.connect(name, stream).await.context("handshake")
}

/// Reads one reply, which has to be a success.
async fn read_reply(
    stream: &mut TlsStream<TcpStream>,
    received: &mut Vec<u8>,
) -> anyhow::Result<()> {
    received.clear();
    let head = loop {
        let length = stream.read_buf(received).await?;
        ensure!(length > 0, "the connection ended before its reply");
        if let Some(at) = memmem::find(received, END) {
            break at + END.len();
        }
        ensure!(received.len() < HEAD_MAX, "a reply without a head");
    };
    let length = content_length(&received[..head])?;
    while received.len() < head + length {
        let more = stream.read_buf(received).await?;
        ensure!(more > 0, "the connection ended within a reply");
    }
    let text = || String::from_utf8_lossy(received);
    ensure!(received.starts_with(b"HTTP/1.1 200 "), "{}", text());
    let is_refused = memmem::find(received, b"failure reason").is_some();
    ensure!(!is_refused, "{}", text());
    Ok(())
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = str::from_utf8(head)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    let length = length.context("a reply without its length")?;
    Ok(length.trim().parse()?)
}

/// Each lane has a store of its own: a ticket is used once.
fn client_config(options: &Options) -> ClientConfig {
    let version: &'static SupportedProtocolVersion = match options.tls {
        Version::Tls12 => &TLS12,
        Version::Tls13 => &TLS13,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("ring has cipher suites of all versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NoVerifier))
        .with_no_client_auth();
    config.resumption = if options.resume {
        Resumption::store(Arc::new(ClientSessionMemoryCache::new(4)))
    } else {
        Resumption::disabled()
    };
    config
}

// === impl Load ===

impl Load {
    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

// === impl NoVerifier ===

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, tokio_rustls::rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
