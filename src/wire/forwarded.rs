//! Headers in which proxies name the client: `X-Forwarded-For` and similar ones, and `Forwarded` of
//! RFC 7239. Only what trusted proxies wrote counts; what stands to the left of that may be forged by the
//! client.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::base::addr::canonical;
use crate::wire::ParseError;

/// A hop of a request; none for one that is not an address, such as `unknown` or `_hidden`.
pub type Hop = Option<IpAddr>;

/// The header that names the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For` or `Forwarded`, whichever is present; if both are, they must agree, because
    /// one of them is probably set by the client.
    #[default]
    Either,
    /// `Forwarded` (RFC 7239), and no other.
    Forwarded,
    /// The header of that name, and no other: a list of addresses, or one.
    List(String),
}

impl ForwardedHeader {
    /// The header of that name; empty for [`ForwardedHeader::Either`].
    pub fn named(name: &str) -> Self {
        if name.is_empty() {
            Self::Either
        } else if name.eq_ignore_ascii_case("forwarded") {
            Self::Forwarded
        } else {
            Self::List(name.to_owned())
        }
    }

    /// Its name in log lines.
    pub fn name(&self) -> &str {
        match self {
            Self::Either => "X-Forwarded-For or Forwarded",
            Self::Forwarded => "Forwarded",
            Self::List(name) => name,
        }
    }
}

/// Whether an address belongs to a trusted proxy.
pub fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = canonical(ip);
    trusted.iter().any(|net| net.contains(&ip))
}

/// The client that a trusted proxy names: the rightmost hop that is not itself a trusted proxy, or the
/// first hop if all are.
///
/// `hops` holds those of all lines of the header, in order.
///
/// # Errors
/// There is no hop, or the one that counts is not an address: what stands to its left was not written by
/// a trusted proxy.
pub fn client_ip(hops: impl Iterator<Item = Hop>, trusted: &[IpNet]) -> Result<IpAddr, ParseError> {
    let mut client = Err(ParseError::InvalidForwarded);
    for (number, hop) in hops.enumerate() {
        match hop {
            None => client = Err(ParseError::InvalidForwarded),
            Some(ip) if number == 0 || !is_trusted(ip, trusted) => client = Ok(ip),
            Some(_) => {}
        }
    }
    client
}

/// The hops of one line of `X-Forwarded-For` or a similar header. Empty elements are ignored
/// (RFC 9110, 5.6.1.2).
pub fn list_hops(line: &str) -> impl Iterator<Item = Hop> {
    line.split(',')
        .map(str::trim)
        .filter(|element| !element.is_empty())
        .map(|element| {
            let unquoted = element
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            parse_hop(unquoted.unwrap_or(element))
        })
}

/// The hops of one line of `Forwarded` (RFC 7239): its `for=` values. An element without one is a hop
/// that is not an address. After a syntax error the line is ambiguous, so the rest of it is one such
/// hop, too.
pub fn forwarded_hops(line: &str) -> impl Iterator<Item = Hop> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let trimmed = rest?.trim_start_matches([',', ' ', '\t']);
        if trimmed.is_empty() {
            return None;
        }
        let (hop, left) = match element(trimmed) {
            Some((hop, left)) => (hop, Some(left)),
            None => (None, None),
        };
        rest = left;
        Some(hop)
    })
}

/// Splits off the first element of `text`, and returns its hop and the rest; none after a syntax error.
fn element(mut text: &str) -> Option<(Hop, &str)> {
    let (mut hop, mut count) = (None, 0);
    loop {
        text = text.trim_start_matches([' ', '\t']);
        match text.as_bytes().first() {
            None | Some(b',') => break,
            Some(b';') => text = &text[1..],
            Some(_) => {
                let (name, value, rest) = pair(text)?;
                if name.eq_ignore_ascii_case("for") {
                    hop = parse_hop(&value);
                    count += 1;
                }
                text = rest;
            }
        }
    }
    // More than one in an element is ambiguous.
    Some((hop.filter(|_| count == 1), text))
}

/// Splits off the first `name=value` of `text`; the rest begins with the next `;` or `,`.
fn pair(text: &str) -> Option<(&str, Cow<'_, str>, &str)> {
    let (name, rest) = text.split_once('=')?;
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !is_end(byte))
    {
        return None;
    }
    let (value, rest) = if let Some(rest) = rest.strip_prefix('"') {
        quoted(rest)?
    } else {
        let end = rest.bytes().position(|byte| is_end(byte) || byte == b' ');
        let (value, rest) = rest.split_at(end.unwrap_or(rest.len()));
        (Cow::Borrowed(value), rest)
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    let is_over = rest.is_empty() || rest.starts_with([';', ',']);
    is_over.then_some((name, value, rest))
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b';' | b',' | b'"' | b'\t')
}

/// Splits off a quoted string whose opening quote was removed.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text[end..].starts_with('"') {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((Cow::Owned(value), &text[at + 1..])),
            (_, '\\') => value.push(chars.next()?.1),
            (_, plain) => value.push(plain),
        }
    }
}

/// An address in any form that proxies use, with or without a port: `192.0.2.1`, `192.0.2.1:80`,
/// `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse_hop(text: &str) -> Hop {
    let text = text.trim();
    let ip = if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']')?;
        let is_valid = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        is_valid.then(|| ip.parse::<Ipv6Addr>().ok())??.into()
    } else if let Some((ip, port)) = text.split_once(':').filter(|(_, port)| !port.contains(':')) {
        is_port(port).then(|| ip.parse::<Ipv4Addr>().ok())??.into()
    } else {
        text.parse().ok()?
    };
    Some(canonical(ip))
}

