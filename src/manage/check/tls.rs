//! Keys and certificates: whether a listener could use them, and until when.

use std::fs;
use std::io;
use std::path::Path;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::report::Problem;
use crate::certificate::{EXPIRY_NOTICE_DAYS, validity};
use crate::config::TlsFiles;

/// Whether a TLS listener could use the files; says until when. `absent` is the hint if one is not there.
pub(super) fn check(files: &TlsFiles, absent: &str, now: i64) -> Result<String, Problem> {
    let certs: Vec<CertificateDer> = read(&files.cert, absent, |text| {
        CertificateDer::pem_slice_iter(text).collect()
    })?;
    let key = read(&files.key, absent, PrivateKeyDer::from_pem_slice)?;
    let Some(first) = certs.first().cloned() else {
        return Err(Problem::new(
            format!("{}: no certificate in it", files.cert.display()),
            "it must be a PEM file",
        ));
    };
    CertifiedKey::from_der(certs, key, &ring::default_provider()).map_err(|error| {
        let (key, cert) = (files.key.display(), files.cert.display());
        Problem::new(
            format!("{key} does not go with {cert}: {error}"),
            "name a key and a certificate that were made together",
        )
    })?;
    let path = files.cert.display();
    let validity = validity(&first).map_err(|error| {
        Problem::new(
            format!("{path}: {error}"),
            "make or request a new certificate",
        )
    })?;
    let (from, until) = (&validity.not_before, &validity.not_after);
    let days = (until.timestamp() - now) / 86_400;
    if until.timestamp() < now {
        let problem = format!("{path} expired on {until}");
        return Err(Problem::new(problem, "make or request a new certificate"));
    }
    if from.timestamp() > now {
        let problem = format!("{path} is not valid before {from}");
        return Err(Problem::new(problem, "look at the clock of this machine"));
    }
    if days < EXPIRY_NOTICE_DAYS {
        let problem = format!("{path} expires in {days} days");
        return Err(Problem::new(problem, "make or request a new certificate"));
    }
    Ok(format!("{path} is valid for {days} more days"))
}

fn read<T>(
    path: &Path,
    absent: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, pem::Error>,
) -> Result<T, Problem> {
    let text = fs::read(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => absent,
            _ => "let the user that runs the tracker read it",
        };
        Problem::new(format!("{}: {error}", path.display()), hint)
    })?;
    parse(&text).map_err(|error| {
        Problem::new(
            format!("{}: {error}", path.display()),
            "it must be a PEM file",
        )
    })
}
