//! The journal: what happened, in order, until storage has it.
//!
//! It drains the tracker's outbox into a queue of numbered batches. Tasks of their own send these to
//! the cache, apply them to storage, and drop them when they are no longer needed. A batch
//! that fails is retried unchanged, under the same number, until it succeeds. Batches are kept for
//! a while after storage applied them, because a database may be restored to an older state.
//!
//! A batch is *durable*, and the replies that wait for it are sent, once it is in storage (without a
//! cache), in a cache that logs to its disk, or in the node's spill file.
//!
//! Each start of a node has its own journal; `leftover` applies what the journal of an ended process
//! left, and `ended` keeps track of such journals until they are forgotten.

mod apply;
#[cfg(feature = "contract")]
pub mod disk;
mod ended;
mod leftover;
mod number;
mod queue;
mod read;
mod replay;
mod restored;
mod resume;
mod send;
mod spill;
#[cfg(test)]
mod tests;
mod texts;
mod totals;

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::base::backoff::Backoff;
use crate::base::clock::{Clock, Seconds};
use crate::cache::{Cache, Generation};
use crate::change::Batch;
use crate::storage::{Storage, StorageError};
use crate::telemetry::metrics::Metrics;
use crate::tracker::{Drained, Tracker};

use self::queue::BatchQueue;
use self::spill::Spill;
use self::texts::RecentTexts;
use self::totals::PendingTotals;

pub use apply::credit_rules;
pub use leftover::{AdoptedJournal, JournalError};
pub use queue::JournalProgress;
pub use replay::Replay;
pub use restored::{BatchLocation, Leftovers, UnappliedBatches};
pub use spill::{SpillError, owner_of as spill_owner};

/// How long a requested flush waits for further changes that arrive at the same time.
const GATHER: Duration = Duration::from_millis(5);

/// How long a batch may be in flight to the cache before it is also written to the spill file: far
/// longer than a healthy cache takes, and short for a reply that waits.
const HEDGE: Duration = Duration::from_millis(25);

/// How long a stopping journal tries to save what it has.
const LAST_EFFORT: Duration = Duration::from_secs(30);

/// How long a stopping journal waits for storage to apply what is already durable: service managers
/// wait some seconds before they kill a process.
const STORAGE_GRACE: Duration = Duration::from_secs(5);

/// Delays between attempts to save a batch.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often batches that are no longer needed are dropped.
const TIDY_PERIOD: Duration = Duration::from_secs(1);

/// Seconds for which a batch stays in memory, for a cache that lost it.
const KEPT_IN_MEMORY: u32 = 10;

/// How often to check whether the cache logs to its disk.
const PERSISTENCE_PERIOD: Duration = Duration::from_secs(30);

/// The parts of the node that a journal connects.
#[derive(Clone)]
pub struct JournalParts {
    pub tracker: Arc<Tracker>,
    /// None if this node runs alone.
    pub cache: Option<Arc<dyn Cache>>,
    pub storage: Arc<dyn Storage>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

/// The settings of a journal.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// The name of the node; the name of each of its journals begins with it.
    pub node: String,
    /// Changed by [`JournalHandle::set_flush_interval`].
    pub flush_interval: Duration,
    /// The spill file; used only with a cache.
    pub spill: PathBuf,
    /// Number of changes in memory above which batches are kept in the spill file only.
    pub memory_max: usize,
    /// Seconds for which a batch is kept after storage applied it.
    pub keep: u32,
}

/// The journal of one node.
pub struct Journal {
    shared: Arc<JournalShared>,
    /// The last drain, until it is durable.
    in_flight: Option<InFlight>,
}

/// Access to a running journal.
#[derive(Clone)]
pub struct JournalHandle {
    shared: Arc<JournalShared>,
}

