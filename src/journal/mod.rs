//! The journal: what happened, in order, until storage has it.
//!
//! One task cuts the tracker's outbox, numbers what it took and applies it: cache first,
//! then storage, never the other way. A batch that fails is tried again, the same batch
//! under the same number, until it succeeds; meanwhile the outbox fills up to its bound.

mod number;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::cache::Cache;
use crate::change::Batch;
use crate::metrics::Metrics;
use crate::storage::{Storage, StorageError};
use crate::tracker::{Cut, Tracker};

/// How long a flush that is waited for gathers others that come at the same time.
const GATHER: Duration = Duration::from_millis(5);

/// How long a journal that is to stop tries to save what it has.
const LAST_EFFORT: Duration = Duration::from_secs(30);

/// Delays between tries to apply a batch.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The journal of one node.
pub struct Journal {
    tracker: Arc<Tracker>,
    _cache: Option<Arc<dyn Cache>>,
    storage: Arc<dyn Storage>,
    metrics: Arc<Metrics>,
    node: String,
    flush_interval: Duration,
    /// The number of the next batch.
    next: u64,
    /// What was cut and is not applied yet.
    work: VecDeque<Arc<Batch>>,
    /// The cut that `work` came of, until it is settled.
    cut: Option<Work>,
    /// Why the last try failed; none while all is well.
    trouble: Option<String>,
}

/// A cut in work.
struct Work {
    number: u64,
    changes: usize,
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
    /// A journal that goes on where this node's last one ended.
    pub async fn resume(
        tracker: Arc<Tracker>,
        cache: Option<Arc<dyn Cache>>,
        storage: Arc<dyn Storage>,
        metrics: Arc<Metrics>,
        node: String,
        flush_interval: Duration,
    ) -> Result<Self, StorageError> {
        let applied = storage.applied(&node).await?;
        Ok(Self {
            tracker,
            _cache: cache,
            storage,
            metrics,
            node,
            flush_interval,
            next: applied + 1,
            work: VecDeque::new(),
            cut: None,
            trouble: None,
        })
    }

    /// Saves changes until `stop` resolves, and then what is left.
    ///
    /// # Errors
    /// What could not be saved within the last effort.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Unsaved> {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                // Dropped in the middle, a turn leaves its work where the next one finds it.
                () = self.turn() => {}
                () = &mut stop => break,
            }
        }
        if tokio::time::timeout(LAST_EFFORT, self.finish())
            .await
            .is_ok()
        {
            return Ok(());
        }
        Err(Unsaved {
            changes: self.tracker.outbox().pending(),
            cause: self.trouble.unwrap_or_else(|| "storage is too slow".into()),
        })
    }

    async fn turn(&mut self) {
        tokio::select! {
            () = tokio::time::sleep(self.flush_interval) => {}
            () = self.tracker.outbox().wanted() => tokio::time::sleep(GATHER).await,
        }
        self.flush().await;
    }

    async fn finish(&mut self) {
        loop {
            self.flush().await;
            if self.tracker.outbox().pending() == 0 {
                return;
            }
        }
    }

    /// Applies what is in work, or else cuts the outbox and applies that.
    async fn flush(&mut self) {
        // A cut may be settled before all of its batches are applied.
        if self.cut.is_none() && self.work.is_empty() {
            self.cut();
        }
        while !self.work.is_empty() {
            self.apply().await;
            self.work.pop_front();
        }
        self.settle();
    }

    fn cut(&mut self) {
        let Cut { number, changes } = self.tracker.outbox().cut();
        self.cut = Some(Work {
            number,
            changes: changes.len(),
        });
        self.work = number::batches(changes, &self.node, self.next)
            .into_iter()
            .map(Arc::new)
            .collect();
        self.next += self.work.len() as u64;
    }

    /// Lets the replies go that waited for the cut in work.
    fn settle(&mut self) {
        if let Some(work) = self.cut.take() {
            self.tracker.outbox().settle(work.number, work.changes);
        }
    }

    /// Applies the first batch in work to storage; tries until it succeeds.
    async fn apply(&mut self) {
        let Some(batch) = self.work.front() else {
            return;
        };
        let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while let Err(error) = self.storage.apply(std::slice::from_ref(batch)).await {
            self.metrics.batch_failures.one();
            if self.trouble.is_none() {
                tracing::error!(
                    %error,
                    batch = batch.number,
                    "storage does not take the journal; trying again until it does, nothing is lost meanwhile"
                );
            }
            self.trouble = Some(error.to_string());
            if let Some(delay) = delays.next() {
                tokio::time::sleep(delay).await;
            }
        }
        self.metrics.batches.one();
        if self.trouble.take().is_some() {
            tracing::info!(batch = batch.number, "storage takes the journal again");
        }
    }
}
