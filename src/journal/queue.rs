//! The queue of numbered batches, and how far the cache and storage have them.
//!
//! A batch stays until both have had it for a while, because a storage that was restored to an older
//! state has to be given it again. Above a bound, batches are in the spill file or in the cache only, and
//! the queue just knows their numbers.

use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::base::clock::Seconds;
use crate::change::Batch;

/// How far cache and storage are, by batch numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalProgress {
    /// The last batch.
    pub last: u64,
    /// The last batch that the cache has, with all before it.
    pub sent: u64,
    /// The last batch that storage has, with all before it.
    pub applied: u64,
}

/// Batches in flight to cache and storage.
pub(super) struct BatchQueue {
    state: Mutex<State>,
    progress: watch::Sender<JournalProgress>,
    limits: Limits,
}

/// How much a queue holds, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Whether there is a cache to send to.
    pub is_shared: bool,
    /// The most changes in memory, not counting those that are nowhere else.
    pub memory_max: usize,
    /// Seconds for which a batch is kept after storage applied it.
    pub keep: u32,
    /// Seconds for which it is kept in memory if it is elsewhere, too.
    pub keep_in_memory: u32,
}

struct State {
    /// Consecutive, the oldest first.
    entries: VecDeque<Entry>,
    progress: JournalProgress,
    /// Number of changes in memory, and how many of them are in the spill file, too.
    in_memory: usize,
    spilled_in_memory: usize,
    /// Number of changes that storage does not have yet.
    backlog: usize,
    /// Batches that the spill file does not have.
    unspilled: BTreeSet<u64>,
    /// When storage last confirmed that it has everything up to [`JournalProgress::applied`].
    confirmed_at: Seconds,
}

struct Entry {
    number: u64,
    changes: usize,
    /// None if it is in the spill file or in the cache only.
    batch: Option<Arc<Batch>>,
    is_spilled: bool,
    /// When it was queued.
    since: Seconds,
    /// When storage applied it; none before.
    applied_at: Option<Seconds>,
}

/// A batch, or where to read it.
#[derive(Clone, Debug)]
pub(super) enum BatchRef {
    Memory(Arc<Batch>),
    Spilled(u64),
    /// In the cache only; storage applied it before.
    Cached(u64),
}

/// What storage lacks after it was restored to an older state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoneBack {
    /// All of it is here, and is applied again.
    Kept { batches: u64 },
    /// Batches before `first`, the first one here, are lost.
    Missing { batches: u64, first: u64 },
}

// === impl BatchRef ===

impl BatchRef {
    pub fn number(&self) -> u64 {
        match self {
            Self::Memory(batch) => batch.number,
            Self::Spilled(number) | Self::Cached(number) => *number,
        }
    }
}

// === impl JournalProgress ===

impl JournalProgress {
    /// Whether cache or storage has the batch.
    pub fn is_durable(self, number: u64) -> bool {
        self.sent.max(self.applied) >= number
    }
}

// === impl BatchQueue ===

