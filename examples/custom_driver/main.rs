//! A tracker with a storage driver of its own, as a crate of its own would have it: a file to which each change is
//! appended, and all rows in memory. docs/drivers.md says what a driver must do.
//!
//! ```sh
//! echo '{
//!     "mode": "private",
//!     "storage": { "driver": "append", "url": "mika.log" },
//!     "tracker": { "whitelist": false }
//! }' > config.json
//! cargo run --release --example custom_driver -- manage users add alice
//! cargo run --release --example custom_driver
//! ```

mod driver;
mod file;
#[cfg(all(test, feature = "contract"))]
mod tests;

use std::process::ExitCode;

use mika::config::Drivers;

/// The daemon, or with `manage` as first argument the operator's tool, both with this driver.
fn main() -> ExitCode {
    let mut drivers = Drivers::built_in();
    drivers.storage.register("append", driver::open);
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "manage") {
        arguments.remove(1);
        return mika::manage::run(arguments, &drivers).into();
    }
    mika::daemon::run(arguments, &drivers)
}
