//! UDP packets to values, and values to packets (BEP 15, BEP 41; rules U1 and U4 to U6).
//!
//! All numbers are big-endian. Extra bytes at the end of a packet are ignored.

use crate::base::ids::{InfoHash, PeerId};
use crate::wire::{Announce, AnnounceReply, ClientKey, Event, ScrapeEntry};

/// The magic number of a connect request, in place of a connection id (BEP 15).
pub const PROTOCOL: u64 = 0x0417_2710_1980;

/// Peers in one reply, by family, so that it fits 1280 bytes with its IP headers (rule U1).
pub const PEERS_MAX_V4: u32 = 200;
pub const PEERS_MAX_V6: u32 = 67;

/// Torrents of one scrape that are answered (rule U5).
const SCRAPE_MAX: usize = 74;

/// Bytes of an error text (rule U4).
const ERROR_TEXT_MAX: usize = 100;

/// Bytes of URLData that are read: more than any path of ours has.
const URL_DATA_MAX: usize = 512;

const HEADER: usize = 16;
const ANNOUNCE: usize = 98;
const HASH: usize = 20;

/// A transaction id, which the reply repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transaction(pub [u8; 4]);

/// What a packet requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Connect,
    Announce,
    Scrape,
}

/// The first 16 bytes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub connection_id: u64,
    pub action: Action,
    pub transaction: Transaction,
}

impl Header {
    /// Parses a header; none for a packet to drop silently: one that is too short, a connect without
    /// the magic number, or an action that is not a request, because two trackers could answer each
    /// other's errors endlessly (rule U4).
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (connection_id, rest) = packet.split_first_chunk()?;
        let (action, rest) = rest.split_first_chunk()?;
        let transaction = *rest.first_chunk()?;
        let connection_id = u64::from_be_bytes(*connection_id);
        let action = match u32::from_be_bytes(*action) {
            0 if connection_id == PROTOCOL => Action::Connect,
            1 => Action::Announce,
            2 => Action::Scrape,
            _ => return None,
        };
        Some(Self {
            connection_id,
            action,
            transaction: Transaction(transaction),
        })
    }
}

/// The torrent and the port of an announce; none if the packet is too short.
pub fn announced(packet: &[u8]) -> Option<(InfoHash, u16)> {
    let packet: &[u8; ANNOUNCE] = packet.first_chunk()?;
    let port = u16::from_be_bytes(bytes_at(packet, 96));
    Some((InfoHash(bytes_at(packet, HEADER)), port))
}

/// Parses an announce (rule U1); none if it is too short (rule U4).
pub fn parse_announce(packet: &[u8]) -> Option<Announce> {
    let packet: &[u8; ANNOUNCE] = packet.first_chunk()?;
    let total = |at| Some(u64_at(packet, at)).filter(|&total| i64::try_from(total).is_ok());
    Some(Announce {
        info_hash: InfoHash(bytes_at(packet, 16)),
        info_hash_as_form: None,
        peer_id: PeerId(bytes_at(packet, 36)),
        downloaded: total(56),
        left: total(64),
        uploaded: total(72),
        event: match u32_at(packet, 80) {
            1 => Event::Completed,
            2 => Event::Started,
            3 => Event::Stopped,
            4 => Event::Paused,
            _ => Event::None,
        },
        // The address at 84 is ignored: it would let a client announce any other host.
        key: Some(u32_at(packet, 88))
            .filter(|&key| key != 0)
            .map(ClientKey),
        numwant: u32::try_from(u32_at(packet, 92) as i32).ok(),
        port: u16::from_be_bytes(bytes_at(packet, 96)),
        claimed_v4: None,
        claimed_v6: None,
        list_form: false,
        no_peer_id: false,
    })
}

/// Joins the URLData options of an announce into `path` (BEP 41), up to the end of the packet, an end
/// option, or the first malformed option (rule U6).
pub fn read_url_data(packet: &[u8], path: &mut Vec<u8>) {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const URL_DATA: u8 = 2;
    path.clear();
    let mut rest = packet.get(ANNOUNCE..).unwrap_or_default();
    while let [kind, after @ ..] = rest {
        rest = match (*kind, after) {
            (END, _) => return,
            (NOTHING, _) => after,
            (kind, [length, after @ ..]) => {
                let Some((data, after)) = after.split_at_checked(usize::from(*length)) else {
                    return;
                };
                if kind == URL_DATA && path.len() + data.len() <= URL_DATA_MAX {
                    path.extend_from_slice(data);
                }
                after
            }
            (_, []) => return,
        };
    }
}

