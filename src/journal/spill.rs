//! The spill file: batches on local disk while the cache can't take them, or memory is short.
//!
//! An SQLite file of the node's own. What is in it survives the process, so a reply may go as
//! soon as its batch is written here.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use crate::change::{Batch, codec};

/// User ids and addresses are in it: it is for Mika's user alone.
const FILE_MODE: u32 = 0o600;

/// Bytes of freed pages after which the file is made smaller.
const FREE_MAX: i64 = 64 << 20;

/// Why the spill file can't be used: says which file, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("spill file {path}: {problem}")]
pub struct SpillError {
    path: String,
    problem: String,
}

/// The spill file of one node.
#[derive(Clone)]
pub(super) struct Spill {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Locked as long as the file is in use.
    _lock: File,
}

// === impl Spill ===

impl Spill {
    /// Opens the file, and creates it if its folder is there. Only one process can have it.
    /// Returns, too, whose batches are in it if they are another node's: those have to be saved
    /// before [`Spill::hand_over`]. A file without batches is this node's from now on.
    pub async fn open(path: PathBuf, node: String) -> Result<(Self, Option<String>), SpillError> {
        let shown = path.display().to_string();
        let job = move || {
            let lock = lock(&path)?;
            let (connection, former) = connect(&path, &node)?;
            let spill = Self {
                inner: Arc::new(Inner {
                    path,
                    connection: Mutex::new(connection),
                    _lock: lock,
                }),
            };
            Ok((spill, former))
        };
        blocking(job).await.map_err(|problem| SpillError {
            path: shown,
            problem,
        })
    }

    /// The numbers and sizes of all batches in it.
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

    /// Writes batches; those that are there already stay.
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
                    codec::encode(&batch.changes),
                ])?;
            }
            drop(insert);
            transaction.commit()
        })
        .await
    }

    /// Reads one batch; none if it is not there.
    pub async fn get(&self, node: &str, number: u64) -> Result<Option<Batch>, SpillError> {
        let found: Option<String> = self
            .run(move |connection| {
                let mut select =
                    connection.prepare_cached("SELECT text FROM batches WHERE number = ?1")?;
                let mut rows = select.query([number.cast_signed()])?;
                rows.next()?.map(|row| row.get(0)).transpose()
            })
            .await?;
        let Some(text) = found else { return Ok(None) };
        let changes = codec::decode(&text)
            .map_err(|error| self.error(format!("batch {number} is {error}")))?;
        Ok(Some(Batch {
            node: node.to_owned(),
            number,
            changes,
        }))
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

    /// Deletes all batches, which are saved elsewhere; the file is that node's from now on.
    pub async fn hand_over(&self, node: String) -> Result<(), SpillError> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute("DELETE FROM batches", [])?;
            transaction.execute("UPDATE node SET name = ?1", [node])?;
            transaction.commit()
        })
        .await
    }

    /// Why batches of `former` must not be saved here by `node`.
    pub fn of_another_database(&self, former: &str, node: &str) -> SpillError {
        self.error(format!(
            "it holds batches of node {former:?}, of which this database and cache know nothing: \
             are storage.url and cache.url those that {former:?} had? If they are to be others, \
             name another file in journal.spill for {node:?}, and keep this one"
        ))
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SpillError> {
        let inner = Arc::clone(&self.inner);
        let job = move || job(&mut inner.connection.lock()).map_err(|error| explain(&error));
        blocking(job).await.map_err(|problem| self.error(problem))
    }

    fn error(&self, problem: String) -> SpillError {
        SpillError {
            path: self.inner.path.display().to_string(),
            problem,
        }
    }
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => result,
        Err(error) => Err(format!("the thread that writes it ended: {error}")),
    }
}

/// Locks `PATH.lock`; the system frees it if the process dies.
fn lock(path: &Path) -> Result<File, String> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&lock)
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

