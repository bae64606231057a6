//! The dry run: what a warmup would change. Reads both sides and writes to none.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::quality::RandomState;

use super::load::{count_gone, is_last, keep_usable};
use super::seen::{Digest, Digester, Seen};
use super::{Counts, PAGE, Parts, Progress, Report, Step, WarmupError};
use crate::base::ids::{InfoHash, UserId};
use crate::cache::Cache;
use crate::registry::{BadRow, Torrent, User};
use crate::storage::Storage;

/// Rows of the cache by their key, each as a digest of what a warmup would write.
type Rows<K> = HashMap<K, Digest, RandomState>;

struct Comparison<'a, P> {
    storage: &'a dyn Storage,
    cache: &'a dyn Cache,
    progress: &'a mut P,
    digester: Digester,
    seen: Seen,
    report: Report,
}

pub(super) async fn run(
    storage: &dyn Storage,
    cache: &dyn Cache,
    parts: Parts,
    progress: &mut impl Progress,
) -> Result<Report, WarmupError> {
    let mut comparison = Comparison {
        storage,
        cache,
        progress,
        digester: Digester::default(),
        seen: Seen::default(),
        report: Report::default(),
    };
    if parts.whitelist {
        comparison.whitelist().await?;
    }
    if parts.users {
        comparison.users().await?;
    }
    if parts.torrents {
        comparison.torrents().await?;
    }
    Ok(comparison.report)
}

/// What of a user is written; totals are not.
fn user_fields(user: &User) -> impl Hash {
    (
        user.passkey.clone(),
        user.username.clone(),
        user.enabled,
        user.can_leech,
    )
}

/// What of a torrent is written. No reason and an empty one are the same.
fn torrent_fields(torrent: &Torrent, name: &str) -> impl Hash {
    (
        torrent.id,
        torrent.info_hash_v2,
        torrent.enabled,
        torrent.reason.clone().unwrap_or_default(),
        torrent.multi_up.0,
        torrent.multi_down.0,
        name.to_owned(),
    )
}

// === impl Comparison ===

impl<P: Progress> Comparison<'_, P> {
    async fn whitelist(&mut self) -> Result<(), WarmupError> {
        self.progress.begin(Step::Whitelist);
        let stored = self.storage.whitelist().await?;
        let bad = self.storage.bad_clients().await?;
        self.skip(&bad);
        let cached = self.cache.whitelist().await?;
        let mut counts = Counts {
            rows: stored.len() as u64,
            removed: count_gone(&cached, &stored),
            ..Counts::default()
        };
        for client in &stored {
            match cached.iter().find(|it| it.prefix == client.prefix) {
                None => counts.added += 1,
                Some(it) if it.name != client.name => counts.changed += 1,
                Some(_) => {}
            }
        }
        self.progress.end(Step::Whitelist, &counts);
        self.report.whitelist = Some(counts);
        Ok(())
    }

    async fn users(&mut self) -> Result<(), WarmupError> {
        self.progress.begin(Step::Users);
        let mut cached = self.cached_users().await?;
        let mut counts = Counts::default();
        let mut after = None;
        loop {
            let mut page = self.storage.users(after, PAGE).await?;
            after = page.rows.last().map(|row| row.user.id);
            let last = is_last(&page)?;
            self.skip(&page.bad);
            self.report.unfinished.users += page.unfinished;
            let doubled = keep_usable(&mut page.rows, |row| self.seen.add_user(row));
            self.skip(&doubled);
            self.progress.advance(page.rows.len() as u64);
            for row in &page.rows {
                let digest = self.digester.digest(user_fields(&row.user));
                counts.compare(cached.remove(&row.user.id), digest);
            }
            if last {
                break;
            }
        }
        counts.removed = cached.len() as u64;
        self.progress.end(Step::Users, &counts);
        self.report.users = Some(counts);
        Ok(())
    }

    async fn torrents(&mut self) -> Result<(), WarmupError> {
        self.progress.begin(Step::Torrents);
        let mut cached = self.cached_torrents().await?;
        let mut counts = Counts::default();
        let mut after = None;
        loop {
            let mut page = self.storage.torrents(after, PAGE).await?;
            after = page.rows.last().map(|row| row.torrent.id);
            let last = is_last(&page)?;
            self.skip(&page.bad);
            self.report.unfinished.torrents += page.unfinished;
            let doubled = keep_usable(&mut page.rows, |row| self.seen.add_torrent(row));
            self.skip(&doubled);
            self.progress.advance(page.rows.len() as u64);
            for row in &page.rows {
                let digest = self
                    .digester
                    .digest(torrent_fields(&row.torrent, &row.name));
                counts.compare(cached.remove(&row.torrent.info_hash), digest);
            }
            if last {
                break;
            }
        }
        counts.removed = cached.len() as u64;
        self.progress.end(Step::Torrents, &counts);
        self.report.torrents = Some(counts);
        Ok(())
    }

    async fn cached_users(&mut self) -> Result<Rows<UserId>, WarmupError> {
        let mut rows = Rows::default();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = self.cache.users(at).await?;
            cursor = scan.next;
            rows.extend(scan.rows.iter().map(|row| {
                let digest = self.digester.digest(user_fields(&row.user));
                (row.user.id, digest)
            }));
        }
        Ok(rows)
    }

    async fn cached_torrents(&mut self) -> Result<Rows<InfoHash>, WarmupError> {
        let mut rows = Rows::default();
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = self.cache.torrents(at).await?;
            cursor = scan.next;
            rows.extend(scan.rows.iter().map(|row| {
                let digest = self
                    .digester
                    .digest(torrent_fields(&row.torrent, &row.name));
                (row.torrent.info_hash, digest)
            }));
        }
        Ok(rows)
    }

    fn skip(&mut self, rows: &[BadRow]) {
        self.report.skipped += rows.len() as u64;
        for row in rows {
            self.progress.skipped(row);
        }
    }
}

// === impl Counts ===

impl Counts {
    fn compare(&mut self, cached: Option<Digest>, stored: Digest) {
        self.rows += 1;
        match cached {
            None => self.added += 1,
            Some(cached) if cached != stored => self.changed += 1,
            Some(_) => {}
        }
    }
}