/// What the tasks of a journal share.
struct JournalShared {
    parts: JournalParts,
    settings: JournalSettings,
    /// The name of this start's journal.
    name: String,
    queue: BatchQueue,
    spill: Option<Spill>,
    generation: watch::Sender<Generation>,
    flush_interval: watch::Sender<Duration>,
    /// The cache refused the last batch, or was unreachable.
    cache_is_away: AtomicBool,
    /// A batch waited too long for the cache, and the cache has not taken one since.
    cache_is_late: AtomicBool,
    /// The cache logs its writes to disk.
    cache_is_persistent: AtomicBool,
    /// The last write to the spill file failed.
    spill_fails: AtomicBool,
    cache_broke: Notify,
    /// Held by the task that asks storage what it has.
    asks_storage: tokio::sync::Mutex<()>,
    /// Why storage refused the last batch; none if it took it.
    storage_trouble: Mutex<Option<String>>,
    pending_totals: PendingTotals,
    /// Of batches that go to the spill file or to the cache.
    texts: RecentTexts,
}

/// What was drained from the outbox at once.
struct InFlight {
    /// The drain's number, by which the outbox is told that it is durable.
    drain: u64,
    changes: usize,
    /// Its last batch; none if it was empty.
    last: Option<u64>,
}

/// What an ended journal leaves to the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Changes that storage lacks; they are in the spill file.
    pub changes: usize,
    /// That file; empty if there is none.
    pub file: PathBuf,
}

/// Some changes could not be saved before the stop.
#[derive(Debug, thiserror::Error)]
#[error("changes that could not be saved: {changes}, because {cause}")]
pub struct Unsaved {
    pub changes: usize,
    pub cause: String,
}

// === impl Journal ===

impl Journal {
    /// A handle that remains valid while the journal runs.
    pub fn handle(&self) -> JournalHandle {
        JournalHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Saves changes until `stop` resolves, and then what is left.
    ///
    /// # Errors
    /// Changes that could not be saved within [`LAST_EFFORT`].
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<Remaining, Unsaved> {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            result = self.save_until(stop) => result,
            never = shared.send_all() => match never {},
            never = shared.apply_all() => match never {},
            never = shared.add_all_totals() => match never {},
            never = shared.tidy_all() => match never {},
            never = shared.guard_all() => match never {},
            never = shared.watch_persistence() => match never {},
        }
    }

    async fn save_until(&mut self, stop: impl Future<Output = ()>) -> Result<Remaining, Unsaved> {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                // Cancel safe: a cancelled flush leaves `in_flight` to the next one.
                () = self.next_flush() => {}
                () = &mut stop => break,
            }
        }
        let saved = tokio::time::timeout(LAST_EFFORT, self.finish()).await;
        let shared = &self.shared;
        let outbox = shared.parts.tracker.outbox();
        let progress = shared.queue.progress();
        let is_kept = shared.queue.is_spilled(progress.last);
        if outbox.pending() == 0 && (is_kept || (saved.is_ok() && progress.sent >= progress.last)) {
            let file = shared.spill.as_ref().map(|spill| spill.path().to_owned());
            return Ok(Remaining {
                changes: shared.queue.backlog(),
                file: file.unwrap_or_default(),
            });
        }
        let trouble = shared.storage_trouble.lock().take();
        Err(Unsaved {
            changes: outbox.pending().max(shared.queue.backlog()),
            cause: trouble.unwrap_or_else(|| "cache and storage are too slow".into()),
        })
    }

    async fn next_flush(&mut self) {
        let shared = &self.shared;
        tokio::select! {
            () = shared.interval() => {}
            () = shared.parts.tracker.outbox().wanted() => tokio::time::sleep(GATHER).await,
        }
        self.flush().await;
    }

    /// Saves everything. Does not wait for a storage that fails if the spill file can take it.
    async fn finish(&mut self) {
        loop {
            self.flush().await;
            if self.shared.parts.tracker.outbox().pending() == 0 {
                break;
            }
        }
        if let (Some(cache), Some(spill)) = (&self.shared.parts.cache, &self.shared.spill) {
            let _ = tokio::time::timeout(STORAGE_GRACE, self.shared.storage_settles()).await;
            // What is not applied by then is applied by the next start, or by another node. The cache
            // alone may lose it.
            if self.shared.queue.backlog() > 0 {
                self.shared.spill_all(spill).await;
            }
            if let Err(error) = self.shared.add_totals(&**cache).await {
                tracing::debug!(%error, "the totals in the cache could not be brought up to date");
            }
        }
    }

    /// Drains the outbox, unless an earlier drain is still in flight, and waits until it is durable.
    async fn flush(&mut self) {
        if self.in_flight.is_none() {
            self.in_flight = Some(self.drain());
        }
        let last = self.in_flight.as_ref().and_then(|drained| drained.last);
        if let Some(last) = last {
            self.shared.durable(last).await;
        }
        if let Some(drained) = self.in_flight.take() {
            let outbox = self.shared.parts.tracker.outbox();
            outbox.mark_durable(drained.drain, drained.changes);
        }
    }

    fn drain(&self) -> InFlight {
        let shared = &self.shared;
        let Drained { number, changes } = shared.parts.tracker.outbox().drain();
        let count = changes.len();
        let progress = shared.queue.progress();
        let batches = number::batches(changes, &shared.name, progress.last + 1);
        let last = batches.last().map(|batch| batch.number);
        // What was drained before is durable.
        shared.texts.forget(progress.sent);
        if shared.spill.is_some() {
            let with_peers =
                |batch: &&Arc<Batch>| batch.changes.iter().any(|it| it.peer().is_some());
            for batch in batches.iter().filter(with_peers) {
                shared.texts.keep(batch);
            }
        }
        shared.queue.push(batches, shared.now());
        InFlight {
            drain: number,
            changes: count,
            last,
        }
    }
}

