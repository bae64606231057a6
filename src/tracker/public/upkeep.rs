//! Upkeep of public swarms, and views of them: expired peers and empty swarms go (rule W10).

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::base::clock::{Now, Seconds};
use crate::base::ids::InfoHash;
use crate::change::SwarmCounts;
use crate::swarm::{Cursor, Key, PeerCounts, PublicShard, PublicSwarm, Role, Visit};
use crate::tracker::public::PublicTracker;
use crate::tracker::view::{Visitor, walk_all};
use crate::tracker::{LivePeer, Rules, SWEPT_AT_ONCE, swarm_counts};

impl PublicTracker {
    /// Swarms are swept in chunks, large ones part by part, so that no announce waits
    /// for longer than a chunk takes.
    pub fn sweep(&self, shard: usize, now: Now) {
        let rules = self.common.rules.load();
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let mut swarms = self.swarms.lock(shard);
            next = self.sweep_chunk(&mut swarms, from, &rules, now.mono);
            MutexGuard::unlock_fair(swarms);
        }
    }

    fn sweep_chunk(
        &self,
        swarms: &mut PublicShard,
        from: Cursor,
        rules: &Rules,
        now: Seconds,
    ) -> Option<Cursor> {
        let alive_since = rules.alive_since(now);
        let before = swarms.len();
        // Empty swarms are kept for their snatches while there is room; those of
        // registered torrents have room of their own.
        let has_room = self.free_room(rules) > rules.max_torrents.div_ceil(2);
        let is_kept = |info_hash: &InfoHash, snatches| {
            snatches > 0 && (has_room || self.common.registry.torrent(info_hash).is_some())
        };
        let mut expired = 0;
        let mut budget = SWEPT_AT_ONCE;
        let next = swarms.walk(from, |info_hash, swarm| {
            if budget == 0 {
                return Visit::Pause;
            }
            let (gone, is_done) = swarm.sweep(alive_since, &mut budget);
            expired += gone;
            if !is_done {
                Visit::Pause
            } else if swarm.is_empty() && !is_kept(info_hash, swarm.snatches()) {
                Visit::Remove
            } else {
                swarm.note_empty(now);
                Visit::Keep
            }
        });
        if expired > 0 {
            self.common.metrics.expired.add(expired as u64);
        }
        let gone = before - swarms.len();
        self.swarm_count.fetch_sub(gone, Ordering::Relaxed);
        next
    }

    pub fn counts(&self, info_hash: &InfoHash) -> Option<PeerCounts> {
        let key = Key::from(info_hash);
        let swarms = self.swarms.lock(key.shard());
        swarms.get(key).map(|(counts, _)| counts)
    }

    pub fn peers(&self, info_hash: &InfoHash, max: usize, now: Now) -> Vec<LivePeer> {
        let key = Key::from(info_hash);
        let mut peers = Vec::new();
        let mut swarms = self.swarms.lock(key.shard());
        let Some(swarm) = swarms.get_mut(key) else {
            return peers;
        };
        swarm.each(now.mono, |peer, _| {
            peers.push(LivePeer {
                address: peer.endpoint.address(),
                is_seeder: peer.role == Role::Seeder,
                last_announce: now.to_unix(peer.seen),
                account: None,
            });
            peers.len() < max
        });
        peers
    }

    pub fn swarm_counts(&self, shard: usize) -> Vec<(InfoHash, SwarmCounts)> {
        let swarms = self.swarms.lock(shard);
        swarms
            .counts()
            .map(|(info_hash, counts)| (*info_hash, swarm_counts(counts)))
            .collect()
    }

    /// Passes what `read` takes of each swarm to `see`.
    pub fn for_each_swarm<T>(&self, read: impl Fn(&PublicSwarm) -> T, see: impl FnMut(T)) {
        let walk = |shard: &mut PublicShard, from, visit: Visitor<T>| {
            shard.walk(from, |_, swarm| visit(read(swarm)))
        };
        walk_all(&self.swarms, walk, see);
    }

    pub fn wipe_snatches(&self, shard: usize) {
        let mut swarms = self.swarms.lock(shard);
        swarms.walk(Cursor::default(), |_, swarm| {
            swarm.set_snatches(0);
            Visit::Keep
        });
    }

    pub fn restore_snatches(&self, info_hash: InfoHash, snatches: u32) {
        let key = Key::from(&info_hash);
        let mut swarms = self.swarms.lock(key.shard());
        let before = swarms.len();
        let mut swarm = swarms.get_or_default(key);
        swarm.set_snatches(swarm.snatches().max(snatches));
        let added = swarms.len() - before;
        self.swarm_count.fetch_add(added, Ordering::Relaxed);
    }

    pub fn forget_snatches(&self, info_hash: &InfoHash) {
        let key = Key::from(info_hash);
        if let Some(mut swarm) = self.swarms.lock(key.shard()).get_mut(key) {
            swarm.set_snatches(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::base::addr::Endpoint;
    use crate::base::ids::PeerId;
    use crate::swarm::{ClientTag, Presence};
    use crate::tracker::{Mode, Rules, Tracker};

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
            let mut swarms = tracker.public().unwrap().swarms.lock(key.shard());
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
