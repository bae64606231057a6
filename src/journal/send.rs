//! Sending batches to the cache, in order.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ledger::Slot;
use super::spill::SpillError;
use super::{Desk, RETRY_FIRST, RETRY_MAX};
use crate::backoff::Backoff;
use crate::cache::{Cache, CacheError};
use crate::change::Batch;
use crate::clock::Stopwatch;
use crate::metrics::Witness;

/// Changes sent at once.
const SEND_MAX: usize = 10_000;

// === impl Desk ===

impl Desk {
    /// Sends what is cut, for ever; nothing where there is no cache.
    pub(super) async fn send_all(&self) -> Infallible {
        let Some(cache) = &self.parts.cache else {
            return std::future::pending().await;
        };
        let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            self.ledger
                .until(|progress| progress.last > progress.sent)
                .await;
            match self.send(&**cache).await {
                Ok(()) => {
                    delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
                    self.cache_is_late.store(false, Ordering::Relaxed);
                    if self.cache_is_away.swap(false, Ordering::Relaxed) {
                        tracing::info!("the cache takes the journal again");
                    }
                }
                Err(error) => {
                    let metrics = &self.parts.metrics;
                    metrics.cache_failures.one();
                    metrics.cache.failed(Witness::Journal, &error.to_string());
                    self.cache_is_late.store(true, Ordering::Relaxed);
                    if !self.cache_is_away.swap(true, Ordering::Relaxed) {
                        tracing::error!(
                            %error,
                            "the cache does not take the journal; it goes to the spill file until it does"
                        );
                    }
                    // A cache that went may come back without what storage does not have yet.
                    if let Some(spill) = &self.spill {
                        self.spill_once(spill).await;
                    }
                    if let Some(delay) = delays.next() {
                        tokio::time::sleep(delay).await;
                    }
                }
            }
        }
    }

    /// Sends all that is cut, once; gives up at the first failure.
    pub(super) async fn send_rest(&self, cache: &dyn Cache) -> Result<(), CacheError> {
        loop {
            let progress = self.ledger.progress();
            if progress.sent >= progress.last {
                return Ok(());
            }
            self.send(cache).await?;
        }
    }

    /// Sends the next batches.
    async fn send(&self, cache: &dyn Cache) -> Result<(), CacheError> {
        let generation = *self.generation.borrow();
        let batches = self
            .read(self.ledger.to_send(SEND_MAX))
            .await
            .map_err(|error| CacheError::Away(error.to_string()))?;
        let Some(last) = batches.last().map(|batch| batch.number) else {
            return Ok(());
        };
        let watch = Stopwatch::start();
        let kept = cache.keep(generation, &batches).await;
        if kept.is_ok() {
            let metrics = &self.parts.metrics;
            metrics.keep_durations.observe(watch.elapsed());
            metrics.cache.succeeded(Witness::Journal);
        }
        match kept {
            // Unless somebody has seen a restart meanwhile: then it is to be sent again.
            Ok(()) if generation == *self.generation.borrow() => self.ledger.sent(last),
            Ok(()) => {}
            Err(CacheError::Restarted(generation)) => self.restarted(generation),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The batches themselves, wherever they are.
    pub(super) async fn read(&self, slots: Vec<Slot>) -> Result<Vec<Arc<Batch>>, SpillError> {
        let mut batches = Vec::with_capacity(slots.len());
        for slot in slots {
            batches.push(match slot {
                Slot::Memory(batch) => batch,
                Slot::Spilled(number) => self.read_spilled(number).await?,
            });
        }
        Ok(batches)
    }

    /// A batch that is not in the file was let go by a process before this one: nothing is left
    /// to do for it.
    async fn read_spilled(&self, number: u64) -> Result<Arc<Batch>, SpillError> {
        let node = &self.settings.node;
        let found = match &self.spill {
            Some(spill) => spill.get(node, number).await?,
            None => None,
        };
        Ok(Arc::new(found.unwrap_or_else(|| Batch {
            node: node.clone(),
            number,
            changes: Vec::new(),
        })))
    }
}
