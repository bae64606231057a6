//! The batches of a journal whose process is gone: any node that finds them applies them to storage.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::spill::{Spill, SpillError, SpilledBatch};
use crate::base::ids::InfoHash;
use crate::cache::{Cache, CacheError};
use crate::change::{Batch, Change};
use crate::storage::{CreditRules, Storage, StorageError};

/// Batches applied at once.
const PAGE: u32 = 20;

/// What an ended journal left: where it is, and where it belongs.
pub(super) struct Leftover<'a> {
    pub journal: &'a str,
    /// None if nodes share nothing.
    pub cache: Option<&'a dyn Cache>,
    pub storage: &'a dyn Storage,
    /// The spill file of that journal; none if it is on another host's disk.
    pub spill: Option<&'a Spill>,
}

/// What was applied of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdoptedJournal {
    pub journal: String,
    /// Batches that storage lacked, and their changes.
    pub batches: u64,
    pub changes: usize,
    /// Swarms whose counters they have set.
    pub swarms: HashSet<InfoHash>,
    /// Batches that are lost: neither storage nor the cache nor the file has them.
    pub missing: u64,
    /// The number of the last batch that storage has now.
    pub applied: u64,
}

impl AdoptedJournal {
    /// Logs what was applied, if it was anything.
    pub(super) fn log(&self, text: &str) {
        let Self {
            journal,
            batches,
            changes,
            ..
        } = self;
        if *batches > 0 {
            tracing::info!(journal, batches, changes, "{text}");
        }
    }
}

/// Why a journal can't start, or the leftover of one could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Spill(#[from] SpillError),
}

// === impl JournalError ===

impl JournalError {
    /// Whether a retry would fail as well.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Cache(error) => matches!(error, CacheError::Broken(_)),
            Self::Storage(error) => !matches!(error, StorageError::Away(_)),
            Self::Spill(_) => true,
        }
    }
}

// === impl Leftover ===

