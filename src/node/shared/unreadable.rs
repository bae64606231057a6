//! Warnings about journals that this node can't follow, because a newer version of Mika writes what it does not know.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::base::clock::Seconds;
use crate::cache::CacheError;

/// Seconds between two warnings.
const PAUSE: u32 = 60;

/// The most warnings that are remembered, so as not to repeat them.
const NAMED_MAX: usize = 10_000;

/// Which journals were named in the log.
#[derive(Default)]
pub(super) struct UnreadableJournals(Mutex<State>);

#[derive(Default)]
struct State {
    /// Journals, each with what could not be read.
    named: HashSet<(String, String)>,
    last: Option<Seconds>,
}

// === impl UnreadableJournals ===

impl UnreadableJournals {
    /// Logs why a journal can't be followed: what a retry may help against for developers only, the rest once, and at
    /// most one line a minute.
    pub(super) fn log(&self, journal: &str, error: &CacheError, now: Seconds) {
        match error {
            CacheError::Broken(problem) if self.is_due(journal, problem, now) => tracing::warn!(
                node = journal,
                problem,
                "the journal of another node can't be followed: until it can, this node lacks its peers"
            ),
            _ => tracing::debug!(
                %error,
                node = journal,
                "the journal of another node can't be followed"
            ),
        }
    }

    /// Whether that is to be logged now. What is not because of the pause is due later.
    fn is_due(&self, journal: &str, problem: &str, now: Seconds) -> bool {
        let mut state = self.0.lock();
        if state.last.is_some_and(|last| now.since(last) < PAUSE) {
            return false;
        }
        if state.named.len() >= NAMED_MAX {
            state.named.clear();
        }
        let is_new = state.named.insert((journal.to_owned(), problem.to_owned()));
        if is_new {
            state.last = Some(now);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_named_once_and_others_a_minute_later() {
        let journals = UnreadableJournals::default();
        let at = |seconds| Seconds::START.plus(seconds);
        assert!(journals.is_due("b#1.0", "peer9", at(10)));
        assert!(!journals.is_due("b#1.0", "peer9", at(11)));
        assert!(!journals.is_due("c#1.0", "peer9", at(69)), "too soon");
        assert!(journals.is_due("c#1.0", "peer9", at(70)));
        for second in 130..1000 {
            assert!(!journals.is_due("b#1.0", "peer9", at(second)));
        }
        assert!(journals.is_due("b#1.0", "peer10", at(1000)));
    }
}
