//! Storage: the SQL database of the web application, behind a trait.
//!
//! A *driver* implements [`Storage`] and is opened by name from the URL in the
//! config. Drivers of this crate are listed in [`Drivers::built_in`]; a program of
//! your own may add others with [`Drivers::register`]. What a driver must do stands
//! at the trait, and `contract.rs` (feature `contract`) tests it.

pub mod batches;
mod claim;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod identity;
pub mod migrate;
mod mysql;
mod passed_over;
mod rows;
mod schema;
pub mod settle;
mod sqlite;
pub mod touched;
mod triggers;
mod unusable;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::base::secret::Secret;
use crate::change::sums::Credited;
use crate::change::{Batch, PeerKey};
use crate::registry::{ClientPrefix, RowChange};

pub use crate::registry::{BadRow, PLAUSIBLE_MAX, StoredTorrent, StoredUser, UserTotals, Wipe};
pub use claim::Claim;
pub use migrate::MigrationStatus;
pub use rows::{
    Added, Find, Found, History, NewTorrent, NewUser, Page, SortKey, StoredPeer, TorrentKey,
    TorrentPatch, TorrentRemoval, UserKey, UserPatch, UserTorrents, no_passkey,
};

/// Why a call to storage failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Somebody has it already: the passkey, the info hash, the prefix.
    #[error("{0} exists already")]
    Duplicate(String),
    /// The row to change is not there.
    #[error("{0} not found")]
    NotFound(String),
    /// The database refuses a value, or the row that is meant has none: too long for its column,
    /// characters that the column lacks, and so on. Names the column; nothing was changed.
    #[error("{0}")]
    Invalid(String),
    /// The database can't do it now (gone, locked, disk full): the same call may succeed later.
    #[error("{0}")]
    Away(String),
    /// The database can't do it at all (missing table, wrong type, damaged file).
    #[error("{0}")]
    Broken(String),
    /// Batches that come before those to apply are not there. If they were applied before, storage
    /// went back: it was restored, or is a replica that lacked them.
    #[error("batch {first} of journal {journal} can't be applied: storage has it up to {applied}")]
    Behind {
        journal: String,
        /// The number of the last batch that storage has; 0 if it has none.
        applied: u64,
        /// The first of the batches that it was to apply.
        first: u64,
    },
}

/// A position in the feed of registry changes: all changes up to it are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedPosition(pub u64);

/// What changed in the registry since a [`FeedPosition`].
#[derive(Debug)]
pub enum Feed {
    /// The changes in order, and the position after them.
    Changes(Vec<RowChange>, FeedPosition),
    /// The position is older than what is kept: load the whole registry again.
    Lost,
}

/// What is the matter with a row or table, found by [`Storage::check`] and [`Storage::inspect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// What is wrong, in a sentence.
    pub problem: String,
    /// What to do about it, in one line that is safe to follow.
    pub hint: String,
}

/// The rules by which storage settles reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditRules {
    /// Bytes a second that no line carries more than (rule A7).
    pub max_rate: u64,
    /// Seconds of seeding that a user owes for a download.
    pub hnr_threshold: u32,
    /// Downloads up to this many bytes oblige to nothing.
    pub hnr_min_bytes: u64,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; everything works.
    Note,
    /// Something does not work.
    Problem,
    /// Credit would be wrong: the daemon does not start.
    Fatal,
}

