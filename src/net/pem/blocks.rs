//! The blocks of a PEM text, between `-----BEGIN X-----` and `-----END X-----`.
//!
//! Also accepted: a byte order mark, line breaks of any system, spaces around a line, text outside of
//! blocks, and an END line that the next BEGIN follows without a line break.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::PemProblem;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A decoded block.
#[derive(PartialEq, Eq)]
pub(super) struct Block {
    pub kind: BlockKind,
    pub der: Vec<u8>,
}

/// The kind of a block, by its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    Certificate,
    Pkcs8,
    Pkcs1,
    Sec1,
    /// By its label, or by a header of the older format.
    Encrypted,
    /// A key that our TLS servers can't use, with its name.
    UnsupportedKey(&'static str),
    Request,
    PublicKey,
    Pkcs7,
    /// OpenSSL's own certificate format, with extra data at the end.
    Trusted,
    /// Parameters, revocation lists and anything else.
    Other,
}

/// A block whose END has not come yet.
struct Open<'a> {
    label: &'a str,
    /// The line number of its BEGIN.
    begin: usize,
    is_encrypted: bool,
    base64: Vec<u8>,
}

/// Parses all blocks of a file. Only keys and certificates must be well formed.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Block>, PemProblem> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(PemProblem::Empty);
    }
    let text = String::from_utf8_lossy(bytes);
    let mut blocks = Vec::new();
    let mut open: Option<Open<'_>> = None;
    for (number, line) in lines(&text) {
        if let Some(label) = label(line, BEGIN) {
            if let Some(unfinished) = &open {
                return Err(PemProblem::NoEnd(unfinished.begin));
            }
            open = Some(Open::new(label, number));
        } else if let Some(block) = &mut open {
            match label(line, END) {
                None => block.add(line, number)?,
                Some(label) if label == block.label => {
                    blocks.push(block.close()?);
                    open = None;
                }
                Some(_) => return Err(PemProblem::NoEnd(block.begin)),
            }
        } else if let Some(at) = line.find(BEGIN) {
            check_alone(&line[at..], number)?;
        }
    }
    match open {
        Some(unfinished) => Err(PemProblem::NoEnd(unfinished.begin)),
        None if blocks.is_empty() => Err(no_block(bytes, &text)),
        None => Ok(blocks),
    }
}

/// What the blocks are, for an error text.
pub(super) fn describe(blocks: &[Block]) -> &'static str {
    let has = |kind| blocks.iter().any(|block| block.kind == kind);
    if blocks.iter().any(|block| block.kind.is_private_key()) {
        "a private key"
    } else if has(BlockKind::Certificate) {
        "a certificate"
    } else if has(BlockKind::Request) {
        "a certificate request, which an authority has to sign first"
    } else if has(BlockKind::PublicKey) {
        "a public key"
    } else if has(BlockKind::Pkcs7) {
        "PKCS#7; convert it with openssl pkcs7 -print_certs"
    } else if has(BlockKind::Trusted) {
        "a TRUSTED CERTIFICATE; convert it with openssl x509"
    } else {
        "other things"
    }
}

/// Trimmed lines with their numbers. A line also ends between an END and a BEGIN directly after it, as
/// `cat` writes them for files without a final line break.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    let mut number = 0;
    let lines = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        number += 1;
        let end = rest.find(['\r', '\n']).unwrap_or(rest.len());
        let line = &rest[..end];
        let after = &rest[end..];
        rest = after
            .strip_prefix("\r\n")
            .unwrap_or(after.get(1..).unwrap_or_default());
        Some((number, line.trim()))
    });
    lines.flat_map(|(number, line)| {
        let next = line.starts_with(END).then(|| line.find("----------BEGIN "));
        let (first, second) = match next.flatten() {
            Some(at) => line.split_at(at + DASHES.len()),
            None => (line, ""),
        };
        let second = (!second.is_empty()).then_some((number, second));
        std::iter::once((number, first)).chain(second)
    })
}

/// The label of a line that has nothing else on it.
fn label<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    let label = line.strip_prefix(start)?.strip_suffix(DASHES)?;
    (!label.contains(DASHES)).then_some(label.trim())
}

/// Checks a BEGIN that is not alone on its line: if base64 or the END follows it there, the line breaks
/// are lost. Anything else is text around the blocks.
fn check_alone(line: &str, number: usize) -> Result<(), PemProblem> {
    if line.contains(r"\n") || line.contains(r"\r") {
        return Err(PemProblem::EscapedLineBreaks(number));
    }
    let after = line[BEGIN.len()..]
        .split_once(DASHES)
        .map(|(_, after)| after.trim());
    if after.is_some_and(|after| after.len() > 16 && !after.starts_with(['\'', '"', '.', ','])) {
        return Err(PemProblem::NoLineBreaks(number));
    }
    Ok(())
}