/// Also returns the node whose batches are in the file, if that is another one.
fn connect(path: &Path, node: &str) -> Result<(Connection, Option<String>), String> {
    if !path.exists() {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(|error| error.to_string())?;
    }
    let open = || {
        let connection = Connection::open(path)?;
        // Before anything else is written, or it has no effect.
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // What was acknowledged survives a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS node (name TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS batches (
                 number INTEGER PRIMARY KEY, changes INTEGER NOT NULL, text TEXT NOT NULL)",
        )?;
        let former = owner(&connection)?.filter(|owner| owner != node);
        if former.is_some() {
            return Ok((connection, former));
        }
        let transaction = connection.unchecked_transaction()?;
        transaction.execute("DELETE FROM node", [])?;
        transaction.execute("INSERT INTO node (name) VALUES (?1)", [node])?;
        transaction.commit()?;
        Ok((connection, None))
    };
    open().map_err(|error| explain(&error))
}

/// Whose batches are in the file; none if there are none.
fn owner(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT name FROM node WHERE EXISTS (SELECT 1 FROM batches)";
    connection.query_row(sql, [], |row| row.get(0)).optional()
}

/// Whose batches are in the file at `path`; none if there are none, or no file.
pub async fn owner_of(path: PathBuf) -> Result<Option<String>, SpillError> {
    let shown = path.display().to_string();
    let job = move || {
        if !path.exists() {
            return Ok(None);
        }
        let open = || {
            let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            let has_tables = connection.table_exists(None, "batches")?;
            if has_tables {
                owner(&connection)
            } else {
                Ok(None)
            }
        };
        open().map_err(|error| explain(&error))
    };
    blocking(job).await.map_err(|problem| SpillError {
        path: shown,
        problem,
    })
}

/// Gives freed pages back to the disk when there are many.
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
    use super::*;
    use crate::change::Change;
    use crate::ids::InfoHash;

    fn batch(number: u64) -> Arc<Batch> {
        Arc::new(Batch {
            node: "n".into(),
            number,
            changes: vec![Change::Snatch {
                info_hash: InfoHash([number as u8; 20]),
            }],
        })
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        let spill = open(&path, "n").await;
        spill.put(vec![batch(3), batch(4)]).await.unwrap();
        spill.put(vec![batch(4), batch(5)]).await.unwrap();
        spill.forget(3).await.unwrap();
        drop(spill);
        let spill = open(&path, "n").await;
        assert_eq!(spill.numbers().await.unwrap(), [(4, 1), (5, 1)]);
        assert_eq!(spill.get("n", 4).await.unwrap().as_ref(), Some(&*batch(4)));
        assert_eq!(spill.get("n", 3).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_file_is_used_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        let _spill = open(&path, "n").await;
        let second = Spill::open(path.clone(), "n".into()).await;
        let problem = second.err().unwrap().to_string();
        assert!(problem.contains("in use by another mika"), "{problem}");
    }

    #[tokio::test]
    async fn a_file_without_batches_belongs_to_whoever_opens_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        assert_eq!(owner_of(path.clone()).await.unwrap(), None);
        let spill = open(&path, "n").await;
        spill.put(vec![batch(3)]).await.unwrap();
        spill.forget(3).await.unwrap();
        drop(spill);
        assert_eq!(owner_of(path.clone()).await.unwrap(), None);
        let spill = open(&path, "m").await;
        spill.put(vec![batch(1)]).await.unwrap();
        drop(spill);
        assert_eq!(owner_of(path).await.unwrap().as_deref(), Some("m"));
    }

    #[tokio::test]
    async fn batches_of_another_node_are_told_until_they_are_handed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        let spill = open(&path, "n").await;
        spill.put(vec![batch(3)]).await.unwrap();
        drop(spill);
        for _ in 0..2 {
            let opened = Spill::open(path.clone(), "m".into()).await;
            let (spill, former) = opened.unwrap();
            assert_eq!(former.as_deref(), Some("n"));
            assert_eq!(spill.numbers().await.unwrap(), [(3, 1)]);
        }
        let (spill, _) = Spill::open(path.clone(), "m".into()).await.unwrap();
        spill.hand_over("m".into()).await.unwrap();
        drop(spill);
        let spill = open(&path, "m").await;
        assert_eq!(spill.numbers().await.unwrap(), []);
    }

    /// The file, which has no batches of another node.
    async fn open(path: &Path, node: &str) -> Spill {
        let opened = Spill::open(path.to_path_buf(), node.into()).await;
        let (spill, former) = opened.unwrap();
        assert_eq!(former, None);
        spill
    }
}
