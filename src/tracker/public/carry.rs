//! Public swarms as bytes, for the next process of a restart in place: nothing else keeps them where nodes share
//! no cache.
//!
//! ```text
//! a swarm: | info hash (20) | number of peers (4) | peers |
//! a peer:  | family: 4 or 6 (1) | address and port (6 or 18) | seconds since its last announce (2) |
//!          | peer id, hashed (2) | key, hashed (2) | role, counted (1) |
//! ```
//!
//! Numbers are little-endian.

use crate::base::addr::{Compact4, Compact6, Endpoint};
use crate::base::clock::{Now, Seconds};
use crate::base::ids::InfoHash;
use crate::swarm::{ClientTag, Cursor, Key, LIFE_MAX, Presence, Role, Visit};
use crate::tracker::public::PublicTracker;

const COUNTED: u8 = 4;

/// The bytes are not swarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not readable as swarms")]
pub struct MalformedSwarms;

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], MalformedSwarms> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(MalformedSwarms)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, MalformedSwarms> {
        self.take().map(u16::from_le_bytes)
    }
}

impl PublicTracker {
    /// The peers of a shard. Swarms without peers are left out.
    pub fn pack_swarms(&self, shard: usize, now: Now) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut swarms = self.swarms.lock(shard);
        swarms.walk(Cursor::default(), |info_hash, swarm| {
            let begin = bytes.len();
            bytes.extend_from_slice(&info_hash.0);
            bytes.extend_from_slice(&[0; 4]);
            let mut number = 0_u32;
            swarm.each(now.mono, |peer, is_counted| {
                pack_peer(&peer, is_counted, now.mono, &mut bytes);
                number += 1;
                true
            });
            match number {
                0 => bytes.truncate(begin),
                _ => bytes[begin + 20..begin + 24].copy_from_slice(&number.to_le_bytes()),
            }
            Visit::Keep
        });
        bytes
    }

    /// Adds the peers that were packed `age` seconds ago, except those that have expired. Returns their number.
    pub fn unpack_swarms(&self, bytes: &[u8], age: u32, now: Now) -> Result<u64, MalformedSwarms> {
        let rules = self.common.rules.load();
        let alive_since = rules.alive_since(now.mono);
        let mut reader = Reader(bytes);
        let mut added = 0;
        while !reader.0.is_empty() {
            let info_hash = InfoHash(reader.take()?);
            let number = u32::from_le_bytes(reader.take()?);
            let key = Key::from(&info_hash);
            let mut swarms = self.swarms.lock(key.shard());
            let mut swarm = self.swarm(&mut swarms, key, &rules);
            for _ in 0..number {
                let (peer, is_counted) = unpack_peer(&mut reader, age, now.mono)?;
                let Some(swarm) = &mut swarm else { continue };
                // It was admitted before, so there is no limit per host.
                if peer.seen < alive_since || swarm.upsert(&peer, alive_since, 0).is_err() {
                    continue;
                }
                if is_counted {
                    swarm.set_counted(peer.endpoint, peer.client);
                }
                added += 1;
            }
        }
        Ok(added)
    }
}

fn pack_peer(peer: &Presence, is_counted: bool, now: Seconds, bytes: &mut Vec<u8>) {
    match &peer.endpoint {
        Endpoint::V4(at) => {
            bytes.push(4);
            bytes.extend_from_slice(&at.0);
        }
        Endpoint::V6(at) => {
            bytes.push(6);
            bytes.extend_from_slice(&at.0);
        }
    }
    let (peer_id, key) = peer.client.hashes();
    let ago = now.since(peer.seen).min(LIFE_MAX) as u16;
    for number in [ago, peer_id, key] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let role = match peer.role {
        Role::Leecher => 0,
        Role::Paused => 1,
        Role::Seeder => 2,
    };
    bytes.push(role | if is_counted { COUNTED } else { 0 });
}

