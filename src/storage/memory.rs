//! For drivers that hold their rows in memory: the rows, what batches do to them, each change as data to be logged, and
//! the feed.

mod change;
mod feed;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::base::ids::{InfoHash, TorrentId, UserId};
use crate::change::sums::{Credited, Sum};
use crate::change::{Batch, Change, PeerKey, PeerRecord};
use crate::registry::{StoredTorrent, StoredUser, UserTotals};
use crate::storage::settle::{HeldHistory, HeldPeer, HeldRows, PeerRow, Settlement};
use crate::storage::touched::{KnownIds, Named, Touched};
use crate::storage::{
    CreditRules, NewTorrent, NewUser, Page, StorageResult, StoredHistory, StoredPeer, batches,
};

pub use change::MemoryChange;
pub use feed::MemoryFeed;

/// The largest number that totals reach (rule A8).
const TOTAL_MAX: u64 = i64::MAX.cast_unsigned();

/// The rows.
#[derive(Clone, Default)]
pub struct MemoryRows {
    pub users: BTreeMap<UserId, StoredUser>,
    pub torrents: BTreeMap<TorrentId, StoredTorrent>,
    pub peers: BTreeMap<PeerKey, MemoryPeer>,
    pub histories: BTreeMap<(TorrentId, UserId), HeldHistory>,
    /// The number of the last applied batch of each journal.
    pub journals: BTreeMap<String, u64>,
    /// What [`MemoryRows::make`] added.
    pub feed: MemoryFeed,
}

/// The row of a peer.
#[derive(Clone, Debug)]
pub struct MemoryPeer {
    pub record: PeerRecord,
    pub held: HeldPeer,
}

impl MemoryRows {
    /// Applies consecutive batches of one journal, but those that were applied before; changes nothing if it fails. The same
    /// batches, with the same rules and in the same order, always have the same effect.
    pub fn apply(
        &mut self,
        batches: &[Arc<Batch>],
        rules: &CreditRules,
    ) -> StorageResult<Credited> {
        let new = self.not_applied(batches)?;
        let Some(last) = new.last() else {
            return Ok(Credited::default());
        };
        let changes = || new.iter().flat_map(|batch| &batch.changes);
        let touched = Touched::by(changes(), &self.known(changes()));
        let held = self.held(&touched);
        let settled = Settlement::of(touched, held, &last.journal, rules);
        self.write(&settled);
        self.journals.insert(last.journal.clone(), last.number);
        Ok(settled.into_credited())
    }

    /// Which of these batches were not applied; [`StorageError::Behind`] if one before them is missing.
    pub fn not_applied<'a>(&self, batches: &'a [Arc<Batch>]) -> StorageResult<&'a [Arc<Batch>]> {
        let applied = batches
            .first()
            .map(|first| self.last_applied(&first.journal));
        batches::not_applied(batches, applied.unwrap_or(0))
    }

    /// The number of the last batch of a journal that was applied; 0 before the first.
    pub fn last_applied(&self, journal: &str) -> u64 {
        self.journals.get(journal).copied().unwrap_or(0)
    }

    /// Gives up the batches of a journal up to a number.
    pub fn begin_at(&mut self, journal: &str, number: u64) {
        let applied = number.max(self.last_applied(journal));
        self.journals.insert(journal.to_owned(), applied);
    }

    /// The id for a new user; none if its id or passkey is taken.
    pub fn free_user_id(&self, new: &NewUser) -> Option<UserId> {
        let last = self.users.last_key_value().map_or(0, |(id, _)| id.0);
        let id = new.id.unwrap_or(UserId(last.checked_add(1)?));
        let has_passkey = |row: &StoredUser| row.user.passkey == new.passkey;
        let is_taken = self.users.contains_key(&id) || self.users.values().any(has_passkey);
        (!is_taken).then_some(id)
    }

    /// The id for a new torrent; none if its id or one of its info hashes is taken.
    pub fn free_torrent_id(&self, new: &NewTorrent) -> Option<TorrentId> {
        let last = self.torrents.last_key_value().map_or(0, |(id, _)| id.0);
        let id = new.id.unwrap_or(TorrentId(last.checked_add(1)?));
        let has_hash = |hash| self.torrent_of(hash).is_some();
        let is_taken = self.torrents.contains_key(&id) || new.hashes().any(has_hash);
        (!is_taken).then_some(id)
    }

    /// The torrent with that first or second info hash.
    pub fn torrent_of(&self, info_hash: InfoHash) -> Option<TorrentId> {
        let has = |row: &&StoredTorrent| {
            let torrent = &row.torrent;
            torrent.info_hash == info_hash || torrent.info_hash_v2 == Some(info_hash)
        };
        self.torrents.values().find(has).map(|row| row.torrent.id)
    }

    pub fn users(&self, after: Option<UserId>, limit: u32) -> Page<StoredUser> {
        page(&self.users, after, limit, |_, row| Some(row.clone()))
    }

    pub fn torrents(&self, after: Option<TorrentId>, limit: u32) -> Page<StoredTorrent> {
        page(&self.torrents, after, limit, |_, row| Some(row.clone()))
    }

    pub fn peers(&self, since: i64, after: Option<PeerKey>, limit: u32) -> Page<StoredPeer> {
        page(&self.peers, after, limit, |key, row| {
            let record = &row.record;
            (record.active || record.last_announce >= since).then(|| StoredPeer {
                key: *key,
                record: record.clone(),
            })
        })
    }

    pub fn histories(&self, after: Option<(TorrentId, UserId)>, limit: u32) -> Page<StoredHistory> {
        page(&self.histories, after, limit, |key, held| {
            Some(history(*key, held))
        })
    }

    /// The users and torrents of these changes that exist. A torrent may have another id by now.
    fn known<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> KnownIds {
        let Named { users, torrents } = Named::by(changes);
        let mut known = KnownIds::default();
        let users = users.into_iter();
        let users = users.filter(|id| self.users.contains_key(&UserId(*id)));
        known.users.extend(users);
        for (id, info_hash) in torrents {
            if self.torrents.contains_key(&TorrentId(id)) {
                known.torrents.insert(id);
            } else if let Some(id) = self.torrent_of(info_hash) {
                known.moved.insert(info_hash, id);
            }
        }
        known
    }

    fn held(&self, touched: &Touched<'_>) -> HeldRows {
        let peers = touched.peers.iter();
        let peers = peers.map(|row| Some(self.peers.get(&row.key)?.held.clone()));
        let histories = touched.histories.iter();
        let histories = histories.map(|row| self.histories.get(&(row.torrent, row.user)).cloned());
        HeldRows {
            peers: peers.collect(),
            histories: histories.collect(),
        }
    }

    fn write(&mut self, settled: &Settlement<'_>) {
        for row in &settled.peers {
            let known = self.peers.get(&row.key).map(|peer| &peer.record);
            if let Some(record) = settled_record(row, known) {
                let held = row.held.clone();
                self.peers.insert(row.key, MemoryPeer { record, held });
            }
        }
        for key in &settled.gone {
            self.peers.remove(key);
        }
        for row in &settled.histories {
            self.histories
                .insert((row.torrent, row.user), row.now.clone());
        }
        for (id, sum) in &settled.users {
            if let Some(user) = self.users.get_mut(id) {
                add_to_user(&mut user.totals, sum);
            }
        }
        for (id, sum) in &settled.torrents {
            if let Some(row) = self.torrents.get_mut(id) {
                add_to_torrent(row, &sum.sum);
                (row.seeders, row.leechers) = (sum.counts.seeders, sum.counts.leechers);
            }
        }
    }
}

