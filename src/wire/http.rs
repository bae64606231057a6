//! HTTP: request targets to values, replies to bencode (rules H1, H2, R3 to R6, S3).

use std::borrow::Cow;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;

use crate::base::addr::{Compact, Compact4, Compact6};
use crate::base::ids::{InfoHash, Passkey};
use crate::wire::bencode::{write_bytes, write_decimal, write_int};
use crate::wire::{AnnounceReply, Failure, PeerList, RetryIn, ScrapeEntry};

/// The target of a request, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Announce { passkey: Option<Cow<'a, str>> },
    Scrape { passkey: Option<Cow<'a, str>> },
}

/// Parses a path (rule H2); none if nothing is found there.
pub fn parse_path(path: &str) -> Option<Target<'_>> {
    if path == "/announce" {
        return Some(Target::Announce { passkey: None });
    }
    let trimmed = path.trim_start_matches('/');
    if trimmed.len() == path.len() {
        return None;
    }
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    let (passkey, action) = match trimmed.split_once('/') {
        None => (None, trimmed),
        Some((passkey, action)) => (Some(unescape(passkey)?), action),
    };
    if passkey
        .as_ref()
        .is_some_and(|text| !Passkey::is_valid(text))
    {
        return None;
    }
    match &*unescape(action)? {
        "announce" => Some(Target::Announce { passkey }),
        "scrape" => Some(Target::Scrape { passkey }),
        _ => None,
    }
}

/// Decodes the percent-escapes of a path segment, once. An invalid escape stays as it is, and its `%` is
/// part of no passkey or action.
fn unescape(segment: &str) -> Option<Cow<'_, str>> {
    if segment.contains('%') {
        percent_decode_str(segment).decode_utf8().ok()
    } else {
        // Most segments: nothing to decode or to validate.
        Some(Cow::Borrowed(segment))
    }
}

/// Appends a successful announce (rule R4), with its peers in compact or list form.
pub fn write_announce(out: &mut Vec<u8>, reply: &AnnounceReply, peers: &PeerList, list_form: bool) {
    out.extend_from_slice(b"d8:complete");
    write_int(out, reply.complete.into());
    out.extend_from_slice(b"10:downloaded");
    write_int(out, reply.downloaded.into());
    out.extend_from_slice(b"11:external ip");
    match reply.external_ip {
        IpAddr::V4(ip) => write_bytes(out, &ip.octets()),
        IpAddr::V6(ip) => write_bytes(out, &ip.octets()),
    }
    out.extend_from_slice(b"10:incomplete");
    write_int(out, reply.incomplete.into());
    out.extend_from_slice(b"8:interval");
    write_int(out, reply.interval.into());
    out.extend_from_slice(b"12:min interval");
    write_int(out, reply.min_interval.into());
    out.extend_from_slice(b"5:peers");
    match (list_form, reply.external_ip) {
        (true, IpAddr::V4(_)) => write_list::<Compact4>(out, peers),
        (true, IpAddr::V6(_)) => write_list::<Compact6>(out, peers),
        (false, IpAddr::V4(_)) => write_bytes(out, &peers.endpoints),
        (false, IpAddr::V6(_)) => {
            out.extend_from_slice(b"0:6:peers6");
            write_bytes(out, &peers.endpoints);
        }
    }
    out.push(b'e');
}

/// The list form of BEP 3: one dictionary for each peer (rule R3).
fn write_list<C: Compact>(out: &mut Vec<u8>, peers: &PeerList) {
    out.push(b'l');
    let mut peer_ids = peers.peer_ids.iter();
    for endpoint in peers.endpoints.chunks_exact(C::LEN) {
        let (ip, port) = endpoint.split_at(C::LEN - 2);
        let ip = match *ip {
            [a, b, c, d] => IpAddr::from([a, b, c, d]),
            _ => IpAddr::from(<[u8; 16]>::try_from(ip).unwrap_or_default()),
        };
        out.extend_from_slice(b"d2:ip");
        write_bytes(out, ip.to_string().as_bytes());
        if let Some(peer_id) = peer_ids.next() {
            out.extend_from_slice(b"7:peer id");
            write_bytes(out, &peer_id.0);
        }
        out.extend_from_slice(b"4:port");
        write_int(out, u16::from_be_bytes([port[0], port[1]]).into());
        out.push(b'e');
    }
    out.push(b'e');
}

/// Appends a failure (rule R6).
pub fn write_failure(out: &mut Vec<u8>, failure: &Failure) {
    out.extend_from_slice(b"d14:failure reason");
    write_bytes(out, failure.reason.as_bytes());
    out.extend_from_slice(b"8:interval");
    write_int(out, failure.interval.into());
    out.extend_from_slice(b"12:min interval");
    write_int(out, failure.min_interval.into());
    match failure.retry_in {
        Some(RetryIn::Minutes(minutes)) => {
            out.extend_from_slice(b"8:retry in");
            write_int(out, minutes.into());
        }
        Some(RetryIn::Never) => out.extend_from_slice(b"8:retry in5:never"),
        None => {}
    }
    out.push(b'e');
}

