//! `mika-manage cleanup`: unusable records, and invalid totals.

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::open::Site;
use super::orphans::Orphans;
use super::print::{Column, Printer, Row, left};
use super::{ExitStatus, PAGE, nodes};
use crate::base::clock;
use crate::cache::{Cache, CacheLeftover, Notice, RowKey, Rows, Write};
use crate::config::{Config, Mode};
use crate::storage::{Storage, StoredTorrent, TorrentRemoval, Wipe};
use crate::sync::edit::Editor;
use crate::sync::load::stored_torrents;

/// Peers are kept for at least this long (seconds), whatever the config says.
const KEEP_MIN: u64 = 86_400;

const INVALID: &str = "below 0, above 2^62 or no number";

#[derive(Debug, Args)]
pub struct Cleanup {
    /// Delete what is listed, and set the totals to 0
    #[arg(short, long)]
    delete: bool,
    /// Forget the journals of a node that is gone, and whose spill file is gone too
    #[arg(long, value_name = "NODE", conflicts_with = "delete")]
    forget: Option<String>,
    /// Of a public tracker: also torrents that clients registered and that have at most this many snatches
    #[arg(long, value_name = "SNATCHES")]
    unused_torrents: Option<u32>,
}

/// A record to clean up.
#[derive(Serialize)]
struct Unusable {
    place: &'static str,
    what: &'static str,
    id: String,
    problem: String,
}

/// A running cleanup.
struct Cleaner<'a> {
    storage: &'a dyn Storage,
    printer: &'a mut Printer,
    delete: bool,
    found: Vec<Unusable>,
    count: u64,
}

pub async fn run(arguments: &Cleanup, site: &Site, printer: &mut Printer) -> Result<ExitStatus> {
    if let Some(node) = &arguments.forget {
        nodes::forget(node, site, printer).await?;
        return Ok(ExitStatus::Success);
    }
    let mut cleaner = Cleaner {
        storage: &*site.storage,
        printer,
        delete: arguments.delete,
        found: Vec::new(),
        count: 0,
    };
    cleaner.printer.start_progress("rows looked at");
    if let Some(cache) = site.own_cache().await? {
        cleaner.cache(cache, &site.config).await?;
    }
    cleaner.totals("user", Wipe::Users).await?;
    cleaner.totals("torrent", Wipe::Torrents).await?;
    if let Some(max) = arguments.unused_torrents {
        if site.config.mode != Mode::Public {
            bail!(
                "--unused-torrents is for public trackers: a private one registers no torrents by itself"
            );
        }
        cleaner.unused_torrents(max, &site.editor).await?;
    }
    cleaner.end()
}

/// Peers last seen before this Unix time are expired, by this host's clock and the cache's.
async fn expired_before(config: &Config, cache: &dyn Cache) -> Result<i64> {
    let tracker = &config.tracker;
    let keep = u64::from(tracker.tombstone_ttl).max(KEEP_MIN) + u64::from(tracker.peer_ttl);
    let wall = clock::wall();
    let now = cache.time().await?.map_or(wall, |time| wall.min(time));
    Ok(now.saturating_sub_unsigned(keep))
}

// === impl Cleaner ===

