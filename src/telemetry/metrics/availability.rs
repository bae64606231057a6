//! Whether a server that the node needs can be reached, by probes and by the journal's own calls.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Counter;

/// Which call found out whether the server can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeSource {
    /// The periodic health check.
    Probe,
    /// The journal, when it saves batches.
    Journal,
}

/// The availability of storage or the cache, by the last calls.
#[derive(Default)]
pub struct Availability {
    /// Calls that failed.
    pub failures: Counter,
    /// Recoveries after failed calls.
    pub reconnects: Counter,
    known: AtomicBool,
    /// What is wrong, by source.
    problems: Mutex<[Option<String>; 2]>,
}

/// Availability of storage and cache; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub storage_up: bool,
    pub storage_problem: Option<String>,
    /// None where nodes share no cache.
    pub cache_up: Option<bool>,
    pub cache_problem: Option<String>,
}

impl Availability {
    /// Records a successful call.
    pub fn succeeded(&self, source: ProbeSource) {
        self.known.store(true, Ordering::Relaxed);
        let mut problems = self.problems.lock();
        let was_down = problems[source as usize].take().is_some();
        if was_down && problems.iter().all(Option::is_none) {
            self.reconnects.increment();
        }
    }

    /// Records a failed call; `problem` says why, without secrets.
    pub fn failed(&self, source: ProbeSource, problem: &str) {
        self.known.store(true, Ordering::Relaxed);
        self.failures.increment();
        self.problems.lock()[source as usize] = Some(problem.to_owned());
    }

    /// Whether the last call of each source succeeded; none before the first call.
    pub fn is_up(&self) -> Option<bool> {
        let is_known = self.known.load(Ordering::Relaxed);
        is_known.then(|| self.problems.lock().iter().all(Option::is_none))
    }

    /// What is wrong while the server is not up.
    pub fn problem(&self) -> Option<String> {
        self.problems.lock().iter().flatten().next().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_up_again_once_both_sources_say_so() {
        let server = Availability::default();
        assert_eq!(server.is_up(), None);
        server.succeeded(ProbeSource::Probe);
        assert_eq!((server.is_up(), server.problem()), (Some(true), None));
        server.failed(ProbeSource::Journal, "disk full");
        server.failed(ProbeSource::Probe, "gone");
        server.succeeded(ProbeSource::Probe);
        assert_eq!(server.is_up(), Some(false));
        assert_eq!(server.problem().as_deref(), Some("disk full"));
        assert_eq!(server.reconnects.get(), 0);
        server.succeeded(ProbeSource::Journal);
        server.succeeded(ProbeSource::Journal);
        assert_eq!(server.is_up(), Some(true));
        assert_eq!((server.failures.get(), server.reconnects.get()), (2, 1));
    }
}
