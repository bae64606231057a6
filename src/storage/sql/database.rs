//! What a SQL driver implements: connections that run statements. What the statements mean is the engine's.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::catalogue::SqlCatalogue;
use super::cells::{SqlParams, SqlRows};
use super::statements::{Schema, Statement};
use crate::base::ids::InfoHash;
use crate::storage::values::{RefusedValue, text_of_hash};
use crate::storage::{Claim, Finding, StorageError, StorageResult};

/// How long to wait for an answer of a server.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for a statement that reads or changes whole tables.
pub const WHOLE_TABLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// What a job does, so that a driver can give it the right connection and time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Read,
    Write,
    /// It reads whole tables, which may take minutes.
    WholeTables,
    /// It makes and changes tables, which may take minutes.
    Migrate,
}

/// Why a statement failed.
#[derive(Debug)]
pub struct SqlFault {
    pub kind: FaultKind,
    /// What to tell people.
    pub error: StorageError,
    /// What the database says of the statement, if that is the cause and the connection is as good as before.
    pub complaint: Option<Box<Complaint>>,
}

/// What a statement gives, or why it failed.
pub type SqlResult<T> = Result<T, SqlFault>;

/// What a database says of a statement that it does not take, without values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub about: Lacking,
    pub text: String,
}

/// What a statement lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lacking {
    Table,
    Column,
    /// A privilege of the account. If the database names the table: which (with commas between; empty if it does not say),
    /// and on which table.
    Privilege(Option<(String, String)>),
    /// Anything else.
    Other,
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
    Refused(Box<RefusedValue>),
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

    /// See [`crate::storage::Storage::reader`].
    fn reader(&self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// A connection that works, for one job.
    async fn session(&self, job: Use) -> SqlResult<Box<dyn SqlSession + '_>>;

    /// See [`crate::storage::Storage::claim`]. `identity` is that of the database.
    async fn claim(&self, identity: &str) -> StorageResult<Claim>;

    /// Which of several servers could not take over now.
    async fn check_servers(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// See [`crate::storage::Storage::feed_changed`].
    async fn feed_changed(&self) {
        std::future::pending::<()>().await;
    }
}

// === impl Use ===

impl Use {
    /// Whether it may take minutes.
    pub fn is_long(self) -> bool {
        matches!(self, Self::WholeTables | Self::Migrate)
    }

    /// How long to wait for each answer of a server.
    pub fn time_limit(self) -> Duration {
        if self.is_long() {
            WHOLE_TABLE_TIMEOUT
        } else {
            ANSWER_TIMEOUT
        }
    }
}

/// A connection while a job has it. Without [`SqlSession::begin`], each statement is a transaction. One that is
/// dropped in a transaction rolls back.
#[async_trait]
pub trait SqlSession: SqlCatalogue {
    async fn begin(&mut self) -> SqlResult<()> {
        self.execute("BEGIN").await
    }

    async fn commit(&mut self) -> SqlResult<()> {
        self.execute("COMMIT").await
    }

    /// Marks a place in the transaction, which replaces the one before.
    async fn savepoint(&mut self) -> SqlResult<()> {
        self.execute("SAVEPOINT mika").await
    }

    /// Takes back everything since the last savepoint.
    async fn undo(&mut self) -> SqlResult<()> {
        self.execute("ROLLBACK TO SAVEPOINT mika").await
    }

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
        params: &SqlParams<'_>,
        tail: &str,
    ) -> SqlResult<SqlRows>;

    /// Runs a statement for rows with the columns `columns` (names with blanks between them), as many at a time
    /// as is good. The result has the rows of all runs.
    async fn run_for(
        &mut self,
        statement: &Statement,
        columns: &'static str,
        rows: &Arc<SqlRows>,
    ) -> SqlResult<SqlRows>;

    /// Runs SQL without parameters and rows.
    async fn execute(&mut self, sql: &str) -> SqlResult<()>;

    /// Excludes other processes that lock the same name, until the end of the job.
    async fn lock(&mut self, name: &str) -> SqlResult<()>;

    /// Lets transactions that apply batches run beside each other, or excludes all others if `alone`, until the end of
    /// this one: then none of them inserts a row that this one misses. The first lock of a transaction.
    async fn lock_applying(&mut self, alone: bool) -> SqlResult<()> {
        let _ = alone;
        Ok(())
    }

    /// How the first two columns of info hashes in the result of the statement `torrents` hold them.
    async fn hash_forms(&mut self, torrents: &Statement) -> SqlResult<[HashForm; 2]> {
        let _ = torrents;
        Ok([HashForm::Bytes, HashForm::Bytes])
    }

    /// The last number of the feed up to `newest` such that no open transaction holds it or one after `after`
    /// before it: such a one would appear later. It may be one too low.
    async fn feed_settled(&mut self, after: u64, newest: u64) -> SqlResult<u64> {
        let _ = after;
        Ok(newest)
    }

    /// The timeline of the database, where a replica that takes over begins another one; none if that is unknown.
    fn timeline(&self) -> Option<u32> {
        None
    }

    /// Whether totals that do not fit their columns are clamped to them from now on; returns false if the
    /// database can't do that.
    async fn set_clamping(&mut self, clamps: bool) -> SqlResult<bool> {
        let _ = clamps;
        Ok(false)
    }

    /// Ends the job: rolls back if it failed. Returns the failure, perhaps better explained.
    async fn end(self: Box<Self>, failure: Option<SqlFault>) -> Option<SqlFault>;
}

/// The error of a database that did not answer in time. `place` is its URL without the password, or the path.
pub fn late(place: &str, time_limit: Duration) -> StorageError {
    let seconds = time_limit.as_secs();
    StorageError::Away(format!("{place} did not answer within {seconds} s"))
}

/// A text of a server without what stands between such quotes, which may be values.
pub fn masked(text: &str, quotes: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (number, part) in text.split(|char| quotes.contains(char)).enumerate() {
        let is_quoted = number % 2 == 1;
        shown.push_str(if is_quoted { "'…'" } else { part });
    }
    shown
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

    /// Whether the statement lacks that.
    pub fn lacks(&self, what: &Lacking) -> bool {
        let about = self.complaint.as_ref().map(|complaint| &complaint.about);
        about.is_some_and(|about| mem::discriminant(about) == mem::discriminant(what))
    }

    /// Whether the account lacks a privilege.
    pub fn is_denied(&self) -> bool {
        self.lacks(&Lacking::Privilege(None))
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
            complaint: None,
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
