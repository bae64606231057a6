//! Validity and names of a certificate.

use std::net::IpAddr;

use x509_parser::prelude::{FromDer as _, GeneralName, Validity, X509Certificate, X509Error};

/// A certificate that expires within this many days is reported.
pub const EXPIRY_NOTICE_DAYS: i64 = 14;

/// The validity of a certificate (DER).
pub fn validity(der: &[u8]) -> Result<Validity, x509_parser::nom::Err<X509Error>> {
    let (_, certificate) = X509Certificate::from_der(der)?;
    Ok(certificate.validity().clone())
}

/// The host names and IP addresses of a certificate (DER); empty if the bytes are not one.
pub fn names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    names
        .value
        .general_names
        .iter()
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
