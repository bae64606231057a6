//! Public peers of a batch in packed form, as nodes read it from each other's journals: a third of their lines, and read
//! in a fraction of the time. Numbers are LEB128 ([`varint`]) or little-endian.
//!
//! ```text
//! | version (1) | time (8) | swarm | swarm | …
//! swarm: | info hash (20) | number of peers | peer | peer | …
//! peer:  | flags (1) | address and port (6 or 18) | peer id (20) | key (4, if any) | time, as a signed difference |
//! ```

use std::net::{IpAddr, SocketAddr};

use super::{Change, GuestChange, GuestRecord};
use crate::base::ids::{InfoHash, PeerId};
use crate::base::varint;

/// The version of the form. A heartbeat says which one its node reads.
pub const VERSION: u8 = 1;

const IS_V6: u8 = 1;
const SEEDER: u8 = 1 << 1;
const PAUSED: u8 = 1 << 2;
const COUNTED: u8 = 1 << 3;
const ACTIVE: u8 = 1 << 4;
const HAS_KEY: u8 = 1 << 5;
const ALL_FLAGS: u8 = (1 << 6) - 1;

/// About the bytes of a peer, and of its swarm.
const PEER_BYTES: usize = 56;

/// Bytes that are no packed peers: written by another version, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its public peers are not readable; were they written by a newer Mika?")]
pub struct NotPacked;

/// Packs the public peers among these changes; empty if there are none. Those of a torrent keep their order.
pub fn pack(changes: &[Change]) -> Vec<u8> {
    let mut guests: Vec<&GuestChange> = changes.iter().filter_map(Change::guest).collect();
    let Some(first) = guests.first() else {
        return Vec::new();
    };
    let time = first.record.last_announce;
    guests.sort_by_key(|guest| guest.info_hash.0);
    let mut bytes = Vec::with_capacity(16 + guests.len() * PEER_BYTES);
    bytes.push(VERSION);
    bytes.extend(time.to_le_bytes());
    for swarm in guests.chunk_by(|one, next| one.info_hash == next.info_hash) {
        bytes.extend(swarm[0].info_hash.0);
        varint::put(&mut bytes, swarm.len() as u64);
        for guest in swarm {
            push_peer(&mut bytes, guest, time);
        }
    }
    bytes
}

/// Reads what [`pack`] wrote.
///
/// # Errors
/// It is in another form. Memory is in proportion to the length of `bytes`.
pub fn unpack(bytes: &[u8]) -> Result<Vec<Change>, NotPacked> {
    let mut rest = Rest(bytes);
    let mut changes = Vec::new();
    if bytes.is_empty() {
        return Ok(changes);
    }
    if rest.byte()? != VERSION {
        return Err(NotPacked);
    }
    let time = i64::from_le_bytes(rest.array()?);
    while !rest.0.is_empty() {
        let info_hash = InfoHash(rest.array()?);
        for _ in 0..rest.number()? {
            let (address, record) = rest.peer(time)?;
            changes.push(Change::from(GuestChange {
                info_hash,
                address,
                record,
            }));
        }
    }
    Ok(changes)
}

fn push_peer(bytes: &mut Vec<u8>, guest: &GuestChange, time: i64) {
    let GuestChange {
        address, record, ..
    } = guest;
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    bytes.push(
        flag(address.is_ipv6(), IS_V6)
            | flag(record.seeder, SEEDER)
            | flag(record.paused, PAUSED)
            | flag(record.counted, COUNTED)
            | flag(record.active, ACTIVE)
            | flag(record.key.is_some(), HAS_KEY),
    );
    match address.ip() {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => bytes.extend(ip.octets()),
    }
    bytes.extend(address.port().to_le_bytes());
    bytes.extend(record.peer_id.0);
    if let Some(key) = record.key {
        bytes.extend(key.to_le_bytes());
    }
    let later = record.last_announce.wrapping_sub(time);
    varint::put(bytes, varint::zigzag(later));
}

/// The bytes that are not read yet.
struct Rest<'a>(&'a [u8]);

