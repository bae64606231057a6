//! Sending batches to the cache, in order.

use std::convert::Infallible;
use std::sync::atomic::Ordering;

use super::queue::BatchRef;
use super::{JournalShared, RETRY_FIRST, RETRY_MAX};
use crate::base::backoff::Backoff;
use crate::base::clock::Stopwatch;
use crate::cache::{Cache, CacheError};
use crate::telemetry::metrics::ProbeSource;

/// Changes sent at once.
const SEND_MAX: usize = 10_000;

impl JournalShared {
    /// Sends queued batches until cancelled; does nothing without a cache.
    pub(super) async fn send_all(&self) -> Infallible {
        let Some(cache) = &self.parts.cache else {
            return std::future::pending().await;
        };
        let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            self.queue
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
                    metrics.cache_failures.increment();
                    metrics
                        .cache
                        .failed(ProbeSource::Journal, &error.to_string());
                    self.cache_is_late.store(true, Ordering::Relaxed);
                    if !self.cache_is_away.swap(true, Ordering::Relaxed) {
                        tracing::error!(
                            %error,
                            "the cache does not take the journal; batches go to the spill file until it does"
                        );
                    }
                    // When the cache is back, it may have lost batches that storage does not have yet.
                    if let Some(spill) = &self.spill {
                        self.spill_once(spill).await;
                    }
                    delays.pause().await;
                }
            }
        }
    }

    /// Sends the next batches.
    async fn send(&self, cache: &dyn Cache) -> Result<(), CacheError> {
        let generation = *self.generation.borrow();
        let refs = self.queue.to_send(SEND_MAX);
        let Some(last) = refs.last().map(BatchRef::number) else {
            return Ok(());
        };
        // Batches that only the cache had need not be sent again: storage has applied them.
        let refs = refs
            .into_iter()
            .filter(|batch_ref| !matches!(batch_ref, BatchRef::Cached(_)))
            .collect();
        let batches = self
            .read(refs)
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
            // Unless a restart was seen meanwhile: then it is sent again.
            Ok(()) if generation == *self.generation.borrow() => {
                self.queue.mark_sent(last);
                let tracker = &self.parts.tracker;
                tracker.on_counts_written(&batches, self.parts.clock.now());
            }
            Ok(()) => {}
            Err(CacheError::Restarted(generation)) => self.on_cache_restarted(generation),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
