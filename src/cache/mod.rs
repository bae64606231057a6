//! The cache: fast state that nodes share, behind a trait.
//!
//! A driver implements [`Cache`] and [`CacheUpkeep`] (docs/drivers.md), and is opened by name from the URL in the
//! config. The driver `memory` is for a single node: it opens nothing, so storage is what makes a
//! batch durable, and what a start loads from.
//!
//! The cache is never the source of truth: that is storage for the registry, and the memory of the
//! nodes for swarms; a batch stays with its node until storage has it. A cache that comes back empty
//! only has to be filled again.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod driver;
mod heartbeat;
mod marks;
mod memory;
pub mod owner;
mod redis;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::drivers::DriverTable;
use crate::base::ids::{InfoHash, Passkey, PeerId, TorrentId, UserId};
use crate::base::secret::Secret;
use crate::change::{Batch, Change, GuestRecord, Member, PeerChange, PeerRecord, Standing};
use crate::registry::{BadRow, ClientPrefix, StoredTorrent, StoredUser, Torrent, User};

#[cfg(feature = "contract")]
pub use self::redis::{RedisDial, RedisWire, open_over as open_redis_over};
pub use driver::{Cache, CacheUpkeep};
pub use heartbeat::{NodeReport, STOPPED, host_of, sent_at, time_of};
pub use marks::{Mark, Mirrored};

/// Why a call to the cache failed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The server can't do it now (gone, loading, read-only, out of memory): a retry may succeed.
    #[error("{0}")]
    Away(String),
    /// It can't do it at all (wrong password, a key of another type).
    #[error("{0}")]
    Broken(String),
    /// The server was restarted or replaced: it may have lost acknowledged data.
    #[error("the cache was restarted")]
    Restarted(Generation),
    /// What was scanned is being moved between servers: some of it may have been missed.
    #[error(
        "the cache moves keys from one server to another, so that a scan may miss some: try again later"
    )]
    Moving,
}

/// A number that grows whenever the server is replaced, restarted or emptied, as far as a connection
/// noticed. Within one generation, acknowledged data is not lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// How far the leftover of an ended journal was replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Storage had all batches up to this one, and the cache had the peers of those that it kept.
    pub number: u64,
    /// When that was first seen (Unix time).
    pub at: i64,
}

/// A peer as nodes share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedPeer {
    /// Of a private torrent; includes tombstones.
    Member(Member),
    /// Of a public torrent.
    Guest {
        address: SocketAddr,
        record: GuestRecord,
    },
}

/// The private peers of a batch as they are kept in their swarms.
pub fn members_of(batch: &Batch) -> Vec<(InfoHash, Vec<SharedPeer>)> {
    let mut swarms: BTreeMap<InfoHash, Vec<SharedPeer>> = BTreeMap::new();
    for change in &batch.changes {
        let Change::Peer(change) = change else {
            continue;
        };
        let swarm = swarms.entry(change.info_hash).or_default();
        swarm.push(SharedPeer::Member(change.member()));
    }
    swarms.into_iter().collect()
}

/// The set memberships that follow from a batch, for the peers in `written` only: the cache has newer
/// records of the others.
pub fn memberships_of(batch: &Batch, written: &[(InfoHash, UserId, PeerId)]) -> Vec<Membership> {
    let written: HashSet<_> = written.iter().copied().collect();
    let mut latest: BTreeMap<(UserId, TorrentId), &PeerChange> = BTreeMap::new();
    for change in &batch.changes {
        let Change::Peer(change) = change else {
            continue;
        };
        let key = &change.key;
        if written.contains(&(change.info_hash, key.user, key.peer_id)) {
            latest.insert((key.user, key.torrent), change);
        }
    }
    let membership = |change: &PeerChange| {
        let key = &change.key;
        Membership::of(key.user, key.torrent, &change.record, &change.standing)
    };
    latest.into_values().map(membership).collect()
}

/// The last change of each peer in consecutive batches of one journal, in their order, as one batch.
fn last_changes(batches: &[Batch]) -> Option<Batch> {
    let last = batches.last()?;
    let mut known = HashSet::new();
    let mut changes = Vec::new();
    for change in batches.iter().flat_map(|batch| &batch.changes).rev() {
        if let Change::Peer(peer) = change
            && known.insert((peer.info_hash, peer.key.user, peer.key.peer_id))
        {
            changes.push(change.clone());
        }
    }
    changes.reverse();
    Some(Batch::new(last.journal.clone(), last.number, changes))
}

/// One page of an enumeration: unordered, and an item may appear twice.
#[derive(Debug)]
pub struct Scan<T> {
    pub rows: Vec<T>,
    /// Unusable entries.
    pub bad: Vec<BadRow>,
    /// The next cursor; none at the end. A scan begins at 0.
    pub next: Option<u64>,
}

/// Some users and torrents, as a node needs them: without names and totals.
#[derive(Debug)]
pub struct RegistryScan {
    pub users: Vec<User>,
    pub torrents: Vec<Torrent>,
    /// Unusable entries.
    pub bad: Vec<BadRow>,
    /// Where the next ones begin; none at the end.
    pub next: Option<RegistryCursor>,
}

/// A place in a scan of users and torrents. A driver that finds both in one scan needs the first kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryCursor {
    Users(u64),
    Torrents(u64),
}

/// Which of a user's sets a torrent belongs to; none leaves that set unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    pub user: UserId,
    pub torrent: TorrentId,
    /// The user seeds or leeches it now.
    pub active: Option<bool>,
    /// Active, and being downloaded for the first time.
    pub incomplete: Option<bool>,
    /// Completed once, or seeded now.
    pub complete: Option<bool>,
    /// Hit and run.
    pub hnr: Option<bool>,
}

