//! Settlement: from what clients report to what is credited, whatever the order in which reports arrive.
//!
//! A node passes on what a client reported; storage settles it against the row that it holds, in
//! the transaction that records the batch (rules A1 to A9 of `docs/protocol.md`). Reports of one
//! client may reach storage late, twice, through two nodes, or not at all, so settling depends on when
//! a report was *made*, never on when it arrives. Plain arithmetic on values; no clock, no I/O.

pub mod coverage;
pub mod machines;
pub mod packed;
pub mod peer;
pub mod sessions;
