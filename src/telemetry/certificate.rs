//! Until when a certificate is valid, and for which names.

use std::net::IpAddr;

use x509_parser::prelude::{FromDer as _, GeneralName, Validity, X509Certificate, X509Error};

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

/// The host names and IP addresses that the certificate of these bytes (DER) is for; none if it is
/// no certificate.
pub fn names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}
