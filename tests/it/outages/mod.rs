//! A private tracker whose Redis, database or both are away for a while: announces are still
//! answered, the log has one line, and afterwards all agree, to the byte.
//!
//! `MIKA_OUTAGE` is how many seconds an outage lasts, and `MIKA_SEED` repeats a run as far as
//! time allows.

#![allow(clippy::print_stderr)] // what was measured, and the seed

mod absent;
mod backlog;
mod blackhole;
mod ends;
mod refusing;
mod trial;
