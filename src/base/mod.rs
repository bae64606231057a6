//! Plain values and small tools that any module may use.

pub mod addr;
pub mod backoff;
pub mod clock;
pub mod drivers;
pub mod file;
pub mod hash;
pub mod ids;
pub mod lanes;
pub mod limit;
pub mod lock;
pub mod memory;
pub mod networks;
pub mod seconds;
pub mod secret;
pub mod shell;
pub mod suggest;
pub mod thread;
pub mod url;
pub mod varint;
