//! The command line of the daemon: parses arguments and config, and runs [`node`].

#![allow(clippy::print_stdout, clippy::print_stderr)] // its only output is that of a `main`

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::{CommandFactory as _, Parser};
use clap_complete::Shell;
use clap_mangen::roff::{Roff, bold, roman};

use crate::base::shell;
use crate::config::{self, Drivers};
use crate::node::handover::{Inherited, Program};
use crate::node::{self, Options};

/// Exit code for invalid arguments (clap's own) and for an invalid config.
const BAD_CONFIG: u8 = 2;

const MORE_HELP: &str = "\
Examples:
  mika                                 a public tracker, or what ./config.json says
  mika -config /etc/mika/config.json   another config
  mika -config new.json --check        check a config
  mika -procs 1                        one worker thread

Signals:
  SIGUSR2, SIGHUP    reload config, users, torrents, whitelist and TLS files, reopen the log file;
                     clients are not interrupted
  SIGUSR1            restart in place, also to a new version: no announce is lost or refused
  SIGTERM, SIGINT    finish requests in flight, save everything, exit

Exit codes:
  0  stopped by a signal, or the config is valid
  1  failed: a port in use, storage not usable
  2  invalid arguments or config

Secrets may come from the environment instead of the config:
  MIKA_STORAGE_URL, MIKA_CACHE_URL, MIKA_API_PASSWORD

Users, torrents and the whitelist are managed with mika-manage.";

/// A BitTorrent tracker, public or private.
#[derive(Debug, Parser)]
#[command(version, after_help = MORE_HELP)]
struct Arguments {
    /// Config file; without it ./config.json, and without that a public tracker on built-in defaults
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,

    /// Worker threads, each with a listener of its own [default: cores - 1, at least 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    procs: Option<u16>,

    /// Only check the config and the files that it names
    #[arg(long)]
    check: bool,

    /// Fail at once if cache or storage can't be reached, instead of waiting for them
    #[arg(long)]
    no_wait: bool,

    /// Print the manual page: mika --man | man -l -
    #[arg(long, exclusive = true)]
    man: bool,

    /// Print the completion script of a shell
    #[arg(long, exclusive = true, value_name = "SHELL")]
    completions: Option<Shell>,
}

/// Runs the daemon with the arguments of the process, its name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>, drivers: &Drivers) -> ExitCode {
    let given: Vec<OsString> = arguments.into_iter().collect();
    let arguments = Arguments::parse_from(with_two_dashes(given.iter().cloned()));
    if arguments.man {
        return match manual() {
            Ok(page) => show(&page),
            Err(error) => fail(&error.into(), 1),
        };
    }
    if let Some(shell) = arguments.completions {
        return show(&shell::completions(Arguments::command(), shell));
    }
    // Before anything is opened, which could get the number of an inherited descriptor.
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => return fail(&error, 1),
    };
    let program = match Program::current(given) {
        Ok(program) => program,
        Err(error) => return fail(&error.into(), 1),
    };
    let loaded = match config::load(arguments.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => return fail(&error.into(), BAD_CONFIG),
    };
    let source = loaded.source.to_string();
    let mut warnings = loaded.warnings.clone();
    let exposed = config::exposed(&loaded).into_iter();
    warnings.extend(exposed.map(|file| format!("{}: {}", file.problem, file.hint)));
    let options = Options {
        config: loaded,
        config_path: arguments.config,
        procs: arguments.procs.map_or_else(default_procs, usize::from),
        no_wait: arguments.no_wait,
        program,
    };
    if let Err(error) = node::check(&options, drivers) {
        return fail(&error.context(source), BAD_CONFIG);
    }
    if arguments.check {
        for warning in warnings {
            eprintln!("{source}: {warning}");
        }
        println!("{source}: ok");
        return ExitCode::SUCCESS;
    }
    match node::run(options, inherited, drivers) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(successor)) => fail(&successor.execute(), 1),
        Err(error) => fail(&error, 1),
    }
}

fn manual() -> io::Result<Vec<u8>> {
    let mut page = shell::page(Arguments::command())?;
    let mut roff = Roff::new();
    roff.control("SH", ["NOTES"]);
    shell::preformatted(MORE_HELP, &mut roff);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("mika-manage"), roman("(8)")]);
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// Writes to stdout; a closed pipe is not a failure.
fn show(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(&error.into(), 1),
        _ => ExitCode::SUCCESS,
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("mika: {error:#}");
    ExitCode::from(code)
}

/// One core stays free for the journal and for the rest of the machine.
fn default_procs() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

/// `-config` and `-procs` as `--config` and `--procs`: clap knows long names with two dashes only.
fn with_two_dashes(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    arguments
        .map(|argument| match argument.to_str() {
            Some(text) if is_long_with_one_dash(text) => format!("-{text}").into(),
            _ => argument,
        })
        .collect()
}

fn is_long_with_one_dash(argument: &str) -> bool {
    let name = argument.split_once('=').map_or(argument, |(name, _)| name);
    matches!(name, "-config" | "-procs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = line.split_whitespace().map(OsString::from);
        Arguments::try_parse_from(with_two_dashes(words))
    }

    #[test]
    fn the_arguments_are_declared_without_a_conflict() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn long_names_work_with_one_dash_and_with_two() {
        for line in [
            "mika -config x.json -procs 3",
            "mika --config x.json --procs 3",
            "mika -config=x.json -procs=3",
            "mika --config=x.json --procs=3",
        ] {
            let arguments = parse(line).unwrap();
            assert_eq!(arguments.config, Some("x.json".into()), "{line}");
            assert_eq!(arguments.procs, Some(3), "{line}");
        }
        assert!(parse("mika --no-wait").unwrap().no_wait);
        let arguments = parse("mika").unwrap();
        assert!(!arguments.no_wait);
        assert_eq!((arguments.config, arguments.procs), (None, None));
    }

    #[test]
    fn manual_and_completions_have_every_argument() {
        let manual = String::from_utf8(manual().unwrap())
            .unwrap()
            .replace('\\', "");
        let scripts = [Shell::Bash, Shell::Zsh, Shell::Fish]
            .map(|shell| shell::completions(Arguments::command(), shell));
        for argument in ["config", "procs", "check", "no-wait"] {
            assert!(manual.contains(&format!("--{argument}")), "{argument}");
            for script in &scripts {
                let script = String::from_utf8_lossy(script);
                assert!(script.contains(argument), "{argument}");
            }
        }
        assert!(manual.contains("SIGUSR2"));
    }

    #[test]
    fn invalid_arguments_are_refused() {
        for line in [
            "mika -procs 0",
            "mika -procs many",
            "mika -config",
            "mika -configs x",
            "mika x.json",
            "mika --man --check",
            "mika --completions cmd",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
