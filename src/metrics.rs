//! What the process counts of itself. Knows nobody; anybody may count.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Lanes of a counter: threads that count at the same time seldom share one.
const LANES: usize = 16;

/// A number that only grows, cheap to add to from many threads.
#[derive(Default)]
pub struct Counter {
    lanes: [Lane; LANES],
}

/// A cache line of its own, so that threads don't pull it from each other.
#[derive(Default)]
#[repr(align(128))]
struct Lane(AtomicU64);

/// Everything that a node counts.
#[derive(Default)]
pub struct Metrics {
    /// Announces answered with peers and counters.
    pub announces: Counter,
    pub scrapes: Counter,
    /// Announces and scrapes answered with a failure.
    pub refusals: Counter,
    pub snatches: Counter,
    /// Peers that left without a word.
    pub expired: Counter,
    /// Public announces refused because there are as many torrents as there may be, or as their
    /// network may begin.
    pub torrents_full: Counter,
    /// Public announces refused because their address has as many peers in the swarm as it may have.
    pub peers_per_ip: Counter,
    /// Private announces whose credit has to wait because the outbox was full, and public
    /// snatches that were not counted because of it.
    pub outbox_full: Counter,
    /// Replies that went out before what they acknowledge was durable.
    pub ack_timeouts: Counter,
    /// Reports that were not credited because no line is that fast (rule A7).
    pub implausible: Counter,
    /// Connections accepted.
    pub connections: Counter,
    /// Announces refused because their address or port is blocked by the config.
    pub blocked: Counter,
    /// UDP connects that got an id.
    pub udp_connects: Counter,
    /// UDP connects that were not answered, because their network had asked too often.
    pub udp_connects_limited: Counter,
    /// UDP requests whose connection id is not ours, too old, or another address's.
    pub udp_bad_ids: Counter,
    /// UDP errors that were not sent, because their network had got too many.
    pub udp_errors_limited: Counter,
    /// UDP packets that are no request.
    pub udp_dropped: Counter,
    /// UDP replies that the system did not take.
    pub udp_unsent: Counter,
    /// Batches that storage has applied.
    pub batches: Counter,
    /// Tries to apply a batch that failed.
    pub batch_failures: Counter,
    /// Batches written to the spill file.
    pub batches_spilled: Counter,
    /// Tries to send batches to the cache that failed.
    pub cache_failures: Counter,
}

// === impl Counter ===

impl Counter {
    pub fn add(&self, number: u64) {
        self.lanes[lane()].0.fetch_add(number, Ordering::Relaxed);
    }

    pub fn one(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        let lanes = self.lanes.iter();
        lanes.map(|lane| lane.0.load(Ordering::Relaxed)).sum()
    }
}

/// The lane of this thread.
fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LANE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % LANES);
    }
    LANE.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_together() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| counter.add(25));
            }
        });
        assert_eq!(counter.get(), 1000);
    }
}
