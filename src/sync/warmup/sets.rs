//! The sets of users, from what storage knows of peers and histories.

use std::collections::HashSet;
use std::sync::Arc;

use super::load::{Loader, Writes};
use super::read::PAGE;
use super::{WarmupCounts, WarmupProgress, WarmupStep};
use crate::base::hash::QualityRandomState;
use crate::base::ids::{TorrentId, UserId};
use crate::cache::Membership;
use crate::storage::{StoredHistory, StoredPeer};
use crate::sync::SyncError;
use crate::sync::load::is_last;

/// The peers of one user on one torrent come one after the other: the one that announced last decides.
#[derive(Default)]
struct Latest(Option<StoredPeer>);

impl<P: WarmupProgress> Loader<'_, P> {
    /// Writes the sets of all users, without torrents that are gone. Histories come last: they know what
    /// was completed.
    pub async fn load_sets(&mut self) -> Result<(), SyncError> {
        self.reader.progress.begin(WarmupStep::Sets);
        let torrents: HashSet<TorrentId, QualityRandomState> =
            self.reader.stored.torrent_ids().collect();
        self.load_active(&torrents).await?;
        self.load_histories(&torrents).await?;
        let counts = WarmupCounts::default();
        self.reader.progress.end(WarmupStep::Sets, &counts);
        Ok(())
    }

    async fn load_active(
        &mut self,
        torrents: &HashSet<TorrentId, QualityRandomState>,
    ) -> Result<(), SyncError> {
        let mut writes = Writes::default();
        let mut latest = Latest::default();
        let mut after = None;
        loop {
            // All of them: tombstones take a torrent out of the sets.
            let page = self.reader.storage.peers(i64::MIN, after, PAGE).await?;
            after = page.rows.last().map(|row| row.key);
            let last = is_last(&page)?;
            self.reader.progress.advance(page.rows.len() as u64);
            let ends = last.then_some(None);
            let memberships: Vec<Membership> = page
                .rows
                .into_iter()
                .map(Some)
                .chain(ends)
                .filter_map(|row| latest.replace(row))
                .filter(|row| self.is_known(row.key.user, row.key.torrent, torrents))
                // Whether the torrent was ever completed is in the user's history.
                .map(|row| Membership::of_record(row.key.user, row.key.torrent, &row.record))
                .collect();
            let cache = Arc::clone(self.cache);
            let write = async move { cache.put_memberships(&memberships).await };
            writes.add(write).await?;
            if last {
                break;
            }
        }
        Ok(writes.finish().await?)
    }

    async fn load_histories(
        &mut self,
        torrents: &HashSet<TorrentId, QualityRandomState>,
    ) -> Result<(), SyncError> {
        let mut writes = Writes::default();
        let mut after = None;
        loop {
            let page = self.reader.storage.histories(after, PAGE).await?;
            after = page.rows.last().map(|row| (row.torrent, row.user));
            let last = is_last(&page)?;
            self.reader.progress.advance(page.rows.len() as u64);
            let memberships: Vec<Membership> = page
                .rows
                .iter()
                .filter(|row| self.is_known(row.user, row.torrent, torrents))
                .map(of_history)
                .collect();
            let cache = Arc::clone(self.cache);
            let write = async move { cache.put_memberships(&memberships).await };
            writes.add(write).await?;
            if last {
                break;
            }
        }
        Ok(writes.finish().await?)
    }

    fn is_known(
        &self,
        user: UserId,
        torrent: TorrentId,
        torrents: &HashSet<TorrentId, QualityRandomState>,
    ) -> bool {
        self.reader.stored.has_user(user) && torrents.contains(&torrent)
    }
}

fn of_history(row: &StoredHistory) -> Membership {
    let is_complete = row.completed_at.is_some();
    Membership {
        user: row.user,
        torrent: row.torrent,
        active: None,
        incomplete: is_complete.then_some(false),
        complete: is_complete.then_some(true),
        hnr: Some(row.hnr),
    }
}

impl Latest {
    /// Takes the next peer, or none at the end; returns the one that decides, once all peers of
    /// its user and torrent have come.
    fn replace(&mut self, next: Option<StoredPeer>) -> Option<StoredPeer> {
        let pair = |row: &StoredPeer| (row.key.user, row.key.torrent);
        match (&mut self.0, next) {
            (Some(latest), Some(next)) if pair(latest) == pair(&next) => {
                if next.record.last_announce >= latest.record.last_announce {
                    *latest = next;
                }
                None
            }
            (latest, next) => std::mem::replace(latest, next),
        }
    }
}
