//! `mika-manage warmup`: loads storage into the cache.

use std::io;

use anyhow::{Error, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::open::{self, Site};
use super::print::Printer;
use super::{ExitStatus, Unreachable, UsageError, report_bad};
use crate::config::{Config, Drivers};
use crate::registry::BadRow;
use crate::storage::StorageError;
use crate::sync::warmup::{
    self, Unfinished, WarmupCounts, WarmupOptions, WarmupParts, WarmupProgress, WarmupReport,
    WarmupStep,
};
use crate::sync::{Mirror, SyncError};

/// The column at which counts begin.
const COUNT_COLUMN: usize = 25;

#[derive(Debug, Args)]
pub struct Warmup {
    /// Only these parts, separated by commas; all of them by default
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<Part>,
    /// Only count what would be added, changed and removed
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Whitelist,
    Passkeys,
    Torrents,
}

/// The JSON result. Parts that were not requested are null.
#[derive(Serialize)]
struct Document {
    dry_run: bool,
    whitelist: Option<PartCounts>,
    passkeys: Option<PartCounts>,
    torrents: Option<PartCounts>,
    skipped: u64,
    /// Rows that the site has not finished.
    unfinished_users: u64,
    unfinished_torrents: u64,
}

#[derive(Serialize)]
struct PartCounts {
    rows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<u64>,
    removed: u64,
}

/// Shows the progress of a warmup.
struct Reporter<'a> {
    printer: &'a mut Printer,
    dry_run: bool,
    /// Whether the first line was written.
    has_begun: bool,
    /// Why the first line that failed could not be written.
    write_error: Option<io::Error>,
}

pub async fn run(
    arguments: &Warmup,
    config: Config,
    drivers: &Drivers,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let (storage_name, cache_name) = (open::name_of(&config), open::cache_name(&config));
    let Some(cache) = open::cache(&config, drivers)? else {
        let driver = &config.cache.driver;
        return Err(UsageError(format!(
            "there is nothing to warm up: with cache.driver {driver:?} each node loads storage itself when it starts"
        ))
        .into());
    };
    let site = Site::open(config, drivers, printer)
        .await
        .map_err(explain_storage)?;
    let options = WarmupOptions {
        parts: parts(&arguments.only),
        dry_run: arguments.dry_run,
    };
    let mut reporter = Reporter {
        printer,
        dry_run: arguments.dry_run,
        has_begun: false,
        write_error: None,
    };
    let mirror = Mirror {
        storage: site.storage,
        cache,
    };
    let result = warmup::run(&mirror, &options, &mut reporter).await;
    let write_error = reporter.write_error;
    printer.end_progress();
    if let Some(error) = write_error {
        return Err(error.into());
    }
    let report = result.map_err(|error| explain(error, &storage_name, &cache_name))?;
    finish(&report, arguments.dry_run, printer)
}

fn parts(only: &[Part]) -> WarmupParts {
    if only.is_empty() {
        return WarmupParts::ALL;
    }
    WarmupParts {
        whitelist: only.contains(&Part::Whitelist),
        users: only.contains(&Part::Passkeys),
        torrents: only.contains(&Part::Torrents),
    }
}

fn finish(report: &WarmupReport, dry_run: bool, printer: &mut Printer) -> Result<ExitStatus> {
    if printer.is_json() {
        printer.document(&Document::new(report, dry_run))?;
    } else if !dry_run {
        let removed = |counts: Option<WarmupCounts>| counts.map_or(0, |counts| counts.removed);
        let (users, torrents) = (removed(report.users), removed(report.torrents));
        if users + torrents > 0 {
            printer.message(format_args!(
                "removed what storage no longer has, and what can't be used: {users} users, {torrents} torrents"
            ));
        }
    }
    let Unfinished { users, torrents } = report.unfinished;
    if !printer.is_json() && users + torrents > 0 {
        printer.message(format_args!(
            "not ready yet: {users} users without a passkey, {torrents} torrents without an info hash"
        ));
    }
    if report.skipped > 0 {
        printer.message(format_args!(
            "{} rows can't be used and were skipped; correct them in storage, then run warmup again",
            report.skipped
        ));
        return Ok(ExitStatus::Failure);
    }
    Ok(ExitStatus::Success)
}

/// Adds the server's name, and a hint if the server is away.
fn explain(error: SyncError, storage: &str, cache: &str) -> Error {
    let (name, key) = match error {
        SyncError::Storage(_) | SyncError::KeepsChanging => (storage, "storage.url"),
        SyncError::Cache(_) => (cache, "cache.url"),
    };
    let is_away = error.is_away();
    let error = open::named(error, name.to_owned());
    if is_away {
        return unreachable(key, &error);
    }
    error
}

fn explain_storage(error: Error) -> Error {
    match error.downcast_ref::<StorageError>() {
        Some(StorageError::Away(_)) => unreachable("storage.url", &error),
        _ => error,
    }
}

fn unreachable(key: &str, error: &Error) -> Error {
    Unreachable(format!(
        "{error:#}; make sure that the server is up and {key} is right, then run warmup again"
    ))
    .into()
}

// === impl Reporter ===

impl Reporter<'_> {
    /// The first line, once both servers have answered.
    fn begin_all(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        if self.dry_run {
            self.line("> Comparing redis data...");
        } else {
            self.line("> Warming up redis data...");
        }
    }

    fn line(&mut self, text: &str) {
        if !self.printer.is_json()
            && let Err(error) = self.printer.line_now(text)
        {
            self.write_error.get_or_insert(error);
        }
    }
}

impl WarmupProgress for Reporter<'_> {
    fn begin(&mut self, step: WarmupStep) {
        self.begin_all();
        self.printer.start_progress(match step {
            WarmupStep::Whitelist => "clients",
            WarmupStep::Users => "passkeys",
            WarmupStep::Torrents => "torrents",
            WarmupStep::Sets => "records of users",
            WarmupStep::Removal => "rows of the cache checked",
        });
    }

    fn advance(&mut self, rows: u64) {
        self.printer.progress(rows);
    }

    fn skipped(&mut self, row: &BadRow) {
        report_bad(std::slice::from_ref(row), self.printer);
    }

    fn end(&mut self, step: WarmupStep, counts: &WarmupCounts) {
        self.printer.end_progress();
        let name = match step {
            WarmupStep::Whitelist => "> Loading whitelist...",
            WarmupStep::Users => "> Loading passkeys...",
            WarmupStep::Torrents => "> Loading torrents...",
            WarmupStep::Sets | WarmupStep::Removal => return,
        };
        let rows = counts.rows;
        let mut planned = String::new();
        if self.dry_run {
            let (added, changed, removed) = (counts.added, counts.changed, counts.removed);
            planned = format!(" (to add: {added}, to change: {changed}, to remove: {removed})");
        }
        self.line(&format!("{name:<COUNT_COLUMN$}{rows}{planned}"));
    }
}

// === impl Document ===

impl Document {
    fn new(report: &WarmupReport, dry_run: bool) -> Self {
        let counts = |counts: Option<WarmupCounts>| {
            counts.map(|counts| PartCounts {
                rows: counts.rows,
                added: dry_run.then_some(counts.added),
                changed: dry_run.then_some(counts.changed),
                removed: counts.removed,
            })
        };
        Self {
            dry_run,
            whitelist: counts(report.whitelist),
            passkeys: counts(report.users),
            torrents: counts(report.torrents),
            skipped: report.skipped,
            unfinished_users: report.unfinished.users,
            unfinished_torrents: report.unfinished.torrents,
        }
    }
}