impl Leftover<'_> {
    /// Applies all of it. Idempotent, so it may be interrupted anywhere.
    pub async fn apply(&self, rules: &CreditRules) -> Result<AdoptedJournal, JournalError> {
        let applied = self.storage.last_applied(self.journal).await?;
        self.apply_after(0, applied, rules).await
    }

    /// [`Self::apply`], where the cache has the peers of all batches up to `written`, and storage has all up to
    /// `applied`, and maybe more: what both have is not read.
    pub async fn apply_after(
        &self,
        written: u64,
        applied: u64,
        rules: &CreditRules,
    ) -> Result<AdoptedJournal, JournalError> {
        let mut adopted = AdoptedJournal {
            journal: self.journal.to_owned(),
            applied,
            ..AdoptedJournal::default()
        };
        let mut spilled = self.spilled(applied).await?;
        let mut after = written.min(applied);
        let fills_cache = spilled.is_empty() || self.has_cached(applied).await?;
        while let Some(batches) = self.next(after, &mut spilled, fills_cache).await? {
            for run in batches.chunk_by(|batch, next| next.number == batch.number + 1) {
                self.apply_run(run, rules, &mut adopted).await?;
            }
            after = batches.last().map_or(after, |batch| batch.number);
        }
        if adopted.missing > 0 {
            tracing::error!(
                journal = self.journal,
                batches = adopted.missing,
                "batches of a node that is gone are missing: neither storage nor the cache has them. \
                 What clients reported in them is credited with their next announce, except for those \
                 that never announce again"
            );
        }
        Ok(adopted)
    }

    /// Whether the cache had all batches up to that one. If it did not, later ones must stay away: with them it would
    /// seem to have the peers of all, and a node would start from there.
    async fn has_cached(&self, number: u64) -> Result<bool, CacheError> {
        Ok(match self.cache {
            Some(cache) => cache.last_kept(self.journal).await? >= number,
            None => false,
        })
    }

    /// Numbers in the spill file that storage lacks.
    async fn spilled(&self, applied: u64) -> Result<BTreeSet<u64>, SpillError> {
        let Some(spill) = self.spill else {
            return Ok(BTreeSet::new());
        };
        let batches = spill.numbers().await?.into_iter();
        Ok(batches
            .map(|(number, _)| number)
            .filter(|number| *number > applied)
            .collect())
    }

    /// The next batches after `after`, from the cache and the spill file, in order. With `fills_cache`, those of the
    /// spill file are also sent to the cache, because other nodes follow it. None at the end.
    async fn next(
        &self,
        after: u64,
        spilled: &mut BTreeSet<u64>,
        fills_cache: bool,
    ) -> Result<Option<Vec<Arc<Batch>>>, JournalError> {
        let cached = self.cached(after).await?;
        if cached.is_empty() && spilled.is_empty() {
            return Ok(None);
        }
        let last = cached.last().map_or(u64::MAX, |batch| batch.number);
        let known: HashSet<u64> = cached.iter().map(|batch| batch.number).collect();
        let mut batches: Vec<_> = cached.into_iter().map(Arc::new).collect();
        let numbers: Vec<u64> = spilled.iter().copied().take(PAGE as usize).collect();
        for number in numbers.into_iter().filter(|number| *number <= last) {
            spilled.remove(&number);
            if !known.contains(&number) {
                batches.extend(self.unspill(number, fills_cache).await?);
            }
        }
        batches.sort_by_key(|batch| batch.number);
        // Stops before the first batch that is still only in the spill file, to keep the order.
        let end = spilled.first().copied().unwrap_or(u64::MAX);
        batches.retain(|batch| batch.number < end);
        Ok(Some(batches))
    }

    /// The next batches in the cache. Writes their peers to it, too.
    async fn cached(&self, after: u64) -> Result<Vec<Batch>, CacheError> {
        let Some(cache) = self.cache else {
            return Ok(Vec::new());
        };
        let cached = cache
            .kept(self.journal, after, PAGE, Duration::ZERO)
            .await?;
        cache.put_peers_of(&cached).await?;
        Ok(cached)
    }

    /// Reads a batch from the spill file, and with `fills_cache` sends it to the cache. A damaged one stays in the file.
    async fn unspill(
        &self,
        number: u64,
        fills_cache: bool,
    ) -> Result<Option<Arc<Batch>>, JournalError> {
        let Some(spill) = self.spill else {
            return Ok(None);
        };
        match spill.get(self.journal, number).await? {
            SpilledBatch::Batch(batch) => {
                let batch = Arc::new(batch);
                if let Some(cache) = self.cache.filter(|_| fills_cache) {
                    let generation = cache.ping().await?;
                    cache.keep(generation, &[Arc::clone(&batch)]).await?;
                }
                Ok(Some(batch))
            }
            SpilledBatch::Missing => Ok(None),
            SpilledBatch::Damaged(problem) => {
                tracing::error!(
                    file = %spill.path().display(),
                    batch = number,
                    problem,
                    "a batch in the spill file can't be read; it is kept in its table \"damaged\""
                );
                spill.set_aside(number).await?;
                Ok(None)
            }
        }
    }

    /// Applies consecutive batches; skips what is missing before them.
    async fn apply_run(
        &self,
        run: &[Arc<Batch>],
        rules: &CreditRules,
        adopted: &mut AdoptedJournal,
    ) -> Result<(), JournalError> {
        let new: Vec<_> = run
            .iter()
            .filter(|batch| batch.number > adopted.applied)
            .cloned()
            .collect();
        let Some(last) = new.last().map(|batch| batch.number) else {
            return Ok(());
        };
        let credited = match self.storage.apply(&new, rules).await {
            Err(StorageError::Behind { applied, first, .. }) => {
                adopted.missing += first - 1 - applied;
                self.storage.begin_at(self.journal, first - 1).await?;
                self.storage.apply(&new, rules).await?
            }
            applied => applied?,
        };
        adopted.batches += new.len() as u64;
        for batch in &new {
            adopted.changes += batch.changes.len();
            let peers = batch.changes.iter().filter_map(Change::peer);
            adopted.swarms.extend(peers.map(|peer| peer.info_hash));
        }
        adopted.applied = last;
        if let Some(cache) = self.cache {
            let generation = cache.ping().await?;
            cache.add_totals(generation, &credited).await?;
        }
        Ok(())
    }
}