/// A web application's database, as the tracker uses it.
///
/// Every method may be called from any thread and at the same time as others.
/// None may block the thread that polls it: a blocking client runs on threads of
/// its own. Every wait is bounded; what does not come in time is [`StorageError::Away`].
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    // --- tables ---

    /// Whether the database is Mika's own file, whose tables are made without a word; those of
    /// a server stand among somebody's own, who is asked.
    fn is_embedded(&self) -> bool {
        false
    }

    /// Reserves the storage for this process; [`StorageError::Broken`] if another has it.
    /// A daemon with the memory cache claims its storage, for two of them would not know of
    /// each other's peers and credit; `mika-manage` does not. The claim ends with the process, however that ends. By default there is nothing to claim.
    async fn claim(&self) -> Result<Claim, StorageError> {
        Ok(Claim::default())
    }

    /// Creates or updates Mika's own tables; returns the names of the migrations that it applied.
    async fn migrate(&self) -> Result<Vec<String>, StorageError>;

    /// Every migration that this version knows, and whether the database has it.
    async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError>;

    /// Looks for tables, columns and rows that the tracker can't work with. An empty list is good.
    async fn check(&self) -> Result<Vec<Finding>, StorageError>;

    /// The part of [`Storage::check`] that is cheap enough for every few minutes: whether triggers,
    /// tables and the session are still as Mika needs them. By default there is nothing to look at.
    async fn inspect(&self) -> Result<Vec<Finding>, StorageError> {
        Ok(Vec::new())
    }

    /// Whether what it has confirmed outlives a crash or a fail-over, by its settings: part of
    /// [`Storage::check`], and looked at once by each daemon. By default there is nothing to say.
    async fn durability(&self) -> Result<Vec<Finding>, StorageError> {
        Ok(Vec::new())
    }

    /// Which database this is: a random text that [`Storage::migrate`] makes once and keeps in the
    /// database. So it is the same by whatever host name or replica the database is reached, and goes along
    /// with a move or a dump: a copy has it, too. 1 to 64 letters and digits;
    /// [`StorageError::Broken`] before the first migration.
    async fn identity(&self) -> Result<String, StorageError>;

    /// Gives the database another identity, and returns that: a copy that is used beside its original
    /// needs one. No daemon may run on it. By default it can't be done.
    async fn renew_identity(&self) -> Result<String, StorageError> {
        let problem = "this database can't be given another identity";
        Err(StorageError::Broken(problem.into()))
    }

    /// Whether changes of the registry can be followed by [`Storage::feed`]. Without a feed it never
    /// tells of any, and nodes read the whole registry at each start and reload.
    fn has_feed(&self) -> bool {
        true
    }

    /// The database's own clock (Unix time); none if it has none but this host's.
    async fn time(&self) -> Result<Option<i64>, StorageError> {
        Ok(None)
    }

    /// Unix time of the newest announce that a peer record has; none if there are no records. A start
    /// without a cache goes on from there.
    async fn newest_announce(&self) -> Result<Option<i64>, StorageError> {
        Ok(None)
    }

    /// Unix time of the newest last announce before `before` that the record of a peer which is gone
    /// has; none if there is none. A start without a cache sees from it whether its time leapt.
    async fn last_gone(&self, before: i64) -> Result<Option<i64>, StorageError> {
        let _ = before;
        Ok(None)
    }

    // --- reading, by pages in the order of the key: `after` is the last key of the page before ---

    async fn users(
        &self,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Page<StoredUser>, StorageError>;

    async fn torrents(
        &self,
        after: Option<TorrentId>,
        limit: u32,
    ) -> Result<Page<StoredTorrent>, StorageError>;

    /// Peer records that are active, however old, or whose last announce is not before `since`
    /// (Unix time). Active ones that nobody took up for long are still to be let go.
    async fn peers(
        &self,
        since: i64,
        after: Option<PeerKey>,
        limit: u32,
    ) -> Result<Page<StoredPeer>, StorageError>;

    /// What users did with torrents, ordered by torrent and user.
    async fn histories(
        &self,
        after: Option<(TorrentId, UserId)>,
        limit: u32,
    ) -> Result<Page<History>, StorageError>;

    /// All histories and peer records of one torrent: what a torrent that is registered again
    /// goes on from.
    async fn records_of(
        &self,
        torrent: TorrentId,
    ) -> Result<(Vec<History>, Vec<StoredPeer>), StorageError>;

    /// Those of these torrents that have any history or peer record.
    async fn with_records(&self, torrents: &[TorrentId]) -> Result<Vec<TorrentId>, StorageError>;

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, StorageError>;

    /// The rows of the whitelist that can't be used.
    async fn bad_clients(&self) -> Result<Vec<BadRow>, StorageError>;

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, StorageError>;

    /// Whether that user is there, but has no passkey yet: [`Storage::user`] passes such a one over.
    async fn is_unfinished(&self, id: UserId) -> Result<bool, StorageError>;

    /// All users of that name; names need not be unique in every web application.
    async fn users_named(&self, name: &str) -> Result<Vec<StoredUser>, StorageError>;

    /// The torrent with that info hash, be it its first or its second.
    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, StorageError>;

    // --- looking up, for people and programs; nothing that announces wait for ---

    /// Rows that can't be used are left out, but count in the total.
    async fn find_users(&self, find: &Find<UserKey>) -> Result<Found<StoredUser>, StorageError>;

    /// Rows that can't be used are left out, but count in the total.
    async fn find_torrents(
        &self,
        find: &Find<TorrentKey>,
    ) -> Result<Found<StoredTorrent>, StorageError>;

    /// What that user has to do with torrents, as far as batches were applied.
    async fn torrents_of(&self, user: UserId) -> Result<UserTorrents, StorageError>;

    // --- following ---

    /// The newest position of the feed. Read it before loading, so that nothing falls between.
    async fn feed_position(&self) -> Result<FeedPosition, StorageError>;

    /// Registry changes after `position`, whoever made them: `mika-manage` or plain SQL.
    /// At most `limit` at a time; an empty list means that nothing changed.
    async fn feed(&self, position: FeedPosition, limit: u32) -> Result<Feed, StorageError>;

    // --- editing the registry ---

    /// Adds a user; [`StorageError::Duplicate`] if the passkey or the id is taken.
    async fn add_user(&self, user: &NewUser) -> Result<UserId, StorageError> {
        let mut added = self.add_users(std::slice::from_ref(user)).await?;
        match added.pop() {
            Some(Ok(Some(id))) => Ok(id),
            Some(Err(problem)) => Err(StorageError::Invalid(problem)),
            Some(Ok(None)) | None => {
                let taken = "a user with that id or passkey";
                Err(StorageError::Duplicate(taken.into()))
            }
        }
    }

    /// Adds users in one transaction; for each, the id, none if that or the passkey is taken, or
    /// why the database refuses that row.
    async fn add_users(&self, users: &[NewUser]) -> Result<Vec<Added<UserId>>, StorageError>;

    /// Changes the given fields; [`StorageError::NotFound`] without such a user.
    async fn update_user(&self, id: UserId, patch: &UserPatch) -> Result<(), StorageError>;

    /// Adds torrents in one transaction; for each, its id, none if that or one of its info hashes
    /// is taken, or why the database refuses that row.
    async fn add_torrents(
        &self,
        torrents: &[NewTorrent],
    ) -> Result<Vec<Added<TorrentId>>, StorageError>;

    /// Changes the given fields; [`StorageError::NotFound`] without such a torrent.
    async fn update_torrent(&self, id: TorrentId, patch: &TorrentPatch)
    -> Result<(), StorageError>;

    /// Removes torrents in one transaction, with their peer records; returns how many went. Those
    /// that are not there, or not as their [`TorrentRemoval`] wants them, are passed over. A schema may be
    /// unable to do it, and then removes none.
    async fn remove_torrents(&self, torrents: &[TorrentRemoval]) -> Result<u64, StorageError>;

    /// Adds clients or renames them, in one transaction.
    async fn add_clients(&self, clients: &[ClientPrefix]) -> Result<(), StorageError>;

    /// [`StorageError::NotFound`] without such a prefix.
    async fn remove_client(&self, prefix: &str) -> Result<(), StorageError>;

    // --- the journal ---

    /// The number of the last batch of that journal that was applied; 0 if none was.
    async fn applied(&self, journal: &str) -> Result<u64, StorageError>;

    /// The number of the last applied batch of every journal that is known; 0 for one that has none yet.
    async fn journals(&self) -> Result<Vec<(String, u64)>, StorageError>;

    /// Forgets the number of a journal that has ended, if it is still this one; whether it was. From
    /// then on, its batches count from 1 again.
    async fn forget_journal(&self, journal: &str, applied: u64) -> Result<bool, StorageError>;

    /// Gives up the batches of a journal up to `number` that storage lacks: the next one to apply is the
    /// one after. Nothing happens if storage has them.
    async fn begin_at(&self, journal: &str, number: u64) -> Result<(), StorageError>;

    /// Applies consecutive batches of one journal and records the number of the last, in one
    /// transaction. Batches whose number was recorded before are left alone and count as applied,
    /// so repeating them is harmless (rule A9). Users and torrents that are gone are passed over.
    /// Reports are settled against the rows that are there, in that transaction: each counts
    /// once, whichever node it came to and in whatever order (rule A8b). A record that is older than
    /// the one that is there leaves it ([`replaces`](crate::change::RecordAge::replaces)).
    /// A batch whose forerunner is missing is refused as [`StorageError::Behind`].
    /// Returns what was credited, and nothing for batches that were applied before.
    async fn apply(
        &self,
        batches: &[Arc<Batch>],
        rules: &CreditRules,
    ) -> Result<Credited, StorageError>;

    /// Deletes inactive peer records whose last announce is before `before` (Unix time),
    /// at most `limit` of them; returns how many went.
    async fn prune(&self, before: i64, limit: u32) -> Result<u64, StorageError>;

    /// Sets the totals of users or torrents to 0, at most `limit` rows after `after` in the order
    /// of their id; returns the last id that it did, or none when there are no more. Nothing
    /// else changes: not the histories, not the counters of who is in a swarm now.
    async fn wipe(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Option<u32>, StorageError>;

    /// Looks at `limit` rows after `after`, in the order of their id, for totals that can't be:
    /// below 0 or above [`PLAUSIBLE_MAX`]. Returns what it found and the last id that it looked
    /// at; none when there are no more.
    async fn absurd(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> Result<(Vec<Absurd>, Option<u32>), StorageError>;

    /// Sets those totals of these rows to 0 that can't be; the others stay.
    async fn mend(&self, what: Wipe, ids: &[u32]) -> Result<(), StorageError>;
}

/// A row with totals that can't be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absurd {
    pub id: u32,
    /// The names of those totals.
    pub fields: Vec<&'static str>,
}

/// Where a storage is, and how its tables are used.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub url: Secret,
    /// The name of the schema: which web application's tables these are.
    pub schema: String,
    /// Statements that stand in for those of the schema, by name.
    pub statements: BTreeMap<String, String>,
}

