//! Gauges: values that are kept elsewhere and read on demand, and when certificates expire.

use std::collections::BTreeMap;

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

/// When the certificate of each TLS listener expires.
#[derive(Default)]
pub struct Certificates(Mutex<BTreeMap<&'static str, i64>>);

impl Certificates {
    /// Sets the expiry (Unix time) of a listener, by its name in the config (`http`, `api`); none
    /// without TLS.
    pub fn set(&self, listener: &'static str, expires_at: Option<i64>) {
        let mut all = self.0.lock();
        match expires_at {
            Some(expires_at) => all.insert(listener, expires_at),
            None => all.remove(listener),
        };
    }

    /// Each listener with TLS and the expiry of its certificate, in Unix time.
    pub fn all(&self) -> Vec<(&'static str, i64)> {
        let all = self.0.lock();
        all.iter().map(|(name, at)| (*name, *at)).collect()
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
