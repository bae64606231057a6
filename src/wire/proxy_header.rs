//! The PROXY protocol, versions 1 and 2: the header with which a balancer of TCP connections names the client,
//! before the client's first byte.
//!
//! No byte after the header is taken: it may belong to a TLS handshake.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use memchr::memchr;

/// The first bytes of version 1.
const V1_BEGIN: &[u8] = b"PROXY ";

/// The longest header of version 1, with its line end.
const V1_MAX: usize = 107;

/// The first bytes of version 2.
const V2_BEGIN: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 up to its addresses: the signature, version and command, family, length.
const V2_FIXED: usize = 16;

/// The most bytes that may follow those: addresses, and extensions, which are skipped. The protocol allows
/// 65,535, and balancers send some hundred.
const V2_REST_MAX: usize = 4096;

/// The most bytes of a connection that are worth a look at once.
pub const HEADER_MAX: usize = V2_FIXED + V2_REST_MAX;

/// The connection does not begin with a header, or with one that is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid PROXY header")]
pub struct InvalidProxyHeader;

/// Whom a header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    Client(IpAddr),
    /// Nobody: the balancer speaks for itself (`LOCAL`), or does not know the client's IP address (`UNKNOWN`,
    /// a Unix socket).
    Nobody,
}

/// Reads a header that may arrive in pieces.
#[derive(Debug, Default)]
pub struct ProxyHeaderReader {
    /// What has arrived of it: at most [`HEADER_MAX`] bytes.
    taken: Vec<u8>,
}

impl ProxyHeaderReader {
    /// Takes what `bytes` have of the header. Returns how many of them belong to it, and whom it names once it
    /// is complete.
    ///
    /// # Errors
    /// It is not a header; the connection is of no use.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Proxied>), InvalidProxyHeader> {
        let before = self.taken.len();
        let room = HEADER_MAX - before;
        self.taken
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        match parse(&self.taken)? {
            None => Ok((self.taken.len() - before, None)),
            // An incomplete header is incomplete without its last byte, so all of them were new.
            Some((length, proxied)) => Ok((length.saturating_sub(before), Some(proxied))),
        }
    }
}

/// The length of the header that `bytes` begin with, and whom it names; none while it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Proxied)>, InvalidProxyHeader> {
    if begins(bytes, V2_BEGIN) {
        parse_v2(bytes)
    } else if begins(bytes, V1_BEGIN) {
        parse_v1(bytes)
    } else {
        Err(InvalidProxyHeader)
    }
}

