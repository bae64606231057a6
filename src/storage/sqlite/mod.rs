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
mod tables;
#[cfg(test)]
mod tests;
mod triggers;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::session::SqliteSession;
use self::worker::Worker;
use super::sql::database::{SqlDatabase, SqlFault, SqlSession, Use};
use super::sql::header::Dialect;
use super::sql::statements::{Schema, Statements, chosen, is_file};
use super::sql::{SqlStorage, statements};
use super::{Claim, Finding, MigrationStatus, Storage, StorageConfig, StorageError, migrate};
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
    dialect: Dialect::Sqlite,
    followed: &[],
    is_row_by_row: true,
}];

/// A database file.
struct Sqlite {
    path: PathBuf,
    schema: &'static Schema,
    statements: Arc<Statements>,
    writer: Worker,
    reader: Worker,
}

/// The schemas of this driver.
pub(super) fn schemas() -> &'static [Schema] {
    &SCHEMAS
}

/// Opens the database `sqlite://PATH`, and creates the file if its folder is there.
pub fn open(config: &StorageConfig) -> Result<Arc<dyn Storage>, StorageError> {
    let path = open::path_of(&config.url)?;
    let schema = chosen(&SCHEMAS, config)?;
    let statements = statements(schema, config)?;
    Ok(Arc::new(open_file(
        &path,
        BUSY_TIMEOUT,
        schema,
        statements,
    )?))
}

fn open_file(
    path: &Path,
    busy_timeout: Duration,
    schema: &'static Schema,
    statements: Arc<Statements>,
) -> Result<SqlStorage<Sqlite>, StorageError> {
    let database = Sqlite::open(path, busy_timeout, schema, Arc::clone(&statements))?;
    Ok(SqlStorage::new(database, statements))
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
    fn open(
        path: &Path,
        busy_timeout: Duration,
        schema: &'static Schema,
        statements: Arc<Statements>,
    ) -> Result<Self, StorageError> {
        let shown: Arc<str> = path.display().to_string().into();
        let writer = open::writer(path, busy_timeout)?;
        let reader = open::reader(path, busy_timeout)?;
        Ok(Self {
            path: path.to_path_buf(),
            schema,
            statements,
            writer: Worker::start("sqlite-writer", Arc::clone(&shown), writer)?,
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

    async fn session(&self, job: Use) -> Result<Box<dyn SqlSession + '_>, SqlFault> {
        let (worker, time_limit, begin) = match job {
            Use::Read => (&self.reader, ANSWER_TIMEOUT, "BEGIN"),
            Use::WholeTables => (&self.reader, WHOLE_TABLE_TIMEOUT, "BEGIN"),
            // It locks at its beginning, so that it can't fail half-way for a lock.
            Use::Write => (&self.writer, ANSWER_TIMEOUT, "BEGIN IMMEDIATE"),
        };
        let session = SqliteSession::open(worker, time_limit, begin).await?;
        Ok(Box::new(session))
    }

    /// The lock is beside the file, whatever database is in it.
    async fn claim(&self, _identity: &str) -> Result<Claim, StorageError> {
        let path = self.path.clone();
        let claim = move |_: &mut _| Ok(open::claim(&path)?);
        self.writer.run(ANSWER_TIMEOUT, claim).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StorageError> {
        let schema = self.schema;
        let migrate = move |connection: &mut _| tables::migrate(connection, schema);
        self.writer.run(WHOLE_TABLE_TIMEOUT, migrate).await
    }

    async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        let schema = self.schema;
        let migrations = move |connection: &mut _| tables::migrations(connection, schema);
        self.reader.run(ANSWER_TIMEOUT, migrations).await
    }

    async fn check(&self) -> Result<(Vec<Finding>, bool), StorageError> {
        let statements = Arc::clone(&self.statements);
        let schema = self.schema;
        let check = move |connection: &mut _| check::check(connection, schema, &statements);
        self.reader.run(WHOLE_TABLE_TIMEOUT, check).await
    }

    async fn check_schema(&self) -> Result<Vec<Finding>, StorageError> {
        let statements = Arc::clone(&self.statements);
        let schema = self.schema;
        let check = move |connection: &mut _| check::schema(connection, schema, &statements);
        self.reader.run(ANSWER_TIMEOUT, check).await
    }

    async fn inspect(&self) -> Result<Vec<Finding>, StorageError> {
        let schema = self.schema;
        let inspect = move |connection: &mut _| {
            Ok(triggers::inspect(connection, schema)?.into_iter().collect())
        };
        self.reader.run(ANSWER_TIMEOUT, inspect).await
    }
}
