//! Drivers by their names, as the config gives them.

use std::collections::BTreeMap;

/// The drivers of a kind: what opens one of that name.
#[derive(Clone)]
pub struct DriverTable<F> {
    by_name: BTreeMap<&'static str, F>,
}

impl<F: Copy, const N: usize> From<[(&'static str, F); N]> for DriverTable<F> {
    fn from(drivers: [(&'static str, F); N]) -> Self {
        let by_name = drivers.into();
        Self { by_name }
    }
}

impl<F: Copy> DriverTable<F> {
    /// Adds a driver, or replaces the one of that name.
    pub fn register(&mut self, name: &'static str, open: F) {
        self.by_name.insert(name, open);
    }

    pub fn get(&self, name: &str) -> Option<F> {
        self.by_name.get(name).copied()
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.by_name.keys().copied().collect()
    }
}
