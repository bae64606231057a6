//! Ageing: peers expire, tombstones are forgotten, empty swarms give their memory back (rule W10).

use std::sync::atomic::Ordering;

use crate::clock::{Now, Seconds};
use crate::ids::InfoHash;
use crate::swarm::{Client, Counts, PrivateSwarm, PublicSwarm, SHARDS, Swarms};
use crate::tracker::private::Ledger;
use crate::tracker::{Mode, Rules, Tracker};

// === impl Tracker ===

impl Tracker {
    /// The shards that there are to sweep.
    pub const SHARDS: usize = SHARDS;

    /// Sweeps one shard. Sweeping them all in turn, a few at a time, keeps announces from waiting.
    pub fn sweep(&self, shard: usize, now: Now) {
        let rules = self.rules.load();
        match self.mode {
            Mode::Public => self.sweep_public(shard, &rules, rules.alive_since(now.mono)),
            Mode::Private => self.sweep_private(shard, &rules, now),
        }
    }

    fn sweep_public(&self, shard: usize, rules: &Rules, alive_since: Seconds) {
        let mut swarms = self.public.lock(shard);
        let before = swarms.len();
        // Counts of snatches alone take no room that torrents with peers may need.
        let has_room = self.public_torrents.load(Ordering::Relaxed) < rules.max_torrents / 2;
        swarms.retain(|_, swarm| {
            let expired = swarm.expire(alive_since);
            if expired > 0 {
                self.metrics.expired.add(expired as u64);
            }
            !swarm.is_empty() || (has_room && swarm.downloaded > 0)
        });
        let gone = before - swarms.len();
        self.public_torrents.fetch_sub(gone, Ordering::Relaxed);
    }

    fn sweep_private(&self, shard: usize, rules: &Rules, now: Now) {
        let forgotten_before = Seconds(now.mono.0.saturating_sub(rules.record_ttl()));
        let mut swarms = self.private.lock(shard);
        swarms.retain(|info_hash, swarm| {
            // A torrent that is gone may come back, say when its row is mended: what is known of
            // it is kept as long as a record would be.
            let Some(torrent) = self.registry.torrent(info_hash) else {
                return swarm.is_any_since(forgotten_before);
            };
            let mut ledger = Ledger {
                tracker: self,
                rules,
                swarm,
                torrent: &torrent,
                shard,
                now,
            };
            ledger.sweep();
            !swarm.is_empty()
        });
    }

    /// The shard where a private torrent's swarm is kept.
    pub fn shard_of(&self, info_hash: &InfoHash) -> usize {
        self.private.shard_of(info_hash)
    }

    /// Numbers of swarms, seeders and leechers.
    pub fn totals(&self) -> (usize, u64, u64) {
        match self.mode {
            Mode::Public => totals(&self.public, PublicSwarm::counts),
            Mode::Private => totals(&self.private, PrivateSwarm::counts),
        }
    }
}

fn totals<S>(swarms: &Swarms<S>, counts: impl Fn(&S) -> Counts) -> (usize, u64, u64) {
    let (mut number, mut seeders, mut leechers) = (0, 0, 0);
    for shard in 0..SHARDS {
        let shard = swarms.lock(shard);
        number += shard.len();
        for (_, swarm) in shard.iter() {
            let counts = counts(swarm);
            seeders += u64::from(counts.seeders);
            leechers += u64::from(counts.leechers);
        }
    }
    (number, seeders, leechers)
}

// === impl Ledger ===

impl Ledger<'_> {
    fn sweep(&mut self) {
        let alive_since = self.rules.alive_since(self.now.mono);
        let kept_since = Seconds(self.now.mono.0.saturating_sub(self.rules.tombstone_ttl));
        // From the end, because a forgotten record's place is taken by one behind it.
        for place in (0..self.swarm.len()).rev() {
            if self.swarm.is_due(place, alive_since, kept_since) {
                self.settle(place, kept_since);
            }
        }
    }

    /// Lets a peer expire, queues what it owes, and forgets a tombstone that is too old.
    fn settle(&mut self, place: usize, kept_since: Seconds) {
        let Some(mut client) = self.swarm.client(place) else {
            return;
        };
        self.expire(&mut client);
        if let Some(owed) = client.peer.owed.take() {
            self.queue(client, owed);
        } else if client.peer.role().is_none() && client.peer.account.last_announce < kept_since {
            self.swarm.forget(place);
        }
    }

    /// Takes from a peer the endpoints that fell silent, which it then owes the journal. With
    /// the last one it leaves the swarm.
    pub(super) fn expire(&self, client: &mut Client) {
        let before = client.peer.endpoints();
        let left = client.peer.expire(self.rules.alive_since(self.now.mono));
        if client.peer.endpoints() != before {
            client.peer.owed.get_or_insert_default();
        }
        if left {
            self.left(client);
            self.tracker.metrics.expired.one();
        }
    }
}
