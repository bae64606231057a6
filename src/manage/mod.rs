//! `mika-manage`, the command-line tool of operators: one file per command.
//!
//! Results go to stdout, messages to stderr; for the exit status see [`ExitStatus`]. Only [`print`]
//! writes, and [`top`] draws.

mod check;
mod cleanup;
mod daemon;
mod genkey;
mod health;
mod info_hash;
mod migrate;
mod nodes;
mod open;
mod orphans;
mod pinned;
mod print;
mod restored;
mod schema;
mod shell;
mod stats;
mod top;
pub mod torrent_file;
mod torrents;
mod users;
mod warmup;
mod whitelist;
mod wipe;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};
use clap::{Parser, Subcommand};

use crate::config::{self, Config, ConfigError, ConfigSource, Drivers, UnknownDriver};
use crate::storage::{BadRow, Finding, Severity, Wipe};
use crate::sync::edit::EditError;
use open::Site;
use print::Printer;

/// The config of the Debian package.
const PACKAGED: &str = "/etc/mika/config.json";

/// Rows read from storage at a time.
const PAGE: u32 = 1000;

/// Milliseconds that dropped connections have to close cleanly.
const CLOSE_ROUNDS: u32 = 20;

/// The result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Success,
    /// Failed, or not all of it was done.
    Failure,
    /// The arguments or the config are wrong, or a warmup can't reach a server.
    Usage,
}

/// An error in arguments or config that clap and the config's own checks can't detect.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// A server that a warmup needs can't be reached; with a hint.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreachable(String);

#[derive(Debug, Parser)]
#[command(
    name = "mika-manage",
    version,
    about = "Manage a Mika BitTorrent tracker: its users, torrents, clients, keys and tables",
    after_help = "\
A running tracker follows every change within 2 seconds; it needs no restart and no signal.
Exit status: 0 done, 1 failed (or not all of it done), 2 wrong arguments or config, or (warmup)
a server that can't be reached.

