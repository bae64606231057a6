//! The cache: fast state that nodes share, behind a trait.
//!
//! A driver implements [`Cache`] and is opened by name from the URL in the config, as with
//! storage. The driver `memory` is for a single node: it opens nothing, so storage is what
//! makes a batch durable, and what a start loads from.
//!
//! What is here is a copy or on its way: the registry's truth is storage, a swarm's the memory
//! of the nodes, and a batch stays with its node until storage has it. So a cache that comes
//! back empty costs nobody anything but the time to fill it again.

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
    /// The server can't do it now (gone, loading, read-only, out of memory): the same call may succeed later.
    #[error("{0}")]
    Away(String),
    /// It can't do it at all (wrong password, a key of another type).
    #[error("{0}")]
    Broken(String),
    /// The server was restarted or exchanged: it may have forgotten what it was given.
    #[error("the cache was restarted")]
    Restarted(Generation),
}

/// The sign of life of a node that has stopped in order: what storage lacks of its journal is in its
/// spill file.
pub const STOPPED: &str = "stopped";

/// What the clock of a node's host said when it gave that sign of life (Unix time); none if it does not say.
pub fn time_of(sign: &str) -> Option<i64> {
    sign.split(' ').nth(5)?.parse().ok()
}

/// Counts the servers, and how often one was restarted or emptied, as a connection has seen it.
/// Within one generation nothing that was acknowledged is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// A peer as nodes share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedPeer {
    /// Of a private torrent; tombstones too.
    Member(Member),
    /// Of a public torrent.
    Guest {
        address: SocketAddr,
        record: GuestRecord,
    },
}

/// The private peers of a batch as they are kept in their swarms.
pub fn members_of(batch: &Batch) -> Vec<(InfoHash, Vec<SharedPeer>)> {
    let peers = batch.changes.iter().filter_map(|change| match change {
        Change::Peer(change) => Some(&**change),
        Change::Snatch { .. } | Change::Guest(_) => None,
    });
    let mut swarms: BTreeMap<InfoHash, Vec<SharedPeer>> = BTreeMap::new();
    for change in peers {
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

/// Where the torrents of a batch belong in users' sets, as far as the batch's records of these
/// peers were written: others are known to be newer.
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

/// Part of an enumeration: in no order, and an item may come twice.
#[derive(Debug)]
pub struct Scan<T> {
    pub rows: Vec<T>,
    /// Entries that can't be used.
    pub bad: Vec<BadRow>,
    /// Where to go on; none at the end. A scan begins at 0.
    pub next: Option<u64>,
}

/// How far the registry in the cache follows storage: set once it is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// The position in storage's feed of changes up to which the cache has them.
    pub position: u64,
    /// The database whose feed that is, as it names itself; without `/`.
    pub storage: String,
    /// [`Cache::evicted`] before the registry was loaded. More by now means that rows may be missing.
    pub evicted: u64,
}

/// In which of a user's sets a torrent belongs; none leaves it as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    pub user: UserId,
    pub torrent: TorrentId,
    /// The user seeds or leeches it now.
    pub active: Option<bool>,
    /// Of these, what is downloaded for the first time.
    pub incomplete: Option<bool>,
    /// Completed once, or seeded now.
    pub complete: Option<bool>,
    /// Hit and run.
    pub hnr: Option<bool>,
}

/// How rows of the registry are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Rows that may be there: a user's former passkey goes.
    Edit,
    /// All rows at once, as fast as it goes; what is of no use any more is removed after it.
    Warmup,
    /// The same into a cache that has none of them: nothing is to be asked before.
    Fill,
}

/// The name of something that the registry keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryKey {
    User(UserId),
    Torrent(InfoHash),
    Passkey(Passkey),
}

/// How far [`Cache::wipe`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiped {
    pub rows: u64,
    /// Where to go on; none at the end.
    pub next: Option<u64>,
}

