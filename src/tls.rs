//! TLS of the listeners: certificate and key from PEM files, exchanged while connections go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::certificate::validity;

/// Why a key and certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{file}: {cause}", file = .0.display(), cause = .1)]
    File(PathBuf, pem::Error),
    #[error("{}: it holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} and {}: {cause}", .key.display(), .cert.display())]
    Pair {
        key: PathBuf,
        cert: PathBuf,
        cause: rustls::Error,
    },
}

/// The certificate that new connections are served with.
#[derive(Clone)]
pub struct Certificate(Arc<ArcSwap<Loaded>>);

/// What was read from the files.
struct Loaded {
    config: Arc<ServerConfig>,
    /// Unix time.
    expires_at: Option<i64>,
}

// === impl Certificate ===

impl Certificate {
    /// Reads a private key, and a certificate with those that sign it.
    pub fn load(key: &Path, cert: &Path) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(read(key, cert)?))))
    }

    /// Serves connections from now on with the other one.
    pub fn replace(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    /// The Unix time until which it is valid; none if it does not say.
    pub fn expires_at(&self) -> Option<i64> {
        self.0.load().expires_at
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.load().config))
    }
}

fn read(key: &Path, cert: &Path) -> Result<Loaded, TlsError> {
    let in_file = |file: &Path| {
        let file = file.to_path_buf();
        move |cause| TlsError::File(file, cause)
    };
    let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(cert)
        .map_err(in_file(cert))?
        .collect::<Result<_, _>>()
        .map_err(in_file(cert))?;
    let Some(first) = chain.first() else {
        return Err(TlsError::NoCertificate(cert.to_path_buf()));
    };
    let validity = validity(first).ok();
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(in_file(key))?;
    let as_pair = |cause| TlsError::Pair {
        key: key.to_path_buf(),
        cert: cert.to_path_buf(),
        cause,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(as_pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private_key)
        .map_err(as_pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded {
        config: Arc::new(config),
        expires_at: validity.map(|validity| validity.not_after.timestamp()),
    })
}
