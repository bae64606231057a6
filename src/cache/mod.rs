//! The cache: fast state that nodes share, behind a trait.
//!
//! A driver implements [`Cache`] and [`CacheUpkeep`], and is opened by name from the URL in the
//! config. The driver `memory` is for a single node: it opens nothing, so storage is what makes a
//! batch durable, and what a start loads from.
//!
//! The cache is never the source of truth: that is storage for the registry, and the memory of the
//! nodes for swarms; a batch stays with its node until storage has it. A cache that comes back empty
//! only has to be filled again.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod memory;
pub mod owner;
mod redis;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::ids::{InfoHash, Passkey, PeerId, TorrentId, UserId};
use crate::base::secret::Secret;
use crate::change::sums::Credited;
use crate::change::{
    Batch, Change, GuestRecord, Member, PeerChange, PeerRecord, Standing, SwarmCounts,
};
use crate::registry::{BadRow, ClientPrefix, StoredTorrent, StoredUser, Wipe};

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
}

/// The heartbeat of a node that has shut down cleanly: what storage lacks of its journal is in its spill
/// file.
pub const STOPPED: &str = "stopped";

/// The time in a heartbeat by the clock of the node's host (Unix time); none if it has none.
pub fn time_of(sign: &str) -> Option<i64> {
    sign.split(' ').nth(5)?.parse().ok()
}

/// A number that grows whenever the server is replaced, restarted or emptied, as far as a connection
/// noticed. Within one generation, acknowledged data is not lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

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
        let member = Member {
            user: change.key.user,
            peer_id: change.key.peer_id,
            record: change.record.clone(),
            standing: change.standing,
        };
        let swarm = swarms.entry(change.info_hash).or_default();
        swarm.push(SharedPeer::Member(member));
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

/// One page of an enumeration: unordered, and an item may appear twice.
#[derive(Debug)]
pub struct Scan<T> {
    pub rows: Vec<T>,
    /// Unusable entries.
    pub bad: Vec<BadRow>,
    /// The next cursor; none at the end. A scan begins at 0.
    pub next: Option<u64>,
}

/// How far the registry in the cache follows storage. Set once it is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// The position in storage's feed up to which the cache has the changes.
    pub position: u64,
    /// The identity of that database; without `/`.
    pub storage: String,
    /// [`Cache::evicted`] before the registry was loaded. If it has grown, rows may be missing.
    pub evicted: u64,
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

/// The key of an entry of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryKey {
    User(UserId),
    Torrent(InfoHash),
    Passkey(Passkey),
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
    /// The snatches of all torrents were set to 0.
    SnatchesWiped,
}

/// A position in the feed of notices, in the driver's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPosition(pub String);

/// What a node counted since its last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    pub announces: u64,
    pub scrapes: u64,
    /// Current values: peers in all swarms.
    pub seeders: u64,
    pub leechers: u64,
}

/// A problem of the server, found by [`CacheUpkeep::check`] or [`Cache::inspect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFinding {
    /// What is wrong, in a sentence.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
    /// Only worth knowing: everything works.
    pub is_note: bool,
}

/// What nodes share.
///
/// Every method may be called from any thread and concurrently; none may block the thread that polls
/// it. Every wait is bounded by a timeout, which returns [`CacheError::Away`]. A broken connection is
/// replaced by the next call, limited by a backoff; until then, calls fail at once.
#[async_trait]
pub trait Cache: CacheUpkeep {
    /// Connects if necessary, and checks that the server takes commands.
    async fn ping(&self) -> Result<Generation, CacheError>;

    /// Makes sure that emptying the server from now on begins another generation; returns the current
    /// one.
    async fn begin_epoch(&self) -> Result<Generation, CacheError>;

    /// The identity of the database that this cache belongs to; none if it was not set. The default
    /// does not record it.
    async fn database(&self) -> Result<Option<String>, CacheError> {
        Ok(None)
    }

    /// Assigns the cache to a database, if it belongs to none yet or to `former`; returns which one it
    /// belongs to now. The default does not record it. See [`owner::take`].
    async fn set_database(
        &self,
        database: &str,
        _former: Option<&str>,
    ) -> Result<String, CacheError> {
        Ok(database.to_owned())
    }

    // --- the journal ---

    /// Keeps consecutive batches of one journal until [`Cache::trim_journal`] drops them, and updates
    /// swarms, their counters and users' sets.
    /// [`CacheError::Restarted`], without any effect, if the server is not of `generation`.
    async fn keep(&self, generation: Generation, batches: &[Arc<Batch>]) -> Result<(), CacheError>;

