//! Bringing to storage what nodes left that died, and forgetting journals that have ended.

use std::collections::HashMap;
use std::sync::Arc;

use super::rest::{Rest, RestError};
use crate::base::clock::Seconds;
use crate::cache::{Cache, CacheError};
use crate::change::journals::{is_later, sort_by_start};
use crate::storage::{CreditRules, Storage};

/// Seconds without a sign of life after which a process counts as dead.
const DEAD_AFTER: u32 = 15;

/// Seconds without a sign of life after which a journal goes off the list, if storage has all of it. A
/// process that comes back puts its own there again. Its number stays in storage: its spill file may
/// turn up on the next start.
const DELISTED_AFTER: u32 = 86_400;

/// Seconds without a sign of life after which a journal is forgotten if its node has started again,
/// for that start has saved what the spill file had.
const FORGOTTEN_AFTER: u32 = 600;

/// Watches the journals of other nodes, and of this node's earlier starts.
pub struct Replay {
    cache: Arc<dyn Cache>,
    storage: Arc<dyn Storage>,
    own: String,
    /// Seconds for which batches stay after storage had them.
    keep: u32,
    seen: HashMap<String, Seen>,
}

/// What is known of a journal.
struct Seen {
    /// The last sign of life of its process, and since when it is the same.
    sign: String,
    since: Seconds,
    /// A number up to which storage had it, and since when.
    applied: (u64, Seconds),
    /// Why its rest could not be applied at the last try; empty if it could.
    problem: String,
}

// === impl Replay ===

impl Replay {
    /// `own` is the journal of this process; batches stay for `keep` seconds after storage had them.
    pub fn new(cache: Arc<dyn Cache>, storage: Arc<dyn Storage>, own: String, keep: u32) -> Self {
        Self {
            cache,
            storage,
            own,
            keep,
            seen: HashMap::new(),
        }
    }

    /// Looks at all journals once, and applies what dead processes left, by the rules in force; to be
    /// called every few seconds. What can't be applied is logged once, and stops nothing else.
    pub async fn look(&mut self, now: Seconds, rules: &CreditRules) -> Result<(), CacheError> {
        let mut nodes = self.cache.nodes().await?;
        sort_by_start(&mut nodes);
        self.seen
            .retain(|journal, _| nodes.iter().any(|(name, _)| name == journal));
        for (journal, sign) in &nodes {
            if *journal == self.own {
                continue;
            }
            let silence = self.silence(journal, sign, now);
            if silence < DEAD_AFTER {
                continue;
            }
            let has_started_again = nodes.iter().any(|(other, _)| is_later(other, journal));
            let cared_for = self.apply(journal, now, rules).await;
            let cared_for = match cared_for {
                Ok(applied) => {
                    self.forget(journal, applied, silence, has_started_again)
                        .await
                }
                Err(error) => Err(error),
            };
            self.note(journal, cared_for);
        }
        Ok(())
    }

    /// Seconds since the last sign of life.
    fn silence(&mut self, journal: &str, sign: &str, now: Seconds) -> u32 {
        match self.seen.get_mut(journal) {
            Some(seen) if seen.sign == sign => now.since(seen.since),
            Some(seen) => {
                (seen.sign, seen.since) = (sign.to_owned(), now);
                0
            }
            None => {
                let seen = Seen {
                    sign: sign.to_owned(),
                    since: now,
                    applied: (0, now),
                    problem: String::new(),
                };
                self.seen.insert(journal.to_owned(), seen);
                0
            }
        }
    }

    /// Applies what a journal left; returns the number up to which storage has it.
    async fn apply(
        &mut self,
        journal: &str,
        now: Seconds,
        rules: &CreditRules,
    ) -> Result<u64, RestError> {
        let rest = Rest {
            journal,
            cache: Some(&*self.cache),
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
        if let Some(seen) = self.seen.get_mut(journal)
            && now.since(seen.applied.1) >= self.keep
        {
            // Those who follow the journal have read it by now, too.
            self.cache.applied(journal, seen.applied.0).await?;
            seen.applied = (brought.applied, now);
        }
        Ok(brought.applied)
    }

    /// Forgets a journal that has ended, as far as nobody needs it any more.
    async fn forget(
        &self,
        journal: &str,
        applied: u64,
        silence: u32,
        has_started_again: bool,
    ) -> Result<(), RestError> {
        // One that never had a batch is of a start that came to nothing.
        let is_over = silence >= FORGOTTEN_AFTER || applied == 0;
        let is_forgotten = has_started_again && is_over;
        if !is_forgotten && silence < DELISTED_AFTER {
            return Ok(());
        }
        if !self.cache.kept(journal, 0, 1).await?.is_empty() {
            return Ok(());
        }
        if !is_forgotten {
            self.cache.leave(journal).await?;
            tracing::info!(journal, "a node that is gone is not followed any more");
        // The number first: a start compares it with what the cache has. If it has changed, the process
        // is there again.
        } else if self.storage.forget_journal(journal, applied).await? {
            self.cache.forget_journal(journal).await?;
            tracing::debug!(journal, "a journal that has ended is forgotten");
        } else if self.storage.applied(journal).await? == 0 {
            self.cache.leave(journal).await?;
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
