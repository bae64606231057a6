//! The file: the identity of the database in its first line, then a change a line, and what the changes add up to.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use mika::change::sums::Credited;
use mika::storage::StorageError;
use mika::storage::memory::{MemoryChange, MemoryRows};
use parking_lot::{Mutex, RwLock};

pub type Result<T> = std::result::Result<T, StorageError>;

/// The file, and what is in it.
pub struct Log {
    pub identity: String,
    /// Whoever changes the rows has locked it. None after a write that failed halfway.
    pub file: Mutex<Option<File>>,
    pub rows: RwLock<MemoryRows>,
}

// === impl Log ===

impl Log {
    /// Opens the file, makes it if it is not there, and replays it.
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(path);
        let mut file = file.map_err(StorageError::broken)?;
        // Held until the process ends, however that ends.
        file.try_lock().map_err(StorageError::broken)?;
        let mut text = fs::read_to_string(path).map_err(StorageError::broken)?;
        // A kill may have cut the last line off.
        text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        file.set_len(text.len() as u64)
            .map_err(StorageError::broken)?;
        if text.is_empty() {
            text = format!("{:032x}\n", fastrand::u128(..));
            let written = file.write_all(text.as_bytes());
            let durable = written.and_then(|()| file.sync_all());
            durable.map_err(StorageError::away)?;
        }
        let mut lines = text.lines();
        let identity = lines.next().unwrap_or_default().to_owned();
        let mut rows = MemoryRows::default();
        for line in lines {
            let change = serde_json::from_str(line).map_err(StorageError::broken)?;
            rows.make(&change)?;
        }
        Ok(Self {
            identity,
            file: Mutex::new(Some(file)),
            rows: RwLock::new(rows),
        })
    }

    /// Makes a change durable, and then its effect visible.
    pub fn append(&self, file: &mut Option<File>, change: &MemoryChange) -> Result<Credited> {
        let line = serde_json::to_string(change).map_err(StorageError::broken)? + "\n";
        let gone = || StorageError::broken("a write failed halfway: start again");
        let mut open = file.take().ok_or_else(gone)?;
        let before = open.metadata().map_err(StorageError::broken)?.len();
        let written = open.write_all(line.as_bytes());
        if let Err(error) = written.and_then(|()| open.sync_data()) {
            *file = open.set_len(before).is_ok().then_some(open);
            return Err(StorageError::away(error));
        }
        *file = Some(open);
        self.rows.write().make(change)
    }
}
