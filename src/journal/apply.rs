//! Applying batches to storage, in order.

use std::convert::Infallible;
use std::sync::Arc;

use super::{Desk, RETRY_FIRST, RETRY_MAX};
use crate::backoff::Backoff;
use crate::change::Batch;
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
            self.parts.storage.apply(&batches).await?;
            self.ledger.applied(last);
            self.parts.metrics.batches.add(batches.len() as u64);
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
                Ok(batches) => {
                    let applied = self.parts.storage.apply(&batches).await;
                    applied.map(|()| batches)
                }
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

    fn is_applied(&self, batches: &[Arc<Batch>]) {
        self.parts.metrics.batches.add(batches.len() as u64);
        if let Some(last) = batches.last() {
            self.ledger.applied(last.number);
        }
        if self.storage_trouble.lock().take().is_some() {
            tracing::info!("storage takes the journal again");
        }
    }

    /// Says so once, and not at every try.
    fn is_refused(&self, error: &StorageError) {
        self.parts.metrics.batch_failures.one();
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
