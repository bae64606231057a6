//! How far clocks are from the time that they agree on, as it was last looked at.

use parking_lot::Mutex;

/// Clocks by name, with seconds.
#[derive(Default)]
pub struct ClockSkews(Mutex<Vec<(String, u64)>>);

// === impl ClockSkews ===

impl ClockSkews {
    pub fn set(&self, skews: Vec<(String, u64)>) {
        *self.0.lock() = skews;
    }

    pub fn all(&self) -> Vec<(String, u64)> {
        self.0.lock().clone()
    }
}
