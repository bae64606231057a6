//! The SQLite driver: one file, one writer thread, one reader thread.
//!
//! SQLite blocks while it works, so the connections live on threads of their own
//! (`worker`) and callers wait for a message. In WAL mode readers and the writer don't block each other, and
//! a web application may use the file at the same time.

mod check;
mod fault;
mod open;
mod session;
#[cfg(test)]
mod site_tests;
mod statement;
#[cfg(test)]
mod tests;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::session::SqliteSession;
use self::worker::Worker;
use super::sql::database::{SqlDatabase, SqlResult, SqlSession, Use};
use super::sql::header::Dialect;
use super::sql::statements::{Schema, chosen, is_file};
use super::sql::{SqlStorage, statements};
use super::{Claim, Storage, StorageConfig, StorageResult, migrate};
use crate::base::secret::Secret;
use crate::base::url;

/// How long a connection waits for another program's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for its result.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for jobs that read or write the whole file.
const WHOLE_TABLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The file is Mika's own, so there is one schema.
static SCHEMAS: [Schema; 1] = [Schema {
    name: "mika",
    statements: include_str!("../schemas/mika/sqlite.sql"),
    base: "",
    own: include_str!("../schemas/own/sqlite.sql"),
    prefix: "",
    migrations: migrate::SQLITE,
    beside: "",
    dialect: Dialect::Sqlite,
    followed: &[],
    is_row_by_row: true,
}];

/// A database file.
struct Sqlite {
    path: PathBuf,
    schema: &'static Schema,
    writer: Arc<Worker>,
    reader: Worker,
}

/// The schemas of this driver.
pub(super) fn schemas() -> &'static [Schema] {
    &SCHEMAS
}

/// Opens the database `sqlite://PATH`, and creates the file if its folder is there.
pub fn open(config: &StorageConfig) -> StorageResult<Arc<dyn Storage>> {
    let path = open::path_of(&config.url)?;
    let schema = chosen(&SCHEMAS, config)?;
    let statements = statements(schema, config)?;
    let database = Sqlite::open(&path, BUSY_TIMEOUT, schema)?;
    Ok(Arc::new(SqlStorage::new(database, statements)))
}

pub(super) fn check_url(url: &Secret) -> Result<(), String> {
    url::check_scheme(url, "sqlite", &["sqlite"], "sqlite://PATH")
}

pub(super) fn check_schema(schema: &str) -> Result<(), String> {
    if schema == "mika" || is_file(schema) {
        return Ok(());
    }
    Err(format!(
        r#"expected "mika", the one schema of the driver "sqlite", or the path of a file such as "./my-site.sql", found {schema:?}"#
    ))
}

/// The file that a URL names.
pub fn file_of(url: &Secret) -> Option<PathBuf> {
    open::path_of(url).ok()
}

impl Sqlite {
    fn open(path: &Path, busy_timeout: Duration, schema: &'static Schema) -> StorageResult<Self> {
        let shown: Arc<str> = path.display().to_string().into();
        let writer = open::writer(path, busy_timeout)?;
        let reader = open::reader(path, busy_timeout)?;
        Ok(Self {
            path: path.to_path_buf(),
            schema,
            writer: Arc::new(Worker::start("sqlite-writer", Arc::clone(&shown), writer)?),
            reader: Worker::start("sqlite-reader", shown, reader)?,
        })
    }
}

#[async_trait]
impl SqlDatabase for Sqlite {
    fn is_embedded(&self) -> bool {
        true
    }

    fn schema(&self) -> &'static Schema {
        self.schema
    }

    fn reader(&self) -> Option<Self> {
        let shown: Arc<str> = self.path.display().to_string().into();
        let reader = open::reader(&self.path, BUSY_TIMEOUT).ok()?;
        Some(Self {
            path: self.path.clone(),
            schema: self.schema,
            writer: Arc::clone(&self.writer),
            reader: Worker::start("sqlite-reader", shown, reader).ok()?,
        })
    }

    async fn session(&self, job: Use) -> SqlResult<Box<dyn SqlSession + '_>> {
        let (worker, time_limit, begin) = match job {
            Use::Read => (&self.reader, ANSWER_TIMEOUT, "BEGIN"),
            Use::WholeTables => (&self.reader, WHOLE_TABLE_TIMEOUT, "BEGIN"),
            // It locks at its beginning, so that it can't fail half-way for a lock.
            Use::Write => (&*self.writer, ANSWER_TIMEOUT, "BEGIN IMMEDIATE"),
            Use::Migrate => (&*self.writer, WHOLE_TABLE_TIMEOUT, "BEGIN IMMEDIATE"),
        };
        let session = SqliteSession::open(worker, time_limit, begin).await?;
        Ok(Box::new(session))
    }

    /// The lock is beside the file, whatever database is in it.
    async fn claim(&self, _identity: &str) -> StorageResult<Claim> {
        let path = self.path.clone();
        let claim = move |_: &mut _| Ok(open::claim(&path)?);
        self.writer.run(ANSWER_TIMEOUT, claim).await
    }
}
