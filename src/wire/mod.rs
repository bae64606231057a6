//! The wire: bytes to values and values to bytes. No socket, no clock, no state.

pub mod bencode;
