//! Private keys and certificates from PEM files (RFC 7468).
//!
//! Error texts are our own and never contain a byte of a file: a parser's text may quote its input, and
//! that may be a private key.

mod blocks;
mod key;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey};
use x509_cert::der::Decode as _;
use x509_cert::{Certificate, Version};

use self::blocks::{Block, BlockKind};

/// Bytes of the largest file that is read. A long chain has some 20,000.
const FILE_MAX: u64 = 1 << 20;

/// A file whose key or certificate can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct PemError {
    file: PathBuf,
    pub problem: PemProblem,
}

/// What is wrong with a file. [`PemProblem::hint`] says how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemProblem {
    #[error("there is no such file")]
    Missing,
    #[error("it can't be read: {}", reason(*.0))]
    Unreadable(io::ErrorKind),
    #[error("it is a folder and not a file")]
    Folder,
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than {FILE_MAX} bytes, which no key or certificate is")]
    TooLarge,
    #[error("it is empty")]
    Empty,
    #[error("not a PEM file: no line breaks (line {0})")]
    NoLineBreaks(usize),
    #[error(r"not a PEM file: line breaks are written as the two characters \n (line {0})")]
    EscapedLineBreaks(usize),
    #[error("not a PEM file: its text is UTF-16")]
    Utf16,
    #[error("not a PEM file but DER, the binary form")]
    Der,
    #[error("not a PEM file but PKCS#12 (.p12, .pfx), which holds key and certificate")]
    Pkcs12,
    #[error("not a PEM file but a Java keystore")]
    Keystore,
    #[error("not a PEM file: it has no line that begins with -----BEGIN")]
    NoBlock,
    #[error("the block that begins in line {0} has no END line of its own")]
    NoEnd(usize),
    #[error("line {0} is not base64")]
    BadLine(usize),
    #[error("the block that begins in line {0} is damaged: its base64 is cut short")]
    BadBase64(usize),
    #[error("no private key in it, only {0}")]
    NoKey(&'static str),
    #[error("{0} private keys in it")]
    SeveralKeys(usize),
    #[error("the private key is encrypted: decrypt it first")]
    Encrypted,
    #[error("the private key can't be read: it is damaged, or not what its BEGIN line says")]
    DamagedKey,
    #[error("this kind of key is not supported ({0}); supported are {SUPPORTED}", SUPPORTED = key::SUPPORTED)]
    UnsupportedKey(String),
    #[error("no certificate in it, only {0}")]
    NoCertificate(&'static str),
    #[error("the first certificate can't be read: it is damaged")]
    DamagedCertificate,
    #[error("an X.509 certificate of version 1 or 2; TLS needs version 3")]
    OldCertificate,
    #[error("the first certificate can't be used for TLS")]
    UnusableCertificate,
    #[error("the key and the certificate in {} were not made together", .0.display())]
    OtherCertificate(PathBuf),
    #[error(
        "the key and the first certificate in {} were not made together; the key belongs to \
         certificate {number} there", cert.display()
    )]
    WrongOrder { cert: PathBuf, number: usize },
}

/// A certificate chain, in the order of the file.
pub type Chain = Vec<CertificateDer<'static>>;

/// Loads the certificates of a file: at least one, the first of which a TLS server can use.
///
/// # Errors
/// The file can't be read, or has no such certificate.
pub fn chain(file: &Path) -> Result<Chain, PemError> {
    chain_of(file).map_err(|problem| PemError::new(file, problem))
}

/// Loads a private key and its certificate chain.
///
/// # Errors
/// A file can't be read or used, or the key does not match the certificate.
pub fn pair(key: &Path, cert: &Path) -> Result<CertifiedKey, PemError> {
    let chain = chain(cert)?;
    let in_key = |problem| PemError::new(key, problem);
    let signer = key_of(key).map_err(in_key)?;
    match position_of(&signer, &chain) {
        Some(0) => Ok(CertifiedKey::new(chain, signer)),
        Some(position) => Err(in_key(PemProblem::WrongOrder {
            cert: cert.into(),
            number: position + 1,
        })),
        None => Err(in_key(PemProblem::OtherCertificate(cert.into()))),
    }
}

/// The position of the certificate that matches the key.
fn position_of(signer: &Arc<dyn SigningKey>, chain: &[CertificateDer<'static>]) -> Option<usize> {
    chain.iter().position(|certificate| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(signer))
            .keys_match()
            .is_ok()
    })
}

fn chain_of(file: &Path) -> Result<Chain, PemProblem> {
    let blocks = read(file)?;
    let chain: Chain = blocks
        .iter()
        .filter(|block| block.kind == BlockKind::Certificate)
        .map(|block| CertificateDer::from(block.der.clone()))
        .collect();
    let Some(first) = chain.first() else {
        return Err(PemProblem::NoCertificate(blocks::describe(&blocks)));
    };
    match ParsedCertificate::try_from(first) {
        Ok(_) => Ok(chain),
        Err(_) => Err(why_unusable(first)),
    }
}