/// Parses the info hashes of a scrape, in order (rule U5); none if there is no complete one (rule U4).
pub fn parse_scrape(packet: &[u8]) -> Option<Vec<InfoHash>> {
    let hashes = packet.get(HEADER..)?.as_chunks::<HASH>().0;
    let hashes: Vec<InfoHash> = hashes
        .iter()
        .take(SCRAPE_MAX)
        .copied()
        .map(InfoHash)
        .collect();
    (!hashes.is_empty()).then_some(hashes)
}

/// Appends the reply to a connect request: exactly 16 bytes.
pub fn write_connect(out: &mut Vec<u8>, transaction: Transaction, connection_id: u64) {
    begin(out, 0, transaction);
    out.extend_from_slice(&connection_id.to_be_bytes());
}

/// Appends the reply to an announce; `endpoints` are its peers in compact form.
pub fn write_announce(
    out: &mut Vec<u8>,
    transaction: Transaction,
    reply: &AnnounceReply,
    endpoints: &[u8],
) {
    begin(out, 1, transaction);
    for number in [reply.interval, reply.incomplete, reply.complete] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(endpoints);
}

/// Appends the reply to a scrape, with its entries in the order of the request.
pub fn write_scrape(
    out: &mut Vec<u8>,
    transaction: Transaction,
    entries: impl Iterator<Item = ScrapeEntry>,
) {
    begin(out, 2, transaction);
    for entry in entries {
        for number in [entry.complete, entry.downloaded, entry.incomplete] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

/// Appends an error. A text that is too long is truncated, and NULs are removed.
pub fn write_error(out: &mut Vec<u8>, transaction: Transaction, text: &str) {
    begin(out, 3, transaction);
    let mut end = text.len().min(ERROR_TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.extend(text[..end].bytes().filter(|&byte| byte != 0));
}

/// The length of an error packet with that text.
pub fn error_len(text: &str) -> usize {
    8 + text.len().min(ERROR_TEXT_MAX)
}

fn begin(out: &mut Vec<u8>, action: u32, transaction: Transaction) {
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&transaction.0);
}

fn bytes_at<const LEN: usize>(packet: &[u8; ANNOUNCE], at: usize) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(&packet[at..at + LEN]);
    bytes
}

fn u32_at(packet: &[u8; ANNOUNCE], at: usize) -> u32 {
    u32::from_be_bytes(bytes_at(packet, at))
}

fn u64_at(packet: &[u8; ANNOUNCE], at: usize) -> u64 {
    u64::from_be_bytes(bytes_at(packet, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSACTION: Transaction = Transaction([0x11, 0x22, 0x33, 0x44]);

    /// An announce whose fields all differ.
    fn announce() -> Vec<u8> {
        let mut packet = vec![9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 1, 0x11, 0x22, 0x33, 0x44];
        packet.extend([b'h'; 20]);
        packet.extend([b'p'; 20]);
        for total in [100_u64, 16_384, 300] {
            packet.extend(total.to_be_bytes());
        }
        packet.extend([0, 0, 0, 2]);
        packet.extend([8, 8, 8, 8]);
        packet.extend([0x12, 0x34, 0xab, 0xcd]);
        packet.extend((-1_i32).to_be_bytes());
        packet.extend(6881_u16.to_be_bytes());
        packet
    }

    fn with(at: usize, bytes: &[u8]) -> Announce {
        let mut packet = announce();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        parse_announce(&packet).unwrap()
    }

    fn url_data(options: &[u8]) -> Vec<u8> {
        let mut packet = announce();
        packet.extend_from_slice(options);
        let mut path = b"left from before".to_vec();
        read_url_data(&packet, &mut path);
        path
    }

    #[test]
    fn headers_are_parsed_and_other_packets_are_dropped() {
        let connect = [
            0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44,
        ];
        let header = Header::parse(&connect).unwrap();
        assert_eq!(header.action, Action::Connect);
        assert_eq!(header.transaction, TRANSACTION);
        assert_eq!(Header::parse(&connect[..15]), None);
        for (at, byte) in [(0, 1), (7, 0x81), (11, 3), (11, 4), (8, 1)] {
            let mut other = connect;
            other[at] = byte;
            assert_eq!(Header::parse(&other), None, "{at}");
        }
        let header = Header::parse(&announce()).unwrap();
        assert_eq!(header.action, Action::Announce);
        assert_eq!(header.connection_id, 0x0909_0909_0909_0909);
    }

    #[test]
    fn an_announce_is_read_field_by_field() {
        let read = parse_announce(&announce()).unwrap();
        assert_eq!(read.info_hash, InfoHash([b'h'; 20]));
        assert_eq!(announced(&announce()), Some((read.info_hash, read.port)));
        assert_eq!(read.peer_id, PeerId([b'p'; 20]));
        assert_eq!(
            (read.downloaded, read.left, read.uploaded),
            (Some(100), Some(16_384), Some(300))
        );
        assert_eq!(read.event, Event::Started);
        assert_eq!(read.key, Some(ClientKey(0x1234_abcd)));
        assert_eq!((read.numwant, read.port), (None, 6881));
        assert_eq!((read.claimed_v4, read.claimed_v6), (None, None));
        assert_eq!(parse_announce(&announce()[..97]), None);
    }

    #[test]
    fn odd_values_mean_what_they_mean_over_http() {
        assert_eq!(with(64, &[0xff; 8]).left, None);
        assert_eq!(with(64, &[0x80, 0, 0, 0, 0, 0, 0, 0]).left, None);
        assert_eq!(
            with(64, &(i64::MAX).to_be_bytes()).left,
            Some(i64::MAX as u64)
        );
        assert_eq!(with(56, &[0xff; 8]).downloaded, None);
        assert_eq!(with(80, &[0, 0, 0, 4]).event, Event::Paused);
        // All 32 bits count.
        assert_eq!(with(80, &[1, 0, 0, 3]).event, Event::None);
        assert_eq!(with(88, &[0; 4]).key, None);
        assert_eq!(with(92, &[0; 4]).numwant, Some(0));
        assert_eq!(
            with(92, &[0x7f, 0xff, 0xff, 0xff]).numwant,
            Some(i32::MAX as u32)
        );
        assert_eq!(with(92, &[0x80, 0, 0, 0]).numwant, None);
    }

    #[test]
    fn url_data_is_joined_up_to_the_first_malformed_option() {
        assert_eq!(url_data(b""), b"");
        assert_eq!(url_data(b"\x02\x00"), b"");
        assert_eq!(url_data(b"\x01\x01\x00\x02\x01x"), b"");
        assert_eq!(
            url_data(b"\x02\x0c/dir?a=b&c=d\x00\xff\xff"),
            b"/dir?a=b&c=d"
        );
        // Unknown kinds are ignored, and chunks joined.
        assert_eq!(url_data(b"\x02\x02/a\x63\x03xyz\x01\x02\x02bc"), b"/abc");
        // A length beyond the packet ends it; what was joined before stays.
        assert_eq!(url_data(b"\x02\x02/a\x02\x09bc"), b"/a");
        assert_eq!(url_data(b"\x02\x02/a\x02"), b"/a");
        let long: Vec<u8> = [[2, 255].to_vec(), vec![b'x'; 255]].concat().repeat(4);
        assert_eq!(url_data(&long).len(), 510);
    }

    #[test]
    fn scrapes_keep_order_and_ignore_half_a_hash() {
        let mut packet = vec![0; 16];
        assert_eq!(parse_scrape(&packet), None);
        packet.extend([1; 20]);
        packet.extend([2; 20]);
        packet.extend([1; 20]);
        packet.extend([3; 19]);
        let hashes = [1, 2, 1].map(|byte| InfoHash([byte; 20]));
        assert_eq!(parse_scrape(&packet).unwrap(), hashes);
        assert_eq!(parse_scrape(&packet[..35]), None);
        packet.extend([0; 2000]);
        assert_eq!(parse_scrape(&packet).unwrap().len(), SCRAPE_MAX);
    }

    #[test]
    fn replies_are_laid_out_as_clients_read_them() {
        let mut out = Vec::new();
        write_connect(&mut out, TRANSACTION, 0x0102_0304_0506_0708);
        assert_eq!(
            out,
            b"\0\0\0\0\x11\x22\x33\x44\x01\x02\x03\x04\x05\x06\x07\x08"
        );
        out.clear();
        let reply = AnnounceReply {
            complete: 5,
            incomplete: 6,
            downloaded: 7,
            interval: 1800,
            min_interval: 900,
            external_ip: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        write_announce(&mut out, TRANSACTION, &reply, b"\x7f\0\0\x01\x1a\xe1");
        assert_eq!(
            out,
            b"\0\0\0\x01\x11\x22\x33\x44\0\0\x07\x08\0\0\0\x06\0\0\0\x05\x7f\0\0\x01\x1a\xe1"
        );
        out.clear();
        let entry = ScrapeEntry {
            complete: 1,
            downloaded: 2,
            incomplete: 3,
            paused: 1,
        };
        write_scrape(&mut out, TRANSACTION, [entry].into_iter());
        assert_eq!(
            out,
            b"\0\0\0\x02\x11\x22\x33\x44\0\0\0\x01\0\0\0\x02\0\0\0\x03"
        );
        out.clear();
        write_error(&mut out, TRANSACTION, &"ü".repeat(80));
        assert_eq!(out.len(), 8 + 100);
        assert_eq!(&out[..4], b"\0\0\0\x03");
        assert!(std::str::from_utf8(&out[8..]).is_ok());
        out.clear();
        write_error(&mut out, TRANSACTION, "a\0b");
        assert_eq!(&out[8..], b"ab");
    }
}
