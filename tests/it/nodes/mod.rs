//! Two nodes that share a Redis and a MariaDB, or a PostgreSQL where the database decides: announces and edits at
//! either are known at both.
//!
//! `MIKA_EDITS` is how many users and torrents are edited at once.

#![allow(clippy::print_stderr)] // what was measured

mod bulk;
mod claims;
mod clocks;
mod cluster;
mod credit;
mod databases;
mod dead;
mod edits;
mod emptied;
mod killed;
mod late;
mod listed;
mod moves;
mod older;
pub mod pair;
mod renamed;
mod replaced;
mod restored;
mod returned;
mod seeders;
mod snatches;
mod spill;
mod swarms;
mod warm;
