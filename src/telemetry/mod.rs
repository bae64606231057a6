//! What a running process says about itself: metrics, log, events, and notices to the service manager.

pub mod certificate;
pub mod events;
pub mod log;
pub mod metrics;
pub mod notify;
pub mod pulse;
