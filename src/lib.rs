//! Mika, a BitTorrent tracker: the library behind the daemon `mika` and the tool `mika-manage`.
//!
//! # The way of an announce
//!
//! `listen` receives bytes → `wire` parses them → `tracker` decides, on the `registry`
//! (who may take part) and the `swarm`s (who is there) → `wire` writes the reply →
//! `listen` sends it. What the announce changed goes through the tracker's outbox to the
//! `journal`, which numbers it and applies it to `cache` and `storage`. `node` puts the
//! parts together. Which module may know which is written in `docs/architecture.md` and
//! held by `tests/layers.rs`.

pub mod accounting;
pub mod addr;
pub mod api;
pub mod backoff;
pub mod cache;
pub mod certificate;
pub mod change;
pub mod clock;
pub mod config;
pub mod control;

pub mod events;
pub mod host;
pub mod ids;
pub mod journal;
pub mod limit;
pub mod listen;
pub mod log;
pub mod manage;
pub mod metrics;
pub mod node;
pub mod notify;
pub mod pem;
pub mod places;
pub mod pulse;
pub mod registry;
pub mod secret;
pub mod storage;
pub mod suggest;
pub mod swarm;
pub mod tls;
pub mod tracker;
pub mod warmup;
pub mod wire;
