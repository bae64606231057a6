//! Journals whose processes have ended: applies what they left, notes how far, and forgets them.
//!
//! The notes are in the cache, so that a start learns from earlier ones what was applied, and since
//! when. Otherwise a node that is killed again and again would read more batches with every start: each
//! leaves a journal, and no process lives long enough to see that one is not needed any more.

use std::collections::HashMap;
use std::time::Duration;

use super::leftover::{AdoptedJournal, JournalError, Leftover};
use crate::cache::{Cache, CacheError, Replayed, STOPPED};
use crate::storage::{CreditRules, Storage};

/// Seconds without a heartbeat after which a journal is removed from the list, if storage has all of it. A
/// process that comes back adds its journal again. The journal's number stays in storage, because its spill
/// file may turn up on the next start.
const DELISTED_AFTER: u32 = 86_400;

/// Seconds without a heartbeat after which a journal is forgotten if its node has started again: that
/// start has saved what the spill file had.
const FORGOTTEN_AFTER: u32 = 600;

/// Ended journals, as the cache and storage had them at some moment.
pub(super) struct EndedJournals<'a> {
    cache: &'a dyn Cache,
    storage: &'a dyn Storage,
    replayed: HashMap<String, Replayed>,
    /// The last batch of each journal that storage has.
    applied: HashMap<String, u64>,
    /// That moment (Unix time).
    now: i64,
}

impl<'a> EndedJournals<'a> {
    /// Reads what is known of all journals. `now` is Unix time.
    pub async fn read(
        cache: &'a dyn Cache,
        storage: &'a dyn Storage,
        now: i64,
    ) -> Result<Self, JournalError> {
        // The notes first: what they say of storage must not be newer than its numbers.
        let replayed = cache.replayed().await?.into_iter().collect();
        let applied = storage.journals().await?.into_iter().collect();
        Ok(Self {
            cache,
            storage,
            replayed,
            applied,
            now,
        })
    }

    /// Applies what a journal left, and notes how far: batches that were noted before are not read
    /// again, unless storage lacks them now.
    pub async fn replay(
        &self,
        journal: &str,
        rules: &CreditRules,
    ) -> Result<AdoptedJournal, JournalError> {
        let leftover = Leftover {
            journal,
            cache: Some(self.cache),
            storage: self.storage,
            spill: None,
        };
        let adopted = match (self.replayed.get(journal), self.applied.get(journal)) {
            (Some(noted), Some(&applied)) => {
                leftover.apply_after(noted.number, applied, rules).await?
            }
            // Its process may have died a moment ago, with a transaction open.
            _ => leftover.apply(rules).await?,
        };
        if self.replayed_for(&adopted).is_none() {
            note(self.cache, &adopted, self.now).await?;
        }
        Ok(adopted)
    }

    /// Seconds for which storage has had all that a journal left; none if no note says so.
    pub fn replayed_for(&self, adopted: &AdoptedJournal) -> Option<u32> {
        let noted = self.replayed.get(&adopted.journal)?;
        unchanged_for(*noted, adopted, self.now)
    }

    /// Drops the batches of a journal up to `number`, of which storage was seen to have them for long enough.
    pub async fn trim(&self, journal: &str, number: u64) -> Result<(), CacheError> {
        self.cache.trim_journal(journal, Some(number)).await
    }

    /// Forgets a journal as far as it is not needed any more, `silence` seconds after its last heartbeat.
    pub async fn forget(
        &self,
        adopted: &AdoptedJournal,
        silence: u32,
        has_started_again: bool,
    ) -> Result<(), JournalError> {
        let (journal, applied) = (&*adopted.journal, adopted.applied);
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

    /// Removes the notes of journals that are not in `nodes`.
    pub async fn drop_stray_notes(&self, nodes: &[(String, String)]) -> Result<(), CacheError> {
        for journal in self.replayed.keys() {
            if nodes.iter().all(|(name, _)| name != journal) {
                self.cache.leave(journal).await?;
            }
        }
        Ok(())
    }
}

/// Lists the journals again that storage knows and of which the cache still has batches, but not `own`: only what is
/// listed is applied and trimmed. The list may be lost without the batches, which are on other servers of a cluster.
pub(super) async fn list_forgotten(
    cache: &dyn Cache,
    storage: &dyn Storage,
    own: &str,
) -> Result<(), JournalError> {
    let nodes = cache.nodes().await?;
    let is_listed = |journal: &str| nodes.iter().any(|(listed, _)| listed == journal);
    for (journal, _) in storage.journals().await? {
        if journal == own || is_listed(&journal) {
            continue;
        }
        let kept = cache.kept(&journal, 0, 1, Duration::ZERO).await?;
        if !kept.is_empty() {
            cache.beat(&journal, STOPPED).await?;
        }
    }
    Ok(())
}

/// Notes that all of a journal was replayed, at `now` (Unix time).
pub(super) async fn note(
    cache: &dyn Cache,
    adopted: &AdoptedJournal,
    now: i64,
) -> Result<(), CacheError> {
    if adopted.applied == 0 {
        return Ok(());
    }
    let replayed = Replayed {
        number: adopted.applied,
        at: now,
    };
    cache.set_replayed(&adopted.journal, replayed).await
}

/// Seconds for which what was adopted now has been as it was noted; none if it has changed. A note from the
/// future does not count: it was written while a clock was wrong.
fn unchanged_for(noted: Replayed, adopted: &AdoptedJournal, now: i64) -> Option<u32> {
    let is_same = noted.number == adopted.applied && adopted.batches == 0;
    let age = now.checked_sub(noted.at).filter(|age| *age >= 0)?;
    is_same.then(|| u32::try_from(age).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_as_long_as_nothing_changes() {
        let noted = Replayed {
            number: 7,
            at: 1000,
        };
        for (applied, batches, now, expected) in [
            (7, 0, 1000, Some(0)),
            (7, 0, 1060, Some(60)),
            (7, 0, i64::MAX, Some(u32::MAX)),
            // The process came back, and left more.
            (8, 1, 1060, None),
            // Storage went back, and had to be given batches again, or lacks them for good.
            (7, 2, 1060, None),
            (6, 0, 1060, None),
            // The clock was ahead when the note was written.
            (7, 0, 999, None),
            (7, 0, i64::MIN, None),
        ] {
            let adopted = AdoptedJournal {
                batches,
                applied,
                ..AdoptedJournal::default()
            };
            let found = unchanged_for(noted, &adopted, now);
            assert_eq!(found, expected, "{applied} {batches} {now}");
        }
    }
}
