//! Sending batches to the cache, in order.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ledger::Slot;
use super::spill::{Found, SpillError};
use super::{Desk, RETRY_FIRST, RETRY_MAX};
use crate::base::backoff::Backoff;
use crate::base::clock::Stopwatch;
use crate::cache::{Cache, CacheError};
use crate::change::Batch;
use crate::telemetry::metrics::ProbeSource;

/// Changes sent at once.
const SEND_MAX: usize = 10_000;

/// A batch, or why there is none where it should be.
type Sought = Result<Arc<Batch>, String>;

/// Why batches can't be read now.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Spill(#[from] SpillError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

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
                    metrics
                        .cache
                        .failed(ProbeSource::Journal, &error.to_string());
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

    /// Sends the next batches.
    async fn send(&self, cache: &dyn Cache) -> Result<(), CacheError> {
        let generation = *self.generation.borrow();
        let slots = self.ledger.to_send(SEND_MAX);
        let Some(last) = slots.last().map(Slot::number) else {
            return Ok(());
        };
        // Of what only the cache had, storage has all.
        let is_here = |slot: &Slot| !matches!(slot, Slot::Cached(_));
        let slots = slots.into_iter().filter(is_here).collect();
        let batches = self
            .read(slots)
            .await
            .map_err(|error| CacheError::Away(error.to_string()))?;
        let watch = Stopwatch::start();
        let kept = cache.keep(generation, &batches).await;
        if kept.is_ok() {
            let metrics = &self.parts.metrics;
            metrics.keep_durations.observe(watch.elapsed());
            metrics.cache.succeeded(ProbeSource::Journal);
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
    pub(super) async fn read(&self, slots: Vec<Slot>) -> Result<Vec<Arc<Batch>>, ReadError> {
        let mut batches = Vec::with_capacity(slots.len());
        for slot in slots {
            let (number, found) = match slot {
                Slot::Memory(batch) => (batch.number, Ok(batch)),
                Slot::Spilled(number) => (number, self.read_spilled(number).await?),
                Slot::Cached(number) => (number, self.read_cached(number).await?),
            };
            batches.push(found.unwrap_or_else(|problem| self.nothing(number, &problem)));
        }
        Ok(batches)
    }

    /// What stands in for a batch that is lost, so that those after it go on.
    fn nothing(&self, number: u64, problem: &str) -> Arc<Batch> {
        tracing::error!(
            batch = number,
            problem,
            "a batch is lost: what clients reported in it is credited with their next announce, \
             except for those that never announce again"
        );
        Arc::new(Batch {
            node: self.name.clone(),
            number,
            changes: Vec::new(),
        })
    }

    async fn read_spilled(&self, number: u64) -> Result<Sought, SpillError> {
        let Some(spill) = &self.spill else {
            return Ok(Err("there is no spill file".into()));
        };
        Ok(match spill.get(&self.name, number).await? {
            Found::Batch(batch) => Ok(Arc::new(batch)),
            Found::Nothing => Err("somebody deleted it from the spill file".into()),
            Found::Damaged(problem) => {
                spill.set_aside(number).await?;
                Err(format!(
                    "it can't be read: {problem}; it is kept in table \"damaged\" of the spill file"
                ))
            }
        })
    }

    async fn read_cached(&self, number: u64) -> Result<Sought, CacheError> {
        let Some(cache) = &self.parts.cache else {
            return Ok(Err("there is no cache".into()));
        };
        let found = cache.kept(&self.name, number - 1, 1).await?;
        let found = found.into_iter().find(|batch| batch.number == number);
        Ok(found
            .map(Arc::new)
            .ok_or_else(|| "the cache does not have it any more".into()))
    }
}
