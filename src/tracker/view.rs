//! Looking at swarms from outside: for people and programs that ask, not for clients.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use crate::base::addr::Endpoint;
use crate::base::clock::{Now, Seconds};
use crate::base::ids::{InfoHash, PeerId, UserId};
use crate::change::{PeerRecord, SwarmCounts};
use crate::swarm::{Key, LIFE_MAX, PrivateSwarm, Role};
use crate::tracker::record::{record_of, swarm_counts};
use crate::tracker::{Mode, Tracker};

/// A peer that is in a swarm now.
#[derive(Clone, Debug)]
pub struct LivePeer {
    pub address: SocketAddr,
    pub is_seeder: bool,
    /// Unix time.
    pub last_announce: i64,
    /// Who it is and what it reported; public trackers don't keep that.
    pub account: Option<(UserId, PeerId, PeerRecord)>,
}

// === impl Tracker ===

impl Tracker {
    /// The counters of that (first) info hash's swarm; zeros if there is none.
    pub fn counts(&self, info_hash: &InfoHash) -> SwarmCounts {
        let counts = match self.mode {
            Mode::Public => {
                let key = Key::from(info_hash);
                let swarms = self.public.lock(key.shard());
                swarms.get(key).map(|(counts, _)| counts)
            }
            Mode::Private => {
                let swarms = self.private.lock(self.private.shard_of(info_hash));
                swarms.get(info_hash).map(PrivateSwarm::counts)
            }
        };
        counts.map(swarm_counts).unwrap_or_default()
    }

    /// At most `max` peers of that (first) info hash's swarm, in no order.
    pub fn peers(&self, info_hash: &InfoHash, max: usize, now: Now) -> Vec<LivePeer> {
        match self.mode {
            Mode::Public => self.public_peers(info_hash, max, now),
            Mode::Private => self.private_peers(info_hash, max, now),
        }
    }

    fn public_peers(&self, info_hash: &InfoHash, max: usize, now: Now) -> Vec<LivePeer> {
        let key = Key::from(info_hash);
        let mut peers = Vec::new();
        let mut swarms = self.public.lock(key.shard());
        let Some(swarm) = swarms.get_mut(key) else {
            return peers;
        };
        swarm.each(|endpoint, role, seen| {
            // Whoever is there was seen less than 18 hours ago.
            let ago = u32::from((now.mono.0 as u16).wrapping_sub(seen));
            let ago = if ago > LIFE_MAX * 5 / 4 { 0 } else { ago };
            peers.push(LivePeer {
                address: endpoint.address(),
                is_seeder: role == Role::Seeder,
                last_announce: now.to_unix(Seconds(now.mono.0 - ago)),
                account: None,
            });
            peers.len() < max
        });
        peers
    }

    fn private_peers(&self, info_hash: &InfoHash, max: usize, now: Now) -> Vec<LivePeer> {
        let swarms = self.private.lock(self.private.shard_of(info_hash));
        let Some(swarm) = swarms.get(info_hash) else {
            return Vec::new();
        };
        let clients = (0..swarm.len()).filter_map(|place| swarm.client(place));
        let peers = clients.filter_map(|client| {
            let peer = &client.peer;
            let (v4, v6) = peer.endpoints();
            let endpoint = v4.map(Endpoint::V4).or(v6.map(Endpoint::V6))?;
            let record = record_of(peer, now);
            Some(LivePeer {
                address: endpoint.address(),
                is_seeder: peer.role()? == Role::Seeder,
                last_announce: record.last_announce,
                account: Some((peer.user, peer.peer_id, record)),
            })
        });
        peers.take(max).collect()
    }

    /// The `max` swarms with the most peers, the largest first. Looks at all there are, one shard
    /// at a time.
    pub fn largest(&self, max: usize) -> Vec<(InfoHash, SwarmCounts)> {
        let peers = |counts: SwarmCounts| u64::from(counts.seeders) + u64::from(counts.leechers);
        let mut heap = BinaryHeap::with_capacity(max + 1);
        for shard in 0..Self::SHARDS {
            for (info_hash, counts) in self.swarm_counts(shard) {
                let entry = Reverse((peers(counts), info_hash, counts.seeders, counts.leechers));
                let is_large = heap.len() < max || heap.peek().is_some_and(|least| entry < *least);
                if peers(counts) > 0 && is_large {
                    heap.push(entry);
                    if heap.len() > max {
                        heap.pop();
                    }
                }
            }
        }
        let largest = heap.into_sorted_vec().into_iter();
        largest
            .map(|Reverse((_, info_hash, seeders, leechers))| {
                (info_hash, SwarmCounts { seeders, leechers })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::swarm::{ClientTag, Presence};
    use crate::tracker::Rules;

    fn now(seconds: u32) -> Now {
        Now {
            mono: Seconds::START.plus(seconds),
            unix: 1_800_000_000 + i64::from(seconds),
        }
    }

    /// A tracker with that many peers in the swarm of torrent 1, of IPv4 and IPv6 in turn, every
    /// third a seeder; and one peer in torrent 2.
    fn tracker(peers: u16) -> Tracker {
        let (registry, metrics) = (Arc::default(), Arc::default());
        let tracker = Tracker::new(Mode::Public, Rules::default(), registry, 10, metrics);
        let join = |hash: u8, port: u16| {
            let ip: IpAddr = match port % 2 {
                0 => "192.0.2.1".parse().unwrap(),
                _ => "2001:db8::1".parse().unwrap(),
            };
            let key = Key::from(&InfoHash([hash; 20]));
            let mut swarms = tracker.public.lock(key.shard());
            let peer = Presence {
                endpoint: Endpoint::new(ip, port),
                client: ClientTag::new(&PeerId([1; 20]), Some(u32::from(port))),
                role: if port.is_multiple_of(3) {
                    Role::Seeder
                } else {
                    Role::Leecher
                },
                seen: now(u32::from(port)).mono,
            };
            let joined = swarms.get_or_default(key).upsert(&peer, Seconds(0), 0);
            assert_eq!(joined, Ok(None));
        };
        (1..=peers).for_each(|port| join(1, port));
        join(2, 1);
        tracker
    }

    #[test]
    fn public_peers_are_seen_with_their_role_and_time() {
        for number in [5, 500] {
            let tracker = tracker(number);
            let later = now(1000);
            let mut peers = tracker.peers(&InfoHash([1; 20]), 10_000, later);
            peers.sort_by_key(|peer| peer.address.port());
            assert_eq!(peers.len(), usize::from(number));
            for (peer, port) in peers.iter().zip(1..) {
                assert_eq!(peer.address.port(), port);
                assert_eq!(peer.address.is_ipv4(), port % 2 == 0);
                assert_eq!(peer.is_seeder, port.is_multiple_of(3));
                assert_eq!(peer.last_announce, 1_800_000_000 + i64::from(port));
            }
            assert_eq!(tracker.peers(&InfoHash([1; 20]), 3, later).len(), 3);
            assert!(tracker.peers(&InfoHash([9; 20]), 3, later).is_empty());
        }
    }

    #[test]
    fn the_largest_swarms_come_first() {
        let tracker = tracker(7);
        let largest = tracker.largest(10);
        let counts = SwarmCounts {
            seeders: 2,
            leechers: 5,
        };
        assert_eq!(largest[0], (InfoHash([1; 20]), counts));
        assert_eq!(largest.len(), 2);
        assert_eq!(tracker.largest(1), largest[..1]);
        assert_eq!(tracker.counts(&InfoHash([1; 20])), counts);
        assert_eq!(tracker.counts(&InfoHash([9; 20])), SwarmCounts::default());
    }
}
