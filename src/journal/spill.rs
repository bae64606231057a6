//! The spill file: batches on local disk while the cache is away, is not persistent, or memory is
//! full.
//!
//! A SQLite file that belongs to one journal and one database. It survives the process, so a reply
//! may be sent as soon as its batch is written here.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use crate::base::file::{folder_of, with_suffix};
use crate::change::{Batch, codec};

/// It holds user ids and addresses: only Mika's user may read it.
const FILE_MODE: u32 = 0o600;

/// The version of the format. A file of a later one is left alone.
const VERSION: i64 = 1;

/// Bytes of free pages above which the file is shrunk.
const FREE_MAX: i64 = 64 << 20;

/// Why the spill file can't be used: names the file and what to do.
#[derive(Debug, thiserror::Error)]
#[error("spill file {path}: {problem}")]
pub struct SpillError {
    path: String,
    problem: String,
}

/// The spill file of one journal.
#[derive(Clone)]
pub(super) struct Spill {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    open: Mutex<Open>,
    /// Held while the file is in use.
    _lock: File,
}

/// The open file.
struct Open {
    connection: Connection,
    /// Device and inode: the path may name another file later, or none.
    id: (u64, u64),
}

/// To which database and journal the batches of a file belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpillHeader {
    /// The identity of the database; empty in a file of an earlier version.
    pub storage: String,
    pub journal: String,
}

/// What the file has under a batch number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SpilledBatch {
    Batch(Batch),
    Missing,
    /// Why it can't be read.
    Damaged(String),
}

// === impl Spill ===

impl Spill {
    /// Opens the file for a journal of the database `storage`, or creates it in an existing folder. Only
    /// one process can open it. A file with batches of another database is moved out of the way. Also
    /// returns to which journal the batches in it belong, if there are any: they have to be saved before
    /// [`Spill::hand_over`].
    pub async fn open(
        path: PathBuf,
        storage: String,
    ) -> Result<(Self, Option<SpillHeader>), SpillError> {
        let job = move |path: PathBuf| {
            let lock = lock(&path)?;
            let (connection, former) = connect_own(&path, &storage)?;
            Ok((Self::new(connection, path, lock)?, former))
        };
        blocking_at(path, job).await
    }

    /// Opens a file of any database, and returns the database and journal that its batches belong to. None if
    /// there is no such file, or no batch in it. Only one process can open it.
    pub async fn open_left(path: PathBuf) -> Result<Option<(Self, SpillHeader)>, SpillError> {
        let job = |path: PathBuf| {
            if !path.exists() {
                return Ok(None);
            }
            let lock = lock(&path)?;
            let connection = connect(&path)?;
            let Some(head) = former(&connection)? else {
                return Ok(None);
            };
            let spill = Self::new(connection, path, lock)?;
            Ok(Some((spill, head)))
        };
        blocking_at(path, job).await
    }

