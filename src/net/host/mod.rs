//! What this host provides for a listener: address families, ports, files.

pub mod families;
pub mod files;
pub mod ports;
