//! `mika-manage torrents`: list, import and change torrents.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use super::info_hash::{self, HashArgs};
use super::open::Site;
use super::print::{self, Column, Printer, Row, left, right};
use super::torrent_file::{self, TorrentFile, Walk};
use super::{ExitStatus, PAGE, report_bad};
use crate::base::ids::InfoHash;
use crate::config::Mode;
use crate::storage::{NewTorrent, Storage, StorageError, TorrentRemoval};
use crate::sync::edit::Editor;
use crate::sync::load::stored_torrents;
use crate::view::TorrentRecord;

/// Torrents added in one transaction of an import.
const BATCH: usize = 500;

#[derive(Debug, Subcommand)]
pub enum TorrentsCommand {
    /// List all torrents
    List,
    /// Show one torrent
    Show {
        #[arg(value_name = "HASH")]
        info_hash: InfoHash,
    },
    /// Add a torrent by its info hash
    Add {
        #[arg(value_name = "HASH")]
        info_hash: InfoHash,
        #[arg(long)]
        name: String,
    },
    /// Let a torrent be announced again
    Enable {
        #[arg(value_name = "HASH")]
        info_hash: InfoHash,
    },
    /// Refuse a torrent's announces
    Disable {
        #[arg(value_name = "HASH")]
        info_hash: InfoHash,
        /// The reason shown by clients
        reason: Option<String>,
    },
    /// Remove torrents and their peers
    #[command(after_help = "\
Users' records of them stay, and count again if a torrent is added under the same id. A public tracker
registers a torrent again when a client completes it; to refuse it, disable it.")]
    Remove {
        #[arg(value_name = "HASH", required = true)]
        info_hashes: Vec<InfoHash>,
    },
    /// Set the info hash of a torrent, where the site stores none
    #[command(after_help = "\
Mika rebuilds the hash from the site's row, as the site does for its own downloads. The file that was uploaded
may have another one; mika-manage check says why.

Examples:
  mika-manage torrents hash 7 --file uploaded.torrent
  mika-manage torrents hash 7 --reset")]
    Hash(HashArgs),
    /// Add torrents from .torrent files and from folders of them
    #[command(after_help = "\
Folders are searched recursively. Torrents that are known already stay as they are. Files that can't be
read are reported, and the others are added; the exit status is then 1.

Examples:
  mika-manage torrents import ubuntu.torrent
  mika-manage torrents import /srv/torrents /srv/more")]
    Import {
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
    },
}

#[derive(Serialize)]
struct AddedTorrent<'a> {
    id: u32,
    info_hash: String,
    name: &'a str,
}

#[derive(Serialize)]
struct TorrentState {
    id: u32,
    info_hash: String,
    enabled: bool,
    reason: Option<String>,
}

/// The result of an import.
#[derive(Default, Serialize)]
struct Summary {
    added: u64,
    known: u64,
    refused: Vec<RefusedFile>,
    /// Added without `private=1`.
    not_private: u64,
}

#[derive(Serialize)]
struct RefusedFile {
    path: String,
    reason: String,
}

pub async fn run(
    command: TorrentsCommand,
    site: &Site,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let (storage, editor) = (&*site.storage, &site.editor);
    match command {
        TorrentsCommand::List => list(storage, printer).await?,
        TorrentsCommand::Show { info_hash } => match storage.torrent(info_hash).await? {
            Some(stored) => show(stored.into(), printer)?,
            None => bail!("there is no torrent {info_hash}; see: mika-manage torrents list"),
        },
        TorrentsCommand::Add { info_hash, name } => add(info_hash, name, editor, printer).await?,
        TorrentsCommand::Enable { info_hash } => {
            set_enabled(info_hash, true, None, editor, printer).await?;
        }
        TorrentsCommand::Disable { info_hash, reason } => {
            set_enabled(info_hash, false, reason, editor, printer).await?;
        }
        TorrentsCommand::Remove { info_hashes } => {
            return remove(info_hashes, editor, printer).await;
        }
        TorrentsCommand::Hash(args) => info_hash::run(args, editor, printer).await?,
        TorrentsCommand::Import { paths } => {
            return import(&paths, site.config.mode, editor, printer).await;
        }
    }
    Ok(ExitStatus::Success)
}

async fn list(storage: &dyn Storage, printer: &mut Printer) -> Result<()> {
    let mut list = printer.list::<TorrentRecord>()?;
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let page = stored_torrents(storage, at, PAGE).await?;
        report_bad(&page.bad, list.printer());
        cursor = page.next;
        let rows: Vec<TorrentRecord> = page.rows.into_iter().map(TorrentRecord::from).collect();
        list.page(&rows)?;
    }
    Ok(list.end()?)
}

fn or_none(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "none".into())
}

fn show(row: TorrentRecord, printer: &mut Printer) -> Result<()> {
    let fields = [
        ("id", row.id.to_string()),
        ("info hash", row.info_hash.clone()),
        ("second info hash (v2)", or_none(row.info_hash_v2.as_ref())),
        ("name", row.name.clone()),
        ("enabled", print::yes_no(row.enabled)),
        ("reason", or_none(row.reason.as_ref())),
        ("credit for uploads", format!("×{}", row.multi_up)),
        ("credit for downloads", format!("×{}", row.multi_down)),
        ("seeders", row.seeders.to_string()),
        ("leechers", row.leechers.to_string()),
        ("snatches", row.snatches.to_string()),
        ("announces", row.announces.to_string()),
        ("uploaded", print::size(row.uploaded)),
        ("downloaded", print::size(row.downloaded)),
    ];
    Ok(printer.record(&row, &fields)?)
}

