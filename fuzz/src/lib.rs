//! The fuzz targets. Each function takes any bytes, and panics if Mika breaks a rule on them: it parses
//! them differently from a simpler parser, writes what can't be parsed back, or differs from the model of
//! the rules.
//!
//! `fuzz_targets/` has them run by libFuzzer (`scripts/fuzz`); `tests/fuzz.rs` runs the same functions
//! on the seeds, and on random changes of them, with every run of the tests.

mod announces;
mod bencode;
mod http_head;
mod http_path;
mod http_query;
mod packed_guests;
mod proxy_header;
mod replies;
mod udp_packet;

pub use announces::{private_announces, public_announces};
pub use bencode::bencode;
pub use http_head::http_head;
pub use http_path::http_path;
pub use http_query::http_query;
pub use packed_guests::packed_guests;
pub use proxy_header::proxy_header;
pub use replies::{failures, replies};
pub use udp_packet::udp_packet;

/// A target: its name and what it checks.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, by the names of their files in `fuzz_targets/` and their folders in `seeds/`.
pub const TARGETS: &[Target] = &[
    ("bencode", bencode),
    ("failures", failures),
    ("http_head", http_head),
    ("http_path", http_path),
    ("http_query", http_query),
    ("packed_guests", packed_guests),
    ("private_announces", private_announces),
    ("proxy_header", proxy_header),
    ("public_announces", public_announces),
    ("replies", replies),
    ("udp_packet", udp_packet),
];

/// Numbers out of bytes; zeros once there are no more.
struct Bytes<'a>(&'a [u8]);

// === impl Bytes ===

impl<'a> Bytes<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `most` of the bytes.
    fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const LEN: usize>(&mut self) -> [u8; LEN] {
        let mut array = [0; LEN];
        let taken = self.take(LEN);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }
}
