//! The file: an entry a line, and what the entries add up to.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use mika::base::ids::{TorrentId, UserId};
use mika::change::sums::Credited;
use mika::change::{Batch, codec};
use mika::registry::RowChange;
use mika::storage::memory::MemoryRows;
use mika::storage::{CreditRules, NewTorrent, NewUser, StorageError};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

pub type Result<T> = std::result::Result<T, StorageError>;

/// A line of the file, and one transaction: it is there as a whole, or not at all.
#[derive(Serialize, Deserialize)]
pub enum Entry {
    Identity(String),
    /// Id, name, passkey, and whether the user can leech.
    User(u32, String, String, bool),
    /// Id, both info hashes, and the name.
    Torrent(u32, String, Option<String>, String),
    BeginAt(String, u64),
    /// The first number, and the changes of each batch. The rules are those that were in force: a replay has to settle
    /// alike.
    Batches(String, u64, Vec<String>, CreditRules),
}

/// What the entries add up to.
#[derive(Default)]
pub struct Tables {
    pub identity: String,
    pub rows: MemoryRows,
    /// Users and torrents as they were added: the feed.
    pub added: Vec<RowChange>,
}

/// The file, and what is in it. Only who has locked the file changes the tables.
pub struct Log {
    /// None after a write that failed halfway.
    pub file: Mutex<Option<File>>,
    pub tables: RwLock<Tables>,
}

pub fn broken(problem: impl Display) -> StorageError {
    StorageError::Broken(problem.to_string())
}

// === impl Tables ===

impl Tables {
    fn take(&mut self, entry: Entry) -> Result<Credited> {
        match entry {
            Entry::Identity(identity) => self.identity = identity,
            Entry::User(id, username, passkey, can_leech) => {
                let (id, passkey) = (UserId(id), passkey.parse().map_err(broken)?);
                #[rustfmt::skip]
                let row = NewUser { id: Some(id), username, passkey, can_leech }.stored(id);
                self.rows.users.insert(id, row.clone());
                self.added.push(RowChange::User(row));
            }
            Entry::Torrent(id, first, second, name) => {
                let (id, info_hash) = (TorrentId(id), first.parse().map_err(broken)?);
                let second = second.map(|hash| hash.parse());
                let info_hash_v2 = second.transpose().map_err(broken)?;
                #[rustfmt::skip]
                let row = NewTorrent { id: Some(id), info_hash, info_hash_v2, name }.stored(id);
                self.rows.torrents.insert(id, row.clone());
                self.added.push(RowChange::Torrent(row));
            }
            Entry::BeginAt(journal, number) => self.rows.begin_at(&journal, number),
            Entry::Batches(journal, first, texts, rules) => {
                let batch = |(number, text): (u64, &String)| {
                    Ok(Arc::new(Batch {
                        journal: journal.clone(),
                        number,
                        changes: codec::decode(text).map_err(broken)?,
                    }))
                };
                let batches: Result<Vec<_>> = (first..).zip(&texts).map(batch).collect();
                return self.rows.apply(&batches?, &rules);
            }
        }
        Ok(Credited::default())
    }
}

// === impl Log ===

impl Log {
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(path);
        let file = file.map_err(broken)?;
        // Held until the process ends, however that ends.
        file.try_lock().map_err(broken)?;
        let text = fs::read(path).map_err(broken)?;
        // A kill may have cut the last line off.
        let end = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        file.set_len(end as u64).map_err(broken)?;
        let mut tables = Tables::default();
        for line in text[..end].split_inclusive(|&byte| byte == b'\n') {
            tables.take(serde_json::from_slice(line).map_err(broken)?)?;
        }
        let is_new = tables.identity.is_empty();
        let log = Self {
            file: Mutex::new(Some(file)),
            tables: RwLock::new(tables),
        };
        if is_new {
            let identity = format!("{:032x}", fastrand::u128(..));
            log.append(&mut log.file.lock(), Entry::Identity(identity))?;
        }
        Ok(log)
    }

    /// Makes an entry durable first, and takes its effect then.
    pub fn append(&self, file: &mut Option<File>, entry: Entry) -> Result<Credited> {
        let line = serde_json::to_string(&entry).map_err(broken)? + "\n";
        let gone = || broken("a write failed halfway: start again to read what is there");
        let mut open = file.take().ok_or_else(gone)?;
        let before = open.metadata().map_err(broken)?.len();
        let written = open.write_all(line.as_bytes());
        if let Err(error) = written.and_then(|()| open.sync_data()) {
            *file = open.set_len(before).is_ok().then_some(open);
            return Err(StorageError::Away(error.to_string()));
        }
        *file = Some(open);
        self.tables.write().take(entry)
    }
}
