//! Ageing: peers expire, tombstones are forgotten, empty swarms give their memory back (rule W10).

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::clock::{Now, Seconds};
use crate::ids::InfoHash;
use crate::swarm::{Counts, Cursor, PrivateSwarm, PublicSwarm, SHARDS, Shard, Swarms, Visit};
use crate::tracker::private::Ledger;
use crate::tracker::{Mode, Rules, Tracker};

/// Peers that are looked at while a shard is locked: some tens of microseconds.
const SWEEP_AT_ONCE: usize = 2048;

/// Swarms that are counted while a shard is locked.
const SWARMS_AT_ONCE: usize = 256;

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

    /// Swarms are swept in pieces, and the larger ones themselves are, so that no announce waits
    /// for longer than a piece takes.
    fn sweep_public(&self, shard: usize, rules: &Rules, alive_since: Seconds) {
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let mut swarms = self.public.lock(shard);
            next = self.sweep_piece(&mut swarms, from, rules, alive_since);
            MutexGuard::unlock_fair(swarms);
        }
    }

    fn sweep_piece(
        &self,
        swarms: &mut Shard<PublicSwarm>,
        from: Cursor,
        rules: &Rules,
        alive_since: Seconds,
    ) -> Option<Cursor> {
        let before = swarms.len();
        // Counts of snatches alone take no room that torrents with peers may need.
        let has_room = self.public_torrents.load(Ordering::Relaxed) < rules.max_torrents / 2;
        let mut expired = 0;
        let mut budget = SWEEP_AT_ONCE;
        let next = swarms.walk(from, |_, swarm| {
            if budget == 0 {
                return Visit::Pause;
            }
            let (gone, is_done) = swarm.sweep(alive_since, &mut budget);
            expired += gone;
            if !is_done {
                Visit::Pause
            } else if swarm.is_empty() && !(has_room && swarm.downloaded() > 0) {
                Visit::Remove
            } else {
                Visit::Keep
            }
        });
        if expired > 0 {
            self.metrics.expired.add(expired as u64);
        }
        let gone = before - swarms.len();
        self.public_torrents.fetch_sub(gone, Ordering::Relaxed);
        next
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
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let mut budget = SWARMS_AT_ONCE;
            let mut swarms = swarms.lock(shard);
            next = swarms.walk(from, |_, swarm| {
                if budget == 0 {
                    return Visit::Pause;
                }
                budget -= 1;
                let counts = counts(swarm);
                number += 1;
                seeders += u64::from(counts.seeders);
                leechers += u64::from(counts.leechers);
                Visit::Keep
            });
            MutexGuard::unlock_fair(swarms);
        }
    }
    (number, seeders, leechers)
}

// === impl Ledger ===

impl Ledger<'_> {
    fn sweep(&mut self) {
        let kept_since = Seconds(self.now.mono.0.saturating_sub(self.rules.tombstone_ttl));
        // From the end, because a forgotten record's place is taken by the last one.
        for place in (0..self.swarm.len()).rev() {
            self.expire(place);
            let peer = self.swarm.peer(place);
            if peer.owed.is_some() {
                self.journal_owed(place);
            } else if peer.role().is_none() && peer.account.last_announce < kept_since {
                self.swarm.forget(place);
            }
        }
    }

    /// Takes from a peer the endpoints that fell silent, which it then owes the journal. With
    /// the last one it leaves the swarm.
    pub(super) fn expire(&mut self, place: usize) {
        let alive_since = self.rules.alive_since(self.now.mono);
        let before = self.swarm.endpoints(place);
        let left = self.swarm.expire(place, alive_since);
        if self.swarm.endpoints(place) != before {
            self.swarm.peer_mut(place).owed.get_or_insert_default();
        }
        if left {
            self.left(place);
            self.tracker.metrics.expired.one();
        }
    }
}
