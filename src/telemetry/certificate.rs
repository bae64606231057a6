//! Validity and names of a certificate.

use std::net::IpAddr;

use x509_cert::Certificate;
use x509_cert::der::{self, Decode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::{Time, Validity};

/// A certificate that expires within this many days is reported.
pub const EXPIRY_NOTICE_DAYS: i64 = 14;

/// The validity of a certificate (DER).
pub fn validity(der: &[u8]) -> der::Result<Validity> {
    Ok(Certificate::from_der(der)?.tbs_certificate.validity)
}

/// Unix seconds of a time in a certificate.
pub fn seconds(time: &Time) -> i64 {
    time.to_unix_duration().as_secs() as i64
}

/// The host names and IP addresses of a certificate (DER); empty if the bytes are not one.
pub fn names(der: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(der) else {
        return Vec::new();
    };
    let Ok(Some((_, names))) = certificate.tbs_certificate.get::<SubjectAltName>() else {
        return Vec::new();
    };
    let names = names.0.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            address(bytes.as_bytes()).map(|address| address.to_string())
        }
        _ => None,
    });
    names.collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}