/// Opens a storage. Called once at start; it must not create tables, and need not connect.
pub type OpenStorage = fn(&Place) -> Result<Arc<dyn Storage>, StorageError>;

/// The file of a database that is one; none for a server, or if the URL is wrong.
pub fn file_of(driver: &str, url: &Secret) -> Option<PathBuf> {
    (driver == "sqlite").then(|| sqlite::file_of(url)).flatten()
}

// === impl StorageError ===

impl From<Finding> for StorageError {
    fn from(finding: Finding) -> Self {
        Self::Broken(format!("{}: {}", finding.problem, finding.hint))
    }
}

// === impl Finding ===

impl Finding {
    pub fn note(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Note, problem, hint)
    }

    pub fn problem(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Problem, problem, hint)
    }

    pub fn fatal(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, problem, hint)
    }

    fn new(severity: Severity, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity,
            problem: problem.into(),
            hint: hint.into(),
        }
    }
}

/// The storage drivers by name.
#[derive(Clone)]
pub struct Drivers {
    by_name: BTreeMap<&'static str, OpenStorage>,
}

// === impl CreditRules ===

impl Default for CreditRules {
    /// What the config says by default (`docs/config.md`).
    fn default() -> Self {
        Self {
            max_rate: 2_500_000_000,
            hnr_threshold: 14 * 24 * 3600,
            hnr_min_bytes: 50 << 20,
        }
    }
}

// === impl Place ===

impl Place {
    pub fn of(url: &Secret, schema: &str, statements: &BTreeMap<String, String>) -> Self {
        Self {
            url: url.clone(),
            schema: schema.to_owned(),
            statements: statements.clone(),
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
        drivers.register("mysql", mysql::open);
        drivers.register("sqlite", sqlite::open);
        drivers
    }

    /// Adds a driver, or replaces the one of that name.
    pub fn register(&mut self, name: &'static str, open: OpenStorage) {
        self.by_name.insert(name, open);
    }

    pub fn get(&self, name: &str) -> Option<OpenStorage> {
        self.by_name.get(name).copied()
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.by_name.keys().copied().collect()
    }
}
