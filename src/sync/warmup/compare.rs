//! The dry run: what a warmup would change. Reads both sides and writes to none.

use std::collections::HashMap;
use std::hash::Hash;

use super::read::{Reader, count_gone};
use super::stored::{Digest, Digester};
use super::{WarmupCounts, WarmupParts, WarmupProgress, WarmupReport, WarmupStep};
use crate::base::hash::QualityRandomState;
use crate::base::ids::{InfoHash, UserId};
use crate::cache::Cache;
use crate::registry::{Torrent, User};
use crate::sync::SyncError;

/// Rows of the cache by their key, each as a digest of what a warmup would write.
type Rows<K> = HashMap<K, Digest, QualityRandomState>;

struct Comparison<'a, P> {
    reader: Reader<'a, P>,
    cache: &'a dyn Cache,
    digester: Digester,
}

pub(super) async fn run<P: WarmupProgress>(
    reader: Reader<'_, P>,
    cache: &dyn Cache,
    parts: WarmupParts,
) -> Result<WarmupReport, SyncError> {
    let mut comparison = Comparison {
        reader,
        cache,
        digester: Digester::default(),
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
    Ok(comparison.reader.report)
}

/// What a warmup writes of a user; it writes no totals.
fn user_fields(user: &User) -> impl Hash {
    (
        user.passkey.clone(),
        user.username.clone(),
        user.enabled,
        user.can_leech,
    )
}

/// What a warmup writes of a torrent. No reason and an empty one are the same.
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

impl<P: WarmupProgress> Comparison<'_, P> {
    async fn whitelist(&mut self) -> Result<(), SyncError> {
        self.reader.progress.begin(WarmupStep::Whitelist);
        let stored = self.reader.whitelist().await?;
        let cached = self.cache.whitelist().await?;
        let mut counts = WarmupCounts {
            rows: stored.len() as u64,
            removed: count_gone(&cached, &stored),
            ..WarmupCounts::default()
        };
        for client in &stored {
            match cached.iter().find(|row| row.prefix == client.prefix) {
                None => counts.added += 1,
                Some(row) if row.name != client.name => counts.changed += 1,
                Some(_) => {}
            }
        }
        self.reader.progress.end(WarmupStep::Whitelist, &counts);
        self.reader.report.whitelist = Some(counts);
        Ok(())
    }

    async fn users(&mut self) -> Result<(), SyncError> {
        self.reader.progress.begin(WarmupStep::Users);
        let mut cached = self.cached_users().await?;
        let mut counts = WarmupCounts::default();
        let mut cursor = Some(0);
        while let Some(rows) = self.reader.next_users(&mut cursor).await? {
            for row in &rows {
                let digest = self.digester.digest(user_fields(&row.user));
                counts.compare(cached.remove(&row.user.id), digest);
            }
        }
        counts.removed = cached.len() as u64;
        self.reader.progress.end(WarmupStep::Users, &counts);
        self.reader.report.users = Some(counts);
        Ok(())
    }

    async fn torrents(&mut self) -> Result<(), SyncError> {
        self.reader.progress.begin(WarmupStep::Torrents);
        let mut cached = self.cached_torrents().await?;
        let mut counts = WarmupCounts::default();
        let mut cursor = Some(0);
        while let Some(rows) = self.reader.next_torrents(&mut cursor).await? {
            for row in &rows {
                let fields = torrent_fields(&row.torrent, &row.name);
                let digest = self.digester.digest(fields);
                counts.compare(cached.remove(&row.torrent.info_hash), digest);
            }
        }
        counts.removed = cached.len() as u64;
        self.reader.progress.end(WarmupStep::Torrents, &counts);
        self.reader.report.torrents = Some(counts);
        Ok(())
    }

    async fn cached_users(&mut self) -> Result<Rows<UserId>, SyncError> {
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

    async fn cached_torrents(&mut self) -> Result<Rows<InfoHash>, SyncError> {
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
}

// === impl WarmupCounts ===

impl WarmupCounts {
    fn compare(&mut self, cached: Option<Digest>, stored: Digest) {
        self.rows += 1;
        match cached {
            None => self.added += 1,
            Some(cached) if cached != stored => self.changed += 1,
            Some(_) => {}
        }
    }
}
