//! TLS to a server, by the levels of `sslmode`.
//!
//! Files are read for each connection, so a renewed certificate needs no restart.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::net::pem;

/// What a server asks for in a direct handshake.
const PROTOCOL: &[u8] = b"postgresql";

/// How sure a connection must be of its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Certainty {
    NoTls,
    /// TLS if the server has it, whoever that is.
    #[default]
    IfOffered,
    /// TLS, whoever the server is.
    AnyServer,
    /// A certificate of an authority.
    Authority,
    /// A certificate of an authority with the server's name.
    Name,
}

/// How connections are encrypted.
#[derive(Clone, Debug, Default)]
pub(super) struct PostgresTls {
    pub(super) certainty: Certainty,
    /// The file of the authorities; none for those of the system.
    pub(super) roots: Option<PathBuf>,
    /// The files of Mika's own certificate and its key.
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug)]
pub(super) struct NoTls(String);

/// Makes the TLS of a connection.
#[derive(Clone)]
pub(super) struct PostgresConnector(Arc<ClientConfig>);

/// The handshake with one host.
pub(super) struct Handshake {
    config: Arc<ClientConfig>,
    host: String,
}

/// An encrypted connection.
pub(super) struct Encrypted<S>(client::TlsStream<S>);

#[derive(Debug)]
struct Verifier {
    certainty: Certainty,
    /// None if any server will do.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of the file: a server may have one of them itself.
    named: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

// === impl PostgresTls ===

impl PostgresTls {
    /// Reads the files.
    pub(super) fn connector(&self) -> Result<PostgresConnector, NoTls> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(self.verifier(&provider)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous() // what rustls calls any custom verifier
            .with_custom_certificate_verifier(verifier);
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), key) => {
                let key = key.as_ref().unwrap_or(cert);
                let own = pem::pair(key, cert).map_err(|error| NoTls(error.to_string()))?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
            (None, Some(_)) => return Err(NoTls("sslkey is set, and sslcert is not".into())),
            (None, None) => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(PostgresConnector(Arc::new(config)))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Verifier, NoTls> {
        let checks = matches!(self.certainty, Certainty::Authority | Certainty::Name);
        let mut verifier = Verifier {
            certainty: self.certainty,
            authorities: None,
            named: Vec::new(),
            provider: provider.clone(),
        };
        if !checks {
            return Ok(verifier);
        }
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.roots {
            verifier.named = pem::chain(file).map_err(|error| NoTls(error.to_string()))?;
            roots.add_parsable_certificates(verifier.named.iter().cloned());
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            let problem = "this host knows no certificate authorities: name a file in sslrootcert";
            return Err(NoTls(problem.into()));
        }
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let authorities = authorities.build();
        verifier.authorities = Some(authorities.map_err(|error| NoTls(error.to_string()))?);
        Ok(verifier)
    }
}

// === impl NoTls ===

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for NoTls {}

impl From<rustls::Error> for NoTls {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}

// === impl PostgresConnector ===

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for PostgresConnector {
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = NoTls;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, NoTls> {
        Ok(Handshake {
            config: self.0.clone(),
            host: host.to_owned(),
        })
    }
}

// === impl Handshake ===

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Encrypted<S>;
    type Error = NoTls;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted<S>, NoTls>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let name = ServerName::try_from(self.host);
            let name = name.map_err(|_| NoTls("the host is no name of a server".into()))?;
            let connector = TlsConnector::from(self.config);
            let connected = connector.connect(name, stream).await;
            Ok(Encrypted(
                connected.map_err(|error| NoTls(error.to_string()))?,
            ))
        })
    }
}

// === impl Encrypted ===

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        match certificate.and_then(|certificate| end_point(certificate)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

/// The hash of a certificate by which passwords are bound to it (RFC 5929), if its signature has one.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm.algorithm;
    let is = |known: &[oid::Oid<'_>]| known.contains(algorithm);
    let sha256 = [
        oid::OID_PKCS1_MD5WITHRSAENC,
        oid::OID_PKCS1_SHA1WITHRSA,
        oid::OID_PKCS1_SHA256WITHRSA,
        oid::OID_SIG_ECDSA_WITH_SHA256,
    ];
    let sha384 = [oid::OID_PKCS1_SHA384WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA384];
    let sha512 = [oid::OID_PKCS1_SHA512WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA512];
    if is(&sha256) {
        Some(Sha256::digest(certificate).to_vec())
    } else if is(&sha384) {
        Some(Sha384::digest(certificate).to_vec())
    } else if is(&sha512) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

// === impl Verifier ===

impl Verifier {
    /// Whether a certificate of the file is the server's own, with its name if that is wanted.
    fn is_named(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
    ) -> Result<bool, rustls::Error> {
        if !self.named.contains(certificate) {
            return Ok(false);
        }
        if self.certainty == Certainty::Name {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        }
        Ok(true)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        if self.is_named(end_entity, server_name)? {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is looked at last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.certainty != Certainty::Name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