// === impl JournalHandle ===

impl JournalHandle {
    /// The name of the journal.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Seconds for which batches are kept after storage applied them.
    pub fn keep(&self) -> u32 {
        self.shared.settings.keep
    }

    pub fn progress(&self) -> JournalProgress {
        self.shared.queue.progress()
    }

    /// Asks storage what it has. If it had more before, it was restored to an older state: what it lacks is applied again,
    /// even if there is nothing new to save.
    pub async fn ask_storage(&self) -> Result<(), StorageError> {
        self.shared.ask_storage().await.map(drop)
    }

    /// Waits until everything queued before the call is durable.
    pub async fn all_durable(&self) {
        self.shared.parts.tracker.outbox().flushed().await;
    }

    /// Waits until storage has everything queued before the call.
    pub async fn all_applied(&self) {
        self.all_durable().await;
        let last = self.shared.queue.progress().last;
        self.shared
            .queue
            .until(|progress| progress.applied >= last)
            .await;
    }

    /// Number of drained changes that storage does not have yet.
    pub fn backlog(&self) -> usize {
        self.shared.queue.backlog()
    }

    /// Seconds since the oldest of those was drained; 0 if there are none.
    pub fn lag(&self) -> u32 {
        match self.shared.queue.oldest() {
            Some(since) => self.shared.now().since(since),
            None => 0,
        }
    }

    /// To be called by any task that sees that the cache was replaced or restarted.
    pub fn on_cache_restarted(&self, generation: Generation) {
        self.shared.on_cache_restarted(generation);
    }

    /// To be called when a connection to the cache broke: it may come back without its data.
    pub fn on_cache_disconnected(&self) {
        self.shared.cache_broke.notify_one();
    }

    /// Sets how often changes are saved; applies to the running interval, too.
    pub fn set_flush_interval(&self, interval: Duration) {
        self.shared.flush_interval.send_replace(interval);
    }

    /// Watches the generation of the cache.
    pub fn generation(&self) -> watch::Receiver<Generation> {
        self.shared.generation.subscribe()
    }
}

// === impl JournalShared ===

impl JournalShared {
    fn now(&self) -> Seconds {
        self.parts.clock.now().mono
    }

    /// Waits for one flush interval, or until it changes.
    async fn interval(&self) {
        let mut changes = self.flush_interval.subscribe();
        let interval = *changes.borrow_and_update();
        // The sender is a field of `self`, so the channel is open.
        let _ = tokio::time::timeout(interval, changes.changed()).await;
    }

