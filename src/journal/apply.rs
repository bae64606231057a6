//! Applying batches to storage, in order.

use std::convert::Infallible;
use std::sync::Arc;

use super::{Desk, RETRY_FIRST, RETRY_MAX};
use crate::backoff::Backoff;
use crate::change::{Batch, Change};
use crate::clock::Stopwatch;
use crate::metrics::Witness;
use crate::storage::StorageError;

/// Changes applied in one transaction.
const APPLY_MAX: usize = 10_000;

// === impl Desk ===

impl Desk {
    /// Applies what is cut, for ever. With a cache, which makes it durable, storage gets it in
    /// larger portions: once a flush interval.
    pub(super) async fn apply_all(&self) -> Infallible {
        loop {
            self.ledger
                .until(|progress| progress.last > progress.applied)
                .await;
            if self.parts.cache.is_some() && self.ledger.backlog() < APPLY_MAX {
                self.interval().await;
            }
            self.apply_next().await;
        }
    }

    /// Applies all that is cut, once; gives up at the first failure.
    pub(super) async fn apply_rest(&self) -> Result<(), StorageError> {
        loop {
            let batches = self.to_apply().await?;
            let Some(last) = batches.last().map(|batch| batch.number) else {
                return Ok(());
            };
            self.apply(&batches).await?;
            self.ledger.applied(last);
            self.count(&batches);
        }
    }

    async fn to_apply(&self) -> Result<Vec<Arc<Batch>>, StorageError> {
        let slots = self.ledger.to_apply(APPLY_MAX);
        let batches = self.read(slots).await;
        batches.map_err(|error| StorageError::Away(error.to_string()))
    }

    /// Applies the next batches; tries until it succeeds.
    async fn apply_next(&self) {
        let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let tried = match self.to_apply().await {
                Ok(batches) => self.apply(&batches).await.map(|()| batches),
                Err(error) => Err(error),
            };
            match tried {
                Ok(batches) => return self.is_applied(&batches),
                Err(error) => self.is_refused(&error),
            }
            if let Some(delay) = delays.next() {
                tokio::time::sleep(delay).await;
            }
        }
    }

    async fn apply(&self, batches: &[Arc<Batch>]) -> Result<(), StorageError> {
        let watch = Stopwatch::start();
        self.parts.storage.apply(batches).await?;
        self.parts.metrics.apply_durations.observe(watch.elapsed());
        Ok(())
    }

    /// Counts what storage has now.
    fn count(&self, batches: &[Arc<Batch>]) {
        let metrics = &self.parts.metrics;
        metrics.batches.add(batches.len() as u64);
        let changes = batches.iter().flat_map(|batch| &batch.changes);
        let (mut up, mut down) = (0_u64, 0_u64);
        for change in changes {
            if let Change::Peer(change) = change {
                up = up.saturating_add(change.credit.up);
                down = down.saturating_add(change.credit.down);
            }
        }
        metrics.credited_up.add(up);
        metrics.credited_down.add(down);
        metrics.storage.succeeded(Witness::Journal);
    }

    fn is_applied(&self, batches: &[Arc<Batch>]) {
        self.count(batches);
        if let Some(last) = batches.last() {
            self.ledger.applied(last.number);
        }
        if self.storage_trouble.lock().take().is_some() {
            tracing::info!("storage takes the journal again");
        }
    }

    /// Says so once, and not at every try.
    fn is_refused(&self, error: &StorageError) {
        let metrics = &self.parts.metrics;
        metrics.batch_failures.one();
        metrics.storage.failed(Witness::Journal, &error.to_string());
        let before = self.storage_trouble.lock().replace(error.to_string());
        if before.is_none() {
            tracing::error!(
                %error,
                batch = self.ledger.progress().applied + 1,
                "storage does not take the journal; trying again until it does, nothing is lost meanwhile"
            );
        }
    }
}
