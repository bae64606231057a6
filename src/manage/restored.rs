//! `mika-manage restored`: recovery after the database was restored from a backup.
//!
//! Cache and spill files are then newer than the database. Their batches can be applied, which is exact as
//! far as they reach, or dropped. The cache's copies of rows and peers are removed in any case: a node that
//! started with their bases would not credit what clients moved since the backup.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde::Serialize;

use super::open::{self, Site};
use super::print::{self, Column, Printer, Row, left, right};
use super::{ExitStatus, UsageError};
use crate::cache::{Cache, owner};
use crate::config::{Config, Drivers};
use crate::journal::{AdoptedJournal, Leftovers, UnappliedBatches};
use crate::storage::{Claim, CreditRules, Severity};
use crate::sync::Mirror;
use crate::sync::warmup::{self, WarmupOptions, WarmupParts};

#[derive(Debug, Args)]
pub struct Restored {
    /// Apply what cache and spill files have beyond the database
    #[arg(long, conflicts_with = "drop")]
    apply: bool,
    /// Discard what they have beyond the database, for good
    #[arg(long)]
    drop: bool,
    /// Spill files of all nodes [default: journal.spill of the config]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    spill: Vec<PathBuf>,
    /// Only give a copy that is used beside its original a new id
    #[arg(long, conflicts_with_all = ["apply", "drop", "spill"])]
    new_identity: bool,
}

/// The ids of a database before and after a change.
#[derive(Serialize)]
struct Renewed {
    id: String,
    former: String,
}

/// What one cache or file has of a journal beyond the database.
#[derive(Serialize)]
struct BeyondRow {
    journal: String,
    place: String,
    /// The id of another database, whose batches are left alone.
    foreign: Option<String>,
    /// The last batch that the database has.
    applied: u64,
    first: u64,
    last: u64,
    batches: u64,
    changes: u64,
    unreadable: u64,
    /// Unix time.
    oldest: Option<i64>,
    newest: Option<i64>,
    users: u64,
    uploaded: u64,
    downloaded: u64,
}

pub async fn run(
    arguments: &Restored,
    config: Config,
    drivers: &Drivers,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let site = Site::open(config, drivers, printer).await?;
    if arguments.new_identity {
        return renew_identity(&site, printer).await;
    }
    let Some(cache) = &site.cache else {
        return alone(arguments, &site, printer).await;
    };
    own(&site).await?;
    if let Some((node, host)) = owner::running(&**cache).await? {
        bail!("node {node} runs on {host}: stop all nodes first; nothing was changed");
    }
    let left = leftovers(arguments, &site, cache).await?;
    let beyond = match left.look().await {
        Err(error) if arguments.drop => {
            printer.message(format_args!("not everything can be shown: {error}"));
            Vec::new()
        }
        beyond => beyond?,
    };
    show(&beyond, printer)?;
    match (arguments.apply, arguments.drop) {
        (true, _) => {
            let adopted = left.apply(&rules(&site.config)).await?;
            report(&adopted, printer);
        }
        (_, true) => {
            left.drop_all().await?;
            printer.message("dropped; the database counts all of it as applied");
        }
        _ => {
            advise(&beyond, printer);
            return Ok(ExitStatus::Success);
        }
    }
    renew(&site, cache, printer).await?;
    Ok(ExitStatus::Success)
}

/// Without a cache, there is nothing beyond the database.
async fn alone(arguments: &Restored, site: &Site, printer: &mut Printer) -> Result<ExitStatus> {
    ensure!(
        arguments.spill.is_empty(),
        UsageError("with cache.driver \"memory\" there is no spill file".into())
    );
    let claim = site.storage.claim().await?;
    show(&[], printer)?;
    problems(site, printer).await?;
    drop(claim);
    printer.message(
        "without a cache, the database has everything: there is nothing to apply or drop. Start mika",
    );
    Ok(ExitStatus::Success)
}

/// The original's cache and spill files are another database's from then on.
async fn renew_identity(site: &Site, printer: &mut Printer) -> Result<ExitStatus> {
    let former = site.storage.identity().await?;
    let claim = match &site.cache {
        None => site.storage.claim().await?,
        Some(cache) => {
            let is_own = cache.database().await?.as_ref() == Some(&former);
            if is_own && let Some((node, host)) = owner::running(&**cache).await? {
                bail!(
                    "node {node} runs on {host}: stop it if it is this copy's, or name another cache in \
                     cache.url for the copy; nothing was changed"
                );
            }
            Claim::default()
        }
    };
    let id = site.storage.renew_identity().await?;
    drop(claim);
    let fields = [("id", id.clone()), ("former", former.clone())];
    printer.record(&Renewed { id, former }, &fields)?;
    Ok(ExitStatus::Success)
}

/// Refuses the cache of another database; this one's may be marked with an earlier id.
async fn own(site: &Site) -> Result<()> {
    let owned = site.own_cache().await.map(drop);
    owned.context(
        "if the backup was made before the database had this id, write the former one into mika_identity \
         (docs/operations.md, \"Restore\")",
    )
}

async fn leftovers(arguments: &Restored, site: &Site, cache: &Arc<dyn Cache>) -> Result<Leftovers> {
    let mut files = arguments.spill.clone();
    if let Some(missing) = files.iter().find(|file| !file.exists()) {
        bail!(UsageError(format!(
            "--spill {}: there is no such file",
            missing.display()
        )));
    }
    if files.is_empty() {
        files.push(site.config.journal.spill.clone());
    }
    let database = site.storage.identity().await?;
    let storage = Arc::clone(&site.storage);
    Ok(Leftovers::open(storage, Arc::clone(cache), database, files).await?)
}

