//! Memory that was freed, and goes back to the system.

#![allow(unsafe_code)] // the allocator has a function for it that its crate does not export

// Linked, so that the function is there whichever allocator a program has.
use mimalloc as _;

unsafe extern "C" {
    fn mi_collect(force: bool);
}

/// Gives back what the calling thread has freed. The allocator keeps it else, until that thread asks for as much
/// again: after a start or a rush, that may be as much as is in use. Takes about a millisecond. No effect in programs
/// with another allocator.
pub fn give_back() {
    // SAFETY: this is the declaration in mimalloc.h. The function frees what nothing refers to any more, has no
    // preconditions, and may be called by any thread at any time.
    unsafe { mi_collect(true) }
}
