//! Adds what storage credited to the totals in the cache.
//!
//! They are for display only: totals that are lost in a crash between storage and cache come back
//! with the next warmup. Nothing waits for them.

use std::convert::Infallible;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{JournalShared, RETRY_FIRST, RETRY_MAX};
use crate::base::backoff::Backoff;
use crate::cache::{Cache, CacheError};
use crate::change::sums::Credited;

/// What storage credited and the cache does not have yet.
#[derive(Default)]
pub(super) struct PendingTotals {
    sums: Mutex<Credited>,
    came: Notify,
    /// Held while the cache is written to.
    writing: tokio::sync::Mutex<()>,
}

// === impl PendingTotals ===

impl PendingTotals {
    pub(super) fn add(&self, credited: &Credited) {
        self.sums.lock().add(credited);
        self.came.notify_one();
    }

    /// Drops them: the cache is being filled from storage, which has them.
    pub(super) fn clear(&self) {
        *self.sums.lock() = Credited::default();
    }
}

// === impl JournalShared ===

impl JournalShared {
    /// Adds to the cache what storage credits. Runs until cancelled; does nothing without a cache.
    pub(super) async fn add_all_totals(&self) -> Infallible {
        let Some(cache) = &self.parts.cache else {
            return std::future::pending().await;
        };
        loop {
            self.pending_totals.came.notified().await;
            let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
            while let Err(error) = self.add_totals(&**cache).await {
                tracing::debug!(%error, "the totals in the cache could not be brought up to date");
                delays.pause().await;
            }
        }
    }

    /// One attempt; on failure the totals stay pending.
    pub(super) async fn add_totals(&self, cache: &dyn Cache) -> Result<(), CacheError> {
        let _writing = self.pending_totals.writing.lock().await;
        let generation = *self.generation.borrow();
        let sums = std::mem::take(&mut *self.pending_totals.sums.lock());
        if sums.is_empty() {
            return Ok(());
        }
        match cache.add_totals(generation, &sums).await {
            Ok(()) => Ok(()),
            // The cache will be filled from storage, which has them.
            Err(CacheError::Restarted(generation)) => {
                self.on_cache_restarted(generation);
                Ok(())
            }
            Err(error) => {
                if generation == *self.generation.borrow() {
                    self.pending_totals.add(&sums);
                }
                Err(error)
            }
        }
    }
}
