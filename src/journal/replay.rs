//! Replays to storage what dead nodes left behind, and forgets journals that have ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::leftover::{JournalError, Leftover};
use crate::base::clock::Seconds;
use crate::cache::{Cache, CacheError};
use crate::change::journals::{is_later, sort_by_start};
use crate::storage::{CreditRules, Storage};

/// Seconds without a heartbeat after which a process counts as dead.
const DEAD_AFTER: u32 = 15;

/// Seconds without a heartbeat after which a journal is removed from the list, if storage has all of it. A
/// process that comes back adds its journal again. The journal's number stays in storage, because its spill
/// file may turn up on the next start.
const DELISTED_AFTER: u32 = 86_400;

/// Seconds without a heartbeat after which a journal is forgotten if its node has started again: that
/// start has saved what the spill file had.
const FORGOTTEN_AFTER: u32 = 600;

/// Watches the journals of other nodes, and of this node's earlier starts.
pub struct Replay {
    cache: Arc<dyn Cache>,
    storage: Arc<dyn Storage>,
    own: String,
    /// Seconds for which batches are kept after storage applied them.
    keep: u32,
    watched: HashMap<String, Watched>,
}

/// What is known of a journal.
struct Watched {
    /// The last heartbeat of its process, and since when it has not changed.
    sign: String,
    since: Seconds,
    /// The last batch that storage had at some moment, and that moment.
    applied: (u64, Seconds),
    /// Why the last attempt to apply its leftover failed; empty if it succeeded.
    problem: String,
}

impl Replay {
    /// `own` is the journal of this process; batches are kept for `keep` seconds after storage applied them.
    pub fn new(cache: Arc<dyn Cache>, storage: Arc<dyn Storage>, own: String, keep: u32) -> Self {
        Self {
            cache,
            storage,
            own,
            keep,
            watched: HashMap::new(),
        }
    }

    /// Looks at all journals once, and applies what dead processes left, by the current rules. To be
    /// called every few seconds. What can't be applied is logged once, and does not stop the others.
    pub async fn look(&mut self, now: Seconds, rules: &CreditRules) -> Result<(), CacheError> {
        let mut nodes = self.cache.nodes().await?;
        sort_by_start(&mut nodes);
        self.watched
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
            let result = match self.apply(journal, now, rules).await {
                Ok(applied) => {
                    self.forget(journal, applied, silence, has_started_again)
                        .await
                }
                Err(error) => Err(error),
            };
            self.log_outcome(journal, result);
        }
        Ok(())
    }

    /// Seconds since the last heartbeat.
    fn silence(&mut self, journal: &str, sign: &str, now: Seconds) -> u32 {
        match self.watched.get_mut(journal) {
            Some(watched) if watched.sign == sign => now.since(watched.since),
            Some(watched) => {
                (watched.sign, watched.since) = (sign.to_owned(), now);
                0
            }
            None => {
                let watched = Watched {
                    sign: sign.to_owned(),
                    since: now,
                    applied: (0, now),
                    problem: String::new(),
                };
                self.watched.insert(journal.to_owned(), watched);
                0
            }
        }
    }

    /// Applies what a journal left; returns the number of the last batch that storage has.
    async fn apply(
        &mut self,
        journal: &str,
        now: Seconds,
        rules: &CreditRules,
    ) -> Result<u64, JournalError> {
        let leftover = Leftover {
            journal,
            cache: Some(&*self.cache),
            storage: &*self.storage,
            spill: None,
        };
        let adopted = leftover.apply(rules).await?;
        if adopted.batches > 0 {
            tracing::info!(
                journal,
                batches = adopted.batches,
                changes = adopted.changes,
                "applied the leftover of a node that is gone"
            );
        }
        if let Some(watched) = self.watched.get_mut(journal)
            && now.since(watched.applied.1) >= self.keep
        {
            // Nodes that follow the journal have read it by now, too.
            self.cache
                .trim_journal(journal, Some(watched.applied.0))
                .await?;
            watched.applied = (adopted.applied, now);
        }
        Ok(adopted.applied)
    }

    /// Forgets an ended journal as far as it is not needed any more.
    async fn forget(
        &self,
        journal: &str,
        applied: u64,
        silence: u32,
        has_started_again: bool,
    ) -> Result<(), JournalError> {
        // A journal without any batch belongs to a start that failed.
        let is_over = silence >= FORGOTTEN_AFTER || applied == 0;
        let is_forgotten = has_started_again && is_over;
        if !is_forgotten && silence < DELISTED_AFTER {
            return Ok(());
        }
        if !self
            .cache
            .kept(journal, 0, 1, Duration::ZERO)
            .await?
            .is_empty()
        {
            return Ok(());
        }
        if !is_forgotten {
            self.cache.leave(journal).await?;
            tracing::info!(journal, "a node that is gone is not followed any more");
        // Storage first: a start compares its number with what the cache has. If the number has changed,
        // the process is back.
        } else if self.storage.forget_journal(journal, applied).await? {
            self.cache.forget_journal(journal).await?;
            tracing::debug!(journal, "a journal that has ended is forgotten");
        } else if self.storage.last_applied(journal).await? == 0 {
            self.cache.leave(journal).await?;
        }
        Ok(())
    }

    /// Logs a new problem, and the end of one.
    fn log_outcome(&mut self, journal: &str, result: Result<(), JournalError>) {
        let Some(watched) = self.watched.get_mut(journal) else {
            return;
        };
        let problem = result.map_or_else(|error| error.to_string(), |()| String::new());
        if !problem.is_empty() && watched.problem != problem {
            tracing::error!(
                journal,
                problem,
                "the leftover of a node that is gone can't be applied; retrying every few seconds"
            );
        } else if problem.is_empty() && !watched.problem.is_empty() {
            tracing::info!(
                journal,
                "the leftover of a node that is gone is applied now"
            );
        }
        watched.problem = problem;
    }
}
