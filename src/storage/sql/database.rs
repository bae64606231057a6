//! What a SQL driver implements: connections that run statements. What the statements mean is the engine's.

use std::sync::Arc;

use async_trait::async_trait;

use super::cells::{Cell, SqlRows};
use super::statements::{Schema, Statement};
use crate::base::ids::InfoHash;
use crate::storage::values::{RefusedValue, text_of_hash};
use crate::storage::{Claim, Finding, MigrationStatus, StorageError};

/// What a job does, so that a driver can give it the right connection and time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Read,
    Write,
    /// It reads whole tables, which may take minutes.
    WholeTables,
}

/// Why a statement failed.
#[derive(Debug)]
pub struct SqlFault {
    pub kind: FaultKind,
    /// What to tell people.
    pub error: StorageError,
}

/// What the engine can do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing.
    Final,
    /// A deadlock or a lock conflict: the transaction may succeed if it is run again.
    Collision,
    /// The connection ended: a job that may be repeated is run again on a new one.
    Lost,
    /// A unique key is violated; its name.
    Duplicate(String),
    /// A value does not fit its column, or a constraint or trigger of the site refuses it.
    Refused(RefusedValue),
    /// A column of the site's needs a value that the statement does not give: which, in the database's words.
    NoDefault(String),
}

/// How a column holds info hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashForm {
    Bytes,
    /// 40 hexadecimal digits, or the bytes as characters of Windows-1252.
    Text {
        is_hex: bool,
        /// Puts a text literal of the dialect around the column's character set; `{}` is the text in hex.
        literal: String,
    },
}

/// A database, as a driver reaches it.
#[async_trait]
pub trait SqlDatabase: Send + Sync + 'static {
    /// See [`crate::storage::Storage::is_embedded`].
    fn is_embedded(&self) -> bool {
        false
    }

    /// Whose tables these are.
    fn schema(&self) -> &'static Schema;

    /// A connection that works, for one job.
    async fn session(&self, job: Use) -> Result<Box<dyn SqlSession + '_>, SqlFault>;

    /// See [`crate::storage::Storage::claim`]. `identity` is that of the database.
    async fn claim(&self, identity: &str) -> Result<Claim, StorageError>;

    /// See [`crate::storage::Storage::migrate`].
    async fn migrate(&self) -> Result<Vec<String>, StorageError>;

    /// See [`crate::storage::Storage::migrations`].
    async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError>;

    /// Looks at the server, the tables, the statements and the account's privileges, but not at rows. Returns
    /// what it found, and whether rows can be read and checked.
    async fn check(&self) -> Result<(Vec<Finding>, bool), StorageError>;

    /// See [`crate::storage::Storage::check_schema`].
    async fn check_schema(&self) -> Result<Vec<Finding>, StorageError>;

    /// See [`crate::storage::Storage::inspect`].
    async fn inspect(&self) -> Result<Vec<Finding>, StorageError>;

    /// See [`crate::storage::Storage::durability`].
    async fn durability(&self) -> Result<Vec<Finding>, StorageError> {
        Ok(Vec::new())
    }
}

/// A connection while a job has it. Without [`SqlSession::begin`], each statement is a transaction. One that is
/// dropped in a transaction rolls back.
#[async_trait]
pub trait SqlSession: Send {
    async fn begin(&mut self) -> Result<(), SqlFault>;

    async fn commit(&mut self) -> Result<(), SqlFault>;

    /// Marks a place in the transaction, which replaces the one before.
    async fn savepoint(&mut self) -> Result<(), SqlFault>;

    /// Takes back everything since the last savepoint.
    async fn undo(&mut self) -> Result<(), SqlFault>;

    /// Whether a statement that failed took back what it did, and the transaction can go on without a savepoint.
    fn survives_failures(&self) -> bool {
        false
    }

    /// Whether [`SqlSession::run_for`] runs a statement for each row by itself, so that those before a failure stay.
    fn is_row_by_row(&self) -> bool {
        false
    }

