//! Storage: the SQL database of the web application, behind a trait.
//!
//! A *driver* implements [`Storage`] and is opened by name from the URL in the config. The drivers of
//! this crate are listed in [`StorageDrivers::built_in`]; other programs may add theirs with
//! [`StorageDrivers::register`]. The trait documents what a driver must do, and `contract.rs` (feature
//! `contract`) tests it.

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
    Added, Find, Found, NewTorrent, NewUser, Page, SortKey, StoredHistory, StoredPeer, TorrentKey,
    TorrentPatch, TorrentRemoval, UserKey, UserPatch, UserTorrents, no_passkey,
};

/// Why a call to storage failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A unique value is taken: a passkey, info hash or prefix.
    #[error("{0} exists already")]
    Duplicate(String),
    /// The row to change does not exist.
    #[error("{0} not found")]
    NotFound(String),
    /// The database refuses a value: too long for its column, characters that the column lacks, NULL, and
    /// so on. Names the column; nothing was changed.
    #[error("{0}")]
    Invalid(String),
    /// The database can't do it now (gone, locked, disk full): a retry may succeed.
    #[error("{0}")]
    Away(String),
    /// The database can't do it at all (missing table, wrong type, damaged file).
    #[error("{0}")]
    Broken(String),
    /// Batches before those to apply are missing. If they were applied before, storage was restored to an
    /// older state, or is a replica that lacks them.
    #[error("batch {first} of journal {journal} can't be applied: storage has it up to {applied}")]
    Behind {
        journal: String,
        /// The number of the last batch that storage has; 0 if it has none.
        applied: u64,
        /// The number of the first batch to apply.
        first: u64,
    },
}

/// A position in the feed of registry changes: all changes up to it were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedPosition(pub u64);

/// What changed in the registry since a [`FeedPosition`].
#[derive(Debug)]
pub enum Feed {
    /// The changes in order, and the position after them.
    Changes(Vec<RowChange>, FeedPosition),
    /// The position is older than the feed: load the whole registry again.
    Lost,
}

