//! Changes of the rows as data, for drivers that log each change and replay the log when they are opened.

use std::fmt::Display;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::MemoryRows;
use crate::base::ids::{TorrentId, UserId};
use crate::change::sums::Credited;
use crate::change::{Batch, codec};
use crate::registry::RowChange;
use crate::storage::{CreditRules, NewTorrent, NewUser, StorageError, StorageResult};

/// One change of [`MemoryRows`], and one transaction. It has everything that its effect depends on (the id that was
/// chosen, the rules that were in force), so that a replay of all changes in their order makes the same rows again.
/// A user's passkey is in it: it belongs into the database, never into a log of the program.
#[derive(Clone, Serialize, Deserialize)]
pub enum MemoryChange {
    User {
        id: u32,
        username: String,
        passkey: String,
        can_leech: bool,
    },
    Torrent {
        id: u32,
        /// Hexadecimal digits.
        info_hash: String,
        info_hash_v2: Option<String>,
        name: String,
    },
    BeginAt {
        journal: String,
        number: u64,
    },
    Batches {
        journal: String,
        /// The number of the first batch.
        first: u64,
        /// The changes of each batch, as [`codec::encode`] writes them.
        changes: Vec<String>,
        rules: CreditRules,
    },
}

// === impl MemoryChange ===

impl MemoryChange {
    fn user(id: UserId, new: &NewUser) -> Self {
        Self::User {
            id: id.0,
            username: new.username.clone(),
            passkey: new.passkey.expose().to_owned(),
            can_leech: new.can_leech,
        }
    }

    fn torrent(id: TorrentId, new: &NewTorrent) -> Self {
        Self::Torrent {
            id: id.0,
            info_hash: new.info_hash.to_string(),
            info_hash_v2: new.info_hash_v2.map(|hash| hash.to_string()),
            name: new.name.clone(),
        }
    }
}

// === impl MemoryRows ===

impl MemoryRows {
    /// The change that adds a user, and the user's id; none if its id or passkey is taken.
    pub fn adding_user(&self, new: &NewUser) -> Option<(UserId, MemoryChange)> {
        let id = self.free_user_id(new)?;
        Some((id, MemoryChange::user(id, new)))
    }

    /// The change that adds a torrent, and its id; none if that or one of its info hashes is taken.
    pub fn adding_torrent(&self, new: &NewTorrent) -> Option<(TorrentId, MemoryChange)> {
        let id = self.free_torrent_id(new)?;
        Some((id, MemoryChange::torrent(id, new)))
    }

    /// The change that applies those of these batches that were not applied yet; none if all were. Fails with
    /// [`StorageError::Behind`] if a batch before them is missing.
    pub fn applying(
        &self,
        batches: &[Arc<Batch>],
        rules: &CreditRules,
    ) -> StorageResult<Option<MemoryChange>> {
        let new = self.not_applied(batches)?;
        Ok(new.first().map(|first| MemoryChange::Batches {
            journal: first.journal.clone(),
            first: first.number,
            changes: new
                .iter()
                .map(|batch| codec::encode(&batch.changes))
                .collect(),
            rules: *rules,
        }))
    }

    /// Makes a change; returns what it credited. [`StorageError::Broken`] if it can't be understood, which changes nothing.
    pub fn make(&mut self, change: &MemoryChange) -> StorageResult<Credited> {
        match change {
            MemoryChange::User {
                id,
                username,
                passkey,
                can_leech,
            } => {
                let id = UserId(*id);
                let new = NewUser {
                    id: Some(id),
                    username: username.clone(),
                    passkey: passkey.parse().map_err(unreadable)?,
                    can_leech: *can_leech,
                };
                let row = new.stored(id);
                self.users.insert(id, row.clone());
                self.feed.push(RowChange::User(row));
            }
            MemoryChange::Torrent {
                id,
                info_hash,
                info_hash_v2,
                name,
            } => {
                let id = TorrentId(*id);
                let second = info_hash_v2.as_ref().map(|hash| hash.parse());
                let new = NewTorrent {
                    id: Some(id),
                    info_hash: info_hash.parse().map_err(unreadable)?,
                    info_hash_v2: second.transpose().map_err(unreadable)?,
                    name: name.clone(),
                };
                let row = new.stored(id);
                self.torrents.insert(id, row.clone());
                self.feed.push(RowChange::Torrent(row));
            }
            MemoryChange::BeginAt { journal, number } => self.begin_at(journal, *number),
            MemoryChange::Batches {
                journal,
                first,
                changes,
                rules,
            } => return self.apply(&batches(journal, *first, changes)?, rules),
        }
        Ok(Credited::default())
    }
}