/// Why the TLS library refuses a certificate.
fn why_unusable(der: &[u8]) -> PemProblem {
    match Certificate::from_der(der) {
        Ok(certificate) if certificate.tbs_certificate.version != Version::V3 => {
            PemProblem::OldCertificate
        }
        Ok(_) => PemProblem::UnusableCertificate,
        Err(_) => PemProblem::DamagedCertificate,
    }
}

fn key_of(file: &Path) -> Result<Arc<dyn SigningKey>, PemProblem> {
    let blocks = read(file)?;
    let mut keys: Vec<&Block> = blocks
        .iter()
        .filter(|block| block.kind.is_private_key())
        .collect();
    keys.dedup_by(|a, b| a.kind == b.kind && a.der == b.der);
    let key = match keys[..] {
        [key] => key,
        [] => return Err(PemProblem::NoKey(blocks::describe(&blocks))),
        _ => return Err(PemProblem::SeveralKeys(keys.len())),
    };
    let bytes = key.der.clone();
    let der: PrivateKeyDer<'static> = match key.kind {
        BlockKind::Encrypted => return Err(PemProblem::Encrypted),
        BlockKind::Pkcs8 => PrivatePkcs8KeyDer::from(bytes).into(),
        BlockKind::Pkcs1 => PrivatePkcs1KeyDer::from(bytes).into(),
        BlockKind::Sec1 => PrivateSec1KeyDer::from(bytes).into(),
        BlockKind::UnsupportedKey(name) => return Err(PemProblem::UnsupportedKey(name.into())),
        _ => return Err(PemProblem::NoKey(blocks::describe(&blocks))),
    };
    ring::sign::any_supported_type(&der).map_err(|_| key::why_unusable(key.kind, &key.der))
}

/// Reads the blocks of a file of at most [`FILE_MAX`] bytes.
fn read(file: &Path) -> Result<Vec<Block>, PemProblem> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => PemProblem::Missing,
        kind => PemProblem::Unreadable(kind),
    };
    // Checked before it is opened: opening a pipe would block.
    let kind = fs::metadata(file).map_err(unreadable)?;
    if kind.is_dir() {
        return Err(PemProblem::Folder);
    }
    if !kind.is_file() {
        return Err(PemProblem::NotAFile);
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).map_err(unreadable)?;
    let mut bounded = opened.take(FILE_MAX + 1);
    bounded.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(PemProblem::TooLarge);
    }
    blocks::parse(&bytes)
}

fn reason(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        kind => kind.to_string(),
    }
}

// === impl PemError ===

impl PemError {
    fn new(file: &Path, problem: PemProblem) -> Self {
        Self {
            file: file.into(),
            problem,
        }
    }
}

// === impl PemProblem ===

impl PemProblem {
    /// How to fix it, in one line.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing => "name the right file",
            Self::Unreadable(_) => "let the user that runs the tracker read it",
            Self::Folder | Self::NotAFile | Self::TooLarge | Self::Keystore => "name a PEM file",
            Self::Empty
            | Self::NoBlock
            | Self::NoEnd(_)
            | Self::BadLine(_)
            | Self::BadBase64(_) => "copy the whole file again, with its BEGIN and END lines",
            Self::NoLineBreaks(_) | Self::EscapedLineBreaks(_) => {
                "copy the file again with its line breaks, one for each of its lines"
            }
            Self::Utf16 => "save it as plain text (ASCII or UTF-8)",
            Self::Der => {
                "convert it: openssl pkey -inform DER (a key), openssl x509 -inform DER (a certificate)"
            }
            Self::Pkcs12 => {
                "convert it: openssl pkcs12 -nodes -nocerts (the key), openssl pkcs12 -nokeys (the certificate)"
            }
            Self::NoKey(_) => "name the file of the private key",
            Self::SeveralKeys(_) => "name a file with the one key that belongs to the certificate",
            Self::Encrypted => "decrypt it first: openssl pkey -in FILE -out NEW-FILE",
            Self::DamagedKey => "copy the key again from where it was made",
            Self::UnsupportedKey(_) => "make a key of a supported kind, and a certificate for it",
            Self::NoCertificate(_) => "name the file of the certificate",
            Self::DamagedCertificate => "copy the certificate again from where it was made",
            Self::OldCertificate | Self::UnusableCertificate => "make or request a new certificate",
            Self::OtherCertificate(_) => "name a key and a certificate that were made together",
            Self::WrongOrder { .. } => {
                "put the certificate of the key first, and those that sign it after it"
            }
        }
    }
}
