//! Upkeep, what is restored at the start, and changes of other nodes: passed on to the tracker of the
//! mode. A call that is meant for the other mode has no effect.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::clock::Now;
use crate::base::ids::InfoHash;
use crate::change::{
    Batch, Change, GuestRecord, Member, PeerChange, PeerKey, PeerRecord, SwarmCounts,
};
use crate::tracker::private::PrivateTracker;
use crate::tracker::{ByMode, KnownHistory, MalformedSwarms, Tracker, by_mode};

/// Upkeep, and what is restored at the start.
impl Tracker {
    /// Sweeps one shard. Sweeping them all in turn, a few at a time, keeps announces from waiting.
    pub fn sweep(&self, shard: usize, now: Now) {
        by_mode!(self, tracker => tracker.sweep(shard, now));
    }

    /// Sets the snatches of all torrents to 0, in memory only.
    pub fn wipe_snatches(&self) {
        for shard in 0..Self::SHARDS {
            by_mode!(self, tracker => tracker.wipe_snatches(shard));
        }
    }

    /// Restores the snatches of a torrent, as counted so far.
    pub fn restore_snatches(&self, info_hash: InfoHash, snatches: u32) {
        if snatches > 0 {
            by_mode!(self, tracker => tracker.restore_snatches(info_hash, snatches));
        }
    }

    /// Drops what a public tracker counted of a torrent that is no longer registered.
    pub fn forget_snatches(&self, info_hash: &InfoHash) {
        if let Some(tracker) = self.public() {
            tracker.forget_snatches(info_hash);
        }
    }

    /// Drops the private swarm of an info hash that its torrent no longer has.
    pub fn forget(&self, info_hash: &InfoHash) {
        if let Some(tracker) = self.private() {
            tracker.forget(info_hash);
        }
    }

    /// Restores what a user did with the torrent of that (first) info hash, unless it is known.
    pub fn restore_history(&self, info_hash: InfoHash, known: &KnownHistory) {
        if let Some(tracker) = self.private() {
            tracker.restore_history(info_hash, known);
        }
    }

    /// Restores a peer: its account, and its place in the swarm if it was there. One that has
    /// expired meanwhile leaves at the next sweep. A record that is known stays as it is. Unless `is_present`,
    /// it was in the swarm of another info hash, and becomes a tombstone: the next sweep journals that it has
    /// left.
    pub fn restore_peer(
        &self,
        info_hash: InfoHash,
        key: &PeerKey,
        record: &PeerRecord,
        is_present: bool,
        now: Now,
    ) {
        if let Some(tracker) = self.private() {
            tracker.restore(info_hash, key, record, is_present, now);
        }
    }
}

/// Public swarms on their way to the next process.
impl Tracker {
    /// The peers of a shard as bytes, for [`Self::unpack_swarms`]; none in private mode.
    pub fn pack_swarms(&self, shard: usize, now: Now) -> Vec<u8> {
        let tracker = self.public();
        tracker.map_or_else(Vec::new, |tracker| tracker.pack_swarms(shard, now))
    }

    /// Adds the peers that another process packed `age` seconds ago, except those that have expired. Returns
    /// their number; 0 in private mode.
    ///
    /// # Errors
    /// The bytes are of another format. What came before the error was added.
    pub fn unpack_swarms(&self, bytes: &[u8], age: u32, now: Now) -> Result<u64, MalformedSwarms> {
        let tracker = self.public();
        tracker.map_or(Ok(0), |tracker| tracker.unpack_swarms(bytes, age, now))
    }
}

/// The counters of swarms in cache and storage, which a sweep corrects where nodes wrote them at once. No effect without
/// a cache.
impl Tracker {
    /// [`Self::swarm_counts`] of a shard, for who writes them.
    pub fn counts_to_write(&self, shard: usize, now: Now) -> Vec<(InfoHash, SwarmCounts)> {
        match self.shared_private() {
            Some(tracker) => tracker.counts_to_write(shard, now),
            None => self.swarm_counts(shard),
        }
    }

    /// To be called when batches of this node are written.
    pub fn on_counts_written(&self, batches: &[Arc<Batch>], now: Now) {
        if let Some(tracker) = self.shared_private() {
            let changes = batches.iter().flat_map(|batch| &batch.changes);
            tracker.on_counts_written(changes.filter_map(Change::peer), now);
        }
    }

    /// The next sweeps write the counters of these swarms again.
    pub fn recount_later(&self, swarms: &HashSet<InfoHash>) {
        if let Some(tracker) = self.shared_private() {
            tracker.recount_later(swarms);
        }
    }

    fn shared_private(&self) -> Option<&PrivateTracker> {
        self.private().filter(|tracker| tracker.common.is_shared)
    }
}

/// Changes that another node decided, applied as they are.
impl Tracker {
    /// Applies what another node decided about a private peer. `is_counted` means that the
    /// user's history already has what it adds; of the peer, the newer record stands. If its info hash belongs to
    /// another torrent, and its own is unknown, it is kept for [`Self::follow_early`].
    pub fn follow_peer(&self, change: &PeerChange, is_counted: bool, now: Now) {
        if let Some(tracker) = self.private() {
            tracker.follow_peer(change, is_counted, now);
        }
    }

    /// To be called when torrents of the registry have changed: applies what other nodes decided about their private
    /// peers, and what arrived here before that.
    pub fn follow_early(&self, now: Now) {
        if let Some(tracker) = self.private() {
            tracker.follow_early(now);
        }
    }

    /// Applies another node's record of a private peer: the account if it is newer, and the later
    /// location in each family.
    pub fn follow_member(&self, info_hash: InfoHash, member: &Member, now: Now) {
        if let Some(tracker) = self.private() {
            tracker.follow_member(info_hash, member, now);
        }
    }

    /// Applies another node's record of a public peer.
    pub fn follow_guest(
        &self,
        info_hash: InfoHash,
        address: SocketAddr,
        record: &GuestRecord,
        now: Now,
    ) {
        if let Some(tracker) = self.public() {
            tracker.follow_guest(info_hash, address, record, now);
        }
    }

    /// Counts a snatch that another node counted.
    pub fn follow_snatches(&self, info_hash: InfoHash, count: u32) {
        if let Some(tracker) = self.public() {
            tracker.follow_snatches(info_hash, count);
        }
    }
}
