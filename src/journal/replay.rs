//! Replays to storage what dead nodes left behind.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ended::{EndedJournals, list_forgotten};
use super::leftover::{AdoptedJournal, JournalError};
use crate::base::clock::{Now, Seconds};
use crate::base::ids::InfoHash;
use crate::cache::{Cache, Generation};
use crate::change::journals::{is_later, sort_by_start};
use crate::storage::{CreditRules, Storage};

/// Seconds without a heartbeat after which a process counts as dead.
const DEAD_AFTER: u32 = 15;

/// Watches the journals of other nodes, and of this node's earlier starts.
pub struct Replay {
    cache: Arc<dyn Cache>,
    storage: Arc<dyn Storage>,
    own: String,
    /// Seconds for which batches are kept after storage applied them.
    keep: u32,
    watched: HashMap<String, Watched>,
    /// The generation of the cache in which forgotten journals were listed again.
    listed_in: Option<Generation>,
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
            listed_in: None,
        }
    }

    /// Looks at all journals once, and applies what dead processes left, by the current rules. To be
    /// called every few seconds. What can't be applied is logged once, and does not stop the others. Returns the swarms
    /// whose counters this has set.
    pub async fn look(
        &mut self,
        now: Now,
        rules: &CreditRules,
    ) -> Result<HashSet<InfoHash>, JournalError> {
        let cache = Arc::clone(&self.cache);
        if let Err(error) = self.list_forgotten().await {
            // Those that are listed do not wait for the servers that have the others.
            tracing::debug!(%error, "forgotten journals were not looked for");
        }
        let mut nodes = cache.nodes().await?;
        sort_by_start(&mut nodes);
        self.watched
            .retain(|journal, _| nodes.iter().any(|(name, _)| name == journal));
        let mut dead = Vec::new();
        for (journal, sign) in &nodes {
            if *journal == self.own {
                continue;
            }
            let silence = self.silence(journal, sign, now.mono);
            if silence >= DEAD_AFTER {
                dead.push((journal, silence));
            }
        }
        let mut swarms = HashSet::new();
        if dead.is_empty() {
            return Ok(swarms);
        }
        let storage = Arc::clone(&self.storage);
        let ended = EndedJournals::read(&*cache, &*storage, now.unix).await?;
        for (journal, silence) in dead {
            let has_started_again = nodes.iter().any(|(other, _)| is_later(other, journal));
            let result = match self.apply(&ended, journal, now.mono, rules).await {
                Ok(adopted) => {
                    swarms.extend(&adopted.swarms);
                    ended.forget(&adopted, silence, has_started_again).await
                }
                Err(error) => Err(error),
            };
            self.log_outcome(journal, result);
        }
        Ok(swarms)
    }

    /// Lists forgotten journals again, once for each generation of the cache.
    async fn list_forgotten(&mut self) -> Result<(), JournalError> {
        let generation = self.cache.ping().await?;
        if self.listed_in != Some(generation) {
            list_forgotten(&*self.cache, &*self.storage, &self.own).await?;
            self.listed_in = Some(generation);
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

    /// Applies what a journal left.
    async fn apply(
        &mut self,
        ended: &EndedJournals<'_>,
        journal: &str,
        now: Seconds,
        rules: &CreditRules,
    ) -> Result<AdoptedJournal, JournalError> {
        let adopted = ended.replay(journal, rules).await?;
        adopted.log("applied the leftover of a node that is gone");
        if let Some(watched) = self.watched.get_mut(journal)
            && now.since(watched.applied.1) >= self.keep
        {
            // Nodes that follow the journal have read it by now, too.
            ended.trim(journal, watched.applied.0).await?;
            watched.applied = (adopted.applied, now);
        }
        Ok(adopted)
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
