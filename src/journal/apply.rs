//! Applying batches to storage, in order.

use std::convert::Infallible;
use std::sync::Arc;

use super::queue::GoneBack;
use super::{JournalShared, RETRY_FIRST, RETRY_MAX};
use crate::base::backoff::Backoff;
use crate::base::clock::Stopwatch;
use crate::change::Batch;
use crate::change::sums::{Credited, Sum};
use crate::storage::{CreditRules, StorageError};
use crate::telemetry::metrics::ProbeSource;
use crate::tracker::Tracker;

/// Changes applied in one transaction.
const APPLY_MAX: usize = 10_000;

/// The current rules by which storage settles reports.
pub fn credit_rules(tracker: &Tracker) -> CreditRules {
    let rules = tracker.rules();
    CreditRules {
        max_rate: rules.max_rate,
        hnr_threshold: rules.hnr().threshold,
        hnr_min_bytes: rules.hnr().min_bytes,
    }
}

impl JournalShared {
    /// Applies queued batches until cancelled. With a cache, which makes them durable, storage gets
    /// larger portions: one per flush interval.
    pub(super) async fn apply_all(&self) -> Infallible {
        loop {
            self.queue
                .until(|progress| progress.last > progress.applied)
                .await;
            if self.parts.cache.is_some() && self.queue.backlog() < APPLY_MAX {
                self.interval().await;
            }
            self.apply_next().await;
        }
    }

    async fn to_apply(&self) -> Result<Vec<Arc<Batch>>, StorageError> {
        let refs = self.queue.to_apply(APPLY_MAX);
        self.read(refs)
            .await
            .map_err(|error| StorageError::Away(error.to_string()))
    }

    /// Applies the next batches; retries until it succeeds.
    async fn apply_next(&self) {
        let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let attempt = async {
                let batches = self.to_apply().await?;
                let credited = self.apply(&batches).await?;
                Ok((batches, credited))
            };
            match attempt.await {
                Ok((batches, credited)) => return self.on_applied(&batches, &credited),
                Err(ref error @ StorageError::Behind { applied, first, .. }) => {
                    self.on_behind(error, applied, first).await;
                }
                Err(error) => self.on_refused(&error),
            }
            delays.pause().await;
        }
    }

    async fn apply(&self, batches: &[Arc<Batch>]) -> Result<Credited, StorageError> {
        let rules = credit_rules(&self.parts.tracker);
        let watch = Stopwatch::start();
        let credited = self.parts.storage.apply(batches, &rules).await?;
        self.parts.metrics.apply_durations.observe(watch.elapsed());
        Ok(credited)
    }

    /// Counts what storage applied. Batches that it had already, because the answer to their commit was
    /// lost, return no credit: metrics and the totals in the cache lack theirs.
    fn count(&self, batches: &[Arc<Batch>], credited: &Credited) {
        let metrics = &self.parts.metrics;
        metrics.batches.add(batches.len() as u64);
        let mut all = Sum::default();
        for sum in credited.users.values() {
            all.add(sum);
        }
        metrics.credited_up.add(all.up);
        metrics.credited_down.add(all.down);
        metrics.implausible.add(credited.implausible);
        if self.parts.cache.is_some() {
            self.pending_totals.add(credited);
        }
        metrics.storage.succeeded(ProbeSource::Journal);
    }

    fn on_applied(&self, batches: &[Arc<Batch>], credited: &Credited) {
        self.count(batches, credited);
        if let Some(last) = batches.last() {
            self.queue.mark_applied(last.number, self.now());
        }
        let tracker = &self.parts.tracker;
        tracker.on_counts_written(batches, self.parts.clock.now());
        if self.storage_trouble.lock().take().is_some() {
            tracing::info!("storage takes the journal again");
        }
    }

    /// Storage refused batches with [`StorageError::Behind`]: it is asked again, as it may have been restored to yet another
    /// state meanwhile. It is an error only if it says the same as before.
    async fn on_behind(&self, refused: &StorageError, applied: u64, first: u64) {
        match self.ask_storage().await {
            Ok(now) if now != applied || self.queue.progress().applied + 1 != first => {}
            Ok(_) => self.on_refused(refused),
            Err(error) => self.on_refused(&error),
        }
    }

    /// Asks storage for the number of the last batch that it has. If it had more before, it was restored to an older
    /// state: what it lacks is applied again, except for batches that are not kept any more. Returns the number of the
    /// batch after which it goes on.
    ///
    /// Several tasks ask; one at a time, so that one of them finds what was lost.
    pub(super) async fn ask_storage(&self) -> Result<u64, StorageError> {
        let _turn = self.asks_storage.lock().await;
        let (known, asked_at) = (self.queue.progress().applied, self.now());
        let applied = self.parts.storage.last_applied(&self.name).await?;
        if applied < known {
            return self.go_back(applied).await;
        }
        self.queue.confirm(asked_at);
        Ok(applied)
    }

    async fn go_back(&self, applied: u64) -> Result<u64, StorageError> {
        match self.queue.go_back(applied) {
            None => Ok(applied),
            Some(GoneBack::Kept { batches }) => {
                tracing::warn!(
                    batches,
                    "storage went back and lacks batches that it had; they are applied again"
                );
                Ok(applied)
            }
            Some(GoneBack::Missing { batches, first }) => {
                self.parts.storage.begin_at(&self.name, first - 1).await?;
                tracing::error!(
                    batches,
                    "storage went back and lacks batches that are not kept any more (journal.keep): what \
                     clients reported in them is credited with their next announce, except for peers \
                     that storage does not know and for those that never announce again"
                );
                Ok(first - 1)
            }
        }
    }

    /// Counts a refused batch. Logs only the first failure in a row.
    fn on_refused(&self, error: &StorageError) {
        let metrics = &self.parts.metrics;
        metrics.batch_failures.increment();
        metrics
            .storage
            .failed(ProbeSource::Journal, &error.to_string());
        let before = self.storage_trouble.lock().replace(error.to_string());
        if before.is_none() {
            tracing::error!(
                %error,
                batch = self.queue.progress().applied + 1,
                "storage does not take the journal; trying again until it does, nothing is lost meanwhile"
            );
        }
    }
}
