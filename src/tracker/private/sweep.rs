//! Ageing: peers expire, tombstones are forgotten, empty swarms give their memory back (rule W10).

use parking_lot::MutexGuard;

use crate::base::clock::{Now, Seconds};
use crate::base::ids::InfoHash;
use crate::swarm::{Cursor, PrivatePeer, PrivateSwarm, Visit};
use crate::tracker::private::PrivateTracker;
use crate::tracker::private::announce::PrivateAnnounce;
use crate::tracker::{Rules, SWEPT_AT_ONCE};

/// What an entry that is due takes from a sweep's budget; others take 1.
const DUE_COST: usize = 32;

// === impl PrivateTracker ===

impl PrivateTracker {
    pub fn sweep(&self, shard: usize, now: Now) {
        let rules = self.common.rules.load();
        if self.common.is_shared {
            self.recount(shard, &rules, now);
        }
        let forgotten_before = Seconds(now.mono.0.saturating_sub(rules.record_ttl()));
        let mut walk = Some(Cursor::default());
        // A swarm that is too large for one chunk, and where in it the next chunk begins.
        let mut rest: Option<(InfoHash, usize)> = None;
        while let Some(from) = walk {
            let mut budget = SWEPT_AT_ONCE;
            let mut swarms = self.swarms.lock(shard);
            walk = swarms.walk(from, |info_hash, swarm| {
                if budget == 0 {
                    return Visit::Pause;
                }
                // A torrent that is gone may come back, for example when its row is repaired: its swarm
                // is kept as long as a record would be.
                let Some(torrent) = self.common.registry.torrent(info_hash) else {
                    let is_kept = swarm.has_announce_since(forgotten_before);
                    if !is_kept {
                        self.drop_records(swarm);
                        self.common.registry.forget_former(info_hash);
                    }
                    return keep_if(is_kept);
                };
                let rest_of_swarm = rest.take().filter(|(hash, _)| hash == info_hash);
                let place = rest_of_swarm.map_or(0, |(_, place)| place);
                let mut announce = PrivateAnnounce {
                    tracker: self,
                    rules: &rules,
                    swarm,
                    torrent: &torrent,
                    shard,
                    now,
                };
                rest = announce
                    .sweep(place, &mut budget)
                    .map(|place| (*info_hash, place));
                if rest.is_some() {
                    return Visit::Pause;
                }
                keep_if(!swarm.is_empty())
            });
            // Threads that wait get the lock before the next chunk.
            MutexGuard::unlock_fair(swarms);
        }
    }

    /// Journals the counters of swarms of which cache and storage may have others.
    fn recount(&self, shard: usize, rules: &Rules, now: Now) {
        for info_hash in self.recounts.take(shard, now) {
            let mut swarms = self.swarms.lock(shard);
            let torrent = self.common.registry.torrent(&info_hash);
            if let (Some(swarm), Some(torrent)) = (swarms.get_mut(info_hash), torrent) {
                let mut announce = PrivateAnnounce {
                    tracker: self,
                    rules,
                    swarm,
                    torrent: &torrent,
                    shard,
                    now,
                };
                announce.journal_counts();
            }
        }
    }

    /// Subtracts the records of a swarm that is removed from those of its users.
    pub(super) fn drop_records(&self, swarm: &PrivateSwarm) {
        swarm.owners().for_each(|user| self.records.remove(user));
    }
}

fn keep_if(is_worth_it: bool) -> Visit {
    if is_worth_it {
        Visit::Keep
    } else {
        Visit::Remove
    }
}

// === impl PrivateAnnounce ===

impl PrivateAnnounce<'_> {
    /// Sweeps the entries from `place` on, as many as the budget allows; returns where the rest
    /// begins, if there is one.
    fn sweep(&mut self, mut place: usize, budget: &mut usize) -> Option<usize> {
        let alive_since = self.rules.alive_since(self.now.mono);
        let kept_since = Seconds(self.now.mono.0.saturating_sub(self.rules.tombstone_ttl));
        while place < self.swarm.len() {
            if *budget == 0 {
                return Some(place);
            }
            let is_due = self.swarm.is_due(place, alive_since, kept_since);
            // An entry that takes the place of a removed one comes from further on: it is swept next.
            if !is_due || self.sweep_one(place, kept_since) {
                place += 1;
            }
            *budget = budget.saturating_sub(if is_due { DUE_COST } else { 1 });
        }
        None
    }

    /// Expires a peer, queues what it owes, and forgets a tombstone that is too old. Returns
    /// whether the entry is still at that place.
    fn sweep_one(&mut self, place: usize, kept_since: Seconds) -> bool {
        let Some(mut client) = self.swarm.peer(place) else {
            return true;
        };
        let (user, peer_id) = (client.state.user, client.state.peer_id);
        self.expire(&mut client);
        if let Some(owed) = client.state.owed.take() {
            self.queue(client, owed);
        } else if client.state.role().is_none() && client.state.account.last_announce < kept_since {
            self.forget(place, user);
        }
        self.swarm.holds(place, user, &peer_id)
    }

    /// Queues the record of any client once more, for the counters that it brings.
    fn journal_counts(&mut self) {
        let Some(mut client) = self.swarm.peers().next() else {
            return;
        };
        self.expire(&mut client);
        let owed = client.state.owed.take().unwrap_or_default();
        self.queue(client, owed);
    }

    /// Removes those endpoints of a peer that expired; it then owes the journal this change. With the
    /// last endpoint it leaves the swarm.
    pub(super) fn expire(&self, client: &mut PrivatePeer) {
        let before = client.state.endpoints();
        let left = client.state.expire(self.rules.alive_since(self.now.mono));
        if client.state.endpoints() != before {
            client.state.owed.get_or_insert_default();
        }
        if left {
            let is_last = self.on_left_swarm(client);
            if let Some(owed) = &mut client.state.owed {
                owed.left |= is_last;
            }
            self.tracker.common.metrics.expired.increment();
        }
    }
}
