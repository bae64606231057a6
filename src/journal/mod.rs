//! The journal: what happened, in order, until storage has it.
//!
//! It cuts the tracker's outbox into numbered batches, and three tasks work on the ledger that
//! holds them: one sends them to the cache, one applies them to storage, one lets them go. A
//! batch that fails is tried again, the same batch under the same number, until it succeeds.
//! Batches are kept for a while after storage had them, because a database may come back older.
//!
//! A batch is *durable*, and the replies that wait for it go, once it is in storage (where there
//! is no cache), in a cache that logs to its disk, or in the node's spill file.
//!
//! Each start of a node has a journal of its own; `rest` brings to storage what others left.

mod apply;
#[cfg(feature = "contract")]
pub mod disk;
mod ledger;
mod number;
mod replay;
mod rest;
mod restored;
mod resume;
mod send;
mod spill;
#[cfg(test)]
mod tests;
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
use crate::storage::{Storage, StorageError};
use crate::telemetry::metrics::Metrics;
use crate::tracker::{Drained, Tracker};

use self::ledger::Ledger;
use self::spill::Spill;
use self::totals::PendingTotals;

pub use apply::credit_rules;
pub use ledger::Progress;
pub use replay::Replay;
pub use rest::RestError;
pub use restored::{Beyond, Brought, Leftovers, Place};
pub use resume::ResumeError;
pub use spill::{SpillError, owner_of as spill_owner};

/// How long a flush that is waited for gathers others that come at the same time.
const GATHER: Duration = Duration::from_millis(5);

/// How long a batch may be on its way to the cache before it is written to the spill file as
/// well: far above what a sound cache takes, and little for a reply that waits.
const HEDGE: Duration = Duration::from_millis(25);

/// How long a journal that is to stop tries to save what it has.
const LAST_EFFORT: Duration = Duration::from_secs(30);

/// How long a journal that is to stop waits for storage to take what is durable already: those
/// who stop a service give it some seconds before they kill it.
const STORAGE_GRACE: Duration = Duration::from_secs(5);

/// Delays between tries to save a batch.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often batches are looked through for those that may go.
const TIDY_PERIOD: Duration = Duration::from_secs(1);

/// Seconds that a batch stays in memory for a cache that forgot it.
const KEPT_IN_MEMORY: u32 = 10;

/// How often is looked whether the cache logs to its disk.
const PERSISTENCE_PERIOD: Duration = Duration::from_secs(30);

/// What a journal works on.
#[derive(Clone)]
pub struct Parts {
    pub tracker: Arc<Tracker>,
    /// None where this node shares with nobody.
    pub cache: Option<Arc<dyn Cache>>,
    pub storage: Arc<dyn Storage>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

/// How a journal works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of the node, which each start's journal begins with.
    pub node: String,
    /// [`Handle::set_flush_interval`] changes it.
    pub flush_interval: Duration,
    /// The spill file; used only where there is a cache.
    pub spill: PathBuf,
    /// Changes held in memory beyond which batches are in the spill file only.
    pub memory_max: usize,
    /// Seconds for which a batch stays after storage had it.
    pub keep: u32,
}

/// The journal of one node.
pub struct Journal {
    desk: Arc<Desk>,
    /// What was cut and is not settled yet.
    work: Option<Work>,
}

/// The way to a running journal.
#[derive(Clone)]
pub struct Handle {
    desk: Arc<Desk>,
}

/// What the tasks of a journal share.
struct Desk {
    parts: Parts,
    settings: Settings,
    /// The name of this journal.
    name: String,
    ledger: Ledger,
    spill: Option<Spill>,
    generation: watch::Sender<Generation>,
    flush_interval: watch::Sender<Duration>,
    /// The cache refused the last batch that it was sent, or was not reached.
    cache_is_away: AtomicBool,
    /// The cache has not taken a batch since one had to wait too long for it.
    cache_is_late: AtomicBool,
    /// The cache logs what it is given to its disk.
    cache_is_persistent: AtomicBool,
    /// The spill file did not take what it was last given.
    spill_fails: AtomicBool,
    cache_broke: Notify,
    /// Why storage did not take its last batch; none while all is well.
    storage_trouble: Mutex<Option<String>>,
    pending_totals: PendingTotals,
}

/// A cut in work.
struct Work {
    cut: u64,
    changes: usize,
    /// The last of its batches; none if it was empty.
    last: Option<u64>,
}

/// What a journal that has ended leaves to the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Changes that storage does not have yet; they are in the spill file.
    pub changes: usize,
    /// That file; empty where there is none.
    pub file: PathBuf,
}

/// Changes that could not be saved before the stop.
#[derive(Debug, thiserror::Error)]
#[error("changes that could not be saved: {changes}, because {cause}")]
pub struct Unsaved {
    pub changes: usize,
    pub cause: String,
}

// === impl Journal ===

impl Journal {
    /// A way to it that outlives the start.
    pub fn handle(&self) -> Handle {
        Handle {
            desk: Arc::clone(&self.desk),
        }
    }