impl Cleaner<'_> {
    async fn cache(&mut self, cache: &dyn Cache, config: &Config) -> Result<()> {
        if cache.mirrored().await?.is_none() {
            // Nodes may be filling it at this moment.
            bail!("the cache is not loaded completely; first run: mika-manage warmup");
        }
        // A public tracker has swarms of torrents that nobody registered.
        let with_swarms = config.mode == Mode::Private;
        let orphans = Orphans::find(self.storage, cache, with_swarms, self.printer).await?;
        self.list_orphans(&orphans);
        if self.delete && self.count > 0 {
            orphans.remove(cache).await?;
            cache.publish(&[Notice::Registry]).await?;
        }
        for journal in nodes::gone(cache, self.storage).await? {
            if self.delete {
                cache.leave(&journal).await?;
            }
            let problem = "its node is gone, and storage has all of it";
            self.list("cache", "journal", journal, problem);
        }
        let expired_before = expired_before(config, cache).await?;
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = cache.leftovers(expired_before, at).await?;
            cursor = scan.next;
            self.printer.progress(scan.rows.len() as u64);
            for leftover in &scan.rows {
                self.list_leftover(leftover);
            }
            if self.delete {
                cache.clean(&scan.rows).await?;
                self.rewrite(cache, &scan.rows).await?;
            }
        }
        Ok(())
    }

    /// Rewrites unusable rows that storage has.
    async fn rewrite(&self, cache: &dyn Cache, leftovers: &[CacheLeftover]) -> Result<()> {
        for leftover in leftovers {
            match leftover {
                CacheLeftover::Row(RowKey::User(id)) => {
                    if let Some(row) = self.storage.user(*id).await? {
                        cache.put(Rows::Users(&[row]), Write::Edit).await?;
                        cache.publish(&[Notice::User(*id)]).await?;
                    }
                }
                CacheLeftover::Row(RowKey::Torrent(info_hash)) => {
                    if let Some(row) = self.storage.torrent(*info_hash).await? {
                        cache.put(Rows::Torrents(&[row]), Write::Edit).await?;
                        cache.publish(&[Notice::Torrent(*info_hash)]).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn totals(&mut self, what: &'static str, table: Wipe) -> Result<()> {
        let mut after = None;
        loop {
            let (invalid, last) = self.storage.invalid_totals(table, after, PAGE).await?;
            if last.is_none() {
                return Ok(());
            }
            after = last;
            self.printer.progress(u64::from(PAGE));
            let ids: Vec<u32> = invalid.iter().map(|row| row.id).collect();
            for row in invalid {
                let problem = format!("{}: {INVALID}", row.fields.join(", "));
                self.list("storage", what, row.id.to_string(), problem);
            }
            if self.delete && !ids.is_empty() {
                self.storage.fix_totals(table, &ids).await?;
            }
        }
    }

    /// Torrents without a name and with few snatches. Their swarms stay, and the next snatch registers
    /// them again.
    async fn unused_torrents(&mut self, max: u32, editor: &Editor) -> Result<()> {
        let (mut cursor, mut count) = (Some(0), 0);
        while let Some(at) = cursor {
            let page = stored_torrents(self.storage, at, PAGE).await?;
            cursor = page.next;
            self.printer.progress(page.rows.len() as u64);
            let is_unused = |row: &&StoredTorrent| {
                row.name.is_empty() && row.torrent.enabled && row.torrent.snatches <= max
            };
            let unused = page.rows.iter().filter(is_unused);
            let unused: Vec<TorrentRemoval> = unused
                .map(|row| TorrentRemoval {
                    info_hash: row.torrent.info_hash,
                    unused: Some(max.into()),
                })
                .collect();
            count += unused.len();
            if self.delete {
                let gone = editor.remove_torrents(&unused).await?;
                self.printer.saved(gone);
            }
        }
        if count > 0 {
            let problem = format!("registered by clients, with at most {max} snatches");
            self.list("storage", "torrents", count.to_string(), problem);
        }
        Ok(())
    }

    fn list_orphans(&mut self, orphans: &Orphans) {
        const GONE: &str = "storage does not have it";
        for id in &orphans.users {
            self.list("cache", "user", id.0.to_string(), GONE);
        }
        let mut owners: Vec<_> = orphans.passkeys.values().collect();
        owners.sort();
        for id in owners {
            let problem = "it leads to a user who has another passkey";
            self.list("cache", "passkey", format!("of user {}", id.0), problem);
        }
        for hash in &orphans.torrents {
            self.list("cache", "torrent", hash.to_string(), GONE);
        }
        for hash in &orphans.swarms {
            let problem = "storage does not have its torrent";
            self.list("cache", "swarm", hash.to_string(), problem);
        }
    }

    fn list_leftover(&mut self, leftover: &CacheLeftover) {
        let name = |row: &RowKey| match row {
            RowKey::User(id) => ("user", id.0.to_string()),
            RowKey::Torrent(hash) => ("torrent", hash.to_string()),
        };
        match leftover {
            CacheLeftover::Key { shown, problem, .. } => {
                self.list("cache", "key", shown.clone(), *problem);
            }
            CacheLeftover::Row(row) => {
                let (what, id) = name(row);
                self.list("cache", what, id, "incomplete or invalid row");
            }
            CacheLeftover::Counter { row, field } => {
                let (what, id) = name(row);
                self.list("cache", what, id, format!("{field}: {INVALID}"));
            }
            CacheLeftover::Peers { torrent, fields } => {
                let count = fields.len();
                let problem = format!("peers expired long ago, or not readable: {count}");
                self.list("cache", "swarm", torrent.to_string(), problem);
            }
        }
    }

    fn list(
        &mut self,
        place: &'static str,
        what: &'static str,
        id: String,
        problem: impl Into<String>,
    ) {
        self.count += 1;
        self.found.push(Unusable {
            place,
            what,
            id,
            problem: problem.into(),
        });
    }

    fn end(self) -> Result<ExitStatus> {
        self.printer.end_progress();
        if self.count == 0 && !self.printer.is_json() {
            self.printer.line("nothing to clean up")?;
            return Ok(ExitStatus::Success);
        }
        self.printer.table(&self.found)?;
        let count = self.count;
        if self.delete {
            self.printer.message(format_args!("cleaned up: {count}"));
        } else if count > 0 {
            self.printer.message(format_args!(
                "found: {count}; to clean it up: mika-manage cleanup --delete"
            ));
        }
        Ok(ExitStatus::Success)
    }
}

// === impl Unusable ===

impl Row for Unusable {
    const COLUMNS: &'static [Column<Self>] = &[
        left("PLACE", |row| row.place.into()),
        left("WHAT", |row| row.what.into()),
        left("ID", |row| row.id.clone()),
        left("PROBLEM", |row| row.problem.clone()),
    ];
}