Examples:
  mika-manage warmup                            load the database into the cache
  mika-manage users add alice                   add a user, print the passkey
  mika-manage users list -s uploaded            the largest uploaders first
  mika-manage torrents import /srv/torrents     add every .torrent file below a folder
  mika-manage whitelist add -TR Transmission    allow a client by the beginning of its peer ids
  mika-manage check                             find problems, with hints
  mika-manage nodes                             the nodes that share a Redis
  mika-manage top                               live figures of the running tracker
  mika-manage --json users show alice           JSON for programs"
)]
struct Cli {
    /// The config file [default: ./config.json; without one, built-in defaults]
    #[arg(short, long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print the result as one JSON document
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load whitelist, passkeys and torrents from storage into the cache
    #[command(after_help = "\
Removes from the cache what storage no longer has; totals in the cache stay. Running nodes apply the
changes at once. It can be interrupted and repeated.
Exit status: 1 if rows can't be used (they are named), 2 if a server can't be reached.

Examples:
  mika-manage warmup
  mika-manage warmup --only whitelist,passkeys
  mika-manage warmup --dry-run")]
    Warmup(warmup::Warmup),
    /// Add, show and change users
    #[command(subcommand)]
    Users(users::UsersCommand),
    /// Add, import, show and change torrents
    #[command(subcommand)]
    Torrents(torrents::TorrentsCommand),
    /// List and change the clients that may announce
    #[command(subcommand)]
    Whitelist(whitelist::WhitelistCommand),
    /// List the nodes that share the cache; forget one that is gone
    #[command(after_help = "\
It watches heartbeats for some seconds. LAG is how many batches of the others a node has not followed
yet, BACKLOG how many of its own storage does not have, CLOCK by how much its host's clock is ahead of
the cache's, within a second. `silent` is a node that was killed, paused or cut off from the cache;
`gone` is one that only storage knows.

Storage keeps the number of each node's last batch forever, so that no batch counts twice. `forget`
removes it: only for a node that never comes back and whose spill file (journal.spill) is gone, too.

Examples:
  mika-manage nodes
  mika-manage --json nodes
  mika-manage nodes forget old-tracker")]
    Nodes(nodes::Nodes),
    /// List unusable records and invalid totals; with -d clean them up
    #[command(after_help = "\
In the cache: keys of older versions; users, passkeys, torrents and swarms that storage no longer has;
incomplete rows; peers that expired long ago; and nodes that are gone and whose journal storage has
applied. In cache and storage: totals below 0 or above 2^62, which are set to 0.

Storage keeps the number of each node's last batch forever, so that no batch counts twice. --forget NODE
removes it: only for a node that never comes back and whose spill file (journal.spill) is gone, too.

Examples:
  mika-manage cleanup
  mika-manage cleanup -d
  mika-manage cleanup --forget old-tracker")]
    Cleanup(cleanup::Cleanup),
    /// Set uploaded, downloaded, snatches and announces of all torrents to 0
    Wipetorstats(wipe::WipeArguments),
    /// Set uploaded, downloaded, snatches, announces and seed time of all users to 0
    Wipeuserstats(wipe::WipeArguments),
    /// Show the schemas of web applications' tables, and test one of your own
    #[command(subcommand)]
    Schema(schema::SchemaCommand),
    /// Create or update Mika's own tables
    Migrate {
        /// Only print the SQL of all migrations, for a database that others change
        #[arg(long, conflicts_with = "status")]
        print: bool,
        /// Only show which migrations the database has; exits with 1 if anything is missing
        #[arg(long)]
        status: bool,
    },
    /// After the database was restored from a backup: bring cache and spill files in line with it
    #[command(after_help = "\
All nodes must be stopped. Cache and spill files are newer than the backup. Without an option, it only
shows what they have beyond the database; --apply credits that, --drop discards it. Both then remove
users, torrents and peers from the cache and fill it from the database, so that nodes start with the
database's records. It can be interrupted and repeated.

Each node has its own spill file (journal.spill): run this on each host, or copy the files and name all.

Examples:
  mika-manage restored                               only show, change nothing
  mika-manage restored --apply
  mika-manage restored --apply --spill a.spill b.spill
  mika-manage restored --drop                        only the backup counts
  mika-manage restored --new-identity                for a copy beside its original: docs/sql.md")]
    Restored(restored::Restored),
    /// Check config, TLS files, cache and storage, and show problems with hints
    Check,
    /// Generate a key and a self-signed certificate for the API
    #[command(after_help = "\
Writes the files that api.tls.key (mode 0600) and api.tls.cert name in the config. The
certificate is for localhost, 127.0.0.1, ::1, the name of this host, and every --san.

Examples:
  mika-manage genkey
  mika-manage genkey --san tracker.example.org --san 192.0.2.7
  mika-manage genkey --days 365 --force")]
    Genkey(genkey::Genkey),
    /// Print figures and health of the running daemon
    #[command(after_help = "\
Queries the daemon's API at the first address of api.listen, with the login of the config, and only if
it has the certificate of api.tls.cert. MIKA_API_PASSWORD overrides api.password, and a token in
MIKA_API_TOKEN overrides both.

Examples:
  mika-manage stats
  mika-manage --json stats
  mika-manage stats --url https://tracker.example.org:34001 --cert tracker.pem")]
    Stats(daemon::DaemonAddress),
    /// Show the figures live in the terminal; ? lists the keys
    #[command(after_help = "\
Finds the daemon in the same way as `mika-manage stats`.

Examples:
  mika-manage top
  mika-manage top --interval 500ms")]
    Top(top::Top),
    /// Print the completion script of a shell
    #[command(after_help = "\
Examples:
  mika-manage completions bash > /etc/bash_completion.d/mika-manage
  mika-manage completions fish > ~/.config/fish/completions/mika-manage.fish")]
    Completions { shell: clap_complete::Shell },
    /// Print the manual page: mika-manage man | man -l -
    Man,
}

/// Runs the tool with the arguments of the process, its name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>, drivers: &Drivers) -> ExitStatus {
    // One dash is accepted, as by the daemon.
    let arguments = arguments.into_iter().map(|argument| {
        if argument == "-config" {
            "--config".into()
        } else {
            argument
        }
    });
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            return match print::arguments(&error) {
                Ok(()) if error.use_stderr() => ExitStatus::Usage,
                Ok(()) => ExitStatus::Success,
                Err(error) => status_of(&error.into()),
            };
        }
    };
    let mut printer = Printer::new(cli.json);
    let status = start(cli, drivers, &mut printer).and_then(|status| {
        printer.finish()?;
        Ok(status)
    });
    status.unwrap_or_else(|error| {
        printer.end_progress();
        let status = status_of(&error);
        if status != ExitStatus::Success {
            printer.message(format_args!("{error:#}"));
        }
        status
    })
}

fn start(cli: Cli, drivers: &Drivers, printer: &mut Printer) -> Result<ExitStatus> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime can't start")?
        .block_on(async {
            // Boxed, because it is as large as the largest command.
            let result = Box::pin(dispatch(cli, drivers, printer)).await;
            close_connections().await;
            result
        })
}