/// A problem of a row or table, found by [`Storage::check`] or [`Storage::inspect`].
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
    /// The most bytes a second that a line is believed to carry (rule A7).
    pub max_rate: u64,
    /// Seconds of seeding required after a download.
    pub hnr_threshold: u32,
    /// Downloads up to this many bytes require no seeding.
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
/// Every method may be called from any thread and concurrently. None may block the thread that polls it:
/// a blocking client runs on its own threads. Every wait is bounded by a timeout, which returns
/// [`StorageError::Away`].
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    // --- tables ---

    /// Whether the database is Mika's own file, where a start creates the tables. On a server, which others
    /// use too, an administrator does.
    fn is_embedded(&self) -> bool {
        false
    }

    /// Reserves the storage for this process; [`StorageError::Broken`] if another has it.
    /// A daemon with the memory cache claims its storage, because two of them would not know each other's
    /// peers and credit; `mika-manage` does not. The claim ends with the process, however that ends. By
    /// default there is nothing to claim.
    async fn claim(&self) -> Result<Claim, StorageError> {
        Ok(Claim::default())
    }

    /// Creates or updates Mika's own tables; returns the names of the migrations that it applied.
    async fn migrate(&self) -> Result<Vec<String>, StorageError>;

    /// Every migration that this version knows, and whether the database has it.
    async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError>;

    /// Looks for tables, columns and rows that the tracker can't work with. Empty if all is well.
    async fn check(&self) -> Result<Vec<Finding>, StorageError>;

    /// The part of [`Storage::check`] that is cheap enough for every few minutes: whether triggers,
    /// tables and the session are still as Mika needs them. The default checks nothing.
    async fn inspect(&self) -> Result<Vec<Finding>, StorageError> {
        Ok(Vec::new())
    }

    /// Checks the settings that decide whether committed data survives a crash or a fail-over: part of
    /// [`Storage::check`], and checked once by each daemon. The default checks nothing.
    async fn durability(&self) -> Result<Vec<Finding>, StorageError> {
        Ok(Vec::new())
    }

    /// The identity of the database: a random text of 1 to 64 letters and digits that [`Storage::migrate`]
    /// makes once and stores in it. It does not depend on host name or replica, and is kept by a move or a
    /// dump, so a copy has it, too. [`StorageError::Broken`] before the first migration.
    async fn identity(&self) -> Result<String, StorageError>;

    /// Replaces the identity of the database, and returns the new one: a copy that is used beside its
    /// original needs one. No daemon may run on it. Unsupported by default.
    async fn renew_identity(&self) -> Result<String, StorageError> {
        let problem = "this database can't be given another identity";
        Err(StorageError::Broken(problem.into()))
    }

    /// Whether changes of the registry can be followed by [`Storage::feed`]. If not, the feed is always
    /// empty, and nodes read the whole registry at each start and reload.
    fn has_feed(&self) -> bool {
        true
    }

    /// The database's own clock (Unix time); none if it uses this host's.
    async fn time(&self) -> Result<Option<i64>, StorageError> {
        Ok(None)
    }

    /// The newest announce in any peer record (Unix time); none without records. A start without a cache
    /// does not set its clock before it.
    async fn newest_announce(&self) -> Result<Option<i64>, StorageError> {
        Ok(None)
    }

    /// The newest last announce before `before` in the record of an inactive peer (Unix time); none if there
    /// is none. A start without a cache detects from it that its clock leapt.
    async fn last_gone(&self, before: i64) -> Result<Option<i64>, StorageError> {
        let _ = before;
        Ok(None)
    }

    // --- reading, by pages in the order of the key: `after` is the last key of the previous page ---

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
    /// (Unix time). Old active ones were not restored by any node, and are still to be expired.
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
    ) -> Result<Page<StoredHistory>, StorageError>;

    /// All histories and peer records of one torrent, for a torrent that is registered again.
    async fn records_of(
        &self,
        torrent: TorrentId,
    ) -> Result<(Vec<StoredHistory>, Vec<StoredPeer>), StorageError>;

    /// The torrents of these that have any history or peer record.
    async fn with_records(&self, torrents: &[TorrentId]) -> Result<Vec<TorrentId>, StorageError>;

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, StorageError>;

    /// The rows of the whitelist that can't be used.
    async fn bad_clients(&self) -> Result<Vec<BadRow>, StorageError>;

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, StorageError>;

    /// Whether the user exists but has no passkey yet: [`Storage::user`] returns none for it.
    async fn is_unfinished(&self, id: UserId) -> Result<bool, StorageError>;

    /// All users of that name; names are not unique in every web application.
    async fn users_named(&self, name: &str) -> Result<Vec<StoredUser>, StorageError>;

    /// The torrent with that first or second info hash.
    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, StorageError>;

    // --- searching; announces do not wait for any of these ---

    /// Rows that can't be used are left out, but count in the total.
    async fn find_users(&self, find: &Find<UserKey>) -> Result<Found<StoredUser>, StorageError>;

    /// Rows that can't be used are left out, but count in the total.
    async fn find_torrents(
        &self,
        find: &Find<TorrentKey>,
    ) -> Result<Found<StoredTorrent>, StorageError>;

    /// The torrents of a user, by what batches have recorded.
    async fn torrents_of(&self, user: UserId) -> Result<UserTorrents, StorageError>;

    // --- following ---

    /// The newest position of the feed. To be read before loading, so that no change is missed.
    async fn feed_position(&self) -> Result<FeedPosition, StorageError>;

    /// Registry changes after `position`, whether made by `mika-manage` or plain SQL. At most `limit` at a
    /// time; empty if nothing changed.
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

    /// Adds users in one transaction. Returns for each the id, none if id or passkey is taken, or why the
    /// database refuses the row.
    async fn add_users(&self, users: &[NewUser]) -> Result<Vec<Added<UserId>>, StorageError>;

    /// Changes the given fields; [`StorageError::NotFound`] without such a user.
    async fn update_user(&self, id: UserId, patch: &UserPatch) -> Result<(), StorageError>;

    /// Adds torrents in one transaction. Returns for each the id, none if it or an info hash is taken, or
    /// why the database refuses the row.
    async fn add_torrents(
        &self,
        torrents: &[NewTorrent],
    ) -> Result<Vec<Added<TorrentId>>, StorageError>;

    /// Changes the given fields; [`StorageError::NotFound`] without such a torrent.
    async fn update_torrent(&self, id: TorrentId, patch: &TorrentPatch)
    -> Result<(), StorageError>;

    /// Removes torrents with their peer records in one transaction; returns how many. Those that do not
    /// exist, or do not meet their [`TorrentRemoval`], are skipped. A schema that does not support it removes
    /// none.
    async fn remove_torrents(&self, torrents: &[TorrentRemoval]) -> Result<u64, StorageError>;

    /// Adds clients or renames them, in one transaction.
    async fn add_clients(&self, clients: &[ClientPrefix]) -> Result<(), StorageError>;

    /// [`StorageError::NotFound`] without such a prefix.
    async fn remove_client(&self, prefix: &str) -> Result<(), StorageError>;

    // --- the journal ---

    /// The number of the last applied batch of a journal; 0 if none was.
    async fn last_applied(&self, journal: &str) -> Result<u64, StorageError>;

    /// The number of the last applied batch of every known journal; 0 for one without.
    async fn journals(&self) -> Result<Vec<(String, u64)>, StorageError>;

    /// Forgets the number of an ended journal if it is still `applied`; returns whether it was. From then on,
    /// its batches count from 1 again.
    async fn forget_journal(&self, journal: &str, applied: u64) -> Result<bool, StorageError>;

    /// Gives up the batches of a journal up to `number` that storage lacks: the next one to apply is
    /// `number + 1`. No effect if storage has them.
    async fn begin_at(&self, journal: &str, number: u64) -> Result<(), StorageError>;

    /// Applies consecutive batches of one journal and records the number of the last, in one
    /// transaction. Idempotent: batches up to the recorded number are skipped (rule A9). Deleted users and
    /// torrents are skipped. Reports are settled against the existing rows in that transaction: each counts
    /// once, whichever node received it and in whatever order (rule A8b). A record does not replace a newer
    /// one ([`replaces`](crate::change::RecordAge::replaces)). If a batch before them is missing, fails with
    /// [`StorageError::Behind`]. Returns what was credited, which is nothing for skipped batches.
    async fn apply(
        &self,
        batches: &[Arc<Batch>],
        rules: &CreditRules,
    ) -> Result<Credited, StorageError>;

    /// Deletes inactive peer records whose last announce is before `before` (Unix time),
    /// at most `limit` of them; returns how many.
    async fn prune(&self, before: i64, limit: u32) -> Result<u64, StorageError>;

    /// Sets the totals of users or torrents to 0, at most `limit` rows after `after` in the order
    /// of their id; returns the last id, or none when there are no more. Histories and the counters of
    /// present peers do not change.
    async fn wipe(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Option<u32>, StorageError>;

    /// Checks `limit` rows after `after`, in the order of their id, for totals below 0 or above
    /// [`PLAUSIBLE_MAX`]. Returns them and the last id checked; none when there are no more.
    async fn invalid_totals(
        &self,
        what: Wipe,
        after: Option<u32>,
        limit: u32,
    ) -> Result<(Vec<InvalidTotals>, Option<u32>), StorageError>;

    /// Sets the invalid totals of these rows to 0; the others stay.
    async fn fix_totals(&self, what: Wipe, ids: &[u32]) -> Result<(), StorageError>;
}

