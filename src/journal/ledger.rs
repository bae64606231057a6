//! The ledger: which batches are cut, and how far the cache and storage have them.
//!
//! A batch leaves it once both have had it for a while: storage may come back older, and is then
//! given it again. Beyond a bound, batches are in the spill file or in the cache only, and the
//! ledger just counts them.

use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::base::clock::Seconds;
use crate::change::Batch;

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
    limits: Limits,
}

/// What a ledger holds, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Whether there is a cache to send to.
    pub is_shared: bool,
    /// Changes held in memory at most, as far as they are elsewhere, too.
    pub memory_max: usize,
    /// Seconds for which a batch stays after storage had it.
    pub keep: u32,
    /// Seconds for which it stays in memory, if it is elsewhere, too.
    pub keep_in_memory: u32,
}

struct State {
    /// Consecutive, the oldest first.
    entries: VecDeque<Entry>,
    progress: Progress,
    /// Changes held in memory, and those of them that the spill file has, too.
    in_memory: usize,
    spilled_in_memory: usize,
    /// Changes that storage does not have yet.
    backlog: usize,
    /// Batches that the spill file does not have.
    unspilled: BTreeSet<u64>,
    /// When storage last confirmed that it has everything up to [`Progress::applied`].
    confirmed_at: Seconds,
}

struct Entry {
    number: u64,
    changes: usize,
    /// None if it is in the spill file or in the cache only.
    batch: Option<Arc<Batch>>,
    is_spilled: bool,
    /// When it was cut.
    since: Seconds,
    /// When storage had it; none while it has not.
    applied_at: Option<Seconds>,
}

/// A batch, or where it is.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    Memory(Arc<Batch>),
    Spilled(u64),
    /// In the cache only: storage had it once.
    Cached(u64),
}

/// What is to be done about a storage that lacks batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoneBack {
    /// All that it lacks is here, and is applied again.
    Kept { batches: u64 },
    /// Batches are missing before the first that is here, `first`.
    Missing { batches: u64, first: u64 },
}

// === impl Slot ===

impl Slot {
    pub fn number(&self) -> u64 {
        match self {
            Self::Memory(batch) => batch.number,
            Self::Spilled(number) | Self::Cached(number) => *number,
        }
    }
}

// === impl Progress ===

impl Progress {
    /// Cache or storage has it.
    pub fn is_durable(self, number: u64) -> bool {
        self.sent.max(self.applied) >= number
    }
}

// === impl Ledger ===