/// Consecutive batches of one journal, from their texts.
fn batches(journal: &str, first: u64, changes: &[String]) -> StorageResult<Vec<Arc<Batch>>> {
    let batch = |(number, text): (u64, &String)| {
        Ok(Arc::new(Batch::new(
            journal.to_owned(),
            number,
            codec::decode(text).map_err(unreadable)?,
        )))
    };
    (first..).zip(changes).map(batch).collect()
}

fn unreadable(problem: impl Display) -> StorageError {
    StorageError::broken(format_args!("a change can't be read: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Change;
    use crate::storage::{Feed, FeedPosition};

    fn new_user(number: u32) -> NewUser {
        NewUser {
            id: None,
            username: format!("user {number}"),
            passkey: format!("passkey-{number}").parse().unwrap(),
            can_leech: number != 1,
        }
    }

    fn new_torrent(number: u8, second: Option<u8>) -> NewTorrent {
        let hash = |byte| crate::base::ids::InfoHash([byte; 20]);
        NewTorrent {
            id: None,
            info_hash: hash(number),
            info_hash_v2: second.map(hash),
            name: format!("torrent {number}"),
        }
    }

    fn batch(number: u64) -> Arc<Batch> {
        Arc::new(Batch::new(
            "n#1.a".into(),
            number,
            vec![Change::Snatches {
                info_hash: crate::base::ids::InfoHash([9; 20]),
                count: 1,
            }],
        ))
    }

    #[test]
    fn a_replay_of_all_changes_makes_the_same_rows() {
        let mut rows = MemoryRows::default();
        let mut log = Vec::new();
        let mut make = |rows: &mut MemoryRows, change: MemoryChange| {
            rows.make(&change).unwrap();
            log.push(serde_json::to_string(&change).unwrap());
        };
        for number in 1..4 {
            let (id, change) = rows.adding_user(&new_user(number)).unwrap();
            assert_eq!(id, UserId(number));
            make(&mut rows, change);
            assert!(rows.adding_user(&new_user(number)).is_none(), "taken");
        }
        let (_, change) = rows.adding_torrent(&new_torrent(1, Some(2))).unwrap();
        make(&mut rows, change);
        assert!(rows.adding_torrent(&new_torrent(2, None)).is_none());
        let rules = CreditRules::default();
        let batches = [batch(1), batch(2)];
        let change = rows.applying(&batches, &rules).unwrap().unwrap();
        make(&mut rows, change);
        assert!(rows.applying(&batches, &rules).unwrap().is_none());
        assert!(matches!(
            rows.applying(&[batch(4)], &rules),
            Err(StorageError::Behind { applied: 2, .. })
        ));
        let change = MemoryChange::BeginAt {
            journal: "n#1.a".into(),
            number: 7,
        };
        make(&mut rows, change);

        let mut again = MemoryRows::default();
        for line in &log {
            again.make(&serde_json::from_str(line).unwrap()).unwrap();
        }
        assert_eq!(again.users, rows.users);
        assert_eq!(again.torrents, rows.torrents);
        assert_eq!(again.journals, rows.journals);
        assert_eq!(again.last_applied("n#1.a"), 7);
        let Feed::Changes(changes, position) = again.feed.after(FeedPosition(2), 9) else {
            panic!("the feed has all of them");
        };
        assert_eq!((changes.len(), position), (2, rows.feed.position()));
    }

    #[test]
    fn a_change_that_can_not_be_read_changes_nothing() {
        let mut rows = MemoryRows::default();
        let bad = [
            MemoryChange::User {
                id: 1,
                username: "a".into(),
                passkey: "secret in clear".into(),
                can_leech: true,
            },
            MemoryChange::Torrent {
                id: 1,
                info_hash: "61".repeat(20),
                info_hash_v2: Some("61".into()),
                name: "a".into(),
            },
            MemoryChange::Batches {
                journal: "n#1.a".into(),
                first: 1,
                changes: vec!["nonsense".into()],
                rules: CreditRules::default(),
            },
        ];
        for change in bad {
            let error = rows.make(&change).unwrap_err();
            assert!(matches!(error, StorageError::Broken(_)), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(rows.users.is_empty() && rows.torrents.is_empty() && rows.journals.is_empty());
        assert_eq!(rows.feed.position(), FeedPosition(0));
    }
}
