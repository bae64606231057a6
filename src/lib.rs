//! Mika.
pub mod backoff;
pub mod change;
pub mod clock;
pub mod config;
pub mod control;
pub mod ids;
pub mod manage;
pub mod registry;
pub mod secret;
pub mod storage;
pub mod wire;