fn rules(config: &Config) -> CreditRules {
    let tracker = &config.tracker;
    CreditRules {
        max_rate: tracker.max_rate,
        hnr_threshold: tracker.hnr_threshold,
        hnr_min_bytes: tracker.hnr_min_bytes,
    }
}

fn show(beyond: &[UnappliedBatches], printer: &mut Printer) -> Result<()> {
    let rows: Vec<BeyondRow> = beyond.iter().map(BeyondRow::of).collect();
    let mut list = printer.list()?;
    list.page(&rows)?;
    list.end()?;
    for row in rows {
        if let Some(database) = row.foreign {
            printer.message(format_args!(
                "{} is for another database (id {database}): it is left alone",
                row.place
            ));
        }
        if row.unreadable > 0 {
            printer.message(format_args!(
                "{}: {} batches can't be read; --apply keeps them in its table \"damaged\"",
                row.place, row.unreadable
            ));
        }
        if row.first > row.applied + 1 {
            printer.message(format_args!(
                "{}: batches {} to {} are neither in the database nor there",
                row.journal,
                row.applied + 1,
                row.first - 1
            ));
        }
    }
    Ok(())
}

/// Explains the choices. Nothing was changed.
fn advise(beyond: &[UnappliedBatches], printer: &mut Printer) {
    let own: Vec<&UnappliedBatches> = beyond
        .iter()
        .filter(|beyond| beyond.foreign.is_none())
        .collect();
    let batches: u64 = own.iter().map(|beyond| beyond.batches).sum();
    if batches == 0 {
        printer.message(
            "neither cache nor spill file has anything beyond the database. Nothing was changed yet: \
             mika-manage restored --apply fills the cache from the database, then start the nodes",
        );
        return;
    }
    let changes: u64 = own.iter().map(|beyond| beyond.changes).sum();
    for text in [
        format!(
            "nothing was changed yet. --apply credits these {changes} changes ({batches} batches); what the \
             database has of them already is not counted again"
        ),
        "--drop forgets them: clients that announce again are credited with what they moved since the backup, others \
         lose it"
            .into(),
        "both fill the cache from the database; then start the nodes".into(),
    ] {
        printer.message(text);
    }
}

fn report(adopted: &[AdoptedJournal], printer: &mut Printer) {
    for journal in adopted {
        printer.message(format_args!(
            "applied {} changes in {} batches of {}",
            journal.changes, journal.batches, journal.journal
        ));
        if journal.missing > 0 {
            printer.message(format_args!(
                "{} batches of {} are nowhere: what clients reported in them is credited with their next \
                 announce, except for those that never announce again",
                journal.missing, journal.journal
            ));
        }
    }
}

/// Removes all newer copies from the cache, and fills it from the database.
async fn renew(site: &Site, cache: &Arc<dyn Cache>, printer: &mut Printer) -> Result<()> {
    owner::clear(&**cache).await?;
    let options = WarmupOptions {
        parts: WarmupParts::ALL,
        dry_run: false,
    };
    printer.start_progress("rows");
    let mirror = Mirror {
        storage: Arc::clone(&site.storage),
        cache: Arc::clone(cache),
    };
    let warmed = warmup::run(&mirror, &options, &mut ()).await;
    printer.end_progress();
    warmed?;
    problems(site, printer).await?;
    printer.message("the cache has users, torrents and whitelist of the database. Start the nodes");
    Ok(())
}

/// A dump may lack its triggers, or have those of an account that does not exist.
async fn problems(site: &Site, printer: &mut Printer) -> Result<()> {
    let findings = site.storage.inspect().await;
    let findings = findings.map_err(|error| open::named(error, open::name_of(&site.config)))?;
    for finding in findings
        .iter()
        .filter(|finding| finding.severity > Severity::Note)
    {
        printer.message(format_args!("{}: {}", finding.problem, finding.hint));
    }
    Ok(())
}

fn shown_time(unix: i64) -> String {
    let since = Duration::from_secs(unix.max(0).cast_unsigned());
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

impl BeyondRow {
    fn of(beyond: &UnappliedBatches) -> Self {
        Self {
            journal: beyond.journal.clone(),
            place: beyond.location.to_string(),
            foreign: beyond.foreign.clone(),
            applied: beyond.applied,
            first: beyond.first,
            last: beyond.last,
            batches: beyond.batches,
            changes: beyond.changes,
            unreadable: beyond.unreadable,
            oldest: beyond.times.map(|(oldest, _)| oldest),
            newest: beyond.times.map(|(_, newest)| newest),
            users: beyond.users,
            uploaded: beyond.up,
            downloaded: beyond.down,
        }
    }
}

impl Row for BeyondRow {
    const COLUMNS: &'static [Column] = &[
        left("JOURNAL"),
        left("PLACE"),
        right("APPLIED"),
        right("BATCHES"),
        right("CHANGES"),
        left("OLDEST"),
        left("NEWEST"),
        right("USERS"),
        right("UPLOADED"),
        right("DOWNLOADED"),
    ];

    fn cells(&self) -> Vec<String> {
        let time = |at: Option<i64>| at.map_or_else(|| "-".into(), shown_time);
        vec![
            self.journal.clone(),
            self.place.clone(),
            self.applied.to_string(),
            format!("{}-{}", self.first, self.last),
            print::count(self.changes),
            time(self.oldest),
            time(self.newest),
            print::count(self.users),
            print::size(self.uploaded),
            print::size(self.downloaded),
        ]
    }
}