/// Why a file has no block.
fn no_block(bytes: &[u8], text: &str) -> PemProblem {
    // PKCS#12 begins with its version, 3, and the object identifier of PKCS#7 data.
    const PKCS7_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    let head = &bytes[..bytes.len().min(64)];
    let has = |part: &[u8]| head.windows(part.len()).any(|window| window == part);
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") || has(b"-\0-\0-") {
        return PemProblem::Utf16;
    }
    if head.starts_with(b"\xfe\xed\xfe\xed") {
        return PemProblem::Keystore;
    }
    // A sequence: 0x30, and its length or the length of its length.
    let is_der = match *head {
        [0x30, length @ 0..0x80, ..] => bytes.len() == usize::from(length) + 2,
        [0x30, 0x80..=0x84, ..] => true,
        _ => false,
    };
    if is_der && has(b"\x02\x01\x03") && has(PKCS7_DATA) {
        return PemProblem::Pkcs12;
    }
    if is_der {
        return PemProblem::Der;
    }
    match lines(text).find(|(_, line)| line.contains(BEGIN)) {
        Some((number, line)) if line.contains(r"\n") => PemProblem::EscapedLineBreaks(number),
        Some((number, _)) => PemProblem::NoLineBreaks(number),
        None => PemProblem::NoBlock,
    }
}

// === impl Open ===

impl<'a> Open<'a> {
    fn new(label: &'a str, begin: usize) -> Self {
        Self {
            label,
            begin,
            is_encrypted: false,
            base64: Vec::new(),
        }
    }

    /// Adds a line of base64, or a header of the older format (RFC 1421).
    fn add(&mut self, line: &str, number: usize) -> Result<(), PemProblem> {
        if let Some((name, value)) = line.split_once(':') {
            self.is_encrypted |=
                name.eq_ignore_ascii_case("Proc-Type") && value.contains("ENCRYPTED");
            return Ok(());
        }
        if line.contains(r"\n") {
            return Err(PemProblem::EscapedLineBreaks(number));
        }
        match line.find("-----END") {
            None => {}
            Some(0) => return Err(PemProblem::NoEnd(self.begin)),
            Some(_) => return Err(PemProblem::NoLineBreaks(number)),
        }
        let is_known = self.kind() != BlockKind::Other && !self.is_encrypted;
        for letter in line.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
            let is_base64 = letter.is_ascii_alphanumeric() || b"+/=".contains(&letter);
            if is_known && !is_base64 {
                return Err(PemProblem::BadLine(number));
            }
            self.base64.push(letter);
        }
        Ok(())
    }

    /// Decodes the block at its END.
    fn close(&self) -> Result<Block, PemProblem> {
        let kind = self.kind();
        let der = match kind {
            BlockKind::Certificate | BlockKind::Pkcs8 | BlockKind::Pkcs1 | BlockKind::Sec1 => {
                let decoded = BASE64.decode(&self.base64);
                let der = decoded.map_err(|_| PemProblem::BadBase64(self.begin))?;
                if der.is_empty() {
                    return Err(PemProblem::BadBase64(self.begin));
                }
                der
            }
            // Only the label of these matters.
            _ => Vec::new(),
        };
        Ok(Block { kind, der })
    }

    fn kind(&self) -> BlockKind {
        if self.is_encrypted {
            return BlockKind::Encrypted;
        }
        match self.label {
            "CERTIFICATE" | "X509 CERTIFICATE" => BlockKind::Certificate,
            "PRIVATE KEY" => BlockKind::Pkcs8,
            "RSA PRIVATE KEY" => BlockKind::Pkcs1,
            "EC PRIVATE KEY" => BlockKind::Sec1,
            "ENCRYPTED PRIVATE KEY" => BlockKind::Encrypted,
            "DSA PRIVATE KEY" => BlockKind::UnsupportedKey("DSA"),
            "OPENSSH PRIVATE KEY" => BlockKind::UnsupportedKey("a key in the format of OpenSSH"),
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => BlockKind::Request,
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "EC PUBLIC KEY" => BlockKind::PublicKey,
            "TRUSTED CERTIFICATE" => BlockKind::Trusted,
            "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => BlockKind::Pkcs7,
            _ => BlockKind::Other,
        }
    }
}

// === impl BlockKind ===

impl BlockKind {
    /// Whether it is a private key, supported or not.
    pub fn is_private_key(self) -> bool {
        matches!(
            self,
            Self::Pkcs8 | Self::Pkcs1 | Self::Sec1 | Self::Encrypted | Self::UnsupportedKey(_)
        )
    }
}
