//! The blocks of a PEM text: what is between `-----BEGIN X-----` and `-----END X-----`.
//!
//! Taken as they come: a byte order mark, line breaks of any system, blanks around a line, text
//! outside of blocks, and an END line with the next BEGIN right behind it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Problem;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Base64 with or without the `=` at its end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A block, decoded.
#[derive(PartialEq, Eq)]
pub(super) struct Block {
    pub kind: Kind,
    pub der: Vec<u8>,
}

/// What a block is, by its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Certificate,
    Pkcs8,
    Pkcs1,
    Sec1,
    /// By its label, or by the header of the older form.
    Encrypted,
    /// A key that no TLS server of ours can use, with its name.
    UnsupportedKey(&'static str),
    Request,
    PublicKey,
    Pkcs7,
    /// OpenSSL's own form of a certificate, with more behind it.
    Trusted,
    /// Parameters, lists and whatever else there is.
    Other,
}

/// A block whose END has not come yet.
struct Open<'a> {
    label: &'a str,
    /// The number of its BEGIN line.
    begin: usize,
    is_encrypted: bool,
    base64: Vec<u8>,
}

/// All blocks of a file. One that holds no key and no certificate need not be well formed.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Block>, Problem> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::Empty);
    }
    let text = String::from_utf8_lossy(bytes);
    let mut blocks = Vec::new();
    let mut open: Option<Open<'_>> = None;
    for (number, line) in lines(&text) {
        if let Some(label) = label(line, BEGIN) {
            if let Some(unfinished) = &open {
                return Err(Problem::NoEnd(unfinished.begin));
            }
            open = Some(Open::new(label, number));
        } else if let Some(block) = &mut open {
            match label(line, END) {
                None => block.add(line, number)?,
                Some(label) if label == block.label => {
                    blocks.push(block.close()?);
                    open = None;
                }
                Some(_) => return Err(Problem::NoEnd(block.begin)),
            }
        } else if let Some(at) = line.find(BEGIN) {
            check_alone(&line[at..], number)?;
        }
    }
    match open {
        Some(unfinished) => Err(Problem::NoEnd(unfinished.begin)),
        None if blocks.is_empty() => Err(no_block(bytes, &text)),
        None => Ok(blocks),
    }
}

/// What the blocks are, in words.
pub(super) fn describe(blocks: &[Block]) -> &'static str {
    let has = |kind| blocks.iter().any(|block| block.kind == kind);
    if blocks.iter().any(|block| block.kind.is_private_key()) {
        "a private key"
    } else if has(Kind::Certificate) {
        "a certificate"
    } else if has(Kind::Request) {
        "a certificate request, which an authority has to sign first"
    } else if has(Kind::PublicKey) {
        "a public key"
    } else if has(Kind::Pkcs7) {
        "PKCS#7; convert it with openssl pkcs7 -print_certs"
    } else if has(Kind::Trusted) {
        "a TRUSTED CERTIFICATE; convert it with openssl x509"
    } else {
        "other things"
    }
}

/// Lines with their numbers, without blanks around them. They end as on any system, and where an END
/// line is followed by a BEGIN at once, as files without a last line break are after `cat`.
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

/// A BEGIN that is not alone on its line: where the base64 or the END follows on the same one, the
/// line breaks are lost. Anything else is text around the blocks.
fn check_alone(line: &str, number: usize) -> Result<(), Problem> {
    if line.contains(r"\n") || line.contains(r"\r") {
        return Err(Problem::EscapedLineBreaks(number));
    }
    let after = line[BEGIN.len()..]
        .split_once(DASHES)
        .map(|(_, after)| after.trim());
    if after.is_some_and(|after| after.len() > 16 && !after.starts_with(['\'', '"', '.', ','])) {
        return Err(Problem::NoLineBreaks(number));
    }
    Ok(())
}