    /// Adds what storage credited to the totals of users and torrents whose rows are here.
    /// [`CacheError::Restarted`], without any effect, if the server is not of `generation`: its rows
    /// are loaded again with the totals of storage.
    async fn add_totals(
        &self,
        generation: Generation,
        credited: &Credited,
    ) -> Result<(), CacheError>;

    /// Drops the batches of a journal up to this number: storage has applied them, and other nodes have
    /// had time to read them.
    async fn trim_journal(&self, journal: &str, number: u64) -> Result<(), CacheError>;

    /// The number of the last batch of a journal that was ever kept here; 0 if none was.
    async fn last_kept(&self, journal: &str) -> Result<u64, CacheError>;

    /// The batches of a journal after `after` that are still kept, oldest first.
    async fn kept(&self, journal: &str, after: u64, limit: u32) -> Result<Vec<Batch>, CacheError>;

    /// Like [`Cache::kept`], but waits up to `wait` if there are none.
    async fn follow(
        &self,
        journal: &str,
        after: u64,
        limit: u32,
        wait: Duration,
    ) -> Result<Vec<Batch>, CacheError>;

    // --- swarms ---

    /// The peers of these torrents; those without any may be left out.
    async fn peers(
        &self,
        torrents: &[InfoHash],
    ) -> Result<Vec<(InfoHash, Vec<SharedPeer>)>, CacheError>;

    /// Writes peers, except members whose record here is newer: its last announce is later by more than clocks
    /// may differ, or else it has more announces. Returns the members that were written.
    async fn put_peers(
        &self,
        swarms: &[(InfoHash, Vec<SharedPeer>)],
    ) -> Result<Vec<(InfoHash, UserId, PeerId)>, CacheError>;

    /// Marks the registry as incomplete: the cache has to be filled again.
    async fn forget_mirrored(&self) -> Result<(), CacheError>;

    /// Adds torrents to users' sets, and removes them.
    async fn put_memberships(&self, memberships: &[Membership]) -> Result<(), CacheError>;

    /// Sets the counters of registered torrents to the present size of their swarms.
    async fn put_counts(&self, counts: &[(InfoHash, SwarmCounts)]) -> Result<(), CacheError>;

    /// Whether all peers that nodes know are here, so that a node may start from them. False once the
    /// server was restarted.
    async fn has_all_peers(&self) -> Result<bool, CacheError>;

    /// Records that all peers were written; fenced like [`Cache::set_mirrored`].
    async fn set_has_all_peers(&self, generation: Generation) -> Result<(), CacheError>;

    /// Records that peers are missing here: a start loads those of storage.
    async fn forget_peers(&self) -> Result<(), CacheError>;

    /// The info hashes of all torrents that have peers here.
    async fn swarms(&self, cursor: u64) -> Result<Scan<InfoHash>, CacheError>;

    /// Scans some swarms from `cursor` on, and removes peers whose last announce is before these times
    /// (Unix time). Returns the next cursor; none at the end.
    async fn prune(
        &self,
        cursor: u64,
        members_before: i64,
        guests_before: i64,
    ) -> Result<Option<u64>, CacheError>;

    /// Removes all peers of these torrents.
    async fn remove_swarms(&self, torrents: &[InfoHash]) -> Result<(), CacheError>;

    // --- the registry ---

    /// How far the registry here follows storage; none if it is incomplete, or if the server was restarted
    /// since.
    async fn mirrored(&self) -> Result<Option<Mirrored>, CacheError>;

    /// [`CacheError::Restarted`], without any effect, if the server is not of `generation`: rows that were
    /// written to an earlier one may be lost.
    async fn set_mirrored(
        &self,
        generation: Generation,
        mirrored: Mirrored,
    ) -> Result<(), CacheError>;

    /// Writes users. Existing counters are left unchanged.
    async fn put_users(&self, users: &[StoredUser], write: Write) -> Result<(), CacheError>;

    /// Writes torrents. Existing counters are left unchanged.
    async fn put_torrents(
        &self,
        torrents: &[StoredTorrent],
        write: Write,
    ) -> Result<(), CacheError>;

    /// Replaces the whitelist; a client that stays in it is missing at no moment.
    async fn put_whitelist(&self, clients: &[ClientPrefix]) -> Result<(), CacheError>;

    async fn remove_users(&self, users: &[UserId]) -> Result<(), CacheError>;

    /// Removes torrents and their peers.
    async fn remove_torrents(&self, torrents: &[InfoHash]) -> Result<(), CacheError>;

    async fn users(&self, cursor: u64) -> Result<Scan<StoredUser>, CacheError>;

    async fn torrents(&self, cursor: u64) -> Result<Scan<StoredTorrent>, CacheError>;

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, CacheError>;

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, CacheError>;

    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, CacheError>;

    /// The user of each passkey, as the web application may look it up.
    async fn passkeys(&self, cursor: u64) -> Result<Scan<(Passkey, UserId)>, CacheError>;

