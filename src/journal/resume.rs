//! Starting a journal, after saving what earlier starts of this node left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::apply::credit_rules;
use super::ended::{self, EndedJournals};
use super::leftover::{JournalError, Leftover};
use super::queue::{BatchQueue, Limits};
use super::spill::{Spill, SpillHeader};
use super::texts::RecentTexts;
use super::totals::PendingTotals;
use super::{Journal, JournalParts, JournalSettings, JournalShared, KEPT_IN_MEMORY, spill};
use crate::cache::{Cache, CacheError, Generation, Notice, STOPPED};
use crate::change::journals;

/// Number of starts of a node whose batch numbers storage keeps although the cache has forgotten them.
const NUMBERS_KEPT: u64 = 32;

// === impl Journal ===

impl Journal {
    /// Creates the journal of this start, after saving to storage what earlier starts left in the spill
    /// file. [`Journal::replay_leftover`] does the same with what they left in the cache.
    pub async fn resume(
        parts: JournalParts,
        settings: JournalSettings,
    ) -> Result<Self, JournalError> {
        match parts.cache.clone() {
            Some(cache) => Self::resume_shared(parts, settings, &*cache).await,
            None => Self::resume_alone(parts, settings).await,
        }
    }

    async fn resume_shared(
        parts: JournalParts,
        settings: JournalSettings,
        cache: &dyn Cache,
    ) -> Result<Self, JournalError> {
        let generation = cache.ping().await?;
        let identity = parts.storage.identity().await?;
        let (spill, former) = Spill::open(settings.spill.clone(), identity.clone()).await?;
        let stored = parts.storage.journals().await?;
        let stored = stored.iter().map(|(journal, _)| journal.as_str());
        let nodes = cache.nodes().await?;
        let known = nodes
            .iter()
            .map(|(journal, _)| journal.as_str())
            .chain(former.as_ref().map(|former| former.journal.as_str()));
        let name = journals::next(&settings.node, known.chain(stored));
        if let Some(former) = &former {
            save_former(&parts, &settings, &spill, former).await?;
        }
        spill.hand_over(name.clone(), identity).await?;
        // So that the next start is numbered after this one, even if nothing is ever saved.
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

    /// Without a cache, storage is claimed: no other node writes there.
    async fn resume_alone(
        parts: JournalParts,
        settings: JournalSettings,
    ) -> Result<Self, JournalError> {
        let stored = parts.storage.journals().await?;
        let names = stored.iter().map(|(journal, _)| journal.as_str());
        let name = journals::next(&settings.node, names);
        // A file with batches was left by a start that had a cache.
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
                let applied = parts.storage.last_applied(journal).await?;
                parts.storage.forget_journal(journal, applied).await?;
            }
        }
        let generation = Generation::default();
        Ok(Self::new(parts, settings, name, None, generation, false))
    }

    /// Applies what earlier starts of this node left in the cache, so that the node can load from storage.
    /// What can't be applied is logged, and retried while the node runs.
    pub async fn replay_leftover(&self) -> Result<(), JournalError> {
        let shared = &self.shared;
        let Some(cache) = &shared.parts.cache else {
            return Ok(());
        };
        let storage = &*shared.parts.storage;
        let now = shared.parts.clock.now().unix;
        ended::list_forgotten(&**cache, storage, &shared.name).await?;
        let ended = EndedJournals::read(&**cache, storage, now).await?;
        let mut nodes = cache.nodes().await?;
        journals::sort_by_start(&mut nodes);
        for (journal, _) in nodes
            .iter()
            .filter(|(journal, _)| shared.is_earlier(journal))
        {
            match shared.replay_earlier(&ended, journal).await {
                Ok(()) => {}
                Err(error) if error.is_lasting() => tracing::error!(
                    journal,
                    %error,
                    "what an earlier start left in the cache can't be applied; it stays there"
                ),
                Err(error) => return Err(error),
            }
        }
        ended.drop_stray_notes(&nodes).await?;
        // Batches of journals that the cache has forgotten can only be in a spill file of another host
        // that had this node's name: storage must know which of those it has.
        for (journal, applied) in storage.journals().await? {
            let is_listed = nodes.iter().any(|(name, _)| *name == journal);
            let is_recent =
                journals::start_of(&journal) + NUMBERS_KEPT > journals::start_of(&shared.name);
            if !shared.is_earlier(&journal) || is_listed {
                continue;
            }
            if is_recent && applied > 0 {
                // The number of its last batch stays: without it, the cache would seem to be behind storage.
                cache.trim_journal(&journal, Some(applied)).await?;
            } else {
                storage.forget_journal(&journal, applied).await?;
                cache.forget_journal(&journal).await?;
            }
        }
        Ok(())
    }

    fn new(
        parts: JournalParts,
        settings: JournalSettings,
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
            shared: Arc::new(JournalShared {
                flush_interval: watch::Sender::new(settings.flush_interval),
                parts,
                settings,
                name,
                queue: BatchQueue::new(limits),
                spill,
                generation: watch::Sender::new(generation),
                cache_is_away: AtomicBool::new(false),
                cache_is_late: AtomicBool::new(false),
                cache_is_persistent: AtomicBool::new(cache_is_persistent),
                spill_fails: AtomicBool::new(false),
                cache_broke: Notify::new(),
                asks_storage: tokio::sync::Mutex::new(()),
                storage_trouble: Mutex::new(None),
                pending_totals: PendingTotals::default(),
                texts: RecentTexts::default(),
            }),
            in_flight: None,
        }
    }
}

