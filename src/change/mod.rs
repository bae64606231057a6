//! What announces did, as data: the journal carries it to cache and storage.

pub mod codec;

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::ids::{InfoHash, PeerId, TorrentId, UserId};

/// The identity of a private peer and of its accounting record (rule W1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey {
    pub user: UserId,
    pub torrent: TorrentId,
    pub peer_id: PeerId,
}

/// A private peer's record as it stands after an announce. Absolute values: the latest one wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// The totals last reported and accounted, in bytes: the *base* of the next credit (rule A2);
    /// 2^63−1 while the client has reported none.
    pub base_up: u64,
    pub base_down: u64,
    /// Unix time since which the client reports less than its base (rule A3).
    pub dip_up: Option<i64>,
    pub dip_down: Option<i64>,
    /// Unix time at which the base was set: what a credit's rate is measured from (rule A7).
    pub base_at: i64,
    /// Bytes counted from this record's reports, before multipliers.
    pub uploaded: u64,
    pub downloaded: u64,
    /// Bytes that the client still lacks; none if it did not say.
    pub left: Option<u64>,
    pub v4: Option<SocketAddrV4>,
    pub v6: Option<SocketAddrV6>,
    /// Bytes a second over the last interval.
    pub speed_up: u32,
    pub speed_down: u32,
    /// Seconds of seeding counted for this record.
    pub seed_time: u32,
    pub announces: u32,
    /// Unix times.
    pub first_announce: i64,
    pub last_announce: i64,
    /// In the swarm now; false for a tombstone, which keeps the base only.
    pub active: bool,
    /// The latest announce was `event=paused` (BEP 21).
    pub paused: bool,
}

/// What one or more announces add to the totals of user and torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Bytes for the user's totals, multipliers applied (rule A8).
    pub up: u64,
    pub down: u64,
    /// The same before multipliers, for the torrent's totals and the history.
    pub raw_up: u64,
    pub raw_down: u64,
    /// Seconds.
    pub seed_time: u32,
    pub announces: u32,
    /// This announce completed the torrent for its user, once for ever (rule W5).
    pub snatched: bool,
}

/// What one user did with one torrent, over all sessions and clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Unix time of the snatch.
    pub completed_at: Option<i64>,
    /// Hit and run: left the swarm with too little seed time.
    pub hnr: bool,
}

/// The counters of a swarm after an announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwarmCounts {
    pub seeders: u32,
    pub leechers: u32,
}

/// Base and credit of one private peer: what must never be parted (rule A9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerChange {
    pub key: PeerKey,
    /// The info hash under which the torrent's swarm is kept.
    pub info_hash: InfoHash,
    pub record: PeerRecord,
    pub credit: Credit,
    pub standing: Standing,
    pub counts: SwarmCounts,
}

/// A private peer as nodes share it; tombstones too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub user: UserId,
    pub peer_id: PeerId,
    pub record: PeerRecord,
    pub standing: Standing,
}

/// A public peer as it stands after an announce. Storage knows nothing of it; nodes share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct GuestRecord {
    pub peer_id: PeerId,
    /// The key that its client sends, if it does.
    pub key: Option<u32>,
    pub seeder: bool,
    pub paused: bool,
    /// Its snatch was counted (rule W5).
    pub counted: bool,
    /// Unix time.
    pub last_announce: i64,
    /// False once it has stopped.
    pub active: bool,
}

/// A public peer and its torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestChange {
    pub info_hash: InfoHash,
    pub address: SocketAddr,
    pub record: GuestRecord,
}

/// One entry of the journal. Small, because there are as many of them at once as announces in a
/// flush, and most of a public tracker's are snatches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A private peer announced, stopped or expired.
    Peer(Box<PeerChange>),
    /// A public peer completed a torrent.
    Snatch { info_hash: InfoHash },
    /// A public peer announced, stopped or expired. Storage passes it over.
    Guest(Box<GuestChange>),
}

/// Changes that are applied together or not at all, under a number that never repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The node that numbered it.
    pub node: String,
    /// Counts from 1, without gaps.
    pub number: u64,
    pub changes: Vec<Change>,
}

// === impl Change ===

impl From<PeerChange> for Change {
    fn from(change: PeerChange) -> Self {
        Self::Peer(Box::new(change))
    }
}

impl From<GuestChange> for Change {
    fn from(change: GuestChange) -> Self {
        Self::Guest(Box::new(change))
    }
}

// === impl Credit ===

impl Credit {
    /// The credit of this announce and a later one together.
    pub fn plus(self, later: Self) -> Self {
        Self {
            up: self.up.saturating_add(later.up),
            down: self.down.saturating_add(later.down),
            raw_up: self.raw_up.saturating_add(later.raw_up),
            raw_down: self.raw_down.saturating_add(later.raw_down),
            seed_time: self.seed_time.saturating_add(later.seed_time),
            announces: self.announces.saturating_add(later.announces),
            snatched: self.snatched || later.snatched,
        }
    }
}
