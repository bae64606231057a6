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
use super::{ExitStatus, UsageError, report_problems};
use crate::cache::{Cache, owner};
use crate::config::{Config, Drivers};
use crate::journal::{AdoptedJournal, Leftovers, UnappliedBatches};
use crate::storage::{Claim, CreditRules};
use crate::sync::Mirror;
use crate::sync::warmup::{self, WarmupOptions};

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
    printer.table(beyond)?;
    for row in beyond {
        let place = &row.place;
        if let Some(database) = &row.foreign {
            printer.message(format_args!(
                "{place} is for another database (id {database}): it is left alone"
            ));
        }
        if row.unreadable > 0 {
            printer.message(format_args!(
                "{place}: {} batches can't be read; --apply keeps them in its table \"damaged\"",
                row.unreadable
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
    printer.start_progress("rows");
    let mirror = Mirror {
        storage: Arc::clone(&site.storage),
        cache: Arc::clone(cache),
    };
    let warmed = warmup::run(&mirror, &WarmupOptions::ALL, &mut ()).await;
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
    report_problems(&findings, printer);
    Ok(())
}

fn shown_time(unix: Option<i64>) -> String {
    let Some(unix) = unix else { return "-".into() };
    let since = Duration::from_secs(unix.max(0).cast_unsigned());
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

impl Row for UnappliedBatches {
    const COLUMNS: &'static [Column<Self>] = &[
        left("JOURNAL", |row| row.journal.clone()),
        left("PLACE", |row| row.place.to_string()),
        right("APPLIED", |row| row.applied.to_string()),
        right("BATCHES", |row| format!("{}-{}", row.first, row.last)),
        right("CHANGES", |row| print::count(row.changes)),
        left("OLDEST", |row| shown_time(row.oldest)),
        left("NEWEST", |row| shown_time(row.newest)),
        right("USERS", |row| print::count(row.users)),
        right("UPLOADED", |row| print::size(row.uploaded)),
        right("DOWNLOADED", |row| print::size(row.downloaded)),
    ];
}
