//! A tracker with a cache driver of its own: the memory of this one process, so nodes can't share it. It shows what a
//! driver has to keep, and the order of things; one for a server does the same there. docs/drivers.md says what a driver must do.
//!
//! ```sh
//! echo '{ "cache": { "driver": "process" } }' > config.json
//! cargo run --release --example custom_cache
//! ```

mod data;
mod driver;
#[cfg(all(test, feature = "contract"))]
mod tests;

use std::process::ExitCode;

use mika::config::Drivers;

fn main() -> ExitCode {
    let mut drivers = Drivers::built_in();
    drivers.cache.register("process", driver::open);
    mika::daemon::run(std::env::args_os(), &drivers)
}
