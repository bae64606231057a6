//! The ledger: which batches are cut, and how far the cache and storage have them.
//!
//! A batch leaves it once both have it and other nodes have had time to read it. Beyond a
//! bound, batches are in the spill file only, and the ledger just counts them.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::change::Batch;
use crate::clock::Seconds;

/// How far everybody is, by the numbers of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last batch that was cut.
    pub last: u64,
    /// The cache has all up to this one.
    pub sent: u64,
    /// Storage has all up to this one.
    pub applied: u64,
}

/// Batches on their way.
pub(super) struct Ledger {
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
    /// Whether there is a cache to send to.
    is_shared: bool,
    /// Changes held in memory at most.
    memory_max: usize,
}

struct State {
    /// Consecutive, the oldest first.
    entries: VecDeque<Entry>,
    progress: Progress,
    /// Changes held in memory.
    in_memory: usize,
}

struct Entry {
    number: u64,
    changes: usize,
    /// None if it is in the spill file only.
    batch: Option<Arc<Batch>>,
    is_spilled: bool,
    since: Seconds,
}

/// A batch, or where it is.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    Memory(Arc<Batch>),
    Spilled(u64),
}

// === impl Progress ===

impl Progress {
    /// Cache or storage has it: nothing that happens to this process can lose it.
    pub fn is_durable(self, number: u64) -> bool {
        self.sent.max(self.applied) >= number
    }
}

// === impl Ledger ===

impl Ledger {
    /// An empty ledger whose next batch follows `last`.
    pub fn new(progress: Progress, is_shared: bool, memory_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                progress,
                in_memory: 0,
            }),
            progress: watch::Sender::new(progress),
            is_shared,
            memory_max,
        }
    }

    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Waits until the progress is as wanted.
    pub async fn until(&self, mut wanted: impl FnMut(Progress) -> bool) -> Progress {
        let mut progress = self.progress.subscribe();
        match progress.wait_for(|&progress| wanted(progress)).await {
            Ok(progress) => *progress,
            // The sender is part of `self`.
            Err(_) => self.progress(),
        }
    }

    /// Adds batches that follow the last one.
    pub fn push(&self, batches: Vec<Arc<Batch>>, now: Seconds) {
        self.change(|state| {
            for batch in batches {
                debug_assert_eq!(batch.number, state.progress.last + 1);
                state.progress.last = batch.number;
                state.in_memory += batch.changes.len();
                state.entries.push_back(Entry {
                    number: batch.number,
                    changes: batch.changes.len(),
                    batch: Some(batch),
                    is_spilled: false,
                    since: now,
                });
            }
        });
    }

    /// Adds a batch that an earlier process left in the spill file; it follows the last one.
    pub fn push_spilled(&self, number: u64, changes: usize, now: Seconds) {
        self.change(|state| {
            debug_assert_eq!(number, state.progress.last + 1);
            state.progress.last = number;
            state.entries.push_back(Entry {
                number,
                changes,
                batch: None,
                is_spilled: true,
                since: now,
            });
        });
    }

    /// The next batches to send: at least one if there is any, and no more than `changes_max`.
    pub fn to_send(&self, changes_max: usize) -> Vec<Slot> {
        let state = self.state.lock();
        state.following(state.progress.sent, changes_max)
    }

    /// The next batches to apply, within the same bound.
    pub fn to_apply(&self, changes_max: usize) -> Vec<Slot> {
        let state = self.state.lock();
        state.following(state.progress.applied, changes_max)
    }

    /// The cache has all up to `number`.
    pub fn sent(&self, number: u64) {
        self.change(|state| state.progress.sent = state.progress.sent.max(number));
    }

    /// Storage has all up to `number`.
    pub fn applied(&self, number: u64) {
        self.change(|state| state.progress.applied = state.progress.applied.max(number));
    }

    /// The cache may have forgotten everything: all that is here is to be sent again.
    pub fn resend(&self) {
        self.change(|state| {
            let first = state.entries.front().map(|entry| entry.number - 1);
            state.progress.sent = first.unwrap_or(state.progress.last);
        });
    }

    /// Batches that are with this process alone, or with a cache that may be about to forget
    /// them: what the spill file should have.
    pub fn unspilled(&self) -> Vec<Arc<Batch>> {
        let state = self.state.lock();
        let settled = state.progress.sent.min(state.progress.applied);
        let entries = state.entries.iter();
        entries
            .filter(|entry| entry.number > settled && !entry.is_spilled)
            .filter_map(|entry| entry.batch.clone())
            .collect()
    }

    /// These batches are in the spill file.
    pub fn spilled(&self, numbers: RangeInclusive<u64>) {
        let mut state = self.state.lock();
        for entry in &mut state.entries {
            if numbers.contains(&entry.number) {
                entry.is_spilled = true;
            }
        }
        self.evict(&mut state);
    }

    /// Whether more is held in memory than should be.
    pub fn is_full(&self) -> bool {
        self.state.lock().in_memory > self.memory_max
    }

    /// Lets go of what both have, if it was cut before `before` or memory is short; returns the
    /// number up to which all is gone, if anything went.
    pub fn release(&self, before: Seconds) -> Option<u64> {
        let mut state = self.state.lock();
        let mut released = None;
        while let Some(entry) = state.entries.front() {
            let is_short = state.in_memory > self.memory_max;
            let is_read = !self.is_shared || is_short || entry.since < before;
            if entry.number > state.settled(self.is_shared) || !is_read {
                break;
            }
            released = Some(entry.number);
            if entry.batch.is_some() {
                state.in_memory -= entry.changes;
            }
            state.entries.pop_front();
        }
        released
    }

    /// Changes that storage does not have yet.
    pub fn backlog(&self) -> usize {
        let state = self.state.lock();
        let applied = state.progress.applied;
        let entries = state.entries.iter();
        let waiting = entries.filter(|entry| entry.number > applied);
        waiting.map(|entry| entry.changes).sum()
    }

    /// When the oldest batch was cut that storage does not have yet; none while it has all.
    pub fn oldest(&self) -> Option<Seconds> {
        let state = self.state.lock();
        let applied = state.progress.applied;
        let mut entries = state.entries.iter();
        let oldest = entries.find(|entry| entry.number > applied)?;
        Some(oldest.since)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        self.evict(&mut state);
        self.progress.send_replace(state.progress);
    }

    /// Leaves to the spill file what it has and memory is short of; the newest first, because
    /// they are wanted last.
    fn evict(&self, state: &mut State) {
        for at in (0..state.entries.len()).rev() {
            if state.in_memory <= self.memory_max {
                break;
            }
            let entry = &mut state.entries[at];
            if entry.is_spilled && entry.batch.take().is_some() {
                state.in_memory -= state.entries[at].changes;
            }
        }
    }
}