    fn new(connection: Connection, path: PathBuf, lock: File) -> Result<Self, String> {
        let open = Open::new(connection, &path)?;
        let inner = Inner {
            path,
            open: Mutex::new(open),
            _lock: lock,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The numbers and change counts of all batches in it.
    pub async fn numbers(&self) -> Result<Vec<(u64, usize)>, SpillError> {
        self.run(|connection| {
            let mut select =
                connection.prepare_cached("SELECT number, changes FROM batches ORDER BY number")?;
            let rows = select.query_map([], |row| {
                let (number, changes): (i64, i64) = (row.get(0)?, row.get(1)?);
                Ok((number.cast_unsigned(), changes as usize))
            })?;
            rows.collect()
        })
        .await
    }

    /// Writes batches; those already there are left alone.
    pub async fn put(&self, batches: Vec<Arc<Batch>>) -> Result<(), SpillError> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO batches (number, changes, text) VALUES (?1, ?2, ?3)",
            )?;
            for batch in &batches {
                insert.execute(params![
                    batch.number.cast_signed(),
                    batch.changes.len() as i64,
                    batch.lines().text,
                ])?;
            }
            drop(insert);
            transaction.commit()
        })
        .await
    }

    /// Reads one batch of `journal`.
    pub async fn get(&self, journal: &str, number: u64) -> Result<SpilledBatch, SpillError> {
        let found: Option<Vec<u8>> = self
            .run(move |connection| {
                // As bytes: a damaged one need not be valid UTF-8.
                let sql = "SELECT CAST(text AS BLOB) FROM batches WHERE number = ?1";
                let mut select = connection.prepare_cached(sql)?;
                let mut rows = select.query([number.cast_signed()])?;
                rows.next()?.map(|row| row.get(0)).transpose()
            })
            .await?;
        let Some(text) = found else {
            return Ok(SpilledBatch::Missing);
        };
        let text = match str::from_utf8(&text) {
            Ok(text) => text,
            Err(error) => return Ok(SpilledBatch::Damaged(error.to_string())),
        };
        Ok(match codec::decode(text) {
            Err(error) => SpilledBatch::Damaged(error.to_string()),
            Ok(changes) => SpilledBatch::Batch(Batch::new(journal.to_owned(), number, changes)),
        })
    }

    /// Moves a batch that can't be read to a table from which nothing is deleted.
    pub async fn set_aside(&self, number: u64) -> Result<(), SpillError> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute_batch(
                "CREATE TABLE IF NOT EXISTS damaged (journal TEXT, number INTEGER, text TEXT)",
            )?;
            let number = [number.cast_signed()];
            transaction.execute(
                "INSERT INTO damaged SELECT (SELECT journal FROM head), number, text
                 FROM batches WHERE number = ?1",
                number,
            )?;
            transaction.execute("DELETE FROM batches WHERE number = ?1", number)?;
            transaction.commit()
        })
        .await
    }

    /// Deletes all batches up to `number`.
    pub async fn forget(&self, number: u64) -> Result<(), SpillError> {
        self.run(move |connection| {
            let gone = connection
                .prepare_cached("DELETE FROM batches WHERE number <= ?1")?
                .execute([number.cast_signed()])?;
            if gone > 0 {
                shrink(connection)?;
            }
            Ok(())
        })
        .await
    }

    /// Deletes all batches, which are saved elsewhere, and assigns the file to another journal.
    pub async fn hand_over(&self, journal: String, storage: String) -> Result<(), SpillError> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute("DELETE FROM batches", [])?;
            transaction.execute("DELETE FROM head", [])?;
            transaction.execute(
                "INSERT INTO head (version, storage, journal) VALUES (?1, ?2, ?3)",
                params![VERSION, storage, journal],
            )?;
            transaction.commit()
        })
        .await
    }

    /// Makes sure that the path names the file: if it was deleted, it is written again.
    pub async fn keep_name(&self) -> Result<(), SpillError> {
        self.run(|_| Ok(())).await
    }

    /// The error if batches of `former` belong to a database that `node` does not use.
    pub fn of_another_database(&self, former: &str, node: &str) -> SpillError {
        self.error(format!(
            "it holds batches of node {former:?}, of which this database and cache know nothing: \
             are storage.url and cache.url those that {former:?} had? If they are meant to differ, \
             name another file in journal.spill for {node:?}, and keep this one"
        ))
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SpillError> {
        let inner = Arc::clone(&self.inner);
        let job = move || {
            let mut open = inner.open.lock();
            open.keep_name(&inner.path)?;
            job(&mut open.connection).map_err(|error| explain(&error))
        };
        blocking(job).await.map_err(|problem| self.error(problem))
    }

    fn error(&self, problem: String) -> SpillError {
        SpillError {
            path: self.inner.path.display().to_string(),
            problem,
        }
    }
}

// === impl Open ===

impl Open {
    fn new(connection: Connection, path: &Path) -> Result<Self, String> {
        let id = id_of(path).ok_or("it was deleted while it was opened")?;
        Ok(Self { connection, id })
    }

    /// Writes the file again if its path does not name it any more: the next start must find what was
    /// acknowledged.
    fn keep_name(&mut self, path: &Path) -> Result<(), String> {
        if id_of(path) == Some(self.id) {
            return Ok(());
        }
        if path.exists() {
            return Err("another file is in its place: move that away".into());
        }
        // Written under another name first: the next start must not find half a file.
        let new = with_suffix(path, ".new");
        for gone in [
            new.clone(),
            with_suffix(path, "-wal"),
            with_suffix(path, "-shm"),
        ] {
            // The WAL of the deleted file must not be applied to the new one.
            let _ = std::fs::remove_file(gone);
        }
        let failed =
            |error: std::io::Error| format!("it was deleted, and can't be written again: {error}");
        let file = create(&new).map_err(failed)?;
        self.connection
            .execute("VACUUM INTO ?1", [new.to_string_lossy()])
            .map_err(|error| explain(&error))?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&new, path).map_err(failed)?;
        // The first commit would sync the folder, too, but may come much later.
        let folder = File::open(folder_of(path));
        folder
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        *self = Self::new(connect(path)?, path)?;
        tracing::error!(
            file = %path.display(),
            "the spill file was deleted; it was written again with all its batches"
        );
        Ok(())
    }
}