/// What a file without any block is.
fn no_block(bytes: &[u8], text: &str) -> Problem {
    // PKCS#12 begins with its version, 3, and the object identifier of PKCS#7 data.
    const PKCS7_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    let head = &bytes[..bytes.len().min(64)];
    let has = |part: &[u8]| head.windows(part.len()).any(|window| window == part);
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") || has(b"-\0-\0-") {
        return Problem::Utf16;
    }
    if head.starts_with(b"\xfe\xed\xfe\xed") {
        return Problem::Keystore;
    }
    // A sequence: 0x30, and its length or how long that is.
    let is_der = match *head {
        [0x30, length @ 0..0x80, ..] => bytes.len() == usize::from(length) + 2,
        [0x30, 0x80..=0x84, ..] => true,
        _ => false,
    };
    if is_der && has(b"\x02\x01\x03") && has(PKCS7_DATA) {
        return Problem::Pkcs12;
    }
    if is_der {
        return Problem::Der;
    }
    let found = lines(text).find(|(_, line)| line.contains(BEGIN));
    match found {
        Some((number, line)) if line.contains(r"\n") => Problem::EscapedLineBreaks(number),
        Some((number, _)) => Problem::NoLineBreaks(number),
        None => Problem::NoBlock,
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

    /// A line of base64, or a header of the older form (RFC 1421).
    fn add(&mut self, line: &str, number: usize) -> Result<(), Problem> {
        if let Some((name, value)) = line.split_once(':') {
            self.is_encrypted |=
                name.eq_ignore_ascii_case("Proc-Type") && value.contains("ENCRYPTED");
            return Ok(());
        }
        if line.contains(r"\n") {
            return Err(Problem::EscapedLineBreaks(number));
        }
        match line.find("-----END") {
            None => {}
            Some(0) => return Err(Problem::NoEnd(self.begin)),
            Some(_) => return Err(Problem::NoLineBreaks(number)),
        }
        let letters = line.bytes().filter(|byte| !byte.is_ascii_whitespace());
        let is_known = self.kind() != Kind::Other && !self.is_encrypted;
        for letter in letters {
            let is_base64 = letter.is_ascii_alphanumeric() || b"+/=".contains(&letter);
            if is_known && !is_base64 {
                return Err(Problem::BadLine(number));
            }
            self.base64.push(letter);
        }
        Ok(())
    }

    /// The block, at its END.
    fn close(&self) -> Result<Block, Problem> {
        let kind = self.kind();
        let der = match kind {
            Kind::Certificate | Kind::Pkcs8 | Kind::Pkcs1 | Kind::Sec1 => {
                let decoded = BASE64.decode(&self.base64);
                let der = decoded.map_err(|_| Problem::BadBase64(self.begin))?;
                if der.is_empty() {
                    return Err(Problem::BadBase64(self.begin));
                }
                der
            }
            // Of these only the label counts.
            _ => Vec::new(),
        };
        Ok(Block { kind, der })
    }

    fn kind(&self) -> Kind {
        if self.is_encrypted {
            return Kind::Encrypted;
        }
        match self.label {
            "CERTIFICATE" | "X509 CERTIFICATE" => Kind::Certificate,
            "PRIVATE KEY" => Kind::Pkcs8,
            "RSA PRIVATE KEY" => Kind::Pkcs1,
            "EC PRIVATE KEY" => Kind::Sec1,
            "ENCRYPTED PRIVATE KEY" => Kind::Encrypted,
            "DSA PRIVATE KEY" => Kind::UnsupportedKey("DSA"),
            "OPENSSH PRIVATE KEY" => Kind::UnsupportedKey("a key in the format of OpenSSH"),
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Kind::Request,
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "EC PUBLIC KEY" => Kind::PublicKey,
            "TRUSTED CERTIFICATE" => Kind::Trusted,
            "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => Kind::Pkcs7,
            _ => Kind::Other,
        }
    }
}

// === impl Kind ===

impl Kind {
    /// Whether it is a private key, be it one that can be used or not.
    pub fn is_private_key(self) -> bool {
        matches!(
            self,
            Self::Pkcs8 | Self::Pkcs1 | Self::Sec1 | Self::Encrypted | Self::UnsupportedKey(_)
        )
    }
}
