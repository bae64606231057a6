//! Bringing to storage what nodes left that died, and forgetting journals that have ended.

use std::collections::HashMap;
use std::sync::Arc;

use super::rest::{Rest, RestError};
use crate::cache::{Cache, CacheError};
use crate::change::journals::node_of;
use crate::clock::Seconds;
use crate::storage::{CreditRules, Storage};

/// Seconds without a sign of life after which a process counts as dead.
const DEAD_AFTER: u32 = 15;

/// Seconds without a sign of life after which a journal is forgotten, if storage has all of it. A
/// process that comes back puts its own on the list again.
const FORGOTTEN_AFTER: u32 = 86_400;

/// The same for those of earlier starts of this node.
const OWN_FORGOTTEN_AFTER: u32 = 600;

/// Watches the journals of other nodes, and of this node's earlier starts.
pub struct Replay {
    cache: Arc<dyn Cache>,
    storage: Arc<dyn Storage>,
    own: String,
    seen: HashMap<String, Seen>,
}

/// What is known of a journal.
struct Seen {
    /// The last sign of life of its process, and since when it is the same.
    sign: String,
    since: Seconds,
    /// Why its rest could not be applied at the last try; empty if it could.
    problem: String,
}

// === impl Replay ===

impl Replay {
    /// `own` is the journal of this process.
    pub fn new(cache: Arc<dyn Cache>, storage: Arc<dyn Storage>, own: String) -> Self {
        Self {
            cache,
            storage,
            own,
            seen: HashMap::new(),
        }
    }

    /// Looks at all journals once, and applies what dead processes left, by the rules in force; to be
    /// called every few seconds. What can't be applied is logged once, and stops nothing else.
    pub async fn look(&mut self, now: Seconds, rules: &CreditRules) -> Result<(), CacheError> {
        let nodes = self.cache.nodes().await?;
        self.seen
            .retain(|journal, _| nodes.iter().any(|(name, _)| name == journal));
        for (journal, sign) in nodes {
            if journal == self.own {
                continue;
            }
            let silence = self.silence(&journal, sign, now);
            if silence < DEAD_AFTER {
                continue;
            }
            let cared_for = self.care_for(&journal, silence, rules).await;
            self.note(&journal, cared_for);
        }
        Ok(())
    }

    /// Seconds since the last sign of life.
    fn silence(&mut self, journal: &str, sign: String, now: Seconds) -> u32 {
        match self.seen.get_mut(journal) {
            Some(seen) if seen.sign == sign => now.since(seen.since),
            Some(seen) => {
                (seen.sign, seen.since) = (sign, now);
                0
            }
            None => {
                let seen = Seen {
                    sign,
                    since: now,
                    problem: String::new(),
                };
                self.seen.insert(journal.to_owned(), seen);
                0
            }
        }
    }

    async fn care_for(
        &self,
        journal: &str,
        silence: u32,
        rules: &CreditRules,
    ) -> Result<(), RestError> {
        let rest = Rest {
            journal,
            cache: &*self.cache,
            storage: &*self.storage,
            spill: None,
        };
        let brought = rest.apply(rules).await?;
        if brought.batches > 0 {
            tracing::info!(
                journal,
                batches = brought.batches,
                changes = brought.changes,
                "applied what a node left that is gone"
            );
        }
        let is_own = node_of(journal) == node_of(&self.own);
        let patience = if is_own {
            OWN_FORGOTTEN_AFTER
        } else {
            FORGOTTEN_AFTER
        };
        if silence >= patience && self.cache.kept(journal, 0, 1).await?.is_empty() {
            // The number first: a start compares it with what the cache has.
            self.storage
                .forget_journal(journal, brought.applied)
                .await?;
            self.cache.forget_journal(journal).await?;
            tracing::info!(journal, "a journal that has ended is forgotten");
        }
        Ok(())
    }

    /// Logs a problem that is new, and that one is over.
    fn note(&mut self, journal: &str, cared_for: Result<(), RestError>) {
        let Some(seen) = self.seen.get_mut(journal) else {
            return;
        };
        let problem = cared_for.map_or_else(|error| error.to_string(), |()| String::new());
        if !problem.is_empty() && seen.problem != problem {
            tracing::error!(
                journal,
                problem,
                "what a node left that is gone can't be applied; trying again every few seconds"
            );
        } else if problem.is_empty() && !seen.problem.is_empty() {
            tracing::info!(journal, "what a node left that is gone is applied now");
        }
        seen.problem = problem;
    }
}
