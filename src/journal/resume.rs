//! Going on where the node's last process ended: its rest in the cache and in the spill file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::ledger::{Ledger, Progress};
use super::spill::{Spill, SpillError};
use super::totals::PendingTotals;
use super::{Desk, Journal, Parts, Settings};
use crate::cache::{Cache, CacheError, Generation};
use crate::change::Batch;
use crate::storage::StorageError;

/// Batches read from the cache at once.
const PAGE: u32 = 100;

/// Why a journal can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Spill(#[from] SpillError),
}

/// What an earlier process left.
struct Rest {
    /// The last batch that storage has.
    applied: u64,
    /// The last batch that the cache ever had.
    kept: u64,
    /// Changes of each batch in the spill file.
    spilled: BTreeMap<u64, usize>,
}

// === impl Journal ===

impl Journal {
    /// A journal that goes on where this node's last one ended.
    pub async fn resume(parts: Parts, settings: Settings) -> Result<Self, ResumeError> {
        let applied = parts.storage.applied(&settings.node).await?;
        let Some(cache) = parts.cache.clone() else {
            let progress = Progress {
                last: applied,
                sent: applied,
                applied,
            };
            let ledger = Ledger::new(progress, false, usize::MAX);
            return Ok(Self::at(
                parts,
                settings,
                ledger,
                None,
                Generation::default(),
            ));
        };
        let generation = cache.ping().await?;
        let opened = Spill::open(settings.spill.clone(), settings.node.clone()).await?;
        let (spill, former) = opened;
        if let Some(former) = former {
            save_former(&parts, &settings, &spill, former).await?;
        }
        let rest = Rest {
            applied,
            kept: cache.last_kept(&settings.node).await?,
            spilled: spill.numbers().await?.into_iter().collect(),
        };
        // A cache that lacks what storage has is given the peers themselves. Batches of before
        // would only put older records in their place.
        let progress = Progress {
            last: applied,
            sent: rest.kept.max(applied),
            applied,
        };
        let ledger = Ledger::new(progress, true, settings.memory_max);
        let journal = Self::at(parts, settings, ledger, Some(spill), generation);
        journal.desk.take_up(&*cache, &rest).await?;
        Ok(journal)
    }

    /// Applies what an earlier process left, so that storage can be loaded from.
    pub async fn apply_rest(&self) -> Result<(), StorageError> {
        let waiting = self.desk.ledger.backlog();
        if waiting > 0 {
            tracing::info!(changes = waiting, "applying what the last run left");
        }
        self.desk.apply_rest().await
    }

    fn at(
        parts: Parts,
        settings: Settings,
        ledger: Ledger,
        spill: Option<Spill>,
        generation: Generation,
    ) -> Self {
        Self {
            desk: Arc::new(Desk {
                flush_interval: watch::Sender::new(settings.flush_interval),
                parts,
                settings,
                ledger,
                spill,
                generation: watch::Sender::new(generation),
                cache_is_away: AtomicBool::new(false),
                cache_is_late: AtomicBool::new(false),
                spill_fails: AtomicBool::new(false),
                cache_broke: Notify::new(),
                storage_trouble: Mutex::new(None),
                pending_totals: PendingTotals::default(),
            }),
            work: None,
        }
    }
}

/// Saves what a node left in the spill file that has another name now: under its old name, by
/// which storage and cache tell what they have of it already. Then the file is this node's.
/// Interrupted anywhere, it is done again.
async fn save_former(
    parts: &Parts,
    settings: &Settings,
    spill: &Spill,
    former: String,
) -> Result<(), ResumeError> {
    let Some(cache) = &parts.cache else {
        return Ok(());
    };
    let generation = cache.ping().await?;
    let rest = Rest {
        applied: parts.storage.applied(&former).await?,
        kept: cache.last_kept(&former).await?,
        spilled: spill.numbers().await?.into_iter().collect(),
    };
    if rest.is_unknown() {
        return Err(spill.of_another_database(&former, &settings.node).into());
    }
    let progress = Progress {
        last: rest.applied,
        sent: rest.kept.max(rest.applied),
        applied: rest.applied,
    };
    let settings_then = Settings {
        node: former.clone(),
        ..settings.clone()
    };
    let ledger = Ledger::new(progress, true, settings.memory_max);
    let journal = Journal::at(
        parts.clone(),
        settings_then,
        ledger,
        Some(spill.clone()),
        generation,
    );
    let desk = &journal.desk;
    desk.take_up(&**cache, &rest).await?;
    desk.apply_rest().await?;
    // Other nodes hear of it by the cache.
    desk.send_rest(&**cache).await?;
    spill.hand_over(settings.node.clone()).await?;
    tracing::info!(
        former,
        node = settings.node,
        batches = rest.spilled.len(),
        "saved what this node left in the spill file under its former name"
    );
    Ok(())
}

// === impl Rest ===

impl Rest {
    /// The last batch that ever was.
    fn last(&self) -> u64 {
        let spilled = self
            .spilled
            .last_key_value()
            .map_or(0, |(number, _)| *number);
        self.applied.max(self.kept).max(spilled)
    }

    /// Whether storage and cache never heard of the node, which has written to others before.
    fn is_unknown(&self) -> bool {
        let first = self.spilled.first_key_value();
        self.applied == 0 && self.kept == 0 && first.is_some_and(|(number, _)| *number > 1)
    }
}

// === impl Desk ===

impl Desk {
    /// Fills the ledger with what is left.
    async fn take_up(&self, cache: &dyn Cache, rest: &Rest) -> Result<(), ResumeError> {
        let mut missing = 0_u64;
        let mut kept = BTreeMap::new();
        let mut read_to = rest.applied;
        for number in rest.applied + 1..=rest.last() {
            if let Some(changes) = rest.spilled.get(&number) {
                self.ledger.push_spilled(number, *changes, self.now());
                continue;
            }
            if number > read_to {
                let page = cache.kept(&self.settings.node, number - 1, PAGE).await?;
                read_to = page.last().map_or(u64::MAX, |batch| batch.number);
                kept = page
                    .into_iter()
                    .map(|batch| (batch.number, batch))
                    .collect();
            }
            let batch = kept.remove(&number).unwrap_or_else(|| {
                missing += 1;
                Batch {
                    node: self.settings.node.clone(),
                    number,
                    changes: Vec::new(),
                }
            });
            self.ledger.push(vec![Arc::new(batch)], self.now());
            if self.ledger.is_full()
                && let Some(spill) = &self.spill
            {
                self.spill_all(spill).await;
            }
        }
        if missing > 0 {
            tracing::error!(
                batches = missing,
                "batches of the last run are gone: the cache forgot them while this node was down, \
                 before storage had them"
            );
        }
        Ok(())
    }
}
