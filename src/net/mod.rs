//! What the listeners for clients and the API share: TLS, connection limits, inherited sockets, and what the
//! host provides.

pub mod host;
pub mod inherited;
pub mod pem;
pub mod permits;
pub mod tls;
