//! Opens the file, with one line of error for each thing that can be wrong with it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::fault::SqliteFault;
use crate::base::secret::Secret;
use crate::storage::{Claim, StorageError, StorageResult, migrate};

/// It holds passkeys: not world-readable, whatever the umask.
const FILE_MODE: u32 = 0o660;
/// Prepared statements kept by each connection; more than a schema has.
const STATEMENTS_MAX: usize = 128;
/// Page cache of the writer and the reader, in KiB.
const WRITER_CACHE_KIB: i64 = 64 * 1024;
const READER_CACHE_KIB: i64 = 16 * 1024;
/// Pages (64 MiB) in the write-ahead log before a checkpoint copies them into the file. A full batch changes
/// thousands of pages; a page that several batches change is then copied once.
const LOG_PAGES: i64 = 16_384;

/// The path of `sqlite://PATH`.
pub(super) fn path_of(url: &Secret) -> StorageResult<PathBuf> {
    let path = url.expose().strip_prefix("sqlite://").unwrap_or_default();
    if path.is_empty() || path == ":memory:" {
        return Err(StorageError::Broken(
            "storage.url must be sqlite:// and the path of a file, such as sqlite://mika.db".into(),
        ));
    }
    Ok(PathBuf::from(path))
}

/// The connection that writes. It creates the file, but no tables.
pub(super) fn writer(path: &Path, busy_timeout: Duration) -> StorageResult<Connection> {
    create(path)?;
    connect(path, busy_timeout, WRITER_CACHE_KIB).map_err(|fault| explain(fault, path))
}

/// A connection that can't change anything.
pub(super) fn reader(path: &Path, busy_timeout: Duration) -> StorageResult<Connection> {
    let open = || {
        let connection = connect(path, busy_timeout, READER_CACHE_KIB)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|fault| explain(fault, path))
}

/// Locks `PATH.lock` for as long as the claim lives; the system frees it if the process dies.
pub(super) fn claim(path: &Path) -> StorageResult<Claim> {
    // One lock for one file, also where a link leads to it.
    let mut lock = fs::canonicalize(path)
        .unwrap_or_else(|_| path.to_path_buf())
        .into_os_string();
    lock.push(".lock");
    let denied = |error| {
        StorageError::Broken(format!(
            "can't lock {}: {error}",
            Path::new(&lock).display()
        ))
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&lock)
        .map_err(denied)?;
    match File::try_lock(&file) {
        Ok(()) => Ok(Claim::held_by(file)),
        Err(TryLockError::WouldBlock) => Err(StorageError::Broken(format!(
            "{} is in use by another mika: stop it, or give each its own storage.url",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(denied(error)),
    }
}

/// Does not open an existing file: closing a second handle on a database in use would drop SQLite's own
/// locks on it.
fn create(path: &Path) -> StorageResult<()> {
    let shown = path.display();
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path);
    let problem = match created.map_err(|error| error.kind()) {
        Err(ErrorKind::AlreadyExists) if path.is_dir() => {
            format!("{shown} is a folder: name a file in storage.url")
        }
        Ok(_) | Err(ErrorKind::AlreadyExists) => return Ok(()),
        Err(ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            format!(
                "can't create {shown}: its folder does not exist: create it, or fix storage.url"
            )
        }
        Err(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            format!("can't create {shown}: its folder is read-only: let Mika's user write to it")
        }
        Err(ErrorKind::StorageFull) => {
            return Err(StorageError::Away(format!(
                "can't create {shown}: the disk is full: free some space"
            )));
        }
        Err(kind) => format!("can't create {shown}: {kind}"),
    };
    Err(StorageError::Broken(problem))
}

fn connect(path: &Path, busy_timeout: Duration, cache_kib: i64) -> Result<Connection, SqliteFault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    if connection.is_readonly("main")? {
        return Err(SqliteFault::broken(format!(
            "{} is read-only: let Mika's user write to it",
            path.display()
        )));
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(SqliteFault::broken(format!(
            "{} can't use a write-ahead log (its journal mode is {mode}): put it on a local disk",
            path.display()
        )));
    }
    // FULL: committed data survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", LOG_PAGES, |_| Ok(()))?;
    migrate::status(migrate::SQLITE, &applied(&connection)?)?;
    Ok(connection)
}

/// The names of the migrations that the database has; none if it is new.
fn applied(connection: &Connection) -> Result<Vec<String>, SqliteFault> {
    if !connection.table_exists(None, "mika_migrations")? {
        return Ok(Vec::new());
    }
    let mut select = connection.prepare("SELECT name FROM mika_migrations")?;
    let names = select.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// An existing file that can't be opened lacks permissions.
fn explain(fault: SqliteFault, path: &Path) -> StorageError {
    let shown = path.display();
    match &fault {
        SqliteFault::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
            StorageError::Broken(format!(
                "can't open {shown}: let Mika's user read and write it and its folder"
            ))
        }
        _ => fault.explain(&shown.to_string()),
    }
}