/// Whether `text` is a port, or an obfuscated one (RFC 7239, `obfport`).
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !name.is_empty() && name.bytes().all(is_valid)
        }
        None => text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(hops: impl Iterator<Item = Hop>) -> String {
        hops.map(|hop| hop.map_or("?".into(), |ip| ip.to_string()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn lists_hold_addresses_in_all_their_forms() {
        let table = [
            ("192.0.2.1", "192.0.2.1"),
            (" 192.0.2.1:5678 ,\t2001:db8::1", "192.0.2.1 2001:db8::1"),
            (
                "[2001:db8::1], [2001:db8::1]:4711",
                "2001:db8::1 2001:db8::1",
            ),
            (r#""192.0.2.1:80","[2001:db8::1]""#, "192.0.2.1 2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, , 192.0.2.2,", "192.0.2.1 192.0.2.2"),
            (",,192.0.2.1", "192.0.2.1"),
            (" , ", ""),
            ("", ""),
            ("unknown, _hidden, junk", "? ? ?"),
            ("192.0.2.1:, 192.0.2.1:99999, 192.0.2.1:x", "? ? ?"),
            ("192.0.2.1.5, 192.0.2, 192.0.2.01", "? ? ?"),
            ("[192.0.2.1], [2001:db8::1, 2001:db8::1]", "? ? ?"),
            ("fe80::1%eth0, 192.0.2.1 192.0.2.2", "? ?"),
            ("192.0.2.1:_port", "192.0.2.1"),
        ];
        for (line, expected) in table {
            assert_eq!(shown(list_hops(line)), expected, "{line}");
        }
    }

    #[test]
    fn forwarded_is_read_by_its_grammar() {
        let table = [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            (
                r#"for=192.0.2.43, For="[2001:db8:cafe::17]:4711""#,
                "192.0.2.43 2001:db8:cafe::17",
            ),
            (r#"proto=http;FOR="192.0.2.1:_x""#, "192.0.2.1"),
            ("for=[2001:db8::1]:80", "2001:db8::1"),
            ("for=192.0.2.1 ; by=x ,for=192.0.2.2", "192.0.2.1 192.0.2.2"),
            ("for=192.0.2.1,, ,for=192.0.2.2,", "192.0.2.1 192.0.2.2"),
            (";for=192.0.2.1;;", "192.0.2.1"),
            (r#"for="192.0\.2.1""#, "192.0.2.1"),
            ("for=unknown, for=_hidden", "? ?"),
            ("proto=https", "?"),
            ("for=192.0.2.1, proto=https", "192.0.2.1 ?"),
            ("for=192.0.2.1;for=192.0.2.2", "?"),
            ("", ""),
            (" , ,", ""),
            // Quoted text is not a hop, and an open quote makes the rest ambiguous.
            (r#"for=192.0.2.1;x=", for=192.0.2.9""#, "192.0.2.1"),
            (r#"for=192.0.2.1;x=", for=192.0.2.9"#, "?"),
            (
                r#"for=192.0.2.1, for=";x=", for="192.0.2.9""#,
                "192.0.2.1 ? 192.0.2.9",
            ),
            (r#"for=192.0.2.1;x=", for="[2001:db8::9]""#, "?"),
            ("for = 192.0.2.1", "?"),
            ("192.0.2.1", "?"),
            ("for=192.0.2.1 junk, for=192.0.2.2", "?"),
        ];
        for (line, expected) in table {
            assert_eq!(shown(forwarded_hops(line)), expected, "{line}");
        }
    }

    #[test]
    fn the_rightmost_hop_that_is_no_proxy_is_the_client() {
        let trusted: Vec<IpNet> = ["127.0.0.0/8", "10.0.0.0/8"]
            .map(|net| net.parse().unwrap())
            .into();
        let ip = |line: &str| client_ip(list_hops(line), &trusted).map(|ip| ip.to_string());
        let unreadable = Err(ParseError::InvalidForwarded);
        assert_eq!(ip("9.9.9.9, 192.168.0.1").unwrap(), "192.168.0.1");
        assert_eq!(ip("1.1.1.1, 9.9.9.9, 10.0.0.1").unwrap(), "9.9.9.9");
        assert_eq!(ip("[2a00::1]:99").unwrap(), "2a00::1");
        assert_eq!(ip("10.0.0.2, 10.0.0.1").unwrap(), "10.0.0.2");
        assert_eq!(ip("junk, 9.9.9.9, ::ffff:10.0.0.1").unwrap(), "9.9.9.9");
        assert_eq!(ip("9.9.9.9, unknown"), unreadable, "it may be forged");
        assert_eq!(ip("9.9.9.9, _hidden, 10.0.0.1"), unreadable);
        assert_eq!(ip(", ,"), unreadable);
    }

    #[test]
    fn only_addresses_of_proxies_are_trusted() {
        let trusted: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap()];
        assert!(is_trusted("127.0.0.1".parse().unwrap(), &trusted));
        assert!(is_trusted("::ffff:127.0.0.1".parse().unwrap(), &trusted));
        assert!(!is_trusted("::1".parse().unwrap(), &trusted));
    }

    #[test]
    fn headers_are_named_in_any_case() {
        use ForwardedHeader::{Either, Forwarded, List};
        assert_eq!(ForwardedHeader::named(""), Either);
        assert_eq!(ForwardedHeader::named("FORWARDED"), Forwarded);
        assert_eq!(
            ForwardedHeader::named("X-Real-IP"),
            List("X-Real-IP".into())
        );
    }
}