/// Something in the cache that nobody can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A whole key, in the driver's own terms: one that only older versions read, or that
    /// belongs to a row that is gone.
    Key {
        key: Vec<u8>,
        /// The key as people may see it.
        shown: String,
        problem: &'static str,
    },
    /// A user or torrent that lacks something, or holds what can't be.
    Row(RowKey),
    /// A total below 0 or above [`PLAUSIBLE_MAX`](crate::registry::PLAUSIBLE_MAX).
    Counter { row: RowKey, field: String },
    /// Peers of one swarm that fell silent long ago, or can't be read; `fields` in the driver's own terms.
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

/// What nodes tell each other about the registry: which row to read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    User(UserId),
    Torrent(InfoHash),
    Whitelist,
    /// Everything may have changed.
    Registry,
    /// Peers and users' sets may be older than what nodes know: each brings them up to date.
    Peers,
    /// The snatches of all torrents were set to 0.
    SnatchesWiped,
}

/// A place in the feed of notices, in the driver's own terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPosition(pub String);

/// Numbers that a node counted since it last told them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub announces: u64,
    pub scrapes: u64,
    /// Not counted but as they are: peers in all swarms.
    pub seeders: u64,
    pub leechers: u64,
}

/// What is the matter with the server, found by [`Cache::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, in a sentence.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
    /// It works as it is.
    pub is_note: bool,
}