/// A row with totals that are impossible: see [`Storage::invalid_totals`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTotals {
    pub id: u32,
    /// The names of the invalid totals.
    pub fields: Vec<&'static str>,
}

/// Which database to open, and with which statements.
#[derive(Clone, Debug, Default)]
pub struct StorageConfig {
    pub url: Secret,
    /// The name of the schema, which is that of a web application.
    pub schema: String,
    /// Statements that replace those of the schema, by name.
    pub statements: BTreeMap<String, String>,
}

/// Opens a storage. Called once at start; it must not create tables, and need not connect.
pub type OpenStorage = fn(&StorageConfig) -> Result<Arc<dyn Storage>, StorageError>;

/// Whether the URL is one for that driver; any, if the driver is not of this crate.
pub fn check_url(driver: &str, url: &Secret) -> Result<(), String> {
    match driver {
        "mysql" => mysql::check_url(url),
        "sqlite" => sqlite::check_url(url),
        _ => Ok(()),
    }
}

/// Whether the driver may have that schema. Which schemas a server's driver knows, it says when it
/// opens.
pub fn check_schema(driver: &str, schema: &str) -> Result<(), String> {
    match driver {
        "sqlite" => sqlite::check_schema(schema),
        _ if schema.is_empty() => {
            Err(r#"expected the name of a schema, such as "mika", found """#.into())
        }
        _ => Ok(()),
    }
}

/// Whether the driver takes those statements in place of the schema's.
pub fn check_statements(driver: &str, statements: &BTreeMap<String, String>) -> Result<(), String> {
    match driver {
        "sqlite" => sqlite::check_statements(statements),
        _ => Ok(()),
    }
}

/// The file of an embedded database; none for a server, or if the URL is wrong.
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
pub struct StorageDrivers {
    by_name: BTreeMap<&'static str, OpenStorage>,
}

// === impl CreditRules ===

impl Default for CreditRules {
    /// The defaults of the config (`docs/config.md`).
    fn default() -> Self {
        Self {
            max_rate: 2_500_000_000,
            hnr_threshold: 14 * 24 * 3600,
            hnr_min_bytes: 50 << 20,
        }
    }
}

// === impl StorageConfig ===

impl StorageConfig {
    pub fn of(url: &Secret, schema: &str, statements: &BTreeMap<String, String>) -> Self {
        Self {
            url: url.clone(),
            schema: schema.to_owned(),
            statements: statements.clone(),
        }
    }
}

// === impl StorageDrivers ===

impl StorageDrivers {
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
