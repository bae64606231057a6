//! Storage: the SQL database of the web application, behind a trait.
//!
//! A *driver* implements [`Storage`] and is opened by name from the URL in the config. The drivers of
//! this crate are listed in [`StorageDrivers::built_in`]; other programs may add theirs with
//! [`StorageDrivers::register`]. The trait documents what a driver must do, and `contract.rs` (feature
//! `contract`) tests it.

pub mod batches;
mod blocking;
mod claim;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod driver;
mod hosts;
mod identity;
mod info_dict;
pub mod memory;
pub mod migrate;
mod mysql;
mod passed_over;
mod postgres;
mod rows;
pub mod settle;
pub mod sql;
mod sqlite;
pub mod touched;
mod unusable;
mod values;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use self::sql::statements::Schema;
use crate::base::drivers::DriverTable;
use crate::base::secret::Secret;
use crate::registry::RowChange;

pub use crate::registry::{BadRow, PLAUSIBLE_MAX, StoredTorrent, StoredUser, UserTotals, Wipe};
pub use blocking::blocking;
pub use claim::Claim;
pub use driver::Storage;
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
    /// This driver or schema does not do it; what, in words such as "lists of users".
    #[error("this storage does not support {0}")]
    Unsupported(String),
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

/// What a call to storage gives, or why it failed.
pub type StorageResult<T> = Result<T, StorageError>;

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

/// The rules by which storage settles reports; by default those of the config (`docs/config.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, SmartDefault)]
pub struct CreditRules {
    /// The most bytes a second that a line is believed to carry (rule A7).
    #[default(2_500_000_000)]
    pub max_rate: u64,
    /// Seconds of seeding required after a download.
    #[default(14 * 86_400)]
    pub hnr_threshold: u32,
    /// Downloads up to this many bytes require no seeding.
    #[default(50 << 20)]
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
pub type OpenStorage = fn(&StorageConfig) -> StorageResult<Arc<dyn Storage>>;

/// Whether the URL is one for that driver; any, if the driver is not of this crate.
pub fn check_url(driver: &str, url: &Secret) -> Result<(), String> {
    match driver {
        "mysql" => mysql::check_url(url),
        "postgres" => postgres::check_url(url),
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

/// Whether the schema and its statements can be understood, without the database. Drivers that are not of this crate
/// see to that when they open.
pub fn check_statements(driver: &str, config: &StorageConfig) -> StorageResult<()> {
    let built_in = built_in(driver);
    if built_in.is_empty() {
        return Ok(());
    }
    let schema = sql::statements::chosen(built_in, config)?;
    sql::statements(schema, config).map(drop)
}

/// The schemas of a driver, each with its name and the file of its statements; none of a driver that is not of this crate.
pub fn schemas(driver: &str) -> Vec<(&'static str, &'static str)> {
    let text = |schema: &Schema| (schema.name, schema.statements);
    built_in(driver).iter().map(text).collect()
}

fn built_in(driver: &str) -> &'static [Schema] {
    match driver {
        "mysql" => mysql::schemas(),
        "postgres" => postgres::schemas(),
        "sqlite" => sqlite::schemas(),
        _ => &[],
    }
}

/// The file of an embedded database; none for a server, or if the URL is wrong.
pub fn file_of(driver: &str, url: &Secret) -> Option<PathBuf> {
    (driver == "sqlite").then(|| sqlite::file_of(url)).flatten()
}

// === impl StorageError ===

impl StorageError {
    /// [`StorageError::Away`], from what a client or the system says: never a password or a passkey.
    pub fn away(problem: impl Display) -> Self {
        Self::Away(problem.to_string())
    }

    /// [`StorageError::Broken`], likewise.
    pub fn broken(problem: impl Display) -> Self {
        Self::Broken(problem.to_string())
    }
}

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
pub type StorageDrivers = DriverTable<OpenStorage>;

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
        let mysql: OpenStorage = mysql::open;
        Self::from([
            ("mysql", mysql),
            ("postgres", postgres::open),
            ("sqlite", sqlite::open),
        ])
    }
}