/// What nodes share.
///
/// Every method may be called from any thread and at the same time as others; none may block
/// the thread that polls it. Every wait is bounded: what does not come in time is
/// [`CacheError::Away`]. A connection that broke is made anew by the next call, not more often
/// than a back-off allows; between, calls fail at once.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// Connects if need be, and asks whether the server takes commands.
    async fn ping(&self) -> Result<Generation, CacheError>;

    /// Sees to it that a server which is emptied from here on is of another generation; the present one.
    async fn begin_epoch(&self) -> Result<Generation, CacheError>;

    /// The database that all in here belongs to, by its storage's identity; none while nobody has
    /// said so. By default there is no telling.
    async fn database(&self) -> Result<Option<String>, CacheError> {
        Ok(None)
    }

    /// Says that all in here belongs to that database, if it is nobody's yet or that of `former`;
    /// returns whose it is now. By default it is that of whoever asks. See [`owner::take`].
    async fn set_database(
        &self,
        database: &str,
        _former: Option<&str>,
    ) -> Result<String, CacheError> {
        Ok(database.to_owned())
    }

    // --- the journal ---

    /// Keeps consecutive batches of one node until [`Cache::applied`] lets them go, and brings
    /// swarms, their counters and users' sets up to date.
    /// [`CacheError::Restarted`], and nothing done, if the server is not of `generation`.
    async fn keep(&self, generation: Generation, batches: &[Arc<Batch>]) -> Result<(), CacheError>;

    /// Adds what storage credited to the totals of users and torrents whose rows are here.
    /// [`CacheError::Restarted`], and nothing done, if the server is not of `generation`: rows
    /// come back with the totals that storage has.
    async fn add_totals(
        &self,
        generation: Generation,
        credited: &Credited,
    ) -> Result<(), CacheError>;

    /// Storage has applied the batches of that node up to this number, and other nodes have had
    /// time to read them: they may go.
    async fn applied(&self, node: &str, number: u64) -> Result<(), CacheError>;

    /// The number of the last batch of that node that was ever kept here; 0 if none was.
    async fn last_kept(&self, node: &str) -> Result<u64, CacheError>;

    /// Batches of that node after `after` that are still kept, oldest first.
    async fn kept(&self, node: &str, after: u64, limit: u32) -> Result<Vec<Batch>, CacheError>;

    /// The same, but waits up to `wait` if there are none.
    async fn follow(
        &self,
        node: &str,
        after: u64,
        limit: u32,
        wait: Duration,
    ) -> Result<Vec<Batch>, CacheError>;

    // --- swarms ---

    /// The peers of those torrents; a torrent without any may be left out.
    async fn peers(
        &self,
        torrents: &[InfoHash],
    ) -> Result<Vec<(InfoHash, Vec<SharedPeer>)>, CacheError>;

    /// Writes peers, but leaves members that are newer here: of two records, the one with more
    /// announces is the newer one, or that whose last announce is later by more than clocks differ.
    /// Returns the members that were written.
    async fn put_peers(
        &self,
        swarms: &[(InfoHash, Vec<SharedPeer>)],
    ) -> Result<Vec<(InfoHash, UserId, PeerId)>, CacheError>;

    /// The registry is not complete any more: somebody has to fill the cache again.
    async fn forget_mirrored(&self) -> Result<(), CacheError>;

    /// Puts torrents into users' sets, and takes them out.
    async fn put_memberships(&self, memberships: &[Membership]) -> Result<(), CacheError>;

    /// Brings the counters of registered torrents up to what their swarms have now.
    async fn put_counts(&self, counts: &[(InfoHash, SwarmCounts)]) -> Result<(), CacheError>;

    /// Whether all peers that nodes know are here: then a node may start from them. Not so once the
    /// server was restarted.
    async fn has_all_peers(&self) -> Result<bool, CacheError>;

    /// Says that all peers were written, with the same care as [`Cache::set_mirrored`].
    async fn set_has_all_peers(&self, generation: Generation) -> Result<(), CacheError>;

    /// Not all peers are here any more: a start takes those of storage.
    async fn forget_peers(&self) -> Result<(), CacheError>;

    /// The info hashes of all torrents that have peers here.
    async fn swarms(&self, cursor: u64) -> Result<Scan<InfoHash>, CacheError>;

    /// Looks through some swarms from `cursor` on, and removes peers whose last announce is before
    /// those moments (Unix time). Returns where to go on; none at the end.
    async fn prune(
        &self,
        cursor: u64,
        members_before: i64,
        guests_before: i64,
    ) -> Result<Option<u64>, CacheError>;

    /// Removes all peers of those torrents.
    async fn remove_swarms(&self, torrents: &[InfoHash]) -> Result<(), CacheError>;

    // --- the registry ---

    /// How far the registry here follows storage; none if it is not complete, or if the server was
    /// restarted since that was said.
    async fn mirrored(&self) -> Result<Option<Mirrored>, CacheError>;

    /// [`CacheError::Restarted`], and nothing done, if the server is not of `generation`: rows that
    /// were written to an earlier one may be forgotten.
    async fn set_mirrored(
        &self,
        generation: Generation,
        mirrored: Mirrored,
    ) -> Result<(), CacheError>;

    /// Writes users. Counters that are there stay as they are.
    async fn put_users(&self, users: &[StoredUser], write: Write) -> Result<(), CacheError>;

    /// Writes torrents. Counters that are there stay as they are.
    async fn put_torrents(
        &self,
        torrents: &[StoredTorrent],
        write: Write,
    ) -> Result<(), CacheError>;

    /// Makes the whitelist what is given, without a moment in which a client that stays is missing.
    async fn put_whitelist(&self, clients: &[ClientPrefix]) -> Result<(), CacheError>;

    async fn remove_users(&self, users: &[UserId]) -> Result<(), CacheError>;

    /// Removes torrents, and their peers.
    async fn remove_torrents(&self, torrents: &[InfoHash]) -> Result<(), CacheError>;

    async fn users(&self, cursor: u64) -> Result<Scan<StoredUser>, CacheError>;

    async fn torrents(&self, cursor: u64) -> Result<Scan<StoredTorrent>, CacheError>;

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, CacheError>;

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, CacheError>;

    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, CacheError>;

    /// Whose each passkey is, as the web application may ask for it.
    async fn passkeys(&self, cursor: u64) -> Result<Scan<(Passkey, UserId)>, CacheError>;

    /// Removes those passkeys; if a user is named, each only as far as it is theirs.
    async fn remove_passkeys(
        &self,
        passkeys: &[Passkey],
        of: Option<UserId>,
    ) -> Result<(), CacheError>;

    /// What there is of users and torrents, by name alone: faster than reading the rows.
    async fn registry_keys(&self, cursor: u64) -> Result<Scan<RegistryKey>, CacheError>;

    // --- upkeep ---

    /// How many keys the server has thrown away since its start, to make room.
    async fn evicted(&self) -> Result<u64, CacheError>;

    /// Looks for settings and permissions that Mika can't work with, or not safely. An empty
    /// list is good.
    async fn check(&self) -> Result<Vec<Finding>, CacheError>;

    /// The part of [`Cache::check`] that is cheap enough for every few minutes, and says whether the
    /// server throws keys away or keeps nothing over a crash. By default there is nothing to look at.
    async fn inspect(&self) -> Result<Vec<Finding>, CacheError> {
        Ok(Vec::new())
    }

    /// Whether what was acknowledged is there after a crash of the server: it writes a log to its
    /// disk. False also if Mika's user may not ask.
    async fn is_persistent(&self) -> Result<bool, CacheError>;

    /// The server's clock (Unix time).
    async fn time(&self) -> Result<i64, CacheError>;

    /// Sets totals of a user in bytes, if the user is here; none leaves one as it is.
    async fn set_totals(
        &self,
        user: UserId,
        uploaded: Option<u64>,
        downloaded: Option<u64>,
    ) -> Result<(), CacheError>;

    /// Sets the totals of part of all users or torrents to 0; begins at 0 as a scan does.
    async fn wipe(&self, what: Wipe, cursor: u64) -> Result<Wiped, CacheError>;

    /// What is of no use by its form alone; peers that were last heard of before `since`
    /// (Unix time) too.
    async fn leftovers(&self, since: i64, cursor: u64) -> Result<Scan<Leftover>, CacheError>;

    /// Removes it; a counter is set to 0. A [`Leftover::Row`] goes with all its fields.
    async fn clean(&self, leftovers: &[Leftover]) -> Result<(), CacheError>;

    // --- between nodes ---

    /// Tells every node.
    async fn publish(&self, notices: &[Notice]) -> Result<(), CacheError>;

    /// The end of the feed of notices. Read it before loading, so that nothing falls between.
    async fn control_position(&self) -> Result<ControlPosition, CacheError>;

    /// Whether whoever followed the notices to `position` has read all up to `end`.
    fn has_reached(&self, position: &ControlPosition, end: &ControlPosition) -> bool;

    /// Notices after `after`, and the position after them; waits up to `wait` if there are none.
    async fn control(
        &self,
        after: &ControlPosition,
        wait: Duration,
    ) -> Result<(Vec<Notice>, ControlPosition), CacheError>;

    /// Says that this node runs: `sign` is another at each call. Begins an epoch, too.
    async fn beat(&self, node: &str, sign: &str) -> Result<(), CacheError>;

    /// All nodes that ever said so and did not take leave, with their last sign.
    async fn nodes(&self) -> Result<Vec<(String, String)>, CacheError>;

    /// Takes a node off the list: it has stopped, and nothing of its journal is left.
    async fn leave(&self, node: &str) -> Result<(), CacheError>;

    /// Takes a node off the list, and forgets its journal: it is gone for good. The caller has seen that
    /// nothing is kept there.
    async fn forget_journal(&self, node: &str) -> Result<(), CacheError>;

    /// Takes or renews the lease of that name for `time`; false if somebody else holds it.
    async fn lease(&self, name: &str, holder: &str, time: Duration) -> Result<bool, CacheError>;

    /// Adds to the counters of all nodes.
    async fn add_stats(&self, stats: Stats) -> Result<(), CacheError>;
}

/// Opens a cache from its URL; none where nodes share nothing. Called once at start; it need not connect.
pub type OpenCache = fn(&Secret) -> Result<Option<Arc<dyn Cache>>, CacheError>;

/// The cache drivers by name.
#[derive(Clone)]
pub struct Drivers {
    by_name: BTreeMap<&'static str, OpenCache>,
}

// === impl Membership ===

impl Membership {
    /// Where a torrent belongs after an announce that left this record and standing.
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

    /// The same where the standing is not known.
    pub fn of_record(user: UserId, torrent: TorrentId, record: &PeerRecord) -> Self {
        let known = Self::of(user, torrent, record, &Standing::default());
        Self {
            complete: known.complete.filter(|is_in| *is_in),
            hnr: None,
            ..known
        }
    }
}

// === impl Drivers ===

impl Drivers {
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
