//! The heartbeat of a thread, for the watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// The heartbeat of one thread, the only one that beats it. Clones share the counter.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<CachePadded<AtomicU64>>);

impl Pulse {
    /// Called once per turn of the thread. A load and a store suffice with one writer.
    pub fn beat(&self) {
        let beats = self.beats();
        self.0.store(beats.wrapping_add(1), Ordering::Relaxed);
    }

    /// The number of beats; only a change is meaningful.
    pub fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
