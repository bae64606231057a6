//! The effects of announces as data, which the journal carries to cache and storage.

mod age;
pub mod codec;
pub mod journals;
pub mod packed;
pub mod sums;

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::accounting::machines::MachineId;
use crate::accounting::sessions::{Point, Stretch};
use crate::base::ids::{InfoHash, PeerId, TorrentId, UserId};
use crate::base::memory::{CHANGES_CLASS, size_class};

use self::codec::Lines;

pub use age::{CLOCK_SKEW, RecordAge};

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
    /// 2^63−1 while none was reported.
    pub base_up: u64,
    pub base_down: u64,
    /// The `started` that began the session of each total, with its Unix time, where the node knows it (rule A3).
    pub start_up: Option<Point>,
    pub start_down: Option<Point>,
    /// Unix time since which the client has reported less than its base (rule A3).
    pub dip_up: Option<i64>,
    pub dip_down: Option<i64>,
    /// Unix time at which the base was set: what a credit's rate is measured from (rule A7).
    pub base_at: i64,
    /// Bytes counted from this record's reports, before multipliers.
    pub uploaded: u64,
    pub downloaded: u64,
    /// Bytes still to download; none if unknown.
    pub left: Option<u64>,
    pub v4: Option<SocketAddrV4>,
    pub v6: Option<SocketAddrV6>,
    /// Unix time at which each endpoint was last seen, or given up if there is none. None means the last
    /// announce; but if an active peer has no such endpoint, that nothing is known of the family.
    pub v4_at: Option<i64>,
    pub v6_at: Option<i64>,
    /// Bytes a second over the last interval.
    pub speed_up: u32,
    pub speed_down: u32,
    /// Seconds of seeding counted for this record.
    pub seed_time: u32,
    pub announces: u32,
    /// Unix times.
    pub first_announce: i64,
    pub last_announce: i64,
    /// In the swarm now; false for a tombstone, which is kept for its base.
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
    /// Before multipliers, for the torrent's totals and the history.
    pub raw_up: u64,
    pub raw_down: u64,
    /// Seconds.
    pub seed_time: u32,
    pub announces: u32,
    /// This announce completed the torrent for its user, which counts once (rule W5).
    pub snatched: bool,
}

/// A user's snatch and hit-and-run mark for one torrent, over all sessions and clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Unix time of the snatch.
    pub completed_at: Option<i64>,
    /// Hit and run: left the swarm with too little seed time.
    pub hnr: bool,
}

/// A client's report, which storage settles against its row (rule A8b).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The totals; none if the client did not report one.
    pub up: Option<Stretch>,
    pub down: Option<Stretch>,
    /// The machine that it is from, if several have that peer id.
    pub machine: Option<MachineId>,
    /// Unix time of the (last) announce, in seconds.
    pub at: i64,
    /// Unix time since which the client has been seeding until `at`; none if it was not.
    pub seeding_since: Option<i64>,
    pub announces: u32,
    /// The client completed the torrent, and was no seeder before.
    pub completed: bool,
    /// The user's last remaining client left the swarm, as far as the node knows.
    pub left: bool,
    /// Credit for a byte uploaded or downloaded, in thousandths (rule A8).
    pub multi_up: u32,
    pub multi_down: u32,
}

/// The counters of a swarm after an announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwarmCounts {
    pub seeders: u32,
    pub leechers: u32,
}

/// A report of a private peer, and its record after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerChange {
    pub key: PeerKey,
    /// The info hash under which the torrent's swarm is kept.
    pub info_hash: InfoHash,
    pub record: PeerRecord,
    /// The credit that the node expects; storage decides.
    pub credit: Credit,
    /// None in a journal of an old version, whose nodes decided the credit: then `credit` counts.
    pub report: Option<Report>,
    pub standing: Standing,
    pub counts: SwarmCounts,
}

const _: () = assert!(size_class(size_of::<PeerChange>()) == CHANGES_CLASS);

/// A private peer as nodes share it; tombstones too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub user: UserId,
    pub peer_id: PeerId,
    pub record: PeerRecord,
    pub standing: Standing,
}

/// A public peer after an announce. Nodes share it; storage ignores it.
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

/// One entry of the journal. Small, because a flush may have one for each announce. Snatches are not boxed:
/// without a shared cache, a public tracker journals nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A private peer announced, stopped or expired.
    Peer(Box<PeerChange>),
    /// Public peers completed a torrent: how many since the last flush.
    Snatches { info_hash: InfoHash, count: u32 },
    /// A public peer announced, stopped or expired. Storage ignores it.
    Guest(Box<GuestChange>),
}

/// Changes that are applied atomically, under a number that never repeats.
#[derive(Debug)]
pub struct Batch {
    /// The journal that numbered it ([`journals`]).
    pub journal: String,
    /// Counts from 1, without gaps.
    pub number: u64,
    pub changes: Vec<Change>,
    /// Its text, while somebody uses it.
    lines: Mutex<Weak<Lines>>,
}

