//! Clock skews, as last measured.

use parking_lot::Mutex;

/// Skews in seconds by the name of the clock.
#[derive(Default)]
pub struct ClockSkews(Mutex<Vec<(String, u64)>>);

impl ClockSkews {
    pub fn set(&self, skews: Vec<(String, u64)>) {
        *self.0.lock() = skews;
    }

    pub fn all(&self) -> Vec<(String, u64)> {
        self.0.lock().clone()
    }
}
