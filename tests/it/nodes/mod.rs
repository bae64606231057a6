//! Two nodes that share a Redis and a MariaDB, or a PostgreSQL where the database decides: announces and edits at
//! either are known at both.
//!
//! `MIKA_EDITS` is how many users and torrents are edited at once.

#![allow(clippy::print_stderr)] // what was measured

mod bulk;
mod claims;
mod clocks;
mod credit;
mod databases;
mod dead;
mod earlier;
mod edits;
mod emptied;
mod failover;
mod killed;
mod late;
mod listed;
mod moves;
mod older;
mod packed;
pub mod pair;
mod partitioned;
mod propagation;
mod renamed;
mod replaced;
mod restored;
mod returned;
mod seeders;
mod snatches;
mod spill;
mod swarms;
mod warm;