/// Waits for the tasks that close dropped connections: they would end with the runtime, and servers
/// log connections that merely vanish.
async fn close_connections() {
    for _ in 0..CLOSE_ROUNDS {
        if tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
            == 0
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn dispatch(cli: Cli, drivers: &Drivers, printer: &mut Printer) -> Result<ExitStatus> {
    let path = cli.config.as_deref();
    match cli.command {
        Command::Users(command) => {
            users::run(command, &site(path, drivers, printer).await?, printer).await
        }
        Command::Torrents(command) => {
            torrents::run(command, &site(path, drivers, printer).await?, printer).await
        }
        Command::Whitelist(command) => {
            whitelist::run(command, &site(path, drivers, printer).await?, printer).await
        }
        Command::Cleanup(arguments) => {
            cleanup::run(&arguments, &site(path, drivers, printer).await?, printer).await
        }
        Command::Nodes(arguments) => {
            nodes::run(arguments, &site(path, drivers, printer).await?, printer).await
        }
        Command::Wipetorstats(arguments) => {
            let site = site(path, drivers, printer).await?;
            wipe::run(Wipe::Torrents, &arguments, &site, printer).await
        }
        Command::Wipeuserstats(arguments) => {
            let site = site(path, drivers, printer).await?;
            wipe::run(Wipe::Users, &arguments, &site, printer).await
        }
        Command::Warmup(arguments) => {
            warmup::run(&arguments, load(path, printer)?, drivers, printer).await
        }
        Command::Schema(command) => {
            schema::run(command, load(path, printer)?, drivers, printer).await
        }
        Command::Migrate { print: true, .. } => {
            migrate::show(&load(path, printer)?, drivers, printer)
        }
        Command::Migrate { status, .. } => {
            migrate::run(status, &load(path, printer)?, drivers, printer).await
        }
        Command::Restored(arguments) => {
            restored::run(&arguments, load(path, printer)?, drivers, printer).await
        }
        Command::Check => check::run(config::load(path), drivers, printer).await,
        Command::Genkey(arguments) => genkey::run(&arguments, &load(path, printer)?, printer),
        Command::Stats(place) => stats::run(&place, &load(path, printer)?, printer).await,
        Command::Top(arguments) => top::run(&arguments, &load(path, printer)?).await,
        Command::Completions { shell } => shell::completions(shell, printer),
        Command::Man => shell::man(printer),
    }
}

async fn site(path: Option<&Path>, drivers: &Drivers, printer: &mut Printer) -> Result<Site> {
    Site::open(load(path, printer)?, drivers, printer).await
}

/// The named config, `./config.json`, or the built-in defaults. Those are seldom meant if the package
/// has installed a config.
fn load(path: Option<&Path>, printer: &mut Printer) -> Result<Config, ConfigError> {
    let loaded = config::load(path)?;
    if loaded.source == ConfigSource::BuiltIn && Path::new(PACKAGED).exists() {
        printer.message(format_args!(
            "note: there is no config.json here, so these are the built-in defaults; for the \
             tracker's own config, add: -c {PACKAGED}"
        ));
    }
    Ok(loaded.config)
}

/// A reader that closes the pipe (`… | head`) has what it wanted.
fn status_of(error: &Error) -> ExitStatus {
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    let invalid = |error: &EditError| matches!(error, EditError::Invalid(_));
    if error.downcast_ref().is_some_and(is_broken_pipe) {
        ExitStatus::Success
    } else if error.is::<ConfigError>()
        || error.is::<UnknownDriver>()
        || error.is::<UsageError>()
        || error.is::<Unreachable>()
        || error.downcast_ref().is_some_and(invalid)
    {
        ExitStatus::Usage
    } else {
        ExitStatus::Failure
    }
}

/// Reports the rows of a page that were skipped.
fn report_bad(rows: &[BadRow], printer: &mut Printer) {
    for row in rows {
        printer.message(format_args!(
            "warning: {} {} can't be used: {}",
            row.table, row.id, row.problem
        ));
    }
}

/// Reports what is wrong with the database; false if nothing is.
fn report_problems(findings: &[Finding], printer: &mut Printer) -> bool {
    let is_problem = |finding: &&Finding| finding.severity > Severity::Note;
    for finding in findings.iter().filter(is_problem) {
        printer.message(format_args!("{}: {}", finding.problem, finding.hint));
    }
    findings.iter().any(|finding| is_problem(&finding))
}

impl ExitStatus {
    fn of(is_success: bool) -> Self {
        if is_success {
            Self::Success
        } else {
            Self::Failure
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Success => Self::SUCCESS,
            ExitStatus::Failure => Self::from(1),
            ExitStatus::Usage => Self::from(2),
        }
    }
}