async fn add(
    info_hash: InfoHash,
    name: String,
    editor: &Editor,
    printer: &mut Printer,
) -> Result<()> {
    let torrent = NewTorrent {
        id: None,
        info_hash,
        info_hash_v2: None,
        name,
    };
    let added = editor.add_torrents(std::slice::from_ref(&torrent)).await?;
    let added = printer.saved(added);
    let id = match added.into_iter().next() {
        Some(Ok(Some(id))) => id,
        Some(Err(problem)) => return Err(StorageError::Invalid(problem).into()),
        _ => return Err(StorageError::Duplicate(format!("torrent {info_hash}")).into()),
    };
    let added = AddedTorrent {
        id: id.0,
        info_hash: info_hash.to_string(),
        name: &torrent.name,
    };
    let line = format_args!("added {info_hash} (id {})", id.0);
    Ok(printer.result(&added, line)?)
}

async fn set_enabled(
    info_hash: InfoHash,
    enabled: bool,
    reason: Option<String>,
    editor: &Editor,
    printer: &mut Printer,
) -> Result<()> {
    let stored = editor
        .set_torrent_enabled(info_hash, enabled, reason)
        .await?;
    let stored = printer.saved(stored);
    let (torrent, name) = (stored.torrent, stored.name);
    let state = if enabled { "enabled" } else { "disabled" };
    let line = format_args!("{} {name} is {state}", torrent.info_hash);
    let state = TorrentState {
        id: torrent.id.0,
        info_hash: torrent.info_hash.to_string(),
        enabled,
        reason: torrent.reason,
    };
    Ok(printer.result(&state, line)?)
}

/// Unknown torrents are reported; the others are removed.
async fn remove(
    info_hashes: Vec<InfoHash>,
    editor: &Editor,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let mut missing = false;
    let mut removed = Vec::new();
    for info_hash in info_hashes {
        let removal = TorrentRemoval {
            info_hash,
            unused: None,
        };
        let gone = editor.remove_torrents(&[removal]).await?;
        if printer.saved(gone).is_empty() {
            missing = true;
            printer.message(format_args!(
                "there is no torrent {info_hash} that can be removed; see: mika-manage torrents list"
            ));
        } else {
            removed.push(info_hash.to_string());
        }
    }
    if printer.is_json() {
        printer.document(&json!({ "removed": removed }))?;
    } else {
        for info_hash in &removed {
            printer.line(format_args!("removed {info_hash}"))?;
        }
    }
    Ok(ExitStatus::of(!missing))
}

async fn import(
    paths: &[PathBuf],
    mode: Mode,
    editor: &Editor,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let mut summary = Summary::default();
    let mut batch = Vec::with_capacity(BATCH);
    printer.start_progress("files");
    for found in Walk::new(paths) {
        let read = found.and_then(|path| match torrent_file::read(&path) {
            Ok(file) => Ok((path, file)),
            Err(reason) => Err((path, reason)),
        });
        match read {
            Ok(read) => batch.push(read),
            Err((path, reason)) => summary.refuse(&path, reason, printer),
        }
        if batch.len() == BATCH {
            add_batch(&mut batch, &mut summary, editor, printer).await?;
        }
        printer.progress(1);
    }
    add_batch(&mut batch, &mut summary, editor, printer).await?;
    printer.end_progress();
    summary.print(paths, mode, printer)?;
    Ok(ExitStatus::of(summary.refused.is_empty()))
}

async fn add_batch(
    batch: &mut Vec<(PathBuf, TorrentFile)>,
    summary: &mut Summary,
    editor: &Editor,
    printer: &mut Printer,
) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let torrents: Vec<NewTorrent> = batch.iter().map(|(_, file)| file.torrent.clone()).collect();
    let saved = editor.add_torrents(&torrents).await.with_context(|| {
        format!(
            "stopped after {} torrents were added; run it again to add the rest",
            summary.added
        )
    })?;
    for ((path, file), added) in batch.drain(..).zip(printer.saved(saved)) {
        match added {
            Ok(Some(_)) => {
                summary.added += 1;
                summary.not_private += u64::from(!file.private);
            }
            Ok(None) => summary.known += 1,
            Err(problem) => summary.refuse(&path, problem, printer),
        }
    }
    Ok(())
}

impl Summary {
    fn refuse(&mut self, path: &Path, reason: String, printer: &mut Printer) {
        let path = path.display().to_string();
        printer.message(format_args!("{path}: {reason}"));
        self.refused.push(RefusedFile { path, reason });
    }

    fn print(&self, paths: &[PathBuf], mode: Mode, printer: &mut Printer) -> Result<()> {
        let (added, known, refused) = (self.added, self.known, self.refused.len());
        let line = format_args!("{added} added, {known} known already, {refused} refused");
        printer.result(self, line)?;
        if added == 0 && known == 0 && refused == 0 {
            let paths: Vec<String> = paths
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            printer.message(format_args!("no .torrent files in {}", paths.join(", ")));
        }
        if mode == Mode::Private && self.not_private > 0 {
            printer.message(format_args!(
                "warning: {} of them lack private=1: clients may find peers without the tracker, and credit is lost",
                self.not_private
            ));
        }
        Ok(())
    }
}

impl Row for TorrentRecord {
    const COLUMNS: &'static [Column<Self>] = &[
        right("ID", |row| row.id.to_string()),
        left("INFO HASH", |row| row.info_hash.clone()),
        left("ENABLED", |row| print::yes_no(row.enabled)),
        right("SEEDERS", |row| row.seeders.to_string()),
        right("LEECHERS", |row| row.leechers.to_string()),
        right("SNATCHES", |row| row.snatches.to_string()),
        right("UPLOADED", |row| print::size(row.uploaded)),
        right("DOWNLOADED", |row| print::size(row.downloaded)),
        left("NAME", |row| row.name.clone()),
    ];
}
