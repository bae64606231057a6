//! `mika-manage wipetorstats` and `wipeuserstats`: reset all totals to 0.

use std::io::{self, BufRead as _, IsTerminal as _};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde_json::json;

use super::open::Site;
use super::print::Printer;
use super::{ExitStatus, PAGE, UsageError};
use crate::storage::{Storage, Wipe};
use crate::sync::edit::Propagation;
use crate::sync::load::{stored_torrents, stored_users};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64;

#[derive(Debug, Args)]
pub struct WipeArguments {
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

pub async fn run(
    what: Wipe,
    arguments: &WipeArguments,
    site: &Site,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let (name, totals) = match what {
        Wipe::Users => (
            "users",
            "uploaded, downloaded, snatches, announces and seed time",
        ),
        Wipe::Torrents => ("torrents", "uploaded, downloaded, snatches and announces"),
    };
    let asks = !arguments.yes;
    ensure!(
        !asks || (io::stdin().is_terminal() && io::stderr().is_terminal()),
        UsageError("this can't be undone; without a terminal to confirm on, it needs --yes".into())
    );
    let count = count(&*site.storage, what).await?;
    if asks {
        printer.message(format_args!(
            "sets {totals} of all {count} {name} to 0; this can't be undone"
        ));
        printer.message("Type yes to go on:");
        ensure!(answer()?.trim() == "yes", "nothing was changed");
    }
    printer.start_progress("portions");
    let wiped = {
        let progress = &*printer;
        let mut step = || progress.progress(1);
        site.editor.wipe(what, &mut step).await
    };
    printer.end_progress();
    if let Propagation::Pending(reason) = wiped?.propagation {
        // The feed has no totals, so nodes can't do the rest.
        bail!("storage is done, the cache is not ({reason}): run it again when the cache is back");
    }
    let line = format_args!("{totals} of {count} {name} are 0");
    printer.result(&json!({ "wiped": count }), line)?;
    Ok(ExitStatus::Success)
}

async fn count(storage: &dyn Storage, what: Wipe) -> Result<u64> {
    let mut count = 0;
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let rows;
        (rows, cursor) = match what {
            Wipe::Users => {
                let page = stored_users(storage, at, PAGE).await?;
                (page.rows.len() + page.bad.len(), page.next)
            }
            Wipe::Torrents => {
                let page = stored_torrents(storage, at, PAGE).await?;
                (page.rows.len() + page.bad.len(), page.next)
            }
        };
        count += rows as u64;
    }
    Ok(count)
}

fn answer() -> io::Result<String> {
    let mut line = String::new();
    io::Read::take(io::stdin().lock(), ANSWER_BYTES_MAX).read_line(&mut line)?;
    Ok(line)
}
