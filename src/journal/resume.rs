//! Beginning a journal, after what earlier starts of this node left is where it belongs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::apply::credit_rules;
use super::ledger::{Ledger, Limits};
use super::rest::{Rest, RestError};
use super::spill::{Former, Spill, SpillError};
use super::totals::PendingTotals;
use super::{Desk, Journal, KEPT_IN_MEMORY, Parts, Settings, spill};
use crate::cache::{Cache, CacheError, Generation, Notice};
use crate::change::journals;
use crate::storage::StorageError;

/// Why a journal can't begin.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Spill(#[from] SpillError),
}

/// Starts of a node whose numbers storage keeps, though the cache has forgotten them.
const NUMBERS_KEPT: u64 = 32;

// === impl Journal ===

impl Journal {
    /// A journal of this start. What earlier starts left in the spill file is in storage by then, and
    /// what they left in the cache after [`Journal::apply_rest`].
    pub async fn resume(parts: Parts, settings: Settings) -> Result<Self, ResumeError> {
        match parts.cache.clone() {
            Some(cache) => Self::resume_shared(parts, settings, &*cache).await,
            None => Self::resume_alone(parts, settings).await,
        }
    }

    async fn resume_shared(
        parts: Parts,
        settings: Settings,
        cache: &dyn Cache,
    ) -> Result<Self, ResumeError> {
        let generation = cache.ping().await?;
        let identity = parts.storage.identity().await?;
        let (spill, former) = Spill::open(settings.spill.clone(), identity.clone()).await?;
        let stored = parts.storage.journals().await?;
        let stored = stored.iter().map(|(journal, _)| journal.as_str());
        let nodes = cache.nodes().await?;
        let known = nodes.iter().map(|(journal, _)| journal.as_str());
        let known = known.chain(former.as_ref().map(|it| it.journal.as_str()));
        let name = journals::next(&settings.node, known.chain(stored));
        if let Some(former) = &former {
            save_former(&parts, &settings, &spill, former).await?;
        }
        spill.hand_over(name.clone(), identity).await?;
        // The next start is numbered after this one, also if nothing is ever saved.
        parts.storage.begin_at(&name, 0).await?;
        let is_persistent = cache.is_persistent().await?;
        let spill = Some(spill);
        Ok(Self::new(
            parts,
            settings,
            name,
            spill,
            generation,
            is_persistent,
        ))
    }

    /// Without a cache, storage is claimed: nobody else writes there.
    async fn resume_alone(parts: Parts, settings: Settings) -> Result<Self, ResumeError> {
        let stored = parts.storage.journals().await?;
        let names = stored.iter().map(|(journal, _)| journal.as_str());
        let name = journals::next(&settings.node, names);
        // What was left when there was a cache.
        if spill::owner_of(settings.spill.clone()).await?.is_some() {
            let identity = parts.storage.identity().await?;
            let opened = Spill::open(settings.spill.clone(), identity.clone()).await?;
            if let (spill, Some(former)) = opened {
                save_former(&parts, &settings, &spill, &former).await?;
                spill.hand_over(name.clone(), identity).await?;
            }
        }
        parts.storage.begin_at(&name, 0).await?;
        for (journal, _) in &stored {
            if journals::node_of(journal) == settings.node {
                let applied = parts.storage.applied(journal).await?;
                parts.storage.forget_journal(journal, applied).await?;
            }
        }
        let generation = Generation::default();
        Ok(Self::new(parts, settings, name, None, generation, false))
    }

    /// Applies what earlier starts of this node left in the cache, so that storage can be loaded from.
    /// What can't be applied is logged, and tried again while the node runs.
    pub async fn apply_rest(&self) -> Result<(), ResumeError> {
        let desk = &self.desk;
        let Some(cache) = &desk.parts.cache else {
            return Ok(());
        };
        let rules = credit_rules(&desk.parts.tracker);
        let mut nodes = cache.nodes().await?;
        journals::sort_by_start(&mut nodes);
        for (journal, _) in nodes.iter().filter(|(journal, _)| desk.is_earlier(journal)) {
            let rest = Rest {
                journal,
                cache: Some(&**cache),
                storage: &*desk.parts.storage,
                spill: None,
            };
            match rest.apply(&rules).await {
                Ok(brought) if brought.batches > 0 => {
                    tracing::info!(
                        journal,
                        batches = brought.batches,
                        changes = brought.changes,
                        "applied what an earlier start left in the cache"
                    );
                }
                Ok(_) => {}
                Err(error) if error.is_lasting() => tracing::error!(
                    journal,
                    %error,
                    "what an earlier start left in the cache can't be applied; it stays there"
                ),
                Err(error) => return Err(error.into()),
            }
        }
        // Of those that the cache has forgotten there is no more, but in a spill file of another machine that
        // had this node's name: storage must know what it has of that.
        for (journal, applied) in desk.parts.storage.journals().await? {
            let is_listed = nodes.iter().any(|(name, _)| *name == journal);
            let is_recent =
                journals::start_of(&journal) + NUMBERS_KEPT > journals::start_of(&desk.name);
            let may_turn_up = is_recent && applied > 0;
            if desk.is_earlier(&journal) && !is_listed {
                if !may_turn_up {
                    let storage = &desk.parts.storage;
                    storage.forget_journal(&journal, applied).await?;
                }
                cache.forget_journal(&journal).await?;
            }
        }
        Ok(())
    }