fn id_of(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Creates an empty file that only Mika's user can read.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    options.open(path)
}

/// Runs a job on the file at `path`, which errors name.
async fn blocking_at<T: Send + 'static>(
    path: PathBuf,
    job: impl FnOnce(PathBuf) -> Result<T, String> + Send + 'static,
) -> Result<T, SpillError> {
    let shown = path.display().to_string();
    let done = blocking(move || job(path)).await;
    done.map_err(|problem| SpillError {
        path: shown,
        problem,
    })
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    #[cfg(feature = "contract")]
    if let Some(disk) = super::disk::current() {
        disk.before_job()?;
        return job();
    }
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => result,
        Err(error) => Err(format!("the thread that writes it ended: {error}")),
    }
}

/// Locks `PATH.lock`; the system frees it if the process dies.
fn lock(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(with_suffix(path, ".lock"))
        .map_err(|error| {
            format!("{error}: journal.spill must name a file in a folder that Mika may write to")
        })?;
    match File::try_lock(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(
            "in use by another mika: stop it, or give each its own journal.spill and node".into(),
        ),
        Err(TryLockError::Error(error)) => Err(format!("can't be locked: {error}")),
    }
}

/// Opens the file of this database; one with batches of another is moved out of the way first.
fn connect_own(path: &Path, storage: &str) -> Result<(Connection, Option<SpillHeader>), String> {
    let connection = connect(path)?;
    let Some(head) = former(&connection)? else {
        return Ok((connection, None));
    };
    if head.storage == storage || head.storage.is_empty() {
        return Ok((connection, Some(head)));
    }
    let aside = set_file_aside(path, connection, &head.storage)?;
    tracing::error!(
        file = %path.display(),
        moved_to = %aside.display(),
        journal = head.journal,
        theirs = head.storage,
        ours = storage,
        "the spill file holds batches for another database; it was moved out of the way, and nothing of \
         it was applied. Start mika with the storage.url that it belongs to and journal.spill = \
         moved_to, and they are saved there"
    );
    Ok((connect(path)?, None))
}

/// Moves a file with batches of the database `storage` away; returns its new path.
fn set_file_aside(path: &Path, connection: Connection, storage: &str) -> Result<PathBuf, String> {
    // The WAL belongs to the file that is moved.
    let checkpoint = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    checkpoint.map_err(|error| explain(&error))?;
    connection.close().map_err(|(_, error)| explain(&error))?;
    let aside = |number: u32| match number {
        0 => with_suffix(path, &format!(".of-{storage}")),
        _ => with_suffix(path, &format!(".of-{storage}.{number}")),
    };
    let free = (0..1000).map(aside).find(|path| !path.exists());
    let free = free.ok_or("there is no free name to move it to")?;
    std::fs::rename(path, &free).map_err(|error| format!("can't be moved: {error}"))?;
    Ok(free)
}

fn connect(path: &Path) -> Result<Connection, String> {
    if !path.exists() {
        create(path).map_err(|error| error.to_string())?;
    }
    let open = || {
        let connection = Connection::open(path)?;
        // Has no effect once anything is written.
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // Acknowledged batches survive a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(connection)
    };
    let connection = open().map_err(|error| explain(&error))?;
    prepare(&connection).map_err(|error| explain(&error))?;
    let sql = "SELECT version FROM head";
    let version: Option<i64> = connection
        .query_row(sql, [], |row| row.get(0))
        .optional()
        .map_err(|error| explain(&error))?;
    match version {
        Some(version) if version > VERSION => Err(format!(
            "it was written by a later version of Mika (format {version}): start that, or name another file"
        )),
        _ => Ok(connection),
    }
}