    /// Makes batch `last` and all before it durable: waits for the cache or storage, and spills if they
    /// are too slow.
    async fn durable(&self, last: u64) {
        let Some(spill) = &self.spill else {
            self.queue.until(|progress| progress.applied >= last).await;
            return;
        };
        if !self.cache_is_persistent.load(Ordering::Relaxed) {
            let applied = self.queue.until(|progress| progress.applied >= last);
            tokio::select! {
                _ = applied => {}
                () = self.spill_all(spill) => {}
            }
            return;
        }
        let saved = self.queue.until(|progress| progress.is_durable(last));
        tokio::pin!(saved);
        let is_late = self.cache_is_late.load(Ordering::Relaxed);
        if !is_late && tokio::time::timeout(HEDGE, &mut saved).await.is_ok() {
            if self.queue.is_full() {
                self.spill_all(spill).await;
            }
            return;
        }
        // Later batches skip the wait until the cache takes one again.
        self.cache_is_late.store(true, Ordering::Relaxed);
        tokio::select! {
            _ = &mut saved => {}
            () = self.spill_all(spill) => {}
        }
    }

    /// Writes to the spill file what is not there and not saved elsewhere; retries until it succeeds.
    async fn spill_all(&self, spill: &Spill) {
        let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while !self.spill_once(spill).await {
            delays.pause().await;
        }
    }

    /// One attempt of [`Self::spill_all`]; returns whether it succeeded. Logs only the first failure in a row.
    async fn spill_once(&self, spill: &Spill) -> bool {
        let batches = self.queue.to_spill();
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            return true;
        };
        let (numbers, count) = (first.number..=last.number, batches.len() as u64);
        match spill.put(batches).await {
            Ok(()) => {
                self.queue.mark_spilled(numbers);
                self.parts.metrics.batches_spilled.add(count);
                if self.spill_fails.swap(false, Ordering::Relaxed) {
                    tracing::info!("batches can be spilled again");
                }
                true
            }
            Err(error) => {
                if !self.spill_fails.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "batches can't be spilled; they stay in memory");
                }
                false
            }
        }
    }

    /// Waits until storage has everything, or refuses a batch.
    async fn storage_settles(&self) {
        while self.queue.backlog() > 0 && self.storage_trouble.lock().is_none() {
            tokio::time::sleep(GATHER).await;
        }
    }

    fn on_cache_restarted(&self, generation: Generation) {
        self.generation.send_if_modified(|current| {
            let is_new = generation > *current;
            if is_new {
                *current = generation;
                self.queue.resend();
                self.pending_totals.clear();
                // Until they are sent again, this process may be the only one with these batches.
                self.cache_broke.notify_one();
            }
            is_new
        });
    }

    /// Spills what storage does not have yet whenever the cache may have lost it. The next batch to
    /// send would reveal that too, but later. Runs until cancelled.
    async fn guard_all(&self) -> Infallible {
        loop {
            self.cache_broke.notified().await;
            if let Some(spill) = &self.spill {
                self.spill_once(spill).await;
            }
        }
    }

    /// Drops batches that are no longer needed. Runs until cancelled.
    async fn tidy_all(&self) -> Infallible {
        loop {
            if let Some(number) = self.queue.release(self.now()) {
                self.forget(number).await;
            }
            if let Some(spill) = &self.spill
                && let Err(error) = spill.keep_name().await
            {
                tracing::debug!(%error, "it could not be ensured that the spill file is in its place");
            }
            tokio::time::sleep(TIDY_PERIOD).await;
        }
    }

    /// Deletes batches up to `number` from the spill file and the cache. Both are trimmed again with the next
    /// batches, so a failure costs only space.
    async fn forget(&self, number: u64) {
        if let Some(spill) = &self.spill
            && let Err(error) = spill.forget(number).await
        {
            tracing::debug!(%error, "batches were not deleted from the spill file");
        }
        if let Some(cache) = &self.parts.cache
            && let Err(error) = cache.trim_journal(&self.name, Some(number)).await
        {
            tracing::debug!(%error, "batches were not deleted from the cache");
        }
    }
}
