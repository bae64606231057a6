//! Ageing: peers expire, tombstones are forgotten, empty swarms give their memory back (rule W10).

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::base::clock::{Now, Seconds};
use crate::base::ids::InfoHash;
use crate::swarm::{
    Client, Counts, Cursor, Families, PrivateShard, PrivateSwarm, PublicShard, SHARDS, Swarms,
    Visit,
};
use crate::tracker::private::Ledger;
use crate::tracker::{Mode, Rules, Tracker};

/// What is swept before the lock is given to others for a moment: some tens of microseconds, in
/// private mode a small part of a millisecond. An entry that only has to be looked at counts 1.
const PIECE: usize = 4096;

/// What an entry counts that there is something to do about.
const DUE: usize = 32;

/// Swarms that are counted before the lock is given to others.
const COUNTED_AT_ONCE: usize = 256;

/// Who is there, over all swarms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub swarms: u64,
    /// Peers of each family. A private peer that is there by both counts in each.
    pub v4: Roles,
    pub v6: Roles,
}

/// Numbers of peers, each in one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    pub seeders: u64,
    pub leechers: u64,
    /// Partial seeds (BEP 21); not among the leechers here.
    pub paused: u64,
}

// === impl Tracker ===

impl Tracker {
    /// The shards that there are to sweep.
    pub const SHARDS: usize = SHARDS;

    /// Sweeps one shard. Sweeping them all in turn, a few at a time, keeps announces from waiting.
    pub fn sweep(&self, shard: usize, now: Now) {
        let rules = self.rules.load();
        match self.mode {
            Mode::Public => self.sweep_public(shard, &rules, now.mono),
            Mode::Private => self.sweep_private(shard, &rules, now),
        }
    }

