//! A public peer in 12 bytes for IPv4, 24 for IPv6.
//!
//! ```text
//! | address and port (6 or 18) | last announce (2) | peer id, hashed (2) | counted, role, key (2) |
//! ```
//!
//! The last announce is the lower 16 bits of a moment in seconds, which wrap after 18 hours. So a peer
//! that is silent for longer than [`LIFE_MAX`] must be removed before that. One that is not,
//! because no sweep ran for that long, seems younger for a while and is removed by a later sweep.

use crate::base::addr::{Compact, Endpoint};
use crate::base::clock::Seconds;
use crate::base::ids::PeerId;
use crate::swarm::classes::Role;
use crate::swarm::index::hash_of;
use crate::swarm::public::Presence;

/// The longest time in seconds that a public peer may stay without announcing.
pub const LIFE_MAX: u32 = 12 * 3600;

/// The largest distance in seconds between the expiry limit and the last announce of a live peer: a
/// life, and some more, because workers don't read the clock at the same time.
const SPAN_MAX: u16 = LIFE_MAX as u16 + 3600;

/// A client as hashes of its peer id and its key. Compared only among clients of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTag {
    pub(super) peer_id: u16,
    /// 0 where the client sends no key.
    key: u16,
}

/// A peer of a public swarm, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PublicPeer<C> {
    pub endpoint: C,
    pub seen: u16,
    pub peer_id: u16,
    /// The key's 13 bits, the role's two, and `COUNTED`.
    bits: u16,
}

/// What a peer was before its announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub role: Role,
    /// It was a seeder before, or its snatch was counted: a `completed` no longer counts (rule W5).
    pub counted: bool,
}

/// The tag of a peer id of zeros, which identifies no client: any number of clients may send it.
const ANONYMOUS: u16 = 0;

const KEY: u16 = (1 << 13) - 1;
const PAUSED: u16 = 1 << 13;
const SEEDER: u16 = 1 << 14;
const COUNTED: u16 = 1 << 15;

// === impl ClientTag ===

impl ClientTag {
    pub fn new(peer_id: &PeerId, key: Option<u32>) -> Self {
        let peer_id = match peer_id.0 {
            [0, rest @ ..] if rest == [0; 19] => ANONYMOUS,
            _ => ((fold(peer_id) >> 48) as u16).max(ANONYMOUS + 1),
        };
        Self {
            peer_id,
            key: key.map_or(0, |key| (key.wrapping_mul(0x9e37_79b1) >> 19).max(1) as u16),
        }
    }
}

impl ClientTag {
    /// The hashes of peer id and key: the same in every process of this version.
    pub fn hashes(self) -> (u16, u16) {
        (self.peer_id, self.key)
    }

    /// The client with these hashes.
    pub fn from_hashes(peer_id: u16, key: u16) -> Self {
        let key = key & KEY;
        Self { peer_id, key }
    }
}

