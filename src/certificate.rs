//! Until when a certificate is valid.

use x509_parser::prelude::{FromDer as _, Validity, X509Certificate, X509Error};

/// A certificate that expires within so many days is worth a word.
pub const EXPIRY_NOTICE_DAYS: i64 = 14;

/// From when until when the certificate of these bytes (DER) is valid.
///
/// # Errors
/// It is none.
pub fn validity(der: &[u8]) -> Result<Validity, x509_parser::nom::Err<X509Error>> {
    let (_, certificate) = X509Certificate::from_der(der)?;
    Ok(certificate.validity().clone())
}