    /// Saves changes until `stop` resolves, and then what is left.
    ///
    /// # Errors
    /// What could not be saved within the last effort.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<Left, Unsaved> {
        let desk = Arc::clone(&self.desk);
        tokio::select! {
            result = self.keep_until(stop) => result,
            never = desk.send_all() => match never {},
            never = desk.apply_all() => match never {},
            never = desk.add_all_totals() => match never {},
            never = desk.tidy_all() => match never {},
            never = desk.guard_all() => match never {},
            never = desk.watch_persistence() => match never {},
        }
    }

    async fn keep_until(&mut self, stop: impl Future<Output = ()>) -> Result<Left, Unsaved> {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                // Dropped in the middle, a turn leaves its work where the next one finds it.
                () = self.turn() => {}
                () = &mut stop => break,
            }
        }
        let saved = tokio::time::timeout(LAST_EFFORT, self.finish()).await;
        let desk = &self.desk;
        let outbox = desk.parts.tracker.outbox();
        let progress = desk.ledger.progress();
        let is_kept = desk.ledger.is_spilled(progress.last);
        if outbox.pending() == 0 && (is_kept || (saved.is_ok() && progress.sent >= progress.last)) {
            let file = desk.spill.as_ref().map(|spill| spill.path().to_owned());
            return Ok(Left {
                changes: desk.ledger.backlog(),
                file: file.unwrap_or_default(),
            });
        }
        let trouble = desk.storage_trouble.lock().take();
        Err(Unsaved {
            changes: outbox.pending().max(desk.ledger.backlog()),
            cause: trouble.unwrap_or_else(|| "cache and storage are too slow".into()),
        })
    }

    async fn turn(&mut self) {
        let desk = &self.desk;
        tokio::select! {
            () = desk.interval() => {}
            () = desk.parts.tracker.outbox().wanted() => tokio::time::sleep(GATHER).await,
        }
        self.flush().await;
    }

    /// Saves all there is; storage is not waited for while it can't, if there is another place.
    async fn finish(&mut self) {
        loop {
            self.flush().await;
            if self.desk.parts.tracker.outbox().pending() == 0 {
                break;
            }
        }
        if let (Some(cache), Some(spill)) = (&self.desk.parts.cache, &self.desk.spill) {
            let _ = tokio::time::timeout(STORAGE_GRACE, self.desk.storage_tries()).await;
            // What is not applied by then is applied by the next start, or by another node. The cache
            // alone may forget it.
            if self.desk.ledger.backlog() > 0 {
                self.desk.spill_all(spill).await;
            }
            if let Err(error) = self.desk.add_totals(&**cache).await {
                tracing::debug!(%error, "the totals in the cache could not be brought up to date");
            }
        }
    }

    /// Goes on with the cut in work, or makes one, until it is durable.
    async fn flush(&mut self) {
        if self.work.is_none() {
            self.work = Some(self.cut());
        }
        let last = self.work.as_ref().and_then(|work| work.last);
        if let Some(last) = last {
            self.desk.durable(last).await;
        }
        if let Some(work) = self.work.take() {
            let outbox = self.desk.parts.tracker.outbox();
            outbox.settle(work.cut, work.changes);
        }
    }

    fn cut(&self) -> Work {
        let desk = &self.desk;
        let Drained { number, changes } = desk.parts.tracker.outbox().drain();
        let count = changes.len();
        let first = desk.ledger.progress().last + 1;
        let batches = number::batches(changes, &desk.name, first);
        let last = batches.last().map(|batch| batch.number);
        desk.ledger.push(batches, desk.now());
        Work {
            cut: number,
            changes: count,
            last,
        }
    }
}

// === impl Handle ===

impl Handle {
    /// The name of the journal.
    pub fn name(&self) -> &str {
        &self.desk.name
    }

    /// Seconds for which batches stay after storage had them.
    pub fn keep(&self) -> u32 {
        self.desk.settings.keep
    }

    pub fn progress(&self) -> Progress {
        self.desk.ledger.progress()
    }

    /// Asks storage up to which batch it has the journal. If it had more, it went back: what it lacks
    /// is applied again, also while there is nothing new to save.
    pub async fn ask_storage(&self) -> Result<u64, StorageError> {
        let (known, asked_at) = (self.desk.ledger.progress().applied, self.desk.now());
        let applied = self.desk.parts.storage.applied(&self.desk.name).await?;
        if applied < known {
            self.desk.go_back(applied).await;
        } else {
            self.desk.ledger.confirm(asked_at);
        }
        Ok(applied)
    }

    /// Waits until all that was queued before the call is durable.
    pub async fn all_durable(&self) {
        self.desk.parts.tracker.outbox().flushed().await;
    }

    /// Waits until storage has all that was queued before the call.
    pub async fn all_applied(&self) {
        self.all_durable().await;
        let last = self.desk.ledger.progress().last;
        self.desk
            .ledger
            .until(|progress| progress.applied >= last)
            .await;
    }

