//! The tool of those who run a tracker; see `mika::manage`.

fn main() -> std::process::ExitCode {
    mika::manage::run(std::env::args_os()).into()
}
