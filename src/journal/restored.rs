//! After storage was restored from a backup: finds the batches that it lacks, and applies or drops them.
//! No node runs meanwhile.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::leftover::{AdoptedJournal, JournalError, Leftover};
use super::spill::{Spill, SpillHeader, SpilledBatch};
use crate::cache::{Cache, CacheError, STOPPED};
use crate::change::journals::sort_by_start;
use crate::change::{Batch, Change};
use crate::storage::{CreditRules, Storage};

/// Batches read at once.
const PAGE: u32 = 20;

/// Where unapplied batches are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchLocation {
    Cache,
    File(PathBuf),
}

/// The batches of a journal, in one location, that storage lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnappliedBatches {
    pub journal: String,
    pub place: BatchLocation,
    /// The identity of another database that a spill file belongs to: such a file is left alone.
    pub foreign: Option<String>,
    /// The number of the last batch that storage has; 0 if it has none.
    pub applied: u64,
    /// The numbers of the first and last batch that it lacks.
    pub first: u64,
    pub last: u64,
    pub batches: u64,
    pub changes: u64,
    /// How many of these batches can't be read.
    pub unreadable: u64,
    /// Times of the oldest and newest announce (Unix time); none if there is none.
    pub oldest: Option<i64>,
    pub newest: Option<i64>,
    /// Number of users with announces in these batches.
    pub users: u64,
    /// Bytes that its nodes expected to be credited.
    pub uploaded: u64,
    pub downloaded: u64,
}

/// The journals of a cache and of spill files whose nodes do not run.
pub struct Leftovers {
    storage: Arc<dyn Storage>,
    cache: Arc<dyn Cache>,
    database: String,
    spilled: Vec<(Spill, SpillHeader)>,
}

/// Adds up batches.
#[derive(Default)]
struct Sums {
    numbers: Option<(u64, u64)>,
    batches: u64,
    changes: u64,
    unreadable: u64,
    oldest: Option<i64>,
    newest: Option<i64>,
    users: HashSet<u32>,
    up: u64,
    down: u64,
}

// === impl Leftovers ===

impl Leftovers {
    /// Opens and locks the spill files that exist. `database` is storage's identity.
    ///
    /// # Errors
    /// A file is in use, or is no spill file.
    pub async fn open(
        storage: Arc<dyn Storage>,
        cache: Arc<dyn Cache>,
        database: String,
        files: Vec<PathBuf>,
    ) -> Result<Self, JournalError> {
        let mut spilled = Vec::new();
        for file in files {
            spilled.extend(Spill::open_left(file).await?);
        }
        Ok(Self {
            storage,
            cache,
            database,
            spilled,
        })
    }

    /// What storage lacks, by journal and location; those without any are left out.
    ///
    /// # Errors
    /// The cache, storage or a file failed; nothing was changed.
    pub async fn look(&self) -> Result<Vec<UnappliedBatches>, JournalError> {
        let mut all = Vec::new();
        for (journal, _) in self.cache.nodes().await? {
            all.extend(self.in_cache(&journal).await?);
        }
        for (spill, head) in &self.spilled {
            all.extend(self.in_file(spill, head).await?);
        }
        Ok(all)
    }

    /// Applies all of it to storage; skips missing batches. Idempotent.
    pub async fn apply(&self, rules: &CreditRules) -> Result<Vec<AdoptedJournal>, JournalError> {
        let mut all = Vec::new();
        for (spill, head) in self.own_files() {
            all.push(
                self.replay_leftover(&head.journal, Some(spill), rules)
                    .await?,
            );
            let journal = head.journal.clone();
            spill.hand_over(journal, self.database.clone()).await?;
        }
        let mut nodes = self.cache.nodes().await?;
        sort_by_start(&mut nodes);
        for (journal, _) in nodes {
            all.push(self.replay_leftover(&journal, None, rules).await?);
            self.end(&journal).await?;
        }
        all.retain(|adopted| adopted.batches > 0 || adopted.missing > 0);
        Ok(all)
    }

    /// Drops all of it: storage counts it as applied from now on.
    pub async fn drop_all(&self) -> Result<(), JournalError> {
        for (spill, head) in self.own_files() {
            if let Some((last, _)) = spill.numbers().await?.last() {
                self.storage.begin_at(&head.journal, *last).await?;
            }
            let journal = head.journal.clone();
            spill.hand_over(journal, self.database.clone()).await?;
        }
        for (journal, _) in self.cache.nodes().await? {
            let last = self.cache.last_kept(&journal).await?;
            if last > 0 {
                self.storage.begin_at(&journal, last).await?;
            }
            self.end(&journal).await?;
        }
        Ok(())
    }