/// Creates the tables, and migrates the header of a file of an earlier version.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS head (
             version INTEGER NOT NULL, storage TEXT NOT NULL, journal TEXT NOT NULL);
         CREATE TABLE IF NOT EXISTS batches (
             number INTEGER PRIMARY KEY, changes INTEGER NOT NULL, text TEXT NOT NULL)",
    )?;
    if transaction.table_exists(None, "node")? {
        transaction.execute(
            "INSERT INTO head (version, storage, journal) SELECT ?1, '', name FROM node",
            [VERSION],
        )?;
        transaction.execute_batch("DROP TABLE node")?;
    }
    transaction.commit()
}

/// The header of a file with batches; none if it has no batch.
fn former(connection: &Connection) -> Result<Option<SpillHeader>, String> {
    let sql = "SELECT storage, journal FROM head WHERE EXISTS (SELECT 1 FROM batches)";
    let head = |row: &Row<'_>| {
        Ok(SpillHeader {
            storage: row.get(0)?,
            journal: row.get(1)?,
        })
    };
    let found = connection.query_row(sql, [], head).optional();
    found.map_err(|error| explain(&error))
}

/// The journal whose batches are in the file at `path`; none if it has no batch or does not exist.
pub async fn owner_of(path: PathBuf) -> Result<Option<String>, SpillError> {
    let job = |path: PathBuf| {
        if !path.exists() {
            return Ok(None);
        }
        let open = || {
            let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            let sql = if connection.table_exists(None, "head")? {
                "SELECT journal FROM head WHERE EXISTS (SELECT 1 FROM batches)"
            } else if connection.table_exists(None, "node")? {
                "SELECT name FROM node WHERE EXISTS (SELECT 1 FROM batches)"
            } else {
                return Ok(None);
            };
            connection.query_row(sql, [], |row| row.get(0)).optional()
        };
        open().map_err(|error| explain(&error))
    };
    blocking_at(path, job).await
}

/// Gives free pages back to the disk if there are many.
fn shrink(connection: &Connection) -> rusqlite::Result<()> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    if number("freelist_count")?.saturating_mul(number("page_size")?) > FREE_MAX {
        connection.execute_batch("PRAGMA incremental_vacuum")?;
    }
    Ok(())
}