/// Saves what an earlier start left in the spill file, under the name of its journal, by which storage
/// and cache know what they have already. Idempotent, so it may be interrupted anywhere.
async fn save_former(
    parts: &JournalParts,
    settings: &JournalSettings,
    spill: &Spill,
    former: &SpillHeader,
) -> Result<(), JournalError> {
    if former.storage.is_empty() && is_unknown(parts, spill, &former.journal).await? {
        return Err(spill
            .of_another_database(&former.journal, &settings.node)
            .into());
    }
    if let Some(cache) = &parts.cache {
        list_again(&**cache, &former.journal).await?;
    }
    let leftover = Leftover {
        journal: &former.journal,
        cache: parts.cache.as_deref(),
        storage: &*parts.storage,
        spill: Some(spill),
    };
    let adopted = leftover.apply(&credit_rules(&parts.tracker)).await?;
    parts.tracker.recount_later(&adopted.swarms);
    if let Some(cache) = &parts.cache {
        if adopted.batches > 0 {
            // Not every node follows that journal, but its peers are in the cache now.
            cache.publish(&[Notice::Peers]).await?;
        }
        ended::note(&**cache, &adopted, parts.clock.now().unix).await?;
    }
    tracing::info!(
        journal = former.journal,
        file = %spill.path().display(),
        batches = adopted.batches,
        changes = adopted.changes,
        "saved what an earlier start left in the spill file"
    );
    Ok(())
}

/// Adds a journal to the list of nodes if it was forgotten: the cache gets batches of it once more, and only what is
/// listed is trimmed later.
async fn list_again(cache: &dyn Cache, journal: &str) -> Result<(), CacheError> {
    let nodes = cache.nodes().await?;
    if nodes.iter().all(|(listed, _)| listed != journal) {
        cache.beat(journal, STOPPED).await?;
    }
    Ok(())
}

/// Whether storage and cache know nothing of a journal, although its batches before those in the spill file
/// must have gone there: then the file is for another database. One of an earlier version does not say which.
async fn is_unknown(
    parts: &JournalParts,
    spill: &Spill,
    journal: &str,
) -> Result<bool, JournalError> {
    let first = spill.numbers().await?.first().map(|(number, _)| *number);
    if first.is_none_or(|number| number <= 1) || parts.storage.last_applied(journal).await? > 0 {
        return Ok(false);
    }
    match &parts.cache {
        Some(cache) => Ok(cache.last_kept(journal).await? == 0),
        None => Ok(true),
    }
}

// === impl JournalShared ===

impl JournalShared {
    /// Whether a journal belongs to an earlier start of this node.
    fn is_earlier(&self, journal: &str) -> bool {
        journal != self.name && journals::node_of(journal) == self.settings.node
    }

    /// Applies what an earlier start of this node left in the cache, and forgets its journal once that is not
    /// needed any more: this start has saved what the spill file had.
    async fn replay_earlier(
        &self,
        ended: &EndedJournals<'_>,
        journal: &str,
    ) -> Result<(), JournalError> {
        let rules = credit_rules(&self.parts.tracker);
        let adopted = ended.replay(journal, &rules).await?;
        self.parts.tracker.recount_later(&adopted.swarms);
        adopted.log("applied what an earlier start left in the cache");
        let age = ended.replayed_for(&adopted).unwrap_or(0);
        if age >= self.settings.keep {
            ended.trim(journal, adopted.applied).await?;
        }
        ended.forget(&adopted, age, true).await
    }

    /// Checks periodically whether the cache logs to its disk. Runs until cancelled.
    pub(super) async fn watch_persistence(&self) -> std::convert::Infallible {
        let Some(cache) = &self.parts.cache else {
            return std::future::pending().await;
        };
        let mut generation = self.generation.subscribe();
        loop {
            if let Ok(is_persistent) = cache.is_persistent().await {
                self.cache_is_persistent
                    .store(is_persistent, Ordering::Relaxed);
            }
            let changed = generation.changed();
            // The sender is a field of `self`, so the channel is open.
            let _ = tokio::time::timeout(super::PERSISTENCE_PERIOD, changed).await;
        }
    }
}
