//! The randomness of a run: all of it comes from the seed.
//!
//! The hash maps of the standard library and the `select!` of tokio take theirs from the system. So the system
//! call that they use is answered here, from the seed, on threads that run a simulation; two runs of a seed are
//! then the same, and two seeds differ in the order of such maps and branches, too.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;

thread_local! {
    /// The state of the generator; none on threads that run no simulation.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on, this thread's randomness follows from `seed`. To be called before anything else on it.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
    fastrand::seed(seed);
}

/// A step of splitmix64.
fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, mixed ^ (mixed >> 31))
}

/// Fills `bytes`, from the seed if this thread has one.
fn fill(bytes: &mut [u8]) -> bool {
    let Some(mut state) = STATE.get() else {
        let system = File::open("/dev/urandom");
        return system.is_ok_and(|mut file| file.read_exact(bytes).is_ok());
    };
    for chunk in bytes.chunks_mut(8) {
        let (after, number) = next(state);
        state = after;
        chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
    }
    STATE.set(Some(state));
    true
}

/// Takes the place of the C library's function of that name in this program.
///
/// # Safety
/// `buffer` has room for `len` bytes, as the function that this stands in for demands.
#[allow(unsafe_code)] // the one way to a hash map's keys and to the branches of `select!`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, _flags: u32) -> isize {
    // SAFETY: guaranteed by the caller.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
    if fill(bytes) { len as isize } else { -1 }
}