/// A peer, and whether its snatch was counted.
fn unpack_peer(
    reader: &mut Reader<'_>,
    age: u32,
    now: Seconds,
) -> Result<(Presence, bool), MalformedSwarms> {
    let [family] = reader.take()?;
    let endpoint = match family {
        4 => Endpoint::V4(Compact4(reader.take()?)),
        6 => Endpoint::V6(Compact6(reader.take()?)),
        _ => return Err(MalformedSwarms),
    };
    let ago = u32::from(reader.u16()?).saturating_add(age);
    let client = ClientTag::from_hashes(reader.u16()?, reader.u16()?);
    let [bits] = reader.take()?;
    let role = match bits & !COUNTED {
        0 => Role::Leecher,
        1 => Role::Paused,
        2 => Role::Seeder,
        _ => return Err(MalformedSwarms),
    };
    let peer = Presence {
        endpoint,
        client,
        role,
        seen: Seconds(now.0.saturating_sub(ago)),
    };
    Ok((peer, bits & COUNTED != 0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::ids::PeerId;
    use crate::change::GuestRecord;
    use crate::registry::Registry;
    use crate::telemetry::metrics::Metrics;
    use crate::tracker::{LivePeer, Mode, Rules, Tracker};

    const UNIX: i64 = 1_800_000_000;

    /// The present of a process that has run for so long.
    fn at(uptime: u32, unix: i64) -> Now {
        Now {
            mono: Seconds(Seconds::START.0 + uptime),
            unix,
        }
    }

    fn tracker() -> Tracker {
        let registry = Arc::new(Registry::default());
        let metrics = Arc::new(Metrics::default());
        Tracker::new(Mode::Public, Rules::default(), registry, 1000, metrics)
    }

    fn hash(number: u8) -> InfoHash {
        InfoHash([number; 20])
    }

    /// Some peers of either family, in a small swarm and in a large one.
    fn fill(tracker: &Tracker, now: Now) {
        for number in 0..300_u16 {
            let ip = match number % 3 {
                0 => format!("[2001:db8::{number:x}]"),
                _ => format!("192.0.{}.{}", number / 200, number % 200),
            };
            let mut peer_id = PeerId(*b"-MK0001-000000000000");
            peer_id.0[18..].copy_from_slice(&number.to_be_bytes());
            let record = GuestRecord {
                peer_id,
                key: (number % 2 == 0).then_some(u32::from(number)),
                seeder: number % 5 == 0,
                paused: number % 5 == 1,
                counted: number % 7 == 0,
                last_announce: now.unix - i64::from(number),
                active: true,
            };
            let address = format!("{ip}:{}", 1000 + number).parse().unwrap();
            let torrent = if number < 3 { 1 } else { 2 };
            tracker.follow_guest(hash(torrent), address, &record, now);
        }
    }

    fn pack(tracker: &Tracker, now: Now) -> Vec<u8> {
        (0..Tracker::SHARDS)
            .flat_map(|shard| tracker.pack_swarms(shard, now))
            .collect()
    }

    fn peers(tracker: &Tracker, torrent: u8, now: Now) -> Vec<(String, bool, i64)> {
        let shown = |peer: LivePeer| (peer.address.to_string(), peer.is_seeder, peer.last_announce);
        let peers = tracker.peers(&hash(torrent), 1000, now);
        let mut peers: Vec<_> = peers.into_iter().map(shown).collect();
        peers.sort();
        peers
    }

    #[test]
    fn peers_are_in_the_next_process_as_they_were() {
        let (before, after) = (tracker(), tracker());
        let now = at(5000, UNIX);
        fill(&before, now);
        let packed = pack(&before, now);
        let later = at(2, UNIX + 10);
        assert_eq!(after.unpack_swarms(&packed, 10, later), Ok(300));
        for torrent in [1, 2] {
            let known = peers(&before, torrent, now);
            assert_eq!(known, peers(&after, torrent, later));
            assert_eq!(before.counts(&hash(torrent)), after.counts(&hash(torrent)));
        }
        // Clients and counted snatches, too: all bytes are the same again.
        assert_eq!(pack(&after, at(2, UNIX)).len(), packed.len());
        let again = tracker();
        let sorted = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.sort_unstable();
            bytes
        };
        let now = at(9000, UNIX);
        assert_eq!(again.unpack_swarms(&packed, 0, now), Ok(300));
        assert_eq!(sorted(&pack(&again, now)), sorted(&packed));
    }

    #[test]
    fn expired_peers_are_left_out() {
        let (before, after) = (tracker(), tracker());
        fill(&before, at(5000, UNIX));
        let packed = pack(&before, at(5000, UNIX));
        let ttl = before.peer_ttl();
        let added = after.unpack_swarms(&packed, ttl - 99, at(5, UNIX));
        assert_eq!(added, Ok(100), "those seen in the last 100 seconds");
        let none = tracker().unpack_swarms(&packed, u32::MAX, at(5, UNIX));
        assert_eq!(none, Ok(0));
    }

    #[test]
    fn other_bytes_are_refused() {
        let before = tracker();
        fill(&before, at(5000, UNIX));
        let packed = pack(&before, at(5000, UNIX));
        // The first swarm is longer.
        for length in 1..60 {
            let read = tracker().unpack_swarms(&packed[..length], 0, at(5, UNIX));
            assert_eq!(read, Err(MalformedSwarms), "{length} bytes");
        }
        let mut other_family = packed;
        other_family[24] = 5;
        let read = tracker().unpack_swarms(&other_family, 0, at(5, UNIX));
        assert_eq!(read, Err(MalformedSwarms));
        let nothing = tracker().unpack_swarms(b"", 0, at(5, UNIX));
        assert_eq!(nothing, Ok(0));
    }
}
