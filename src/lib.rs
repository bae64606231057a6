//! Mika, a BitTorrent tracker: the library behind the daemon `mika` and the tool `mika-manage`.
//!
//! # The path of an announce
//!
//! `listen` receives bytes → `wire` parses them → `tracker` decides, on the `registry`
//! (who may take part) and the `swarm`s (who is there) → `wire` writes the reply →
//! `listen` sends it. What the announce changed goes through the tracker's outbox to the
//! `journal`, which numbers it and applies it to `cache` and `storage`. `node` puts the
//! parts together. Which module may know which is written in `docs/architecture.md` and
//! enforced by `tests/layers.rs`.

pub mod accounting;
pub mod api;
pub mod base;
pub mod cache;
pub mod change;
pub mod config;
pub mod daemon;
pub mod journal;
pub mod listen;
pub mod manage;
pub mod net;
pub mod node;
pub mod registry;
pub mod storage;
pub mod swarm;
pub mod sync;
pub mod telemetry;
pub mod tracker;
pub mod view;
pub mod wire;
