//! Numbers that somebody else keeps anyway, read when they are asked for.

use parking_lot::Mutex;

type Read = Box<dyn Fn() -> u64 + Send + Sync>;

/// The sum of what several keep, say the worker threads: it costs them nothing.
#[derive(Default)]
pub struct Readings(Mutex<Vec<Read>>);

// === impl Readings ===

impl Readings {
    /// From now on `read` is part of the sum, for ever.
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
    fn all_are_read_when_they_are_asked() {
        let readings = Readings::default();
        assert_eq!(readings.get(), 0);
        readings.add(|| 3);
        readings.add(|| 4);
        assert_eq!(readings.get(), 7);
    }
}