fn explain(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => "the disk is full: free some space".into(),
        Some(rusqlite::ErrorCode::NotADatabase) => {
            "it is not a spill file: name another in journal.spill".into()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::ids::InfoHash;
    use crate::change::Change;

    fn batch(number: u64) -> Arc<Batch> {
        Arc::new(Batch::new(
            "n".into(),
            number,
            vec![Change::Snatches {
                info_hash: InfoHash([number as u8; 20]),
                count: 1,
            }],
        ))
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        let spill = open(&path).await;
        spill.put(vec![batch(3), batch(4)]).await.unwrap();
        spill.put(vec![batch(4), batch(5)]).await.unwrap();
        spill.forget(3).await.unwrap();
        drop(spill);
        let spill = open_former(&path, "n").await;
        assert_eq!(spill.numbers().await.unwrap(), [(4, 1), (5, 1)]);
        let found = spill.get("n", 4).await.unwrap();
        assert_eq!(found, SpilledBatch::Batch((*batch(4)).clone()));
        assert_eq!(spill.get("n", 3).await.unwrap(), SpilledBatch::Missing);
    }

    #[tokio::test]
    async fn a_file_is_used_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        let _spill = open(&path).await;
        let second = Spill::open(path.clone(), "db".into()).await;
        let problem = second.err().unwrap().to_string();
        assert!(problem.contains("in use by another mika"), "{problem}");
    }

    #[tokio::test]
    async fn a_file_is_its_journals_until_it_is_handed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        assert_eq!(owner_of(path.clone()).await.unwrap(), None);
        let spill = open(&path).await;
        assert_eq!(owner_of(path.clone()).await.unwrap(), None);
        spill.put(vec![batch(3)]).await.unwrap();
        drop(spill);
        for _ in 0..2 {
            open_former(&path, "n").await;
            assert_eq!(owner_of(path.clone()).await.unwrap().as_deref(), Some("n"));
        }
        let spill = open_former(&path, "n").await;
        spill.hand_over("m".into(), "db".into()).await.unwrap();
        assert_eq!(spill.numbers().await.unwrap(), []);
        spill.put(vec![batch(1)]).await.unwrap();
        drop(spill);
        assert_eq!(owner_of(path).await.unwrap().as_deref(), Some("m"));
    }

    #[tokio::test]
    async fn batches_of_another_database_are_kept_out_of_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        let spill = open(&path).await;
        spill.put(vec![batch(3)]).await.unwrap();
        drop(spill);
        let (spill, former) = open_closed(&path, "other").await;
        assert_eq!(former, None);
        assert_eq!(spill.numbers().await.unwrap(), []);
        let aside = folder.path().join("spill.of-db");
        let spill = open_former(&aside, "n").await;
        assert_eq!(spill.numbers().await.unwrap(), [(3, 1)]);
    }

    #[tokio::test]
    async fn a_file_of_an_earlier_version_is_taken_over_and_one_of_a_later_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        let file = Connection::open(&path).unwrap();
        file.execute_batch(
            "CREATE TABLE node (name TEXT NOT NULL); INSERT INTO node VALUES ('n');
             CREATE TABLE batches (
                 number INTEGER PRIMARY KEY, changes INTEGER NOT NULL, text TEXT NOT NULL);
             INSERT INTO batches VALUES (7, 0, '')",
        )
        .unwrap();
        assert_eq!(owner_of(path.clone()).await.unwrap().as_deref(), Some("n"));
        let (spill, former) = Spill::open(path.clone(), "db".into()).await.unwrap();
        let expected = SpillHeader {
            storage: String::new(),
            journal: "n".into(),
        };
        assert_eq!(former, Some(expected));
        spill.hand_over("m".into(), "db".into()).await.unwrap();
        drop(spill);
        file.execute_batch("UPDATE head SET version = version + 1")
            .unwrap();
        let refused = Spill::open(path, "db".into()).await.err().unwrap();
        assert!(refused.to_string().contains("a later version"), "{refused}");
    }

    #[tokio::test]
    async fn a_damaged_batch_is_set_aside_and_not_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        let spill = open(&path).await;
        spill.put(vec![batch(3), batch(4)]).await.unwrap();
        let file = Connection::open(&path).unwrap();
        for damaged in ["'x' || text", "CAST(x'ff' AS TEXT) || text"] {
            let sql = format!("UPDATE batches SET text = {damaged} WHERE number = 3");
            file.execute_batch(&sql).unwrap();
            let found = spill.get("n", 3).await.unwrap();
            assert!(matches!(found, SpilledBatch::Damaged(_)), "{found:?}");
        }
        spill.set_aside(3).await.unwrap();
        assert_eq!(spill.numbers().await.unwrap(), [(4, 1)]);
        let damaged: (String, u32) = file
            .query_row("SELECT journal, number FROM damaged", [], |row| {
                Ok((row.get(0)?, row.get::<_, u32>(1)?))
            })
            .unwrap();
        assert_eq!(damaged, ("n".into(), 3));
    }

    #[tokio::test]
    async fn a_file_that_was_deleted_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        let spill = open(&path).await;
        spill.put(vec![batch(3)]).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        spill.put(vec![batch(4)]).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        spill.keep_name().await.unwrap();
        drop(spill);
        let spill = open_former(&path, "n").await;
        assert_eq!(spill.numbers().await.unwrap(), [(3, 1), (4, 1)]);
    }

    /// Opens a file that was closed. A process that another test starts at this moment has a copy of its lock until it
    /// runs its own program.
    async fn open_closed(path: &Path, storage: &str) -> (Spill, Option<SpillHeader>) {
        for _ in 0..1000 {
            match Spill::open(path.to_path_buf(), storage.into()).await {
                Err(error) if error.to_string().contains("in use by another mika") => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => return opened.unwrap(),
            }
        }
        panic!("the file stays locked");
    }

    /// A new file of the journal "n" and the database "db".
    async fn open(path: &Path) -> Spill {
        let (spill, former) = open_closed(path, "db").await;
        assert_eq!(former, None);
        spill.hand_over("n".into(), "db".into()).await.unwrap();
        spill
    }

    /// The file, which has batches of that journal.
    async fn open_former(path: &Path, journal: &str) -> Spill {
        let (spill, former) = open_closed(path, "db").await;
        let expected = SpillHeader {
            storage: "db".into(),
            journal: journal.into(),
        };
        assert_eq!(former, Some(expected));
        spill
    }
}
