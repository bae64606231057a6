//! Whether a thread still works: it beats whenever it turns, and others look whether it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// The pulse of one thread, which alone beats it. Clones are the same pulse.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<CachePadded<AtomicU64>>);

// === impl Pulse ===

impl Pulse {
    /// Says that the thread turns: a load and a store, because nobody else writes.
    pub fn beat(&self) {
        let beats = self.beats();
        self.0.store(beats.wrapping_add(1), Ordering::Relaxed);
    }

    /// How often it has beaten; only whether that changes means anything.
    pub fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
