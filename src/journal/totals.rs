//! The totals that the cache shows: what storage credited is added to them.
//!
//! They are for display: what a crash between storage and cache loses of them comes back with the
//! next warm-up. Nothing waits for them.

use std::convert::Infallible;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Desk, RETRY_FIRST, RETRY_MAX};
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

    /// The cache is filled from storage, which has them.
    pub(super) fn clear(&self) {
        *self.sums.lock() = Credited::default();
    }
}

// === impl Desk ===

impl Desk {
    /// Adds to the cache what storage credits, until it is dropped; nothing where there is no cache.
    pub(super) async fn add_all_totals(&self) -> Infallible {
        let Some(cache) = &self.parts.cache else {
            return std::future::pending().await;
        };
        loop {
            self.pending_totals.came.notified().await;
            let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
            while let Err(error) = self.add_totals(&**cache).await {
                tracing::debug!(%error, "the totals in the cache could not be brought up to date");
                if let Some(delay) = delays.next() {
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// Tries it once. What fails stays for the next time.
    pub(super) async fn add_totals(&self, cache: &dyn Cache) -> Result<(), CacheError> {
        let _writing = self.pending_totals.writing.lock().await;
        let generation = *self.generation.borrow();
        let sums = std::mem::take(&mut *self.pending_totals.sums.lock());
        if sums.is_empty() {
            return Ok(());
        }
        match cache.add_totals(generation, &sums).await {
            Ok(()) => Ok(()),
            // It is filled from storage, which has them.
            Err(CacheError::Restarted(generation)) => {
                self.restarted(generation);
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
