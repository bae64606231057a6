//! TLS to a server, by the levels of `sslmode`.
//!
//! Files are read for each connection, so a renewed certificate needs no restart.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use tokio_postgres_rustls::MakeRustlsConnect;
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
    /// Reads the files; an error says why there is no TLS.
    pub(super) fn connector(&self) -> anyhow::Result<MakeRustlsConnect> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(self.verifier(&provider)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous() // what rustls calls any custom verifier
            .with_custom_certificate_verifier(verifier);
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), key) => {
                let key = key.as_ref().unwrap_or(cert);
                let own = pem::pair(key, cert)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
            (None, Some(_)) => bail!("sslkey is set, and sslcert is not"),
            (None, None) => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(MakeRustlsConnect::new(config))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> anyhow::Result<Verifier> {
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
            verifier.named = pem::chain(file)?;
            roots.add_parsable_certificates(verifier.named.iter().cloned());
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            bail!("this host knows no certificate authorities: name a file in sslrootcert");
        }
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let authorities = authorities.build();
        verifier.authorities = Some(authorities?);
        Ok(verifier)
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