// === impl Rest ===

impl Rest<'_> {
    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], NotPacked> {
        let (array, rest) = self.0.split_first_chunk().ok_or(NotPacked)?;
        self.0 = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, NotPacked> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, NotPacked> {
        varint::take(&mut self.0).ok_or(NotPacked)
    }

    fn peer(&mut self, time: i64) -> Result<(SocketAddr, GuestRecord), NotPacked> {
        let flags = self.byte()?;
        if flags & !ALL_FLAGS != 0 {
            return Err(NotPacked);
        }
        let ip = if flags & IS_V6 == 0 {
            IpAddr::from(self.array::<4>()?)
        } else {
            IpAddr::from(self.array::<16>()?)
        };
        let address = SocketAddr::new(ip, u16::from_le_bytes(self.array()?));
        let peer_id = PeerId(self.array()?);
        let key = if flags & HAS_KEY == 0 {
            None
        } else {
            Some(u32::from_le_bytes(self.array()?))
        };
        let later = varint::unzigzag(self.number()?);
        let record = GuestRecord {
            peer_id,
            key,
            seeder: flags & SEEDER != 0,
            paused: flags & PAUSED != 0,
            counted: flags & COUNTED != 0,
            last_announce: time.wrapping_add(later),
            active: flags & ACTIVE != 0,
        };
        Ok((address, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(torrent: u8, address: &str, key: Option<u32>, last_announce: i64) -> Change {
        Change::from(GuestChange {
            info_hash: InfoHash([torrent; 20]),
            address: address.parse().unwrap(),
            record: GuestRecord {
                peer_id: PeerId([7; 20]),
                key,
                seeder: torrent == 1,
                paused: torrent == 2,
                counted: torrent == 1,
                last_announce,
                active: torrent != 3,
            },
        })
    }

    fn guests() -> Vec<Change> {
        vec![
            guest(1, "192.0.2.1:6881", Some(u32::MAX), 1_800_000_000),
            guest(1, "192.0.2.1:1", None, 1_799_999_000),
            guest(2, "[2001:db8::1]:6881", Some(0), 1_800_000_001),
            guest(3, "255.255.255.255:65535", None, i64::MAX),
            guest(4, "0.0.0.0:0", Some(1), i64::MIN),
        ]
    }

    #[test]
    fn public_peers_survive_packing() {
        assert_eq!(unpack(&pack(&guests())), Ok(guests()));
        assert_eq!(pack(&[]), Vec::<u8>::new());
        assert_eq!(unpack(&[]), Ok(Vec::new()));
    }

    #[test]
    fn peers_of_a_torrent_keep_their_order_and_share_its_hash() {
        let moved = |port: u16| guest(1, &format!("192.0.2.1:{port}"), None, 1);
        let changes = [moved(9), guest(2, "192.0.2.2:1", None, 1), moved(3)];
        let packed = pack(&changes);
        let [first, other, second] = changes;
        assert_eq!(unpack(&packed), Ok(vec![first, second, other]));
        assert_eq!(packed.len(), 9 + 2 * 21 + 3 * 28);
    }

    #[test]
    fn other_changes_are_left_out() {
        let snatch = Change::Snatches {
            info_hash: InfoHash([1; 20]),
            count: 1,
        };
        assert_eq!(pack(&[snatch]), Vec::<u8>::new());
    }

    #[test]
    fn bytes_of_another_form_are_refused() {
        let packed = pack(&guests());
        // Where a swarm ends, nothing is missing.
        let ends = |length: usize| unpack(&packed[..length]).is_ok();
        let whole: Vec<usize> = (1..packed.len()).filter(|length| ends(*length)).collect();
        assert_eq!(
            whole.len(),
            4,
            "after the head, and after each swarm: {whole:?}"
        );
        let mut newer = packed.clone();
        newer[0] = 2;
        assert_eq!(unpack(&newer), Err(NotPacked));
        // A number of peers that no memory could hold.
        let mut many = packed[..29].to_vec();
        many.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(unpack(&many), Err(NotPacked));
    }
}
