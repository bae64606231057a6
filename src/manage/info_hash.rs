//! `mika-manage torrents hash`: the info hash of a torrent, where the web application stores none.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use serde::Serialize;

use super::print::Printer;
use super::torrent_file;
use crate::base::ids::{InfoHash, TorrentId};
use crate::sync::edit::Editor;

#[derive(Debug, Args)]
pub struct HashArgs {
    /// The id of the torrent
    id: u32,
    #[command(flatten)]
    source: HashSource,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct HashSource {
    #[arg(value_name = "HASH")]
    info_hash: Option<InfoHash>,
    /// Take it from a .torrent file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Rebuild it from the site's row again
    #[arg(long)]
    reset: bool,
}

#[derive(Serialize)]
struct HashState {
    id: u32,
    info_hash: String,
    info_hash_v2: Option<String>,
}

pub(super) async fn run(args: HashArgs, editor: &Editor, printer: &mut Printer) -> Result<()> {
    let hashes = match &args.source.file {
        Some(path) => {
            let file = torrent_file::read(path);
            let file = file.map_err(|problem| anyhow!("{}: {problem}", path.display()))?;
            Some((file.torrent.info_hash, file.torrent.info_hash_v2))
        }
        None => args.source.info_hash.map(|hash| (hash, None)),
    };
    let saved = editor.set_info_hash(TorrentId(args.id), hashes).await?;
    let stored = printer.saved(saved);
    let torrent = stored.torrent;
    if printer.is_json() {
        printer.document(&HashState {
            id: torrent.id.0,
            info_hash: torrent.info_hash.to_string(),
            info_hash_v2: torrent.info_hash_v2.map(|hash| hash.to_string()),
        })?;
    } else {
        let origin = match hashes {
            Some(_) => "set by hand",
            None => "rebuilt from the site's row",
        };
        printer.line(format_args!(
            "{} {} ({origin})",
            torrent.info_hash, stored.name
        ))?;
    }
    Ok(())
}
