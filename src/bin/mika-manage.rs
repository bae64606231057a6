//! The operator's tool; see `mika::manage`.

use mika::config::Drivers;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    mika::manage::run(std::env::args_os(), &Drivers::built_in()).into()
}