    fn new(
        parts: Parts,
        settings: Settings,
        name: String,
        spill: Option<Spill>,
        generation: Generation,
        cache_is_persistent: bool,
    ) -> Self {
        let limits = Limits {
            is_shared: parts.cache.is_some(),
            memory_max: settings.memory_max,
            keep: settings.keep,
            keep_in_memory: KEPT_IN_MEMORY,
        };
        Self {
            desk: Arc::new(Desk {
                flush_interval: watch::Sender::new(settings.flush_interval),
                parts,
                settings,
                name,
                ledger: Ledger::new(limits),
                spill,
                generation: watch::Sender::new(generation),
                cache_is_away: AtomicBool::new(false),
                cache_is_late: AtomicBool::new(false),
                cache_is_persistent: AtomicBool::new(cache_is_persistent),
                spill_fails: AtomicBool::new(false),
                cache_broke: Notify::new(),
                storage_trouble: Mutex::new(None),
                pending_totals: PendingTotals::default(),
            }),
            work: None,
        }
    }
}

// === impl ResumeError ===

impl From<RestError> for ResumeError {
    fn from(error: RestError) -> Self {
        match error {
            RestError::Cache(error) => Self::Cache(error),
            RestError::Storage(error) => Self::Storage(error),
            RestError::Spill(error) => Self::Spill(error),
        }
    }
}

/// Saves what an earlier start left in the spill file: under the name of its journal, by which storage
/// and cache tell what they have of it already. Interrupted anywhere, it is done again.
async fn save_former(
    parts: &Parts,
    settings: &Settings,
    spill: &Spill,
    former: &Former,
) -> Result<(), ResumeError> {
    if !former.is_marked && is_unknown(parts, spill, &former.journal).await? {
        return Err(spill
            .of_another_database(&former.journal, &settings.node)
            .into());
    }
    let rest = Rest {
        journal: &former.journal,
        cache: parts.cache.as_deref(),
        storage: &*parts.storage,
        spill: Some(spill),
    };
    let brought = rest.apply(&credit_rules(&parts.tracker)).await?;
    if let Some(cache) = &parts.cache
        && brought.batches > 0
    {
        // No node follows that journal; its peers are in the cache now.
        cache.publish(&[Notice::Peers]).await?;
    }
    tracing::info!(
        journal = former.journal,
        file = %spill.path().display(),
        batches = brought.batches,
        changes = brought.changes,
        "saved what an earlier start left in the spill file"
    );
    Ok(())
}

/// Whether storage and cache never heard of a journal that has written to others before: the spill file
/// of an earlier version does not say which database it is for.
async fn is_unknown(parts: &Parts, spill: &Spill, journal: &str) -> Result<bool, ResumeError> {
    let first = spill.numbers().await?.first().map(|(number, _)| *number);
    if first.is_none_or(|number| number <= 1) || parts.storage.applied(journal).await? > 0 {
        return Ok(false);
    }
    match &parts.cache {
        Some(cache) => Ok(cache.last_kept(journal).await? == 0),
        None => Ok(true),
    }
}

// === impl Desk ===

impl Desk {
    /// Whether a journal is of an earlier start of this node.
    fn is_earlier(&self, journal: &str) -> bool {
        journal != self.name && journals::node_of(journal) == self.settings.node
    }

    /// Looks now and then whether the cache keeps what it is given on its disk; until it is dropped.
    pub(super) async fn watch_persistence(&self) -> std::convert::Infallible {
        let Some(cache) = &self.parts.cache else {
            return std::future::pending().await;
        };
        let mut generation = self.generation.subscribe();
        loop {
            if let Ok(is_persistent) = cache.is_persistent().await {
                let flag = &self.cache_is_persistent;
                flag.store(is_persistent, Ordering::Relaxed);
            }
            let wait = tokio::time::timeout(super::PERSISTENCE_PERIOD, generation.changed());
            // The sender is here, so it is not gone.
            let _ = wait.await;
        }
    }
}
