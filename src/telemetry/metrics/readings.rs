//! Gauges whose values are kept elsewhere, read on demand.

use parking_lot::Mutex;

type Read = Box<dyn Fn() -> u64 + Send + Sync>;

/// The sum of several sources, such as the worker threads, at no cost to them.
#[derive(Default)]
pub struct Readings(Mutex<Vec<Read>>);

impl Readings {
    /// Adds a source for the life of the process.
    pub fn add(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.0.lock().push(Box::new(read));
    }

    pub fn get(&self) -> u64 {
        self.0.lock().iter().map(|read| read()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sources_are_read_on_demand() {
        let readings = Readings::default();
        assert_eq!(readings.get(), 0);
        readings.add(|| 3);
        readings.add(|| 4);
        assert_eq!(readings.get(), 7);
    }
}
