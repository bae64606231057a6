//! TLS of the listeners: certificate and key from PEM files, replaceable while connections are open.
//!
//! Clients resume their sessions by tickets, which only this process can read: the server keeps nothing, so any number of
//! clients can, and a start or another certificate begins with full handshakes.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::net::pem::{self, PemError};
use crate::telemetry::certificate::{names, seconds, validity};

/// The certificate for new connections.
#[derive(Clone)]
pub struct Certificate(Arc<ArcSwap<Loaded>>);

/// Tickets that a client gets with a handshake of TLS 1.3. Each is for one connection, which gets the next, and clients of
/// trackers have one connection at a time.
const TICKETS: usize = 1;

/// The contents of the files.
struct Loaded {
    config: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    /// Unix time.
    expires_at: Option<i64>,
    names: Arc<[String]>,
}

impl Certificate {
    /// Loads a private key and its certificate chain.
    pub fn load(key: &Path, cert: &Path) -> Result<Self, PemError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(read(key, cert)?))))
    }

    /// Uses the other certificate for connections from now on. If it is the same one, tickets stay valid.
    pub fn replace(&self, other: &Self) {
        let new = other.0.load_full();
        if self.0.load().chain != new.chain {
            self.0.store(new);
        }
    }

    /// The Unix time at which it expires; none if it can't be parsed.
    pub fn expires_at(&self) -> Option<i64> {
        self.0.load().expires_at
    }

    /// The host names and IP addresses that it is valid for.
    pub fn names(&self) -> Arc<[String]> {
        Arc::clone(&self.0.load().names)
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.load().config))
    }
}

fn read(key: &Path, cert: &Path) -> Result<Loaded, PemError> {
    let pair = pem::pair(key, cert)?;
    let first = pair.cert.first();
    let expires_at = first.and_then(|first| validity(first).ok());
    let names = first.map(|first| names(first)).unwrap_or_default();
    let chain = pair.cert.clone();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .expect("ring has cipher suites of all versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().expect("the system has random numbers");
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS;
    Ok(Loaded {
        config: Arc::new(config),
        chain,
        expires_at: expires_at.map(|validity| seconds(&validity.not_after)),
        names: names.into(),
    })
}