/// Appends a scrape (rule S3), with `downloaders` where there are partial seeds (rule S4). Sorts the entries, which
/// must be distinct.
pub fn write_scrape(out: &mut Vec<u8>, entries: &mut [(InfoHash, ScrapeEntry)], min_interval: u32) {
    entries.sort_unstable_by_key(|(hash, _)| *hash);
    out.extend_from_slice(b"d5:filesd");
    for (hash, entry) in entries {
        write_bytes(out, &hash.0);
        out.extend_from_slice(b"d8:complete");
        write_int(out, entry.complete.into());
        out.extend_from_slice(b"10:downloaded");
        write_int(out, entry.downloaded.into());
        // Without partial seeds it would repeat `incomplete`.
        if entry.paused > 0 {
            out.extend_from_slice(b"11:downloaders");
            write_int(out, entry.incomplete.saturating_sub(entry.paused).into());
        }
        out.extend_from_slice(b"10:incomplete");
        write_int(out, entry.incomplete.into());
        out.push(b'e');
    }
    out.extend_from_slice(b"e5:flagsd20:min_request_intervali");
    write_decimal(out, min_interval.into());
    out.extend_from_slice(b"eee");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::PeerId;
    use crate::wire::bencode;

    #[test]
    fn paths_lead_to_announce_and_scrape_only() {
        let announce = |passkey: Option<&'static str>| {
            Some(Target::Announce {
                passkey: passkey.map(Cow::Borrowed),
            })
        };
        let table = [
            ("/announce", announce(None)),
            ("//announce", announce(None)),
            ("/announce/", announce(None)),
            ("/passkey-1/announce", announce(Some("passkey-1"))),
            ("//passkey-1/announce/", announce(Some("passkey-1"))),
            ("/pass%6bey-1/announce", announce(Some("passkey-1"))),
            (
                "/passkey-1/scrape",
                Some(Target::Scrape {
                    passkey: Some("passkey-1".into()),
                }),
            ),
            ("/scrape", Some(Target::Scrape { passkey: None })),
            ("/short/announce", None),
            ("/pass key/announce", None),
            ("/pass%2fkey/announce", None),
            ("/pass%zzkey/announce", None),
            ("/pass%25zzkey/announce", None),
            ("/passkey-1%/announce", None),
            ("/passkey%ff/announce", None),
            ("/announc%65", announce(None)),
            ("/announce%", None),
            ("/a/passkey-1/announce", None),
            ("/passkey-1/announce//", None),
            ("/announce.php", None),
            ("/", None),
            ("", None),
            ("announce", None),
        ];
        for (path, expected) in table {
            assert_eq!(parse_path(path), expected, "{path}");
        }
    }

    fn reply(external_ip: &str) -> AnnounceReply {
        AnnounceReply {
            complete: 0,
            incomplete: 1,
            downloaded: 0,
            interval: 1800,
            min_interval: 900,
            external_ip: external_ip.parse().unwrap(),
        }
    }

    #[test]
    fn an_announce_alone_is_answered_byte_for_byte() {
        let mut out = Vec::new();
        write_announce(&mut out, &reply("127.0.0.1"), &PeerList::default(), false);
        let expected = b"d8:completei0e10:downloadedi0e11:external ip4:\x7f\0\0\x01\
            10:incompletei1e8:intervali1800e12:min intervali900e5:peers0:e";
        assert_eq!(out, expected);
    }

    #[test]
    fn ipv6_peers_have_a_key_of_their_own_beside_an_empty_one() {
        let peers = PeerList {
            endpoints: vec![7; 18],
            peer_ids: Vec::new(),
        };
        let mut out = Vec::new();
        write_announce(&mut out, &reply("::1"), &peers, false);
        let node = bencode::parse(&out).unwrap();
        assert_eq!(node.get(b"peers").unwrap().as_bytes(), Some(&b""[..]));
        assert_eq!(node.get(b"peers6").unwrap().as_bytes(), Some(&[7; 18][..]));
    }

    #[test]
    fn the_list_form_has_strings_and_integers() {
        let peers = PeerList {
            endpoints: vec![127, 0, 0, 1, 0x1a, 0xe2],
            peer_ids: vec![PeerId(*b"-MK0001-abcdefghijkl")],
        };
        let mut out = Vec::new();
        write_announce(&mut out, &reply("127.0.0.1"), &peers, true);
        let text = String::from_utf8_lossy(&out);
        let entry = "5:peersld2:ip9:127.0.0.17:peer id20:-MK0001-abcdefghijkl4:porti6882eee";
        assert!(text.ends_with(&format!("{entry}e")), "{text}");
        bencode::parse(&out).unwrap();
    }

    #[test]
    fn failures_are_canonical() {
        let mut out = Vec::new();
        let failure = Failure {
            reason: "invalid passkey",
            interval: 3600,
            min_interval: 3600,
            retry_in: None,
        };
        write_failure(&mut out, &failure);
        assert_eq!(
            out,
            b"d14:failure reason15:invalid passkey8:intervali3600e12:min intervali3600ee"
        );
        for retry_in in [RetryIn::Minutes(5), RetryIn::Never] {
            out.clear();
            write_failure(
                &mut out,
                &Failure {
                    retry_in: Some(retry_in),
                    ..failure
                },
            );
            assert!(bencode::parse(&out).unwrap().get(b"retry in").is_some());
        }
    }

    #[test]
    fn a_scrape_is_sorted() {
        let entry = ScrapeEntry {
            complete: 1,
            downloaded: 2,
            incomplete: 3,
            paused: 1,
        };
        let mut entries = [
            (InfoHash([9; 20]), ScrapeEntry::default()),
            (InfoHash([1; 20]), entry),
        ];
        let mut out = Vec::new();
        write_scrape(&mut out, &mut entries, 900);
        let node = bencode::parse(&out).unwrap();
        let file = node.get(b"files").unwrap().get(&[1; 20]).unwrap();
        assert_eq!(file.get(b"downloaders").unwrap().as_int(), Some(2));
        assert!(out.ends_with(b"e5:flagsd20:min_request_intervali900eee"));
    }
}
