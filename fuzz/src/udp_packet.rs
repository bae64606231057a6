//! UDP packets and their options (BEP 15, BEP 41; rules U1, U4 to U6), against a reader that goes by
//! the offsets of the standard.

use mika::base::ids::{InfoHash, PeerId};
use mika::wire::udp::{Action, Header, announced, parse_announce, parse_scrape, read_url_data};
use mika::wire::{Announce, ClientKey, Event};

const SCRAPE_MAX: usize = 74;

/// Bytes of URLData beyond which no further piece is kept.
const URL_DATA_MAX: usize = 512;

pub fn udp_packet(packet: &[u8]) {
    let header = Header::parse(packet);
    assert_eq!(header.map(|it| it.action), action(packet));
    if let Some(header) = header {
        assert_eq!(header.connection_id.to_be_bytes(), packet[..8]);
        assert_eq!(header.transaction.0, packet[12..16]);
    }
    assert_eq!(parse_announce(packet), announce(packet));
    let torrent = parse_announce(packet).map(|read| (read.info_hash, read.port));
    assert_eq!(announced(packet), torrent);
    let hashes = packet.get(16..).unwrap_or_default().chunks_exact(20);
    let hashes: Vec<_> = hashes
        .take(SCRAPE_MAX)
        .filter_map(InfoHash::from_slice)
        .collect();
    assert_eq!(parse_scrape(packet).unwrap_or_default(), hashes);
    let mut path = b"of the packet before".to_vec();
    read_url_data(packet, &mut path);
    assert_eq!(path, url_data(packet.get(98..).unwrap_or_default()));
}

fn action(packet: &[u8]) -> Option<Action> {
    if packet.len() < 16 {
        return None;
    }
    match packet[8..12] {
        [0, 0, 0, 0] if packet[..8] == [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80] => {
            Some(Action::Connect)
        }
        [0, 0, 0, 1] => Some(Action::Announce),
        [0, 0, 0, 2] => Some(Action::Scrape),
        _ => None,
    }
}

fn announce(packet: &[u8]) -> Option<Announce> {
    if packet.len() < 98 {
        return None;
    }
    let number = |at: usize, len: usize| {
        let bytes = &packet[at..at + len];
        bytes
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    let total = |at| Some(number(at, 8)).filter(|&total| total < 1 << 63);
    Some(Announce {
        info_hash: InfoHash::from_slice(&packet[16..36])?,
        info_hash_as_form: None,
        peer_id: PeerId::from_slice(&packet[36..56])?,
        port: number(96, 2) as u16,
        uploaded: total(72),
        downloaded: total(56),
        left: total(64),
        event: match number(80, 4) {
            1 => Event::Completed,
            2 => Event::Started,
            3 => Event::Stopped,
            4 => Event::Paused,
            _ => Event::None,
        },
        numwant: Some(number(92, 4))
            .filter(|&want| want < 1 << 31)
            .map(|want| want as u32),
        key: Some(number(88, 4))
            .filter(|&key| key != 0)
            .map(|key| ClientKey(key as u32)),
        claimed_v4: None,
        claimed_v6: None,
        list_form: false,
        no_peer_id: false,
    })
}

fn url_data(options: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    let mut at = 0;
    while at < options.len() && options[at] != 0 {
        if options[at] == 1 {
            at += 1;
            continue;
        }
        let Some(&len) = options.get(at + 1) else {
            break;
        };
        let Some(data) = options.get(at + 2..at + 2 + usize::from(len)) else {
            break;
        };
        if options[at] == 2 && path.len() + data.len() <= URL_DATA_MAX {
            path.extend_from_slice(data);
        }
        at += 2 + data.len();
    }
    path
}