impl BatchQueue {
    /// Creates an empty queue.
    pub fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                progress: JournalProgress::default(),
                in_memory: 0,
                spilled_in_memory: 0,
                backlog: 0,
                unspilled: BTreeSet::new(),
                confirmed_at: Seconds::START,
            }),
            progress: watch::Sender::new(JournalProgress::default()),
            limits,
        }
    }

    pub fn progress(&self) -> JournalProgress {
        *self.progress.borrow()
    }

    /// Waits until `wanted` holds for the progress.
    pub async fn until(&self, mut wanted: impl FnMut(JournalProgress) -> bool) -> JournalProgress {
        let mut progress = self.progress.subscribe();
        match progress.wait_for(|&progress| wanted(progress)).await {
            Ok(progress) => *progress,
            // The sender is a field of `self`, so the channel is open.
            Err(_) => self.progress(),
        }
    }

    /// Appends batches that follow the last one.
    pub fn push(&self, batches: Vec<Arc<Batch>>, now: Seconds) {
        self.change(|state| {
            for batch in batches {
                debug_assert_eq!(batch.number, state.progress.last + 1);
                state.progress.last = batch.number;
                state.in_memory += batch.changes.len();
                state.backlog += batch.changes.len();
                state.unspilled.insert(batch.number);
                state.entries.push_back(Entry {
                    number: batch.number,
                    changes: batch.changes.len(),
                    batch: Some(batch),
                    is_spilled: false,
                    since: now,
                    applied_at: None,
                });
            }
        });
    }

    /// The next batches to send: at least one if there is any, and at most `changes_max` changes.
    pub fn to_send(&self, changes_max: usize) -> Vec<BatchRef> {
        let state = self.state.lock();
        state.following(state.progress.sent, changes_max)
    }

    /// The next batches to apply, bounded as in [`Self::to_send`].
    pub fn to_apply(&self, changes_max: usize) -> Vec<BatchRef> {
        let state = self.state.lock();
        state.following(state.progress.applied, changes_max)
    }

    /// Records that the cache has all batches up to `number`.
    pub fn mark_sent(&self, number: u64) {
        self.change(|state| state.progress.sent = state.progress.sent.max(number));
    }

    /// Records that storage has all batches up to `number`.
    pub fn mark_applied(&self, number: u64, now: Seconds) {
        self.change(|state| {
            for number in state.progress.applied + 1..=number {
                let Some(entry) = state.entry(number) else {
                    continue;
                };
                entry.applied_at = Some(now);
                state.backlog -= entry.changes;
            }
            state.progress.applied = state.progress.applied.max(number);
            state.confirmed_at = now;
        });
    }

    /// Records that storage still has everything up to [`JournalProgress::applied`].
    pub fn confirm(&self, now: Seconds) {
        self.state.lock().confirmed_at = now;
    }

    /// Storage has batches up to `applied` only, though it had more: queues the others to be applied
    /// again. None if it has as much as is known here.
    pub fn go_back(&self, applied: u64) -> Option<GoneBack> {
        let mut gone_back = None;
        self.change(|state| {
            let progress = state.progress;
            let first = state.first();
            if applied < first - 1 {
                gone_back = Some(GoneBack::Missing {
                    batches: first - 1 - applied,
                    first,
                });
            } else if applied < progress.applied {
                gone_back = Some(GoneBack::Kept {
                    batches: progress.applied - applied,
                });
            }
            let is_missing = matches!(gone_back, Some(GoneBack::Missing { .. }));
            let applied = applied.max(first - 1);
            for number in applied + 1..=progress.applied {
                if let Some(entry) = state.entry(number)
                    && entry.applied_at.take().is_some()
                {
                    state.backlog += entry.changes;
                }
            }
            // Lost batches are given up.
            state.progress.applied = if is_missing {
                applied
            } else {
                progress.applied.min(applied)
            };
        });
        gone_back
    }

    /// The cache may have lost everything: queues all that is here to be sent again.
    pub fn resend(&self) {
        self.change(|state| {
            let is_here = |entry: &&Entry| entry.batch.is_some() || entry.is_spilled;
            state.progress.sent = match state.entries.iter().find(is_here) {
                Some(entry) => entry.number - 1,
                None => state.progress.last,
            };
        });
    }

    /// Batches in memory that the spill file should get: it does not have them, and cache and storage don't
    /// both have them.
    pub fn to_spill(&self) -> Vec<Arc<Batch>> {
        let state = self.state.lock();
        let settled = state.progress.sent.min(state.progress.applied);
        state
            .unspilled
            .range(settled + 1..)
            .filter_map(|number| state.entries.get(state.at(*number)?)?.batch.clone())
            .collect()
    }

    /// Whether the spill file has everything up to `number` that storage lacks.
    pub fn is_spilled(&self, number: u64) -> bool {
        let state = self.state.lock();
        let from = state.progress.applied + 1;
        from > number || state.unspilled.range(from..=number).next().is_none()
    }

    /// Records that these batches are in the spill file.
    pub fn mark_spilled(&self, numbers: RangeInclusive<u64>) {
        let mut state = self.state.lock();
        for number in numbers {
            if !state.unspilled.remove(&number) {
                continue;
            }
            let Some(entry) = state.entry(number) else {
                continue;
            };
            entry.is_spilled = true;
            let changes = entry.batch.as_ref().map_or(0, |batch| batch.changes.len());
            state.spilled_in_memory += changes;
        }
        self.evict(&mut state);
    }

    /// Whether more is in memory than [`Limits::memory_max`].
    pub fn is_full(&self) -> bool {
        self.state.lock().in_memory > self.limits.memory_max
    }

    /// Drops batches that both have had for [`Limits::keep`], if storage confirmed them after that time.
    /// Returns the number of the last batch dropped, if any.
    pub fn release(&self, now: Seconds) -> Option<u64> {
        let mut state = self.state.lock();
        let settled = state.settled(self.limits.is_shared);
        let mut released = None;
        while let Some(entry) = state.entries.front() {
            let kept_for = entry
                .applied_at
                .map_or(0, |since| state.confirmed_at.since(since));
            // Without a cache, memory is the only place to keep it.
            let is_short = !self.limits.is_shared && state.in_memory > self.limits.memory_max;
            if entry.number > settled || (kept_for < self.limits.keep && !is_short) {
                break;
            }
            released = Some(entry.number);
            state.drop_first();
        }
        if self.limits.is_shared {
            self.leave_to_cache(&mut state, settled, now);
        }
        released
    }

    /// Evicts settled batches from memory after [`Limits::keep_in_memory`], or when it is full: the cache has them.
    fn leave_to_cache(&self, state: &mut State, settled: u64, now: Seconds) {
        let mut at = 0;
        while let Some(entry) = state.entries.get(at) {
            let is_old = now.since(entry.since) >= self.limits.keep_in_memory;
            if entry.number > settled || !(is_old || state.in_memory > self.limits.memory_max) {
                break;
            }
            state.evict(at);
            at += 1;
        }
    }

    /// Number of changes that storage does not have yet.
    pub fn backlog(&self) -> usize {
        self.state.lock().backlog
    }

    /// When the oldest batch that storage does not have yet was queued; none if it has all.
    pub fn oldest(&self) -> Option<Seconds> {
        let state = self.state.lock();
        let at = state.at(state.progress.applied + 1)?;
        Some(state.entries.get(at)?.since)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        self.evict(&mut state);
        self.progress.send_replace(state.progress);
    }

    /// Evicts batches that are in the spill file while memory is full; the newest first, because they
    /// are needed last.
    fn evict(&self, state: &mut State) {
        let mut at = state.entries.len();
        while at > 0 && state.in_memory > self.limits.memory_max && state.spilled_in_memory > 0 {
            at -= 1;
            if state.entries[at].is_spilled {
                state.evict(at);
            }
        }
    }
}