fn page<K: Ord + Copy, V, T>(
    rows: &BTreeMap<K, V>,
    after: Option<K>,
    limit: u32,
    row: impl Fn(&K, &V) -> Option<T>,
) -> Page<T> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let all = rows.range((from, Bound::Unbounded));
    let limit = limit as usize;
    let found = all.filter_map(|(key, value)| row(key, value));
    let mut rows: Vec<T> = found.take(limit.saturating_add(1)).collect();
    let last = rows.len() <= limit;
    rows.truncate(limit);
    Page {
        rows,
        last,
        ..Page::empty()
    }
}

/// The record of a peer after a settlement, with the settled bases; none if there is no record of it.
fn settled_record(row: &PeerRow<'_>, known: Option<&PeerRecord>) -> Option<PeerRecord> {
    let mut record = row.record.or(known)?.clone();
    let base = row.held.base();
    record.base_up = base.up.min(TOTAL_MAX);
    record.base_down = base.down.min(TOTAL_MAX);
    record.base_at = base.at;
    (record.dip_up, record.dip_down) = (base.dip_up, base.dip_down);
    record.uploaded = row.held.uploaded.min(TOTAL_MAX);
    record.downloaded = row.held.downloaded.min(TOTAL_MAX);
    record.left = record.left.map(|left| left.min(TOTAL_MAX));
    Some(record)
}

/// Adds what storage credited to the totals of a user.
pub fn add_to_user(totals: &mut UserTotals, sum: &Sum) {
    add(&mut totals.uploaded, sum.up);
    add(&mut totals.downloaded, sum.down);
    add(&mut totals.snatches, sum.snatches);
    add(&mut totals.announces, sum.announces);
    add(&mut totals.seed_time, sum.seed_time);
}

/// Adds what storage credited to the totals of a torrent.
pub fn add_to_torrent(row: &mut StoredTorrent, sum: &Sum) {
    add(&mut row.uploaded, sum.raw_up);
    add(&mut row.downloaded, sum.raw_down);
    add(&mut row.announces, sum.announces);
    let snatches = u32::try_from(sum.snatches).unwrap_or(u32::MAX);
    row.torrent.snatches = row.torrent.snatches.saturating_add(snatches);
}

fn add(total: &mut u64, sum: u64) {
    *total = total.saturating_add(sum).min(TOTAL_MAX);
}

fn history(key: (TorrentId, UserId), held: &HeldHistory) -> StoredHistory {
    StoredHistory {
        user: key.1,
        torrent: key.0,
        uploaded: held.uploaded.min(TOTAL_MAX),
        downloaded: held.downloaded.min(TOTAL_MAX),
        seed_time: held.seed_time,
        completed_at: held.completed_at,
        hnr: held.hnr,
    }
}
