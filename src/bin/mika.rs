//! The daemon; see `mika::daemon`.

use mika::config::Drivers;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    mika::daemon::run(std::env::args_os(), &Drivers::built_in())
}