/// Whether one of them begins with the other.
fn begins(bytes: &[u8], expected: &[u8]) -> bool {
    let length = bytes.len().min(expected.len());
    bytes[..length] == expected[..length]
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(usize, Proxied)>, InvalidProxyHeader> {
    let Some(end) = memchr(b'\n', &bytes[..bytes.len().min(V1_MAX)]) else {
        return match bytes.len() {
            ..V1_MAX => Ok(None),
            _ => Err(InvalidProxyHeader),
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(InvalidProxyHeader)?;
    let line = std::str::from_utf8(line).map_err(|_| InvalidProxyHeader)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Some((end + 1, Proxied::Nobody)));
    }
    let (Some(source), Some(destination), Some(port), Some(other), None) = (
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
    ) else {
        return Err(InvalidProxyHeader);
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family? {
            "TCP4" => Some(text.parse::<Ipv4Addr>().ok()?.into()),
            "TCP6" => Some(text.parse::<Ipv6Addr>().ok()?.into()),
            _ => None,
        }
    };
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    match (address(source), address(destination)) {
        (Some(source), Some(_)) if is_port(port) && is_port(other) => {
            Ok(Some((end + 1, Proxied::Client(source))))
        }
        _ => Err(InvalidProxyHeader),
    }
}

/// ```text
/// | signature (12) | version 2, command (4 bits each) | family, transport (4 bits each) | length (2) |
/// | source | destination (4 or 16 each) | their ports (2 each) | extensions |
/// ```
fn parse_v2(bytes: &[u8]) -> Result<Option<(usize, Proxied)>, InvalidProxyHeader> {
    let Some(&[version_command, family_transport, high, low]) =
        bytes.get(12..V2_FIXED).and_then(|rest| rest.first_chunk())
    else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(InvalidProxyHeader),
    };
    let addresses = match family_transport {
        0x11 => 12,
        0x21 => 36,
        // Without an address, or with a path.
        0x00 | 0x31 => 0,
        _ if is_local => 0,
        _ => return Err(InvalidProxyHeader),
    };
    if length > V2_REST_MAX || (length < addresses && !is_local) {
        return Err(InvalidProxyHeader);
    }
    let Some(rest) = bytes.get(V2_FIXED..V2_FIXED + length) else {
        return Ok(None);
    };
    let source: Option<IpAddr> = match addresses {
        12 => rest.first_chunk::<4>().map(|ip| IpAddr::from(*ip)),
        36 => rest.first_chunk::<16>().map(|ip| IpAddr::from(*ip)),
        _ => None,
    };
    let proxied = match source {
        Some(source) if !is_local => Proxied::Client(source),
        _ => Proxied::Nobody,
    };
    Ok(Some((V2_FIXED + length, proxied)))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Taken = Result<(usize, Option<Proxied>), InvalidProxyHeader>;

    fn take(bytes: &[u8]) -> Taken {
        ProxyHeaderReader::default().take(bytes)
    }

    fn v2(version_command: u8, family: u8, length: usize, rest: &[u8]) -> Vec<u8> {
        let length = (length as u16).to_be_bytes();
        [&V2_BEGIN[..], &[version_command, family], &length, rest].concat()
    }

    fn client(ip: &str) -> Proxied {
        Proxied::Client(ip.parse().unwrap())
    }

    #[test]
    fn version_1_names_the_client() {
        for (line, expected) in [
            (
                "PROXY TCP4 192.0.2.1 10.0.0.1 51234 34000\r\n",
                client("192.0.2.1"),
            ),
            (
                "PROXY TCP6 2001:db8::1 fd00::1 1 65535\r\n",
                client("2001:db8::1"),
            ),
            (
                "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n",
                client("::ffff:192.0.2.1"),
            ),
            ("PROXY UNKNOWN\r\n", Proxied::Nobody),
            ("PROXY UNKNOWN a b c d e f\r\n", Proxied::Nobody),
        ] {
            let request = [line, "GET / HTTP/1.1\r\n"].concat();
            assert_eq!(
                take(request.as_bytes()),
                Ok((line.len(), Some(expected))),
                "{line}"
            );
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 16));
        assert_eq!(longest.len(), V1_MAX);
        assert!(take(longest.as_bytes()).is_ok());
        for line in [
            "PROXY UNKNOWN ",
            "PROXY TCP4 192.0.2.1 10.0.0.1 51234 34000",
        ] {
            assert_eq!(take(line.as_bytes()), Ok((line.len(), None)), "{line}");
        }
    }

    #[test]
    fn what_is_no_header_of_version_1_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 15));
        let endless = format!("PROXY {}", "x".repeat(200));
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "proxy TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 \r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 65536\r\n",
            "PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            &long,
            &endless,
        ] {
            assert_eq!(take(line.as_bytes()), Err(InvalidProxyHeader), "{line}");
        }
        assert_eq!(take(b"PROXY TCP4 \xff\r\n"), Err(InvalidProxyHeader));
    }

    #[test]
    fn version_2_names_the_client_and_extensions_are_skipped() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 1, 2, 3, 4];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        let extended = [&v4[..], &[4, 0, 3, 1, 2, 3]].concat();
        let long = [&v4[..], &vec![0; V2_REST_MAX - 12]].concat();
        for (command, family, rest, expected) in [
            (0x21, 0x11, &v4[..], client("192.0.2.1")),
            (0x21, 0x21, &v6, client("2001:db8::")),
            (0x21, 0x11, &extended, client("192.0.2.1")),
            (0x21, 0x11, &long, client("192.0.2.1")),
            (0x20, 0x00, &[], Proxied::Nobody),
            (0x20, 0x11, &v4, Proxied::Nobody),
            (0x20, 0x77, &[1], Proxied::Nobody),
            (0x21, 0x00, &[4, 0, 0], Proxied::Nobody),
            (0x21, 0x31, &[0; 216], Proxied::Nobody),
        ] {
            let header = v2(command, family, rest.len(), rest);
            let bytes = [&header[..], b"\x16\x03\x01"].concat();
            assert_eq!(
                take(&bytes),
                Ok((header.len(), Some(expected))),
                "{header:?}"
            );
            let most = header.len() - 1;
            assert_eq!(take(&header[..most]), Ok((most, None)), "{header:?}");
        }
    }

    #[test]
    fn what_is_no_header_of_version_2_is_refused() {
        for (command, family, length) in [
            (0x11, 0x11, 12),
            (0x31, 0x11, 12),
            (0x22, 0x11, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x12, 12),
            (0x21, 0x41, 12),
            (0x21, 0x11, V2_REST_MAX + 1),
            (0x20, 0x00, 0xffff),
        ] {
            let header = v2(command, family, length, &vec![0; length.min(100)]);
            assert_eq!(take(&header), Err(InvalidProxyHeader), "{header:?}");
        }
        let mut garbled = v2(0x20, 0, 0, &[]);
        garbled[11] = b'\r';
        assert_eq!(take(&garbled), Err(InvalidProxyHeader));
    }

    #[test]
    fn a_header_may_arrive_in_pieces() {
        let v1 = b"PROXY TCP4 192.0.2.1 10.0.0.1 51234 34000\r\n".to_vec();
        let v2 = v2(0x21, 0x11, 13, &[192, 0, 2, 1, 10, 0, 0, 1, 1, 2, 3, 4, 9]);
        for header in [v1, v2] {
            let bytes = [&header[..], b"GET"].concat();
            for size in 1..header.len() {
                let mut reader = ProxyHeaderReader::default();
                let mut left = &bytes[..];
                let found = loop {
                    let (taken, found) = reader.take(&left[..size.min(left.len())]).unwrap();
                    left = &left[taken..];
                    if let Some(found) = found {
                        break found;
                    }
                };
                assert_eq!((found, left), (client("192.0.2.1"), &b"GET"[..]));
            }
        }
    }
}