    /// Whether a column of 20 bytes has zeros where nothing was written, so that they can't be an info hash.
    fn pads_with_zeros(&self) -> bool {
        false
    }

    /// Runs a statement with these values for its parameters; others are NULL. `tail` is appended to its text.
    async fn run(
        &mut self,
        statement: &Statement,
        params: &[(&'static str, Cell<'_>)],
        tail: &str,
    ) -> Result<SqlRows, SqlFault>;

    /// Runs a statement for rows with the columns `columns` (names with blanks between them), as many at a time
    /// as is good. The result has the rows of all runs.
    async fn run_for(
        &mut self,
        statement: &Statement,
        columns: &'static str,
        rows: &Arc<SqlRows>,
    ) -> Result<SqlRows, SqlFault>;

    /// Excludes other processes that edit, until the end of the job: a site's tables need not have unique keys.
    async fn lock_edits(&mut self) -> Result<(), SqlFault>;

    /// How the first two columns of info hashes in the result of the statement `torrents` hold them.
    async fn hash_forms(&mut self, torrents: &Statement) -> Result<[HashForm; 2], SqlFault> {
        let _ = torrents;
        Ok([HashForm::Bytes, HashForm::Bytes])
    }

    /// The last number of the feed up to `newest` such that no open transaction holds it or one after `after`
    /// before it: such a one would appear later. It may be one too low.
    async fn feed_settled(&mut self, after: u64, newest: u64) -> Result<u64, SqlFault> {
        let _ = after;
        Ok(newest)
    }

    /// Whether totals that do not fit their columns are clamped to them from now on; returns false if the
    /// database can't do that.
    async fn set_clamping(&mut self, clamps: bool) -> Result<bool, SqlFault> {
        let _ = clamps;
        Ok(false)
    }

    /// Ends the job: rolls back if it failed. Returns the failure, perhaps better explained.
    async fn end(self: Box<Self>, failure: Option<SqlFault>) -> Option<SqlFault>;
}

// === impl SqlFault ===

impl SqlFault {
    pub fn broken(text: impl Into<String>) -> Self {
        StorageError::Broken(text.into()).into()
    }

    pub fn invalid(text: impl Into<String>) -> Self {
        StorageError::Invalid(text.into()).into()
    }

    /// Whether the transaction may succeed if it is run again. Another node may have inserted the same row.
    pub fn is_collision(&self) -> bool {
        matches!(self.kind, FaultKind::Collision | FaultKind::Duplicate(_))
    }

    /// The name of the violated unique key.
    pub fn duplicate_key(&self) -> Option<&str> {
        match &self.kind {
            FaultKind::Duplicate(key) => Some(key),
            _ => None,
        }
    }

    /// Why the database refuses a row, if that is the cause.
    pub fn refused_row(&self) -> Option<String> {
        match &self.kind {
            FaultKind::Refused(value) => Some(value.to_string()),
            FaultKind::NoDefault(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl From<StorageError> for SqlFault {
    fn from(error: StorageError) -> Self {
        Self {
            kind: FaultKind::Final,
            error,
        }
    }
}

// === impl HashForm ===

impl HashForm {
    /// The texts that a column may hold for a hash, of which the first is how Mika writes it; none for bytes.
    pub fn texts(&self, hash: &InfoHash) -> Vec<String> {
        match self {
            Self::Bytes => Vec::new(),
            Self::Text { is_hex: true, .. } => {
                let digits = hash.to_string();
                let capitals = digits.to_ascii_uppercase();
                vec![digits, capitals]
            }
            Self::Text { is_hex: false, .. } => vec![text_of_hash(hash)],
        }
    }

    /// The same in the dialect's SQL, so that a join with the column can use its index.
    pub fn expressions(&self, hash: &InfoHash) -> Vec<String> {
        let Self::Text { literal, .. } = self else {
            return Vec::new();
        };
        let in_hex = |text: &String| data_encoding::HEXLOWER.encode(text.as_bytes());
        let texts = self.texts(hash);
        texts
            .iter()
            .map(|text| literal.replace("{}", &in_hex(text)))
            .collect()
    }
}