/// A peer id hashed to 64 bits, without a secret: it is compared only among clients of one address,
/// and those could send each other's ids anyway.
fn fold(PeerId(bytes): &PeerId) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let sum = words.iter().chain([&last]).fold(0, |sum: u64, word| {
        let sum = sum ^ u64::from_le_bytes(*word);
        sum.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
    sum.wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

// === impl PublicPeer ===

impl<C: Compact> PublicPeer<C> {
    pub fn new(endpoint: C, client: ClientTag, role: Role, seen: Seconds) -> Self {
        let role = match role {
            Role::Leecher => 0,
            Role::Paused => PAUSED,
            Role::Seeder => SEEDER,
        };
        Self {
            endpoint,
            seen: seen.0 as u16,
            peer_id: client.peer_id,
            bits: client.key | role,
        }
    }

    pub fn role(&self) -> Role {
        match self.bits & (SEEDER | PAUSED) {
            0 => Role::Leecher,
            PAUSED => Role::Paused,
            _ => Role::Seeder,
        }
    }

    /// What it announced, at its endpoint. One in a swarm was seen less than 18 hours ago.
    pub fn presence(&self, endpoint: Endpoint, now: Seconds) -> Presence {
        let ago = u32::from((now.0 as u16).wrapping_sub(self.seen));
        // Workers don't read the clock at the same time.
        let ago = if ago > LIFE_MAX * 5 / 4 { 0 } else { ago };
        Presence {
            endpoint,
            client: ClientTag::from_hashes(self.peer_id, self.bits),
            role: self.role(),
            seen: Seconds(now.0.saturating_sub(ago)),
        }
    }

    pub fn before(&self) -> Before {
        Before {
            role: self.role(),
            counted: self.bits & COUNTED != 0,
        }
    }

    pub fn set_counted(&mut self) {
        self.bits |= COUNTED;
    }

    /// Whether it was last seen at that moment or after it.
    pub fn is_alive(&self, since: Seconds) -> bool {
        self.seen.wrapping_sub(since.0 as u16) <= SPAN_MAX
    }

    /// Whether it is at that endpoint. Without a port, the peer id must match as well.
    pub fn is_at(&self, endpoint: C, client: ClientTag) -> bool {
        self.endpoint == endpoint && (endpoint.port() != 0 || self.peer_id == client.peer_id)
    }

    /// Whether it is that client, at whatever port (rule W1).
    pub fn is_client(&self, endpoint: C, client: ClientTag) -> bool {
        let key = self.bits & KEY;
        self.peer_id == client.peer_id
            && (key == client.key || key == 0 || client.key == 0)
            && ip_of(&self.endpoint) == ip_of(&endpoint)
            && (self.peer_id != ANONYMOUS || self.endpoint == endpoint)
    }
}

/// The hash that all endpoints of one client share.
pub(super) fn client_hash<C: Compact>(endpoint: C, peer_id: u16) -> u64 {
    match peer_id {
        ANONYMOUS => hash_of(endpoint.as_ref()),
        _ => hash_of((ip_of(&endpoint), peer_id)),
    }
}

/// The bytes of the address.
fn ip_of<C: Compact>(endpoint: &C) -> &[u8] {
    &endpoint.as_ref()[..C::LEN - 2]
}

pub(super) fn pack_rest<C>(rest: &mut [u8], member: &PublicPeer<C>) {
    rest[..2].copy_from_slice(&member.seen.to_le_bytes());
    rest[2..4].copy_from_slice(&member.peer_id.to_le_bytes());
    rest[4..].copy_from_slice(&member.bits.to_le_bytes());
}

pub(super) fn unpack<C>(endpoint: C, rest: &[u8]) -> PublicPeer<C> {
    let read = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]);
    PublicPeer {
        endpoint,
        seen: read(0),
        peer_id: read(2),
        bits: read(4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::addr::{Compact4, Compact6};
    use crate::swarm::public::endpoint::PackedEndpoint;

    #[test]
    fn members_survive_packing_and_unpacking() {
        assert_eq!(size_of::<PublicPeer<Compact4>>(), 12);
        assert_eq!(size_of::<PublicPeer<Compact6>>(), 24);
        let client = ClientTag::new(&PeerId([7; 20]), Some(7));
        for role in [Role::Leecher, Role::Paused, Role::Seeder] {
            let v4 = Compact4([1, 2, 3, 4, 5, 6]);
            let mut v4 = PublicPeer::new(v4, client, role, Seconds(0x1234_5678));
            let v6 = Compact6(std::array::from_fn(|at| at as u8));
            let v6 = PublicPeer::new(v6, client, role, Seconds(0x1234_5678));
            assert_eq!(
                v4.before(),
                Before {
                    role,
                    counted: false
                }
            );
            v4.set_counted();
            assert_eq!(
                v4.before(),
                Before {
                    role,
                    counted: true
                }
            );
            assert_eq!(Compact4::unpack(&Compact4::pack(&v4)), v4);
            assert_eq!(Compact6::unpack(&Compact6::pack(&v6)), v6);
        }
    }

    #[test]
    fn ages_are_derived_from_16_bits() {
        let client = ClientTag::new(&PeerId([7; 20]), None);
        let seen = Seconds::START.plus(50_000);
        let it = PublicPeer::new(Compact4([0; 6]), client, Role::Seeder, seen);
        for ttl in [60, 3900, LIFE_MAX] {
            let alive = |now: u32| it.is_alive(Seconds(now - ttl));
            // Another worker's clock may be a little behind.
            assert!(alive(seen.0 - 5));
            assert!((0..=ttl).all(|age| alive(seen.0 + age)));
            assert!((ttl + 1..ttl + 18_000).all(|age| !alive(seen.0 + age)));
            // Nothing was swept for a day: it seems younger, but only for a while.
            assert!((0..4).all(|day| !alive(seen.0 + ttl + 1 + day * 65_536)));
        }
    }
}
