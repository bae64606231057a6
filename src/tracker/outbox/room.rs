//! How many changes there are, of so many at most, counted by many threads at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use crate::base::lanes::{self, Lanes};

/// The most changes that a thread takes room for at once. It writes what all threads share once for so many.
const BLOCK_MAX: usize = 64;

/// The part of the capacity that may be room which threads hold and do not use.
const SPARE_PART: usize = 16;

/// Room for changes. Threads take it in blocks, so that they do not write the same cache line with each announce.
pub(super) struct Room {
    /// Taken from the capacity, what is spare included.
    taken: CachePadded<AtomicUsize>,
    /// What a lane has left of its block.
    spare: Lanes<AtomicUsize>,
    capacity: usize,
    block: usize,
}

impl Room {
    /// For so many changes.
    pub fn new(capacity: usize) -> Self {
        let block = capacity / (SPARE_PART * lanes::number());
        Self {
            taken: CachePadded::default(),
            spare: Lanes::default(),
            capacity,
            block: block.clamp(1, BLOCK_MAX),
        }
    }

    /// Takes room for one change; false if there is none.
    pub fn take(&self) -> bool {
        let spare = self.spare.own();
        let one_less = |number: usize| number.checked_sub(1);
        if spare
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
        {
            return true;
        }
        if self.take_shared(self.block) {
            // The rest of the block is for this lane's next changes.
            spare.fetch_add(self.block - 1, Ordering::Relaxed);
            return true;
        }
        self.block > 1 && self.take_shared(1)
    }

    fn take_shared(&self, number: usize) -> bool {
        let taken = self.taken.fetch_add(number, Ordering::Relaxed) + number;
        if taken > self.capacity {
            self.taken.fetch_sub(number, Ordering::Relaxed);
        }
        taken <= self.capacity
    }

    /// Gives back room for one change that was taken and not used.
    pub fn give_back(&self) {
        if self.block > 1 {
            self.spare.own().fetch_add(1, Ordering::Relaxed);
        } else {
            self.release(1);
        }
    }

    /// Gives back the room of changes that are gone.
    pub fn release(&self, changes: usize) {
        self.taken.fetch_sub(changes, Ordering::Relaxed);
    }

    /// Changes that have room now.
    pub fn used(&self) -> usize {
        let spare = self.spare.iter().map(|lane| lane.load(Ordering::Relaxed));
        let spare: usize = spare.sum();
        self.taken.load(Ordering::Relaxed).saturating_sub(spare)
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_capacity_is_exact() {
        let room = Room::new(3);
        assert!((0..3).all(|_| room.take()) && !room.take());
        std::thread::scope(|scope| {
            scope.spawn(|| room.give_back());
        });
        assert!(room.take(), "another thread gave it back");
        room.release(3);
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn a_thread_uses_its_block_before_the_next_and_little_is_out_of_reach() {
        let capacity = 2 * BLOCK_MAX * SPARE_PART * lanes::number();
        let room = Room::new(capacity);
        assert!(room.take());
        assert_eq!(room.taken.load(Ordering::Relaxed), BLOCK_MAX);
        assert_eq!(room.used(), 1);
        (1..BLOCK_MAX).for_each(|_| assert!(room.take()));
        assert_eq!(room.taken.load(Ordering::Relaxed), BLOCK_MAX);
        room.give_back();
        assert_eq!(room.used(), BLOCK_MAX - 1);
        std::thread::scope(|scope| {
            scope.spawn(|| while room.take() {});
        });
        // What the other thread can't have is what this one holds.
        assert_eq!(room.used(), capacity - 1);
        assert!(room.take() && !room.take());
        room.release(capacity);
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let capacity = 4 * BLOCK_MAX * SPARE_PART * lanes::number() / 3;
        let room = Room::new(capacity);
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while room.take() {
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let taken = taken.into_inner();
        assert!(taken <= capacity && taken > capacity - capacity / SPARE_PART);
        assert_eq!(room.used(), taken);
    }
}