/// How rows of the registry are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Rows that may exist: a user's former passkey is removed.
    Edit,
    /// All rows in bulk; obsolete entries are removed afterwards.
    Warmup,
    /// All rows in bulk into a cache that has none of them: nothing is read first.
    Fill,
}

/// Rows of the registry to write.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    Users(&'a [StoredUser]),
    Torrents(&'a [StoredTorrent]),
    /// The whole whitelist.
    Whitelist(&'a [ClientPrefix]),
}

/// Which keys [`Cache::keys`] enumerates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySet {
    /// Users, torrents, and passkeys without their users: faster than reading the rows.
    Registry,
    /// Passkeys with their users, as the web application may look them up.
    Passkeys,
    /// Swarms that have peers.
    Swarms,
}

/// The key of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheKey {
    User(UserId),
    /// A torrent; its peers are removed with it.
    Torrent(InfoHash),
    /// The peers of a torrent.
    Swarm(InfoHash),
    /// A passkey; with a user, only while it belongs to that user.
    Passkey(Passkey, Option<UserId>),
}

/// How far [`CacheUpkeep::wipe`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiped {
    pub rows: u64,
    /// The next cursor; none at the end.
    pub next: Option<u64>,
}

/// An entry of the cache that nothing uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheLeftover {
    /// A whole key in the driver's form: one that only older versions read, or that belongs to a
    /// deleted row.
    Key {
        key: Vec<u8>,
        /// The key without secrets.
        shown: String,
        problem: &'static str,
    },
    /// A user or torrent with missing or invalid fields.
    Row(RowKey),
    /// A total below 0 or above [`PLAUSIBLE_MAX`](crate::registry::PLAUSIBLE_MAX).
    Counter { row: RowKey, field: String },
    /// Peers of one swarm that fell silent long ago, or can't be read; `fields` in the driver's form.
    Peers {
        torrent: InfoHash,
        fields: Vec<Vec<u8>>,
    },
}

/// Which row of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowKey {
    User(UserId),
    Torrent(InfoHash),
}

/// A notification to all nodes: what to read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    User(UserId),
    Torrent(InfoHash),
    Whitelist,
    /// Everything may have changed.
    Registry,
    /// Peers and users' sets may be outdated: each node writes its own.
    Peers,
    /// The same, from the process with that journal, which has done so.
    PeersBy(String),
    /// The snatches of all torrents were set to 0.
    SnatchesWiped,
    /// A node starts: its journal is to be followed.
    Node,
}

/// A position in the feed of notices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPosition {
    /// The run of the server, which a restart ends.
    pub run: String,
    /// The last entry that was read, in the driver's numbers.
    pub entry: (u64, u64),
}

/// What a node counted since its last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    pub announces: u64,
    pub scrapes: u64,
    /// Current values: peers in all swarms.
    pub seeders: u64,
    pub leechers: u64,
}

/// A problem of the server, found by [`CacheUpkeep::check`] or [`CacheUpkeep::inspect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFinding {
    /// What is wrong, in a sentence.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
    /// Only worth knowing: everything works.
    pub is_note: bool,
}

/// Opens a cache from its URL; none if nodes share nothing. Called once at start; it need not connect.
pub type OpenCache = fn(&Secret) -> Result<Option<Arc<dyn Cache>>, CacheError>;

/// Checks that the URL fits that driver; any URL fits a driver that is not of this crate.
pub fn check_url(driver: &str, url: &Secret) -> Result<(), String> {
    match driver {
        "memory" => memory::check_url(url),
        "redis" => redis::check_url(url),
        _ => Ok(()),
    }
}

/// What is probably wrong with a URL of that driver, if anything.
pub fn url_warning(driver: &str, url: &Secret) -> Option<String> {
    (driver == "redis")
        .then(|| redis::url_warning(url))
        .flatten()
}

/// The cache drivers by name.
pub type CacheDrivers = DriverTable<OpenCache>;

// === impl Scan ===

impl RegistryCursor {
    /// Where a scan begins.
    pub const START: Self = Self::Users(0);
}

impl<T> Scan<T> {
    /// All rows on one page.
    pub fn whole(rows: Vec<T>) -> Self {
        Self {
            rows,
            bad: Vec::new(),
            next: None,
        }
    }
}

// === impl ControlPosition ===

impl ControlPosition {
    /// Whether whoever is here has read all notices up to `end`. Positions of two runs can't be compared, so the
    /// answer is false; the next read detects the restart.
    pub fn has_reached(&self, end: &Self) -> bool {
        self.run == end.run && self.entry >= end.entry
    }
}

// === impl Membership ===

impl Membership {
    /// The membership after an announce that left this record and standing.
    pub fn of(user: UserId, torrent: TorrentId, record: &PeerRecord, standing: &Standing) -> Self {
        let is_complete = standing.completed_at.is_some();
        let has_all = record.left == Some(0);
        let active = record.active;
        Self {
            user,
            torrent,
            active: Some(active),
            incomplete: Some(active && !has_all && !is_complete),
            complete: Some(is_complete || (active && has_all)),
            hnr: Some(standing.hnr),
        }
    }

    /// The membership of a record whose standing is unknown.
    pub fn of_record(user: UserId, torrent: TorrentId, record: &PeerRecord) -> Self {
        let known = Self::of(user, torrent, record, &Standing::default());
        Self {
            complete: known.complete.filter(|is_in| *is_in),
            hnr: None,
            ..known
        }
    }
}

// === impl CacheDrivers ===

impl CacheDrivers {
    /// The drivers of this crate.
    pub fn built_in() -> Self {
        let memory: OpenCache = memory::open;
        Self::from([("memory", memory), ("redis", redis::open)])
    }
}