// === impl State ===

impl State {
    fn settled(&self, is_shared: bool) -> u64 {
        if is_shared {
            self.progress.sent.min(self.progress.applied)
        } else {
            self.progress.applied
        }
    }

    fn following(&self, number: u64, changes_max: usize) -> Vec<Slot> {
        let mut slots = Vec::new();
        let mut changes = 0;
        let at = self.entries.partition_point(|entry| entry.number <= number);
        for entry in self.entries.range(at..) {
            changes += entry.changes;
            if changes > changes_max && !slots.is_empty() {
                break;
            }
            slots.push(match &entry.batch {
                Some(batch) => Slot::Memory(Arc::clone(batch)),
                None => Slot::Spilled(entry.number),
            });
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Change;
    use crate::ids::InfoHash;

    fn batch(number: u64) -> Arc<Batch> {
        let info_hash = InfoHash([1; 20]);
        Arc::new(Batch {
            node: "n".into(),
            number,
            changes: vec![Change::Snatch { info_hash }; 10],
        })
    }

    fn ledger(is_shared: bool) -> Ledger {
        let ledger = Ledger::new(Progress::default(), is_shared, 25);
        ledger.push((1..=4).map(batch).collect(), Seconds(100));
        ledger
    }

    fn numbers(slots: &[Slot]) -> Vec<(u64, bool)> {
        let number = |slot: &Slot| match slot {
            Slot::Memory(batch) => (batch.number, true),
            Slot::Spilled(number) => (*number, false),
        };
        slots.iter().map(number).collect()
    }

    #[test]
    fn batches_are_handed_out_in_order_and_in_portions() {
        let ledger = ledger(true);
        assert_eq!(numbers(&ledger.to_send(5)), [(1, true)]);
        assert_eq!(numbers(&ledger.to_send(20)), [(1, true), (2, true)]);
        ledger.sent(1);
        ledger.applied(3);
        assert_eq!(numbers(&ledger.to_send(10)), [(2, true)]);
        assert_eq!(numbers(&ledger.to_apply(99)), [(4, true)]);
        assert_eq!(ledger.backlog(), 10);
        assert!(ledger.progress().is_durable(3) && !ledger.progress().is_durable(4));
    }

    #[test]
    fn the_oldest_is_what_storage_lacks() {
        let ledger = ledger(true);
        ledger.applied(3);
        ledger.push(vec![batch(5)], Seconds(130));
        assert_eq!(ledger.oldest(), Some(Seconds(100)));
        ledger.applied(4);
        assert_eq!(ledger.oldest(), Some(Seconds(130)));
        ledger.applied(5);
        assert_eq!(ledger.oldest(), None);
    }

    #[test]
    fn what_the_spill_file_has_is_left_to_it_when_memory_is_short() {
        let ledger = ledger(true);
        assert!(ledger.is_full());
        assert_eq!(ledger.unspilled().len(), 4);
        ledger.spilled(1..=4);
        assert!(!ledger.is_full());
        assert!(ledger.unspilled().is_empty());
        let expected = [(1, true), (2, true), (3, false), (4, false)];
        assert_eq!(numbers(&ledger.to_send(99)), expected);
    }

    #[test]
    fn a_batch_goes_when_both_have_it_and_others_could_read_it() {
        let ledger = ledger(true);
        ledger.spilled(1..=4);
        ledger.applied(4);
        assert_eq!(ledger.release(Seconds(200)), None, "the cache lacks it");
        ledger.sent(3);
        assert_eq!(ledger.release(Seconds(100)), None, "too young");
        assert_eq!(ledger.release(Seconds(101)), Some(3));
        ledger.resend();
        assert_eq!(numbers(&ledger.to_send(99)), [(4, false)]);
    }

    #[test]
    fn without_a_cache_a_batch_goes_with_storage_alone() {
        let ledger = ledger(false);
        ledger.applied(2);
        assert_eq!(ledger.release(Seconds(0)), Some(2));
        assert_eq!(ledger.release(Seconds(0)), None);
    }

    #[test]
    fn a_cache_that_forgot_is_sent_what_is_still_here() {
        let ledger = ledger(true);
        ledger.sent(4);
        ledger.applied(2);
        assert_eq!(ledger.release(Seconds(101)), Some(2));
        ledger.resend();
        assert_eq!(ledger.progress().sent, 2);
        assert_eq!(numbers(&ledger.to_send(99)), [(3, true), (4, true)]);
    }
}