    /// Removes these passkeys; with a user, only those that belong to it.
    async fn remove_passkeys(
        &self,
        passkeys: &[Passkey],
        of: Option<UserId>,
    ) -> Result<(), CacheError>;

    /// The keys of all users and torrents: faster than reading the rows.
    async fn registry_keys(&self, cursor: u64) -> Result<Scan<RegistryKey>, CacheError>;

    // --- the server ---

    /// How many keys the server has evicted since its start.
    async fn evicted(&self) -> Result<u64, CacheError>;

    /// The part of [`CacheUpkeep::check`] that is cheap enough for every few minutes: whether the server
    /// evicts keys, or loses data in a crash. The default checks nothing.
    async fn inspect(&self) -> Result<Vec<CacheFinding>, CacheError> {
        Ok(Vec::new())
    }

    /// Whether acknowledged data survives a crash of the server, because it logs to its disk. False also if
    /// Mika's user may not ask.
    async fn is_persistent(&self) -> Result<bool, CacheError>;

    /// The server's clock (Unix time).
    async fn time(&self) -> Result<i64, CacheError>;

    // --- between nodes ---

    /// Publishes notices to all nodes.
    async fn publish(&self, notices: &[Notice]) -> Result<(), CacheError>;

    /// The end of the feed of notices. To be read before loading, so that no notice is missed.
    async fn control_position(&self) -> Result<ControlPosition, CacheError>;

    /// Whether a node at `position` has read all notices up to `end`.
    fn has_reached(&self, position: &ControlPosition, end: &ControlPosition) -> bool;

    /// Notices after `after`, and the position after them; waits up to `wait` if there are none.
    async fn control(
        &self,
        after: &ControlPosition,
        wait: Duration,
    ) -> Result<(Vec<Notice>, ControlPosition), CacheError>;

    /// Records the heartbeat of a node: `sign` differs at each call. Begins an epoch, too.
    async fn beat(&self, journal: &str, sign: &str) -> Result<(), CacheError>;

    /// All journals with a heartbeat that were not removed by [`Cache::leave`], and their last `sign`.
    async fn nodes(&self) -> Result<Vec<(String, String)>, CacheError>;

    /// Removes a node from the list: it has stopped, and nothing of its journal is left.
    async fn leave(&self, journal: &str) -> Result<(), CacheError>;

    /// Removes a node from the list for good, and deletes its journal. The caller has checked that the
    /// journal is empty.
    async fn forget_journal(&self, journal: &str) -> Result<(), CacheError>;

    /// Acquires or renews a lease for `time`; false if another holder has it.
    async fn lease(&self, name: &str, holder: &str, time: Duration) -> Result<bool, CacheError>;

    /// Adds to the counters of all nodes.
    async fn add_stats(&self, stats: NodeStats) -> Result<(), CacheError>;
}

/// What edits and `mika-manage` need of a cache, beyond what nodes use.
#[async_trait]
pub trait CacheUpkeep: Send + Sync + 'static {
    /// Looks for settings and permissions that prevent Mika from working, or from working safely.
    /// Empty if all is well.
    async fn check(&self) -> Result<Vec<CacheFinding>, CacheError>;

    /// Sets totals of a user in bytes, if the user is here; none leaves one unchanged.
    async fn set_totals(
        &self,
        user: UserId,
        uploaded: Option<u64>,
        downloaded: Option<u64>,
    ) -> Result<(), CacheError>;

    /// Sets the totals of some users or torrents to 0; begins at cursor 0, as a scan does.
    async fn wipe(&self, what: Wipe, cursor: u64) -> Result<Wiped, CacheError>;

    /// Entries that nothing uses, judged by their form alone, and peers that were last seen before
    /// `since` (Unix time).
    async fn leftovers(&self, since: i64, cursor: u64) -> Result<Scan<CacheLeftover>, CacheError>;

    /// Removes leftovers; a counter is set to 0. A [`CacheLeftover::Row`] is removed with all its fields.
    async fn clean(&self, leftovers: &[CacheLeftover]) -> Result<(), CacheError>;
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
#[derive(Clone)]
pub struct CacheDrivers {
    by_name: BTreeMap<&'static str, OpenCache>,
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
        let mut drivers = Self {
            by_name: BTreeMap::new(),
        };
        drivers.register("memory", memory::open);
        drivers.register("redis", redis::open);
        drivers
    }

    /// Adds a driver, or replaces the one of that name.
    pub fn register(&mut self, name: &'static str, open: OpenCache) {
        self.by_name.insert(name, open);
    }

    pub fn get(&self, name: &str) -> Option<OpenCache> {
        self.by_name.get(name).copied()
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.by_name.keys().copied().collect()
    }
}
