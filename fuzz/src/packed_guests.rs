//! Public peers as nodes pack them for each other: what is read is written in a form that is read the same.

use mika::change::packed::{pack, unpack};

pub fn packed_guests(bytes: &[u8]) {
    let Ok(changes) = unpack(bytes) else { return };
    // A peer takes 28 bytes at least, so a few bytes can't fill the memory.
    assert!(changes.len() <= bytes.len() / 28);
    let again = unpack(&pack(&changes)).expect("what was packed");
    // Torrents may have another order.
    let of_each = |changes: &[_]| {
        let mut texts: Vec<String> = changes.iter().map(|it| format!("{it:?}")).collect();
        texts.sort();
        texts
    };
    assert_eq!(of_each(&again), of_each(&changes));
}