impl Ledger {
    /// An empty ledger.
    pub fn new(limits: Limits) -> Self {
        Self {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                progress: Progress::default(),
                in_memory: 0,
                spilled_in_memory: 0,
                backlog: 0,
                unspilled: BTreeSet::new(),
                confirmed_at: Seconds::START,
            }),
            progress: watch::Sender::new(Progress::default()),
            limits,
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
    pub fn applied(&self, number: u64, now: Seconds) {
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

    /// Storage confirmed that it has everything up to [`Progress::applied`].
    pub fn confirm(&self, now: Seconds) {
        self.state.lock().confirmed_at = now;
    }

    /// Storage has batches up to `applied` only, though it had more: those are to be applied again.
    /// None if it has as much as is known here.
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
            // What is missing is given up.
            state.progress.applied = if is_missing {
                applied
            } else {
                progress.applied.min(applied)
            };
        });
        gone_back
    }

    /// The cache may have forgotten everything: all that is here is to be sent again.
    pub fn resend(&self) {
        self.change(|state| {
            let is_here = |entry: &&Entry| entry.batch.is_some() || entry.is_spilled;
            let first = state.entries.iter().find(is_here);
            let first = first.map_or(state.progress.last + 1, |entry| entry.number);
            state.progress.sent = first - 1;
        });
    }

    /// Batches that are with this process alone, or with a cache that may be about to forget
    /// them: what the spill file should have.
    pub fn unspilled(&self) -> Vec<Arc<Batch>> {
        let state = self.state.lock();
        let settled = state.progress.sent.min(state.progress.applied);
        let numbers = state.unspilled.range(settled + 1..);
        let batches = numbers.filter_map(|number| state.entries.get(state.at(*number)?));
        batches.filter_map(|entry| entry.batch.clone()).collect()
    }

    /// Whether the spill file has all up to `number` that storage lacks.
    pub fn is_spilled(&self, number: u64) -> bool {
        let state = self.state.lock();
        let from = state.progress.applied + 1;
        from > number || state.unspilled.range(from..=number).next().is_none()
    }

    /// These batches are in the spill file.
    pub fn spilled(&self, numbers: RangeInclusive<u64>) {
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

    /// Whether more is held in memory than should be.
    pub fn is_full(&self) -> bool {
        self.state.lock().in_memory > self.limits.memory_max
    }

    /// Drops batches that both have had for [`Limits::keep`], confirmed by storage after that time; returns
    /// the number of the last batch dropped, if any.
    pub fn release(&self, now: Seconds) -> Option<u64> {
        let mut state = self.state.lock();
        let settled = state.settled(self.limits.is_shared);
        let mut released = None;
        while let Some(entry) = state.entries.front() {
            let kept_for = |since| state.confirmed_at.since(since);
            let kept_for = entry.applied_at.map_or(0, kept_for);
            // Without a cache, memory is the only place to keep it in.
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

    /// Takes settled batches out of memory once other nodes have read them: the cache has them.
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

    /// Changes that storage does not have yet.
    pub fn backlog(&self) -> usize {
        self.state.lock().backlog
    }

    /// When the oldest batch was cut that storage does not have yet; none while it has all.
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

    /// Leaves to the spill file what it has and memory is short of; the newest first, because
    /// they are wanted last.
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
    /// The number of the first batch here, or of the next one if there is none.
    fn first(&self) -> u64 {
        let first = self.entries.front().map(|entry| entry.number);
        first.unwrap_or(self.progress.last + 1)
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

    /// Takes a batch out of memory.
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
                None if entry.is_spilled => Slot::Spilled(entry.number),
                None => Slot::Cached(entry.number),
            });
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::InfoHash;
    use crate::change::Change;

    fn batch(number: u64) -> Arc<Batch> {
        let info_hash = InfoHash([1; 20]);
        Arc::new(Batch {
            node: "n".into(),
            number,
            changes: vec![Change::Snatch { info_hash }; 10],
        })
    }

    /// Four batches of ten changes, of which memory takes 25, cut at 100 seconds.
    fn ledger(is_shared: bool) -> Ledger {
        let ledger = Ledger::new(Limits {
            is_shared,
            memory_max: 25,
            keep: 60,
            keep_in_memory: 10,
        });
        ledger.push((1..=4).map(batch).collect(), Seconds(100));
        ledger
    }

    fn slots(slots: &[Slot]) -> Vec<(u64, &'static str)> {
        let number = |slot: &Slot| match slot {
            Slot::Memory(batch) => (batch.number, "memory"),
            Slot::Spilled(number) => (*number, "spilled"),
            Slot::Cached(number) => (*number, "cached"),
        };
        slots.iter().map(number).collect()
    }

    #[test]
    fn batches_are_handed_out_in_order_and_in_portions() {
        let ledger = ledger(true);
        assert_eq!(slots(&ledger.to_send(5)), [(1, "memory")]);
        let two = [(1, "memory"), (2, "memory")];
        assert_eq!(slots(&ledger.to_send(20)), two);
        ledger.sent(1);
        ledger.applied(3, Seconds(100));
        assert_eq!(slots(&ledger.to_send(10)), [(2, "memory")]);
        assert_eq!(slots(&ledger.to_apply(99)), [(4, "memory")]);
        assert_eq!(ledger.backlog(), 10);
        assert!(ledger.progress().is_durable(3) && !ledger.progress().is_durable(4));
    }

    #[test]
    fn the_oldest_is_what_storage_lacks() {
        let ledger = ledger(true);
        ledger.applied(3, Seconds(101));
        ledger.push(vec![batch(5)], Seconds(130));
        assert_eq!(ledger.oldest(), Some(Seconds(100)));
        ledger.applied(4, Seconds(131));
        assert_eq!(ledger.oldest(), Some(Seconds(130)));
        ledger.applied(5, Seconds(132));
        assert_eq!((ledger.oldest(), ledger.backlog()), (None, 0));
    }

    #[test]
    fn what_the_spill_file_has_is_left_to_it_when_memory_is_short() {
        let ledger = ledger(true);
        assert!(ledger.is_full());
        assert_eq!(ledger.unspilled().len(), 4);
        assert!(!ledger.is_spilled(1));
        ledger.spilled(1..=4);
        assert!(!ledger.is_full() && ledger.is_spilled(4));
        assert!(ledger.unspilled().is_empty());
        let expected = [(1, "memory"), (2, "memory"), (3, "spilled"), (4, "spilled")];
        assert_eq!(slots(&ledger.to_send(99)), expected);
    }

    #[test]
    fn a_batch_goes_once_both_have_had_it_for_long_enough() {
        let ledger = ledger(true);
        ledger.applied(4, Seconds(140));
        assert_eq!(ledger.release(Seconds(300)), None, "the cache lacks it");
        ledger.sent(3);
        ledger.confirm(Seconds(199));
        assert_eq!(ledger.release(Seconds(199)), None, "too young");
        assert_eq!(ledger.release(Seconds(200)), None, "storage may lack it");
        ledger.confirm(Seconds(200));
        assert_eq!(ledger.release(Seconds(200)), Some(3));
        assert_eq!(ledger.release(Seconds(900)), None);
        ledger.resend();
        assert_eq!(slots(&ledger.to_send(99)), [(4, "memory")]);
    }

    #[test]
    fn a_storage_that_went_back_is_given_again_what_is_kept() {
        let ledger = ledger(true);
        ledger.sent(4);
        ledger.applied(4, Seconds(101));
        assert_eq!(ledger.go_back(4), None);
        ledger.release(Seconds(110));
        assert_eq!(ledger.go_back(1), Some(GoneBack::Kept { batches: 3 }));
        let cached = [(2, "cached"), (3, "cached"), (4, "cached")];
        assert_eq!(slots(&ledger.to_apply(99)), cached);
        assert_eq!(ledger.backlog(), 30);
        ledger.applied(4, Seconds(120));
        ledger.confirm(Seconds(161));
        assert_eq!(ledger.release(Seconds(161)), Some(1));
        let missing = GoneBack::Missing {
            batches: 1,
            first: 2,
        };
        assert_eq!(ledger.go_back(0), Some(missing));
        assert_eq!(ledger.progress().applied, 1);
        assert_eq!(slots(&ledger.to_apply(99)), cached);
    }

    #[test]
    fn without_a_cache_memory_keeps_what_it_has_room_for() {
        let ledger = ledger(false);
        ledger.applied(4, Seconds(101));
        assert_eq!(ledger.release(Seconds(102)), Some(2));
        assert_eq!(ledger.go_back(2), Some(GoneBack::Kept { batches: 2 }));
        let kept = [(3, "memory"), (4, "memory")];
        assert_eq!(slots(&ledger.to_apply(99)), kept);
        ledger.applied(4, Seconds(103));
        ledger.confirm(Seconds(163));
        assert_eq!(ledger.release(Seconds(163)), Some(4));
    }

    #[test]
    fn a_cache_that_forgot_is_sent_what_is_still_here() {
        let ledger = ledger(true);
        ledger.sent(4);
        ledger.applied(2, Seconds(101));
        ledger.release(Seconds(111));
        ledger.resend();
        assert_eq!(ledger.progress().sent, 2);
        let here = [(3, "memory"), (4, "memory")];
        assert_eq!(slots(&ledger.to_send(99)), here);
        // What only the cache had is asked of it if storage goes back.
        ledger.go_back(1);
        assert_eq!(slots(&ledger.to_apply(10)), [(2, "cached")]);
    }

    #[test]
    fn nothing_is_waited_for_that_is_not_here_any_more() {
        let ledger = ledger(true);
        ledger.sent(4);
        ledger.applied(4, Seconds(101));
        ledger.confirm(Seconds(161));
        assert_eq!(ledger.release(Seconds(161)), Some(4));
        let missing = GoneBack::Missing {
            batches: 3,
            first: 5,
        };
        assert_eq!(ledger.go_back(1), Some(missing));
        assert_eq!((ledger.progress().applied, ledger.backlog()), (4, 0));
    }
}