    /// Changes that storage does not have yet, those not yet cut left out.
    pub fn backlog(&self) -> usize {
        self.desk.ledger.backlog()
    }

    /// Seconds since the oldest of those was cut; 0 if there are none.
    pub fn lag(&self) -> u32 {
        let oldest = self.desk.ledger.oldest();
        oldest.map_or(0, |since| self.desk.now().since(since))
    }

    /// The cache is another one, or was restarted: whoever sees it first tells.
    pub fn restarted(&self, generation: Generation) {
        self.desk.restarted(generation);
    }

    /// A connection to the cache has just broken: it may come back without what it had.
    pub fn cache_broke(&self) {
        self.desk.cache_broke.notify_one();
    }

    /// How often changes are saved from now on; also the interval that is running.
    pub fn set_flush_interval(&self, interval: Duration) {
        self.desk.flush_interval.send_replace(interval);
    }

    /// The generation of the cache as it changes.
    pub fn generation(&self) -> watch::Receiver<Generation> {
        self.desk.generation.subscribe()
    }
}

// === impl Desk ===

impl Desk {
    fn now(&self) -> Seconds {
        self.parts.clock.now().mono
    }

    /// Waits for a flush interval, or until it changes.
    async fn interval(&self) {
        let mut changes = self.flush_interval.subscribe();
        let interval = *changes.borrow_and_update();
        // The sender is here, so it is not gone.
        let _ = tokio::time::timeout(interval, changes.changed()).await;
    }

    /// Waits until batch `last` and all before it are durable, and sees to it.
    async fn durable(&self, last: u64) {
        let Some(spill) = &self.spill else {
            self.ledger.until(|progress| progress.applied >= last).await;
            return;
        };
        if !self.cache_is_persistent.load(Ordering::Relaxed) {
            let applied = self.ledger.until(|progress| progress.applied >= last);
            tokio::select! {
                _ = applied => {}
                () = self.spill_all(spill) => {}
            }
            return;
        }
        let saved = self.ledger.until(|progress| progress.is_durable(last));
        tokio::pin!(saved);
        let is_late = self.cache_is_late.load(Ordering::Relaxed);
        if !is_late && tokio::time::timeout(HEDGE, &mut saved).await.is_ok() {
            if self.ledger.is_full() {
                self.spill_all(spill).await;
            }
            return;
        }
        // Later batches need not wait as long, until the cache takes one again.
        self.cache_is_late.store(true, Ordering::Relaxed);
        tokio::select! {
            _ = &mut saved => {}
            () = self.spill_all(spill) => {}
        }
    }

    /// Writes to the spill file what is not there and not saved elsewhere; tries until it succeeds.
    async fn spill_all(&self, spill: &Spill) {
        let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while !self.spill_once(spill).await {
            if let Some(delay) = delays.next() {
                tokio::time::sleep(delay).await;
            }
        }
    }

    /// Tries it once; says once that it fails, and not at every try.
    async fn spill_once(&self, spill: &Spill) -> bool {
        let batches = self.ledger.unspilled();
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            return true;
        };
        let (numbers, count) = (first.number..=last.number, batches.len() as u64);
        match spill.put(batches).await {
            Ok(()) => {
                self.ledger.spilled(numbers);
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

    /// Waits until storage has all, or does not take it.
    async fn storage_tries(&self) {
        while self.ledger.backlog() > 0 && self.storage_trouble.lock().is_none() {
            tokio::time::sleep(GATHER).await;
        }
    }

    fn restarted(&self, generation: Generation) {
        self.generation.send_if_modified(|current| {
            let is_new = generation > *current;
            if is_new {
                *current = generation;
                self.ledger.resend();
                self.pending_totals.clear();
                // What is to be sent again is with this process alone until then.
                self.cache_broke.notify_one();
            }
            is_new
        });
    }

    /// Spills what storage does not have yet whenever the cache may be about to forget it, for
    /// ever. The next batch to send would tell as well, but later.
    async fn guard_all(&self) -> Infallible {
        loop {
            self.cache_broke.notified().await;
            if let Some(spill) = &self.spill {
                self.spill_once(spill).await;
            }
        }
    }

    /// Lets batches go that are of no use any more, until it is dropped.
    async fn tidy_all(&self) -> Infallible {
        loop {
            if let Some(number) = self.ledger.release(self.now()) {
                self.forget(number).await;
            }
            if let Some(spill) = &self.spill
                && let Err(error) = spill.keep_name().await
            {
                tracing::debug!(%error, "the spill file has lost its name");
            }
            tokio::time::sleep(TIDY_PERIOD).await;
        }
    }

    /// Both places are told again with the next batches, so a failure costs nothing but room.
    async fn forget(&self, number: u64) {
        if let Some(spill) = &self.spill
            && let Err(error) = spill.forget(number).await
        {
            tracing::debug!(%error, "batches were not deleted from the spill file");
        }
        if let Some(cache) = &self.parts.cache
            && let Err(error) = cache.applied(&self.name, number).await
        {
            tracing::debug!(%error, "batches were not deleted from the cache");
        }
    }
}
