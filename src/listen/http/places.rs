//! The places for connections that one worker has. A reload may change their number.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All places. Only the worker's own thread changes anything about them.
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// How many there are to be.
    number: Arc<AtomicUsize>,
    /// How many there are beyond that, because they were taken when the number was lowered.
    excess: Arc<AtomicUsize>,
}

/// A place that is taken until this is dropped.
pub(super) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    excess: Arc<AtomicUsize>,
}

// === impl Places ===

impl Places {
    pub fn new(number: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(number)),
            number: Arc::new(AtomicUsize::new(number)),
            excess: Arc::default(),
        }
    }

    /// What tells how many there are, and how many of them are taken.
    pub fn readings(
        &self,
    ) -> (
        impl Fn() -> u64 + Send + Sync + use<>,
        impl Fn() -> u64 + Send + Sync + use<>,
    ) {
        let Self {
            free,
            number,
            excess,
        } = self;
        let (free, excess) = (Arc::clone(free), Arc::clone(excess));
        let all = Arc::clone(number);
        let number = Arc::clone(number);
        let taken = move || {
            let places = all.load(Ordering::Relaxed) + excess.load(Ordering::Relaxed);
            places.saturating_sub(free.available_permits()) as u64
        };
        (move || number.load(Ordering::Relaxed) as u64, taken)
    }

    /// Waits for a free place.
    pub async fn take(&self) -> Place {
        Place {
            // It fails only for a semaphore that was closed, and this one never is.
            permit: Arc::clone(&self.free).acquire_owned().await.ok(),
            excess: Arc::clone(&self.excess),
        }
    }

    /// Makes them so many; of those that are to go, who has one keeps it.
    pub fn resize(&self, number: usize) {
        let before = self.number.swap(number, Ordering::Relaxed);
        let excess = self.excess.load(Ordering::Relaxed);
        if number >= before {
            let more = number - before;
            let kept = more.min(excess);
            self.excess.store(excess - kept, Ordering::Relaxed);
            self.free.add_permits(more - kept);
        } else {
            let less = before - number;
            let gone = self.free.forget_permits(less);
            self.excess.store(excess + less - gone, Ordering::Relaxed);
        }
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let excess = self.excess.load(Ordering::Relaxed);
        if excess > 0
            && let Some(permit) = self.permit.take()
        {
            self.excess.store(excess - 1, Ordering::Relaxed);
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_number_may_change_while_places_are_taken() {
        let places = Places::new(3);
        let (number, busy) = places.readings();
        let mut taken = vec![places.take().await, places.take().await];
        assert_eq!((number(), busy()), (3, 2));
        places.resize(1);
        assert_eq!(places.free.available_permits(), 0);
        assert_eq!((number(), busy()), (1, 2));
        drop(taken.pop());
        assert_eq!(places.free.available_permits(), 0, "that one is gone");
        assert_eq!((number(), busy()), (1, 1));
        places.resize(0);
        places.resize(2);
        assert_eq!(places.free.available_permits(), 1);
        drop(taken);
        assert_eq!(places.free.available_permits(), 2);
        places.resize(5);
        assert_eq!(places.free.available_permits(), 5);
        places.resize(1);
        assert_eq!(places.free.available_permits(), 1);
    }
}
