//! Why a private key is refused: the kind of key, by its DER.

use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use x509_cert::der::{self, Decode, Reader as _, SliceReader};

use super::PemProblem;
use super::blocks::BlockKind;

/// The supported kinds of keys.
pub(super) const SUPPORTED: &str = "RSA of 2048 to 4096 bits, ECDSA on P-256 or P-384, and Ed25519";

/// The supported sizes of RSA keys.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Names of algorithms and curves, by their object identifier.
const NAMES: [(&str, &str); 15] = [
    ("1.2.840.113549.1.1.1", RSA),
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.10045.2.1", EC),
    ("1.2.840.10040.4.1", "DSA"),
    ("1.2.840.113549.1.3.1", "Diffie-Hellman"),
    ("1.2.840.10046.2.1", "Diffie-Hellman"),
    ("1.3.101.110", "X25519"),
    ("1.3.101.111", "X448"),
    ("1.3.101.112", ED25519),
    ("1.3.101.113", "Ed448"),
    ("1.2.840.10045.3.1.7", P256),
    ("1.3.132.0.34", P384),
    ("1.3.132.0.35", "ECDSA on P-521"),
    ("1.3.132.0.33", "ECDSA on P-224"),
    ("1.3.132.0.10", "ECDSA on secp256k1"),
];
const RSA: &str = "RSA";
const EC: &str = "EC";
const ED25519: &str = "Ed25519";
const P256: &str = "ECDSA on P-256";
const P384: &str = "ECDSA on P-384";

/// Why the TLS library refused a key.
pub(super) fn why_unusable(kind: BlockKind, der: &[u8]) -> PemProblem {
    let named = match kind {
        BlockKind::Pkcs8 => name_of_pkcs8(der),
        BlockKind::Pkcs1 => name_of_rsa(der),
        BlockKind::Sec1 => name_of_sec1(der),
        _ => None,
    };
    match named {
        None => PemProblem::DamagedKey,
        // A supported kind: the rest of it must be damaged.
        Some(name) if [RSA, ED25519, P256, P384].contains(&name.as_str()) => PemProblem::DamagedKey,
        Some(name) => PemProblem::UnsupportedKey(name),
    }
}

/// RFC 5958: version, algorithm with its parameters, and the key.
fn name_of_pkcs8(der: &[u8]) -> Option<String> {
    let mut whole = sequence(der).ok()?;
    let _version: UintRef<'_> = whole.decode().ok()?;
    let mut algorithm = SliceReader::new(whole.decode::<AnyRef<'_>>().ok()?.value()).ok()?;
    match known(algorithm.decode().ok()?) {
        Some(RSA) => name_of_rsa(whole.decode::<AnyRef<'_>>().ok()?.value()),
        Some(EC) => Some(name_of_curve(algorithm.decode())),
        Some(name) => Some(name.into()),
        None => Some("of an unknown algorithm".into()),
    }
}

/// RFC 8017 A.1.2: version, and the modulus.
fn name_of_rsa(der: &[u8]) -> Option<String> {
    let mut whole = sequence(der).ok()?;
    let _version: UintRef<'_> = whole.decode().ok()?;
    let modulus: UintRef<'_> = whole.decode().ok()?;
    let bits = bits_of(modulus.as_bytes());
    Some(if RSA_BITS.contains(&bits) {
        RSA.into()
    } else {
        format!("RSA of {bits} bits")
    })
}

/// RFC 5915: version, the key, and in `[0]` the curve, which only PKCS#8 may leave out.
fn name_of_sec1(der: &[u8]) -> Option<String> {
    let mut whole = sequence(der).ok()?;
    let _version: UintRef<'_> = whole.decode().ok()?;
    let _key: AnyRef<'_> = whole.decode().ok()?;
    let curve: AnyRef<'_> = whole.decode().ok()?;
    Some(name_of_curve(ObjectIdentifier::from_der(curve.value())))
}

/// What a sequence consists of. Bytes behind it are ignored.
fn sequence(der: &[u8]) -> der::Result<SliceReader<'_>> {
    let whole: AnyRef<'_> = SliceReader::new(der)?.decode()?;
    SliceReader::new(whole.value())
}

fn name_of_curve(oid: der::Result<ObjectIdentifier>) -> String {
    match oid.map(known) {
        Ok(Some(name)) => name.into(),
        Ok(None) => "ECDSA on another curve".into(),
        Err(_) => "ECDSA on a curve without a name".into(),
    }
}

fn known(oid: ObjectIdentifier) -> Option<&'static str> {
    let text = oid.to_string();
    NAMES
        .iter()
        .find(|(id, _)| *id == text)
        .map(|(_, name)| *name)
}

fn bits_of(number: &[u8]) -> usize {
    let start = number.iter().position(|&byte| byte != 0);
    let number = &number[start.unwrap_or(number.len())..];
    let zeros = number
        .first()
        .map_or(0, |byte| byte.leading_zeros() as usize);
    number.len() * 8 - zeros
}