// === impl State ===

impl State {
    /// The number of the first batch here, or of the next one if the queue is empty.
    fn first(&self) -> u64 {
        match self.entries.front() {
            Some(entry) => entry.number,
            None => self.progress.last + 1,
        }
    }

    fn at(&self, number: u64) -> Option<usize> {
        let at = number.checked_sub(self.entries.front()?.number)?;
        usize::try_from(at)
            .ok()
            .filter(|at| *at < self.entries.len())
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let at = self.at(number)?;
        self.entries.get_mut(at)
    }

    /// Evicts a batch from memory.
    fn evict(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        if entry.batch.take().is_none() {
            return;
        }
        self.in_memory -= entry.changes;
        if entry.is_spilled {
            self.spilled_in_memory -= entry.changes;
        }
    }

    fn drop_first(&mut self) {
        self.evict(0);
        if let Some(entry) = self.entries.pop_front() {
            self.unspilled.remove(&entry.number);
        }
    }

    fn settled(&self, is_shared: bool) -> u64 {
        if is_shared {
            self.progress.sent.min(self.progress.applied)
        } else {
            self.progress.applied
        }
    }

    fn following(&self, number: u64, changes_max: usize) -> Vec<BatchRef> {
        let mut refs = Vec::new();
        let mut changes = 0;
        let at = self.entries.partition_point(|entry| entry.number <= number);
        for entry in self.entries.range(at..) {
            changes += entry.changes;
            if changes > changes_max && !refs.is_empty() {
                break;
            }
            refs.push(match &entry.batch {
                Some(batch) => BatchRef::Memory(Arc::clone(batch)),
                None if entry.is_spilled => BatchRef::Spilled(entry.number),
                None => BatchRef::Cached(entry.number),
            });
        }
        refs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::InfoHash;
    use crate::change::Change;

    fn batch(number: u64) -> Arc<Batch> {
        let info_hash = InfoHash([1; 20]);
        Arc::new(Batch::new(
            "n".into(),
            number,
            vec![
                Change::Snatches {
                    info_hash,
                    count: 1
                };
                10
            ],
        ))
    }

    /// Four batches of ten changes, of which memory takes 25, queued at 100 seconds.
    fn queue(is_shared: bool) -> BatchQueue {
        let queue = BatchQueue::new(Limits {
            is_shared,
            memory_max: 25,
            keep: 60,
            keep_in_memory: 10,
        });
        queue.push((1..=4).map(batch).collect(), Seconds(100));
        queue
    }

    fn refs(refs: &[BatchRef]) -> Vec<(u64, &'static str)> {
        let number = |batch_ref: &BatchRef| match batch_ref {
            BatchRef::Memory(batch) => (batch.number, "memory"),
            BatchRef::Spilled(number) => (*number, "spilled"),
            BatchRef::Cached(number) => (*number, "cached"),
        };
        refs.iter().map(number).collect()
    }

    #[test]
    fn batches_are_handed_out_in_order_and_in_portions() {
        let queue = queue(true);
        assert_eq!(refs(&queue.to_send(5)), [(1, "memory")]);
        let two = [(1, "memory"), (2, "memory")];
        assert_eq!(refs(&queue.to_send(20)), two);
        queue.mark_sent(1);
        queue.mark_applied(3, Seconds(100));
        assert_eq!(refs(&queue.to_send(10)), [(2, "memory")]);
        assert_eq!(refs(&queue.to_apply(99)), [(4, "memory")]);
        assert_eq!(queue.backlog(), 10);
        assert!(queue.progress().is_durable(3) && !queue.progress().is_durable(4));
    }

    #[test]
    fn the_oldest_is_what_storage_lacks() {
        let queue = queue(true);
        queue.mark_applied(3, Seconds(101));
        queue.push(vec![batch(5)], Seconds(130));
        assert_eq!(queue.oldest(), Some(Seconds(100)));
        queue.mark_applied(4, Seconds(131));
        assert_eq!(queue.oldest(), Some(Seconds(130)));
        queue.mark_applied(5, Seconds(132));
        assert_eq!((queue.oldest(), queue.backlog()), (None, 0));
    }

    #[test]
    fn what_the_spill_file_has_is_left_to_it_when_memory_is_short() {
        let queue = queue(true);
        assert!(queue.is_full());
        assert_eq!(queue.to_spill().len(), 4);
        assert!(!queue.is_spilled(1));
        queue.mark_spilled(1..=4);
        assert!(!queue.is_full() && queue.is_spilled(4));
        assert!(queue.to_spill().is_empty());
        let expected = [(1, "memory"), (2, "memory"), (3, "spilled"), (4, "spilled")];
        assert_eq!(refs(&queue.to_send(99)), expected);
    }

    #[test]
    fn a_batch_goes_once_both_have_had_it_for_long_enough() {
        let queue = queue(true);
        queue.mark_applied(4, Seconds(140));
        assert_eq!(queue.release(Seconds(300)), None, "the cache lacks it");
        queue.mark_sent(3);
        queue.confirm(Seconds(199));
        assert_eq!(queue.release(Seconds(199)), None, "too young");
        assert_eq!(queue.release(Seconds(200)), None, "storage may lack it");
        queue.confirm(Seconds(200));
        assert_eq!(queue.release(Seconds(200)), Some(3));
        assert_eq!(queue.release(Seconds(900)), None);
        queue.resend();
        assert_eq!(refs(&queue.to_send(99)), [(4, "memory")]);
    }

    #[test]
    fn a_storage_that_went_back_is_given_again_what_is_kept() {
        let queue = queue(true);
        queue.mark_sent(4);
        queue.mark_applied(4, Seconds(101));
        assert_eq!(queue.go_back(4), None);
        queue.release(Seconds(110));
        assert_eq!(queue.go_back(1), Some(GoneBack::Kept { batches: 3 }));
        let cached = [(2, "cached"), (3, "cached"), (4, "cached")];
        assert_eq!(refs(&queue.to_apply(99)), cached);
        assert_eq!(queue.backlog(), 30);
        queue.mark_applied(4, Seconds(120));
        queue.confirm(Seconds(161));
        assert_eq!(queue.release(Seconds(161)), Some(1));
        let missing = GoneBack::Missing {
            batches: 1,
            first: 2,
        };
        assert_eq!(queue.go_back(0), Some(missing));
        assert_eq!(queue.progress().applied, 1);
        assert_eq!(refs(&queue.to_apply(99)), cached);
    }

    #[test]
    fn without_a_cache_memory_keeps_what_it_has_room_for() {
        let queue = queue(false);
        queue.mark_applied(4, Seconds(101));
        assert_eq!(queue.release(Seconds(102)), Some(2));
        assert_eq!(queue.go_back(2), Some(GoneBack::Kept { batches: 2 }));
        let kept = [(3, "memory"), (4, "memory")];
        assert_eq!(refs(&queue.to_apply(99)), kept);
        queue.mark_applied(4, Seconds(103));
        queue.confirm(Seconds(163));
        assert_eq!(queue.release(Seconds(163)), Some(4));
    }

    #[test]
    fn a_cache_that_forgot_is_sent_what_is_still_here() {
        let queue = queue(true);
        queue.mark_sent(4);
        queue.mark_applied(2, Seconds(101));
        queue.release(Seconds(111));
        queue.resend();
        assert_eq!(queue.progress().sent, 2);
        let here = [(3, "memory"), (4, "memory")];
        assert_eq!(refs(&queue.to_send(99)), here);
        // What only the cache has is read from it if storage goes back.
        queue.go_back(1);
        assert_eq!(refs(&queue.to_apply(10)), [(2, "cached")]);
    }

    #[test]
    fn nothing_is_waited_for_that_is_not_here_any_more() {
        let queue = queue(true);
        queue.mark_sent(4);
        queue.mark_applied(4, Seconds(101));
        queue.confirm(Seconds(161));
        assert_eq!(queue.release(Seconds(161)), Some(4));
        let missing = GoneBack::Missing {
            batches: 3,
            first: 5,
        };
        assert_eq!(queue.go_back(1), Some(missing));
        assert_eq!((queue.progress().applied, queue.backlog()), (4, 0));
    }
}