    /// Swarms are swept in pieces, and the larger ones themselves are, so that no announce waits
    /// for longer than a piece takes.
    fn sweep_public(&self, shard: usize, rules: &Rules, now: Seconds) {
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let mut swarms = self.public.lock(shard);
            next = self.sweep_piece(&mut swarms, from, rules, now);
            MutexGuard::unlock_fair(swarms);
        }
    }

    fn sweep_piece(
        &self,
        swarms: &mut PublicShard,
        from: Cursor,
        rules: &Rules,
        now: Seconds,
    ) -> Option<Cursor> {
        let alive_since = rules.alive_since(now);
        let before = swarms.len();
        // Counts of snatches alone take no room that torrents with peers may need; those of
        // registered torrents have room of their own.
        let has_room = self.free_room(rules) > rules.max_torrents.div_ceil(2);
        let is_kept = |info_hash: &InfoHash, downloaded| {
            downloaded > 0 && (has_room || self.registry.torrent(info_hash).is_some())
        };
        let mut expired = 0;
        let mut budget = PIECE;
        let next = swarms.walk(from, |info_hash, swarm| {
            if budget == 0 {
                return Visit::Pause;
            }
            let (gone, is_done) = swarm.sweep(alive_since, &mut budget);
            expired += gone;
            if !is_done {
                Visit::Pause
            } else if swarm.is_empty() && !is_kept(info_hash, swarm.downloaded()) {
                Visit::Remove
            } else {
                swarm.note_empty(now);
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
        let mut walk = Some(Cursor::default());
        // The swarm that is too large for one piece, and where in it the next one begins.
        let mut rest: Option<(InfoHash, usize)> = None;
        while let Some(from) = walk {
            let mut budget = PIECE;
            let mut swarms = self.private.lock(shard);
            walk = swarms.walk(from, |info_hash, swarm| {
                if budget == 0 {
                    return Visit::Pause;
                }
                // A torrent that is gone may come back, say when its row is mended: what is known
                // of it is kept as long as a record would be.
                let Some(torrent) = self.registry.torrent(info_hash) else {
                    let is_kept = swarm.is_any_since(forgotten_before);
                    if !is_kept {
                        self.drop_records(swarm);
                        self.registry.forget_former(info_hash);
                    }
                    return keep_if(is_kept);
                };
                let rest_of_it = rest.take().filter(|(hash, _)| hash == info_hash);
                let place = rest_of_it.map_or(0, |(_, place)| place);
                let mut ledger = Ledger {
                    tracker: self,
                    rules,
                    swarm,
                    torrent: &torrent,
                    shard,
                    now,
                };
                rest = ledger
                    .sweep(place, &mut budget)
                    .map(|place| (*info_hash, place));
                if rest.is_some() {
                    return Visit::Pause;
                }
                keep_if(!swarm.is_empty())
            });
            // Whoever waits comes next, and not the next piece.
            MutexGuard::unlock_fair(swarms);
        }
    }

    /// Takes the records of a swarm that goes off those of its users.
    pub(super) fn drop_records(&self, swarm: &PrivateSwarm) {
        swarm.owners().for_each(|user| self.records.remove(user));
    }

    /// The shard where a private torrent's swarm is kept.
    pub fn shard_of(&self, info_hash: &InfoHash) -> usize {
        self.private.shard_of(info_hash)
    }

    /// Numbers of swarms, seeders and leechers.
    pub fn totals(&self) -> (usize, u64, u64) {
        let (mut number, mut seeders, mut leechers) = (0, 0, 0);
        let see = |counts: Counts| {
            number += 1;
            seeders += u64::from(counts.seeders);
            leechers += u64::from(counts.leechers);
        };
        match self.mode {
            Mode::Public => {
                let walk = |shard: &mut PublicShard, from, visit: Visitor<Counts>| {
                    shard.walk(from, |_, swarm| visit(swarm.counts()))
                };
                walk_all(&self.public, walk, see);
            }
            Mode::Private => {
                let walk = |shard: &mut PrivateShard, from, visit: Visitor<Counts>| {
                    shard.walk(from, |_, swarm| visit(swarm.counts()))
                };
                walk_all(&self.private, walk, see);
            }
        }
        (number, seeders, leechers)
    }

    /// Numbers of swarms, and of peers by family and role. It looks at every swarm, which takes
    /// some tens of nanoseconds for each.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        let see = |families: Families| census.add(families);
        match self.mode {
            Mode::Public => {
                let walk = |shard: &mut PublicShard, from, visit: Visitor<Families>| {
                    shard.walk(from, |_, swarm| visit(swarm.families()))
                };
                walk_all(&self.public, walk, see);
            }
            Mode::Private => {
                let walk = |shard: &mut PrivateShard, from, visit: Visitor<Families>| {
                    shard.walk(from, |_, swarm| visit(swarm.families()))
                };
                walk_all(&self.private, walk, see);
            }
        }
        census
    }
}

fn keep_if(is_worth_it: bool) -> Visit {
    if is_worth_it {
        Visit::Keep
    } else {
        Visit::Remove
    }
}

/// What is shown of each swarm, one after the other, until it pauses.
type Visitor<'a, T> = &'a mut dyn FnMut(T) -> Visit;

/// Has something of all swarms seen, of some at a time. `walk` shows that of a shard's swarms.
fn walk_all<S: Default, T>(
    swarms: &Swarms<S>,
    walk: impl Fn(&mut S, Cursor, Visitor<T>) -> Option<Cursor>,
    mut see: impl FnMut(T),
) {
    for shard in 0..SHARDS {
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let mut budget = COUNTED_AT_ONCE;
            let mut swarms = swarms.lock(shard);
            next = walk(&mut swarms, from, &mut |it| {
                if budget == 0 {
                    return Visit::Pause;
                }
                budget -= 1;
                see(it);
                Visit::Keep
            });
            MutexGuard::unlock_fair(swarms);
        }
    }
}

// === impl Census ===

impl Census {
    fn add(&mut self, families: Families) {
        self.swarms += 1;
        self.v4.add(families.v4);
        self.v6.add(families.v6);
    }
}

// === impl Roles ===

impl Roles {
    fn add(&mut self, counts: Counts) {
        self.seeders += u64::from(counts.seeders);
        self.leechers += u64::from(counts.leechers - counts.paused);
        self.paused += u64::from(counts.paused);
    }
}

// === impl Ledger ===

impl Ledger<'_> {
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
            // Whoever takes the place of one that went comes from behind it.
            if !is_due || self.settle(place, kept_since) {
                place += 1;
            }
            *budget = budget.saturating_sub(if is_due { DUE } else { 1 });
        }
        None
    }

    /// Lets a peer expire, queues what it owes, and forgets a tombstone that is too old. Returns
    /// whether it is where it was.
    fn settle(&mut self, place: usize, kept_since: Seconds) -> bool {
        let Some(mut client) = self.swarm.client(place) else {
            return true;
        };
        let (user, peer_id) = (client.peer.user, client.peer.peer_id);
        self.expire(&mut client);
        if let Some(owed) = client.peer.owed.take() {
            self.queue(client, owed);
        } else if client.peer.role().is_none() && client.peer.account.last_announce < kept_since {
            self.forget(place, user);
        }
        self.swarm.holds(place, user, &peer_id)
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
            let is_last = self.left(client);
            if let Some(owed) = &mut client.peer.owed {
                owed.left |= is_last;
            }
            self.tracker.metrics.expired.one();
        }
    }
}
