//! The wire: bytes to values and values to bytes. No socket, no clock, no state.
//!
//! The transports share the values of `announce` and `scrape`; each has a file for its encoding.

mod announce;
pub mod bencode;
mod error;
pub mod forwarded;
pub mod http;
mod plus;
pub mod proxy_header;
pub mod query;
pub mod udp;

pub use announce::{
    Announce, AnnounceReply, ClientKey, Event, Failure, PeerList, RetryIn, ScrapeEntry,
};
pub use error::ParseError;
pub use plus::{FormHash, PlusMeaning};
