//! Memory that was freed, and goes back to the system.

#![allow(unsafe_code)] // the allocators have functions for it that no crate exports

// Linked, so that the function is there whichever allocator a program has.
use mimalloc as _;

use crate::base::clock::Seconds;

/// Seconds between collections: rare enough that a busy thread does not notice.
const PERIOD: u32 = 60;

/// The [size class](size_class) of the changes that wait for the journal: hundreds of thousands in a rush.
pub const CHANGES_CLASS: usize = 512;

unsafe extern "C" {
    fn mi_collect(force: bool);
    #[cfg(target_env = "gnu")]
    fn malloc_trim(pad: usize) -> std::ffi::c_int;
}

/// When a thread gives back next what was freed of its memory. Otherwise the allocator keeps it, including what other
/// threads freed, until this thread asks for as much again: after a start or a rush, that may be more than is in use.
#[derive(Clone, Copy, Debug)]
pub struct GiveBackTimer {
    next: Seconds,
}

/// The size to which the allocator rounds a request of up to 512 KiB: there are four between a power of two and the next.
pub const fn size_class(bytes: usize) -> usize {
    let eighth = bytes.next_power_of_two() / 8;
    bytes.next_multiple_of(if eighth < 16 { 16 } else { eighth })
}

/// The bytes to allocate for a block of a swarm that needs that many: its size class, but never that of changes. It would
/// keep a page of the allocator that had a hundred of them, and what a rush needed would never go back.
pub const fn lasting_size(bytes: usize) -> usize {
    match size_class(bytes) {
        CHANGES_CLASS => size_class(CHANGES_CLASS + 1),
        size => size,
    }
}

/// The same for an array: the elements to make room for, if that many are needed.
pub const fn lasting_len<T>(len: usize) -> usize {
    let bytes = len.saturating_mul(size_of::<T>());
    if bytes <= CHANGES_CLASS && size_class(bytes) == CHANGES_CLASS {
        CHANGES_CLASS / size_of::<T>() + 1
    } else {
        len
    }
}

/// Gives back what was freed of the calling thread's memory, also by other threads. Takes some microseconds; after a rush up to 15 ms. No
/// effect in programs with another allocator.
pub fn give_back() {
    // SAFETY: this is the declaration in mimalloc.h. The function frees what nothing refers to any more, has no
    // preconditions, and may be called by any thread at any time.
    unsafe { mi_collect(true) }
}

/// Gives back what C libraries such as SQLite have freed, with the allocator of the system.
pub fn give_back_of_c() {
    #[cfg(target_env = "gnu")]
    // SAFETY: this is the declaration in malloc.h. The function has no preconditions, and may be called by any thread.
    unsafe {
        malloc_trim(0);
    }
}

/// From now on this process has pages of the usual size only. The allocator asks for huge ones, and the kernel
/// then fills them up again where a part was given back: a third of the memory of a private tracker at rest. Tables that grow
/// have to wait for them, too, and lookups gain only a percent or two (docs/bench.md).
pub fn use_small_pages() {
    // A kernel that can't do it, or has no huge pages: nothing is lost but memory.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

// === impl GiveBackTimer ===

impl GiveBackTimer {
    /// For the calling thread.
    pub fn start(now: Seconds) -> Self {
        Self {
            next: now.plus(PERIOD),
        }
    }

    /// Gives memory back if it is time; returns whether it was.
    pub fn tick(&mut self, now: Seconds) -> bool {
        let is_time = now >= self.next;
        if is_time {
            *self = Self::start(now);
            give_back();
        }
        is_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_good_size(bytes: usize) -> usize;
    }

    #[test]
    fn the_size_classes_are_those_of_the_allocator() {
        for bytes in 65..8192 {
            // SAFETY: a function without preconditions, declared as in mimalloc.h.
            let good = unsafe { mi_good_size(bytes) };
            assert_eq!(size_class(bytes), good, "{bytes} bytes");
        }
    }

    #[test]
    fn what_lasts_has_no_block_of_the_class_of_changes() {
        for bytes in 0..8192 {
            let size = lasting_size(bytes);
            assert!(size >= bytes && size == size_class(size), "{bytes} bytes");
            assert_ne!(size, CHANGES_CLASS, "{bytes} bytes");
        }
        assert_eq!(lasting_size(CHANGES_CLASS), 640);
        for len in 0..2000 {
            for (room, bytes) in [
                (lasting_len::<u32>(len), 4),
                (lasting_len::<[u8; 40]>(len), 40),
                (lasting_len::<[u8; 128]>(len), 128),
            ] {
                assert!(room >= len && (room == len || room * bytes <= 640), "{len}");
                assert_ne!(size_class(room * bytes), CHANGES_CLASS, "{len}");
            }
        }
    }

    #[test]
    fn it_is_time_once_a_minute() {
        let start = Seconds::START;
        let mut timer = GiveBackTimer::start(start);
        let times = (0..=150).filter(|&after| timer.tick(start.plus(after)));
        assert_eq!(times.collect::<Vec<_>>(), [60, 120]);
    }
}
