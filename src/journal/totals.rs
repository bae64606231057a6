//! Telling the cache what storage credited: the totals that it shows.
//!
//! They are for display: what a crash between storage and cache loses of them comes back with the
//! next warm-up. Nothing waits for them.

use std::convert::Infallible;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Desk, RETRY_FIRST, RETRY_MAX};
use crate::backoff::Backoff;
use crate::cache::{Cache, CacheError};
use crate::change::sums::Credited;

/// What the cache was not told yet.
#[derive(Default)]
pub(super) struct Untold {
    sums: Mutex<Credited>,
    came: Notify,
    /// Held while the cache is told.
    telling: tokio::sync::Mutex<()>,
}

// === impl Untold ===

impl Untold {
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
    /// Tells the cache what storage credits, for ever; nothing where there is no cache.
    pub(super) async fn tell_all(&self) -> Infallible {
        let Some(cache) = &self.parts.cache else {
            return std::future::pending().await;
        };
        loop {
            self.untold.came.notified().await;
            let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
            while let Err(error) = self.tell(&**cache).await {
                tracing::debug!(%error, "the cache was not told what storage credited");
                if let Some(delay) = delays.next() {
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// Tries it once. What fails stays for the next time.
    pub(super) async fn tell(&self, cache: &dyn Cache) -> Result<(), CacheError> {
        let _telling = self.untold.telling.lock().await;
        let generation = *self.generation.borrow();
        let sums = std::mem::take(&mut *self.untold.sums.lock());
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
                    self.untold.add(&sums);
                }
                Err(error)
            }
        }
    }
}