/// Marks a peer whose id several machines share (rule A3), in place of both dips: 0 if they are told apart by
/// IPv4, 1 by IPv6. No real dip has such a Unix time.
pub fn shared_mark(is_v6: bool) -> (Option<i64>, Option<i64>) {
    let mark = Some(is_v6.into());
    (mark, mark)
}

/// Whether several machines share a peer id, and by which family they are told apart: true for IPv6.
pub fn shared_family(dip_up: Option<i64>, dip_down: Option<i64>) -> Option<bool> {
    [false, true]
        .into_iter()
        .find(|is_v6| (dip_up, dip_down) == shared_mark(*is_v6))
}

// === impl Batch ===

impl Batch {
    pub fn new(journal: String, number: u64, changes: Vec<Change>) -> Self {
        Self {
            journal,
            number,
            changes,
            lines: Mutex::default(),
        }
    }

    /// Its changes as text. Spill file and cache want it at about the same time: who comes second waits for the
    /// first, and gets the same.
    pub fn lines(&self) -> Arc<Lines> {
        let mut shared = self.lines.lock();
        shared.upgrade().unwrap_or_else(|| {
            let lines = Arc::new(Lines::of(self.changes.iter()));
            *shared = Arc::downgrade(&lines);
            lines
        })
    }
}

impl Clone for Batch {
    fn clone(&self) -> Self {
        Self::new(self.journal.clone(), self.number, self.changes.clone())
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        (&self.journal, self.number, &self.changes)
            == (&other.journal, other.number, &other.changes)
    }
}

impl Eq for Batch {}

// === impl Change ===

impl Change {
    /// The private peer that it is about, if it is.
    pub fn peer(&self) -> Option<&PeerChange> {
        match self {
            Self::Peer(peer) => Some(peer),
            _ => None,
        }
    }

    /// The public peer that it is about, if it is.
    pub fn guest(&self) -> Option<&GuestChange> {
        match self {
            Self::Guest(guest) => Some(guest),
            _ => None,
        }
    }
}

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

// === impl PeerRecord ===

impl PeerRecord {
    pub fn age(&self) -> RecordAge {
        RecordAge {
            announces: self.announces,
            first_announce: self.first_announce,
            last_announce: self.last_announce,
            active: self.active,
        }
    }
}

// === impl Report ===

impl Report {
    /// Joins this report and the next one; none if that is impossible, because
    /// a total began again between them.
    pub fn then(&self, later: &Self) -> Option<Self> {
        let is_same_rate = (self.multi_up, self.multi_down) == (later.multi_up, later.multi_down);
        if self.left || !is_same_rate || self.machine != later.machine {
            return None;
        }
        let seeding_since = match (self.seeding_since, later.seeding_since) {
            (Some(since), Some(next)) if next <= self.at => Some(since),
            (Some(_), _) => return None,
            (None, next) => next,
        };
        Some(Self {
            up: joined(self.up, later.up)?,
            down: joined(self.down, later.down)?,
            seeding_since,
            announces: self.announces.saturating_add(later.announces),
            completed: self.completed || later.completed,
            ..*later
        })
    }
}

/// Joins both stretches; the outer option is none if they are of two sessions.
#[allow(clippy::option_option)]
fn joined(earlier: Option<Stretch>, later: Option<Stretch>) -> Option<Option<Stretch>> {
    match (earlier, later) {
        (Some(earlier), Some(later)) => earlier.then(&later).map(Some),
        (only, None) | (None, only) => Some(only),
    }
}

// === impl PeerChange ===

impl PeerChange {
    /// The peer as nodes share it.
    pub fn member(&self) -> Member {
        Member {
            user: self.key.user,
            peer_id: self.key.peer_id,
            record: self.record.clone(),
            standing: self.standing,
        }
    }

    /// Whether it is a `started` whose totals continue the session before it (rule A2).
    pub fn continues_session(&self) -> bool {
        let is_start = |stretch: Option<Stretch>, start: Option<Point>| {
            stretch.is_some_and(|stretch| {
                Some(stretch.to) == start && stretch.from.total < stretch.to.total
            })
        };
        let (report, record) = (self.report.as_ref(), &self.record);
        is_start(report.and_then(|report| report.up), record.start_up)
            || is_start(report.and_then(|report| report.down), record.start_down)
    }
}

// === impl Credit ===

impl Credit {
    /// The sum of this credit and a later one.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_want_the_text_at_the_same_time_get_the_same() {
        let changes = vec![Change::Snatches {
            info_hash: InfoHash([7; 20]),
            count: 3,
        }];
        let text = codec::encode(&changes);
        let batch = Batch::new("a".into(), 1, changes);
        let (one, other) = (batch.lines(), batch.lines());
        assert_eq!(one.text, text);
        assert!(Arc::ptr_eq(&one, &other));
        drop((one, other));
        assert!(batch.lines.lock().upgrade().is_none(), "it is not kept");
        assert_eq!(batch.lines().text, text);
    }
}