    /// Files of this database, or of a version that did not note the database.
    fn own_files(&self) -> impl Iterator<Item = &(Spill, SpillHeader)> {
        self.spilled.iter().filter(|(_, head)| self.is_own(head))
    }

    fn is_own(&self, head: &SpillHeader) -> bool {
        head.storage.is_empty() || head.storage == self.database
    }

    async fn in_cache(&self, journal: &str) -> Result<Option<UnappliedBatches>, JournalError> {
        let applied = self.storage.last_applied(journal).await?;
        let mut sums = Sums::default();
        let mut after = applied;
        loop {
            let batches = self
                .cache
                .kept(journal, after, PAGE, Duration::ZERO)
                .await?;
            let Some(last) = batches.last() else {
                return Ok(sums.into_unapplied(journal, BatchLocation::Cache, applied));
            };
            after = last.number;
            for batch in &batches {
                sums.add(batch);
            }
        }
    }

    async fn in_file(
        &self,
        spill: &Spill,
        head: &SpillHeader,
    ) -> Result<Option<UnappliedBatches>, JournalError> {
        let is_own = self.is_own(head);
        let applied = if is_own {
            self.storage.last_applied(&head.journal).await?
        } else {
            0
        };
        let mut sums = Sums::default();
        for (number, changes) in spill.numbers().await? {
            if number <= applied {
                continue;
            }
            match spill.get(&head.journal, number).await? {
                SpilledBatch::Batch(batch) => sums.add(&batch),
                SpilledBatch::Missing => {}
                SpilledBatch::Damaged(_) => sums.add_unreadable(number, changes),
            }
        }
        let place = BatchLocation::File(spill.path().to_path_buf());
        let found = sums.into_unapplied(&head.journal, place, applied);
        Ok(found.map(|found| UnappliedBatches {
            foreign: (!is_own).then(|| head.storage.clone()),
            ..found
        }))
    }

    async fn replay_leftover(
        &self,
        journal: &str,
        spill: Option<&Spill>,
        rules: &CreditRules,
    ) -> Result<AdoptedJournal, JournalError> {
        let leftover = Leftover {
            journal,
            cache: Some(&*self.cache),
            storage: &*self.storage,
            spill,
        };
        leftover.apply(rules).await
    }

    /// Empties a journal in the cache, and marks it as ended: nodes forget it later, with its number in
    /// storage.
    async fn end(&self, journal: &str) -> Result<(), CacheError> {
        let last = self.cache.last_kept(journal).await?;
        self.cache.trim_journal(journal, Some(last)).await?;
        self.cache.beat(journal, STOPPED).await
    }
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, batch: &Batch) {
        self.count(batch.number, batch.changes.len());
        for change in &batch.changes {
            match change {
                Change::Peer(change) => {
                    self.users.insert(change.key.user.0);
                    self.up = self.up.saturating_add(change.credit.up);
                    self.down = self.down.saturating_add(change.credit.down);
                    self.note_time(change.record.last_announce);
                }
                Change::Guest(change) => self.note_time(change.record.last_announce),
                Change::Snatches { .. } => {}
            }
        }
    }

    fn add_unreadable(&mut self, number: u64, changes: usize) {
        self.count(number, changes);
        self.unreadable += 1;
    }

    fn count(&mut self, number: u64, changes: usize) {
        let first = self.numbers.map_or(number, |(first, _)| first);
        self.numbers = Some((first, number));
        self.batches += 1;
        self.changes += changes as u64;
    }

    fn note_time(&mut self, at: i64) {
        self.oldest = self.oldest.min(Some(at)).or(Some(at));
        self.newest = self.newest.max(Some(at));
    }

    /// None if there was no batch.
    fn into_unapplied(
        self,
        journal: &str,
        place: BatchLocation,
        applied: u64,
    ) -> Option<UnappliedBatches> {
        let (first, last) = self.numbers?;
        Some(UnappliedBatches {
            journal: journal.to_owned(),
            place,
            foreign: None,
            applied,
            first,
            last,
            batches: self.batches,
            changes: self.changes,
            unreadable: self.unreadable,
            oldest: self.oldest,
            newest: self.newest,
            users: self.users.len() as u64,
            uploaded: self.up,
            downloaded: self.down,
        })
    }
}

// === impl BatchLocation ===

impl Serialize for BatchLocation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for BatchLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache => f.write_str("cache"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}
