//! Whether a server that the node needs can be reached: what a probe finds, and what the journal's
//! own calls meet.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Counter;

/// Who tells whether the server could be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// A small question, every few seconds.
    Probe,
    /// The journal, when it has something to save.
    Journal,
}

/// Storage or the cache, as the last calls found it.
#[derive(Default)]
pub struct Reach {
    /// Calls that failed.
    pub failures: Counter,
    /// Times that it was back after some had failed.
    pub reconnects: Counter,
    known: AtomicBool,
    /// What is wrong, by witness.
    problems: Mutex<[Option<String>; 2]>,
}

/// Whether what a node needs can be reached; says nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub storage_up: bool,
    pub storage_problem: Option<String>,
    /// None where nodes share no cache.
    pub cache_up: Option<bool>,
    pub cache_problem: Option<String>,
}

// === impl Reach ===

impl Reach {
    /// A call of that witness was answered.
    pub fn succeeded(&self, witness: Witness) {
        self.known.store(true, Ordering::Relaxed);
        let mut problems = self.problems.lock();
        let was_down = problems[witness as usize].take().is_some();
        if was_down && problems.iter().all(Option::is_none) {
            self.reconnects.one();
        }
    }

    /// A call of that witness failed; `problem` tells people why, without secrets.
    pub fn failed(&self, witness: Witness, problem: &str) {
        self.known.store(true, Ordering::Relaxed);
        self.failures.one();
        self.problems.lock()[witness as usize] = Some(problem.to_owned());
    }

    /// Whether each witness was answered the last time that it called; none before any did.
    pub fn is_up(&self) -> Option<bool> {
        let is_known = self.known.load(Ordering::Relaxed);
        is_known.then(|| self.problems.lock().iter().all(Option::is_none))
    }

    /// What is wrong while it is not up.
    pub fn problem(&self) -> Option<String> {
        self.problems.lock().iter().flatten().next().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_up_again_once_both_witnesses_say_so() {
        let reach = Reach::default();
        assert_eq!(reach.is_up(), None);
        reach.succeeded(Witness::Probe);
        assert_eq!((reach.is_up(), reach.problem()), (Some(true), None));
        reach.failed(Witness::Journal, "disk full");
        reach.failed(Witness::Probe, "gone");
        reach.succeeded(Witness::Probe);
        assert_eq!(reach.is_up(), Some(false));
        assert_eq!(reach.problem().as_deref(), Some("disk full"));
        assert_eq!(reach.reconnects.get(), 0);
        reach.succeeded(Witness::Journal);
        reach.succeeded(Witness::Journal);
        assert_eq!(reach.is_up(), Some(true));
        assert_eq!((reach.failures.get(), reach.reconnects.get()), (2, 1));
    }
}
