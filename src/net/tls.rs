//! TLS of the listeners: certificate and key from PEM files, replaceable while connections are open.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::net::pem::{self, PemError};
use crate::telemetry::certificate::{names, seconds, validity};

/// The certificate for new connections.
#[derive(Clone)]
pub struct Certificate(Arc<ArcSwap<Loaded>>);

/// The contents of the files.
struct Loaded {
    config: Arc<ServerConfig>,
    /// Unix time.
    expires_at: Option<i64>,
    names: Arc<[String]>,
}

impl Certificate {
    /// Loads a private key and its certificate chain.
    pub fn load(key: &Path, cert: &Path) -> Result<Self, PemError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(read(key, cert)?))))
    }

    /// Uses the other certificate for connections from now on.
    pub fn replace(&self, other: &Self) {
        self.0.store(other.0.load_full());
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
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .expect("ring has cipher suites of all versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded {
        config: Arc::new(config),
        expires_at: expires_at.map(|validity| seconds(&validity.not_after)),
        names: names.into(),
    })
}
