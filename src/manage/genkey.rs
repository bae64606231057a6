//! `mika-manage genkey`: generates a key and a self-signed certificate for the API.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rcgen::{
    Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::print::Printer;
use super::{ExitStatus, UsageError};
use crate::base::clock::Clock;
use crate::base::file::{PendingFile, folder_of};
use crate::config::{Config, TlsFiles};
use crate::net::pem;
use crate::telemetry::certificate;

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Args)]
pub struct Genkey {
    /// Days until the certificate expires
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// A further host name or IP address for the certificate; may be repeated
    #[arg(long = "san", value_name = "NAME")]
    names: Vec<String>,
    /// Replace an existing key and certificate; the new certificate keeps the names of the old one
    #[arg(long)]
    force: bool,
}

/// The generated files; `expires` is a day in UTC.
#[derive(Serialize)]
struct Generated<'a> {
    key: &'a Path,
    cert: &'a Path,
    sha256: String,
    expires: String,
    names: Vec<String>,
}

pub fn run(arguments: &Genkey, config: &Config, printer: &mut Printer) -> Result<ExitStatus> {
    let TlsFiles { key, cert } = &config.api.tls;
    ensure!(
        key != cert,
        UsageError(format!(
            "api.tls: key and cert are the same file: {}",
            key.display()
        ))
    );
    for path in [key, cert] {
        ensure!(
            arguments.force || path.symlink_metadata().is_err(),
            "{} is there already and was kept; replace it with: mika-manage genkey --force",
            path.display()
        );
    }
    // A replaced certificate's names are kept.
    let former = pem::chain(cert)
        .ok()
        .and_then(|chain| chain.first().map(|first| certificate::names(first)))
        .unwrap_or_default();
    let params = parameters(arguments, &former, Clock::start().now().unix)?;
    if !printer.is_json() {
        printer.line("> Generating new keys...")?;
    }
    let names = params.subject_alt_names.iter().map(name_of).collect();
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&pair)?;
    write_both(key, &pair, cert, &certificate)?;

    let last_day = params.not_after;
    let generated = Generated {
        key,
        cert,
        sha256: fingerprint(certificate.der()),
        expires: format!(
            "{:04}-{:02}-{:02}",
            last_day.year(),
            u8::from(last_day.month()),
            last_day.day()
        ),
        names,
    };
    let fields = [
        ("key", key.display().to_string()),
        ("certificate", cert.display().to_string()),
        ("names", generated.names.join(", ")),
        ("SHA-256", generated.sha256.clone()),
        ("expires", format!("{} (UTC)", generated.expires)),
    ];
    printer.record(&generated, &fields)?;
    Ok(ExitStatus::Success)
}

/// SHA-256 of the certificate as browsers and `openssl x509 -fingerprint` show it.
fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(der)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    pairs.join(":")
}

fn parameters(arguments: &Genkey, former: &[String], unix: i64) -> Result<CertificateParams> {
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(unix.unsigned_abs());
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();

    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // A common name has 64 characters at most (RFC 5280 A.1).
    let common_name: String = format!("Mika on {host}").chars().take(64).collect();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // A day back, for clients whose clock is slow.
    params.not_before = now - DAY;
    params.not_after = now + DAY * arguments.days;
    params.serial_number = Some(serial_number()?);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    // Names that no certificate can hold are skipped.
    let known = [host].into_iter().chain(former.iter().cloned());
    let known = known.filter_map(|name| alternative_name(&name));
    let given = arguments.names.iter().map(|name| {
        alternative_name(name)
            .ok_or_else(|| UsageError(format!("--san {name:?} is not a host name or IP address")))
    });
    for name in known.map(Ok).chain(given) {
        let name = name?;
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    Ok(params)
}

/// An IP address needs its own type: clients do not accept it as a DNS name.
fn alternative_name(name: &str) -> Option<SanType> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(SanType::IpAddress(address));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A wildcard may stand for the first label only.
    let labels = name.strip_prefix("*.").unwrap_or(name);
    (name.len() <= 253 && labels.split('.').all(is_label))
        .then(|| name.try_into().ok().map(SanType::DnsName))?
}

fn name_of(name: &SanType) -> String {
    match name {
        SanType::DnsName(name) => name.to_string(),
        SanType::IpAddress(address) => address.to_string(),
        other => format!("{other:?}"),
    }
}

/// 16 random bytes that read as a positive number without leading zeros (RFC 5280 4.1.2.2).
fn serial_number() -> Result<SerialNumber> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("no random bytes")?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from(bytes.to_vec()))
}

/// Writes both files before either takes its place, so that a failure to write leaves the old pair. If only the
/// certificate could be moved, `mika-manage check` says that the key is missing or does not belong to it.
fn write_both(key: &Path, pair: &KeyPair, cert: &Path, certificate: &Certificate) -> Result<()> {
    let new_cert = write_pending(cert, &certificate.pem(), 0o644)
        .with_context(|| format!("{} (api.tls.cert) can't be written", cert.display()))?;
    let new_key = write_pending(key, &pair.serialize_pem(), 0o600)
        .with_context(|| format!("{} (api.tls.key) can't be written", key.display()))?;
    let moved = new_cert.rename(cert);
    moved.with_context(|| cert.display().to_string())?;
    let moved = new_key.rename(key);
    moved.with_context(|| key.display().to_string())
}

/// Writes a new file durably; if root runs this, it gets the owner of the folder of `path`.
fn write_pending(path: &Path, text: &str, mode: u32) -> io::Result<PendingFile> {
    let pending = PendingFile::write(path, text.as_bytes(), mode)?;
    give(pending.file(), path)?;
    pending.file().sync_all()?;
    Ok(pending)
}

/// Files that root writes for the tracker's user must belong to that user, as the folder does.
fn give(file: &File, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(folder_of(path))?;
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_type_that_clients_expect() {
        let is_address = |name| matches!(alternative_name(name), Some(SanType::IpAddress(_)));
        let is_name = |name| matches!(alternative_name(name), Some(SanType::DnsName(_)));
        assert!(is_address("192.0.2.1") && is_address("2001:db8::1"));
        assert!(is_name("tracker.example.org") && is_name("*.example.org") && is_name("a"));
        for bad in [
            "",
            "a b",
            "-a",
            "a..b",
            "ü.example",
            "a_b",
            "*",
            "a.*.b",
            "192.0.2.1:80",
        ] {
            assert_eq!(alternative_name(bad), None, "{bad}");
        }
    }
}
