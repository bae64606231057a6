//! Tests of the whole program, of the tool, and of the drivers with real servers: one binary, so that
//! the harness is built and linked once. A module is a subject: `cargo test --test it http::` runs one.
//!
//! Tests of other subjects run beside each test. What measures time under full load has a binary of its
//! own (`crash`, `flood`), as has what needs a process or an allocator of its own (`sim`, `allocations`).

#[path = "../harness/mod.rs"]
mod harness;

mod api;
mod bad_input;
#[cfg(feature = "contract")]
mod cache_cluster;
#[cfg(feature = "contract")]
mod cache_redis;
#[cfg(feature = "contract")]
mod cache_sentinel;
mod clients;
mod daemon;
mod deployments;
mod drivers;
mod handover;
mod http;
mod manage;
mod metrics;
mod moves;
#[cfg(feature = "contract")]
mod mysql;
mod nodes;
mod notify;
mod outages;
mod page;
#[cfg(feature = "contract")]
mod postgres;
mod reload;
mod schemas;
mod sockets;
mod udp;
