//! The rows of storage as values, for pages and edits.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Deserialize;
use strum::IntoStaticStr;
use utoipa::ToSchema;

use crate::base::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::change::{PeerKey, PeerRecord};
use crate::registry::{
    BadRow, ClientPrefix, Permille, StoredTorrent, StoredUser, Torrent, User, UserTotals,
};

use super::StorageError;
use super::values::trimmed_prefix;

/// A peer id has 20 bytes.
const PREFIX_BYTES_MAX: usize = 20;

/// One page of a table, in the order of its key.
#[derive(Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Rows that can't be used; the rest of the page is good.
    pub bad: Vec<BadRow>,
    /// Rows that the site has not finished: users without a passkey, torrents without an info hash.
    pub unfinished: u64,
    /// Whether the table ends with this page.
    pub last: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPeer {
    pub key: PeerKey,
    pub record: PeerRecord,
}

/// The result of adding a row: its id, none if it exists, or why the database refuses it.
pub type Added<T> = Result<Option<T>, String>;

/// Why a row is skipped.
#[derive(Debug)]
pub(super) enum Unusable {
    /// The site has not finished it: it has no passkey or info hash yet.
    Unfinished,
    Bad(BadRow),
}

/// What one user did with one torrent over all sessions. Never deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredHistory {
    pub user: UserId,
    pub torrent: TorrentId,
    /// Bytes before multipliers.
    pub uploaded: u64,
    pub downloaded: u64,
    /// Seconds.
    pub seed_time: u64,
    /// Unix time of the snatch.
    pub completed_at: Option<i64>,
    pub hnr: bool,
}

#[derive(Clone, Debug)]
pub struct NewUser {
    /// None to let the database choose.
    pub id: Option<UserId>,
    pub username: String,
    pub passkey: Passkey,
    pub can_leech: bool,
}

/// The fields of a user to change; `None` leaves one unchanged.
#[derive(Clone, Debug, Default)]
pub struct UserPatch {
    pub passkey: Option<Passkey>,
    pub username: Option<String>,
    pub enabled: Option<bool>,
    pub can_leech: Option<bool>,
    /// Totals in bytes. What announces add later is added to them.
    pub uploaded: Option<u64>,
    pub downloaded: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct NewTorrent {
    /// None to let the database choose.
    pub id: Option<TorrentId>,
    pub info_hash: InfoHash,
    /// The second info hash of a hybrid torrent (BEP 52).
    pub info_hash_v2: Option<InfoHash>,
    pub name: String,
}

/// A torrent to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TorrentRemoval {
    /// Its first info hash.
    pub info_hash: InfoHash,
    /// Only if clients registered it (it has no name, and is not disabled), and if it has no
    /// more snatches than this; none to remove it in any case.
    pub unused: Option<u64>,
}

/// The fields of a torrent to change; `None` leaves one unchanged.
#[derive(Clone, Debug, Default)]
pub struct TorrentPatch {
    /// Another id, to which all records of the torrent are moved.
    pub id: Option<TorrentId>,
    pub name: Option<String>,
    pub enabled: Option<bool>,
    /// `Some(None)` removes the reason.
    pub reason: Option<Option<String>>,
    pub multi_up: Option<Permille>,
    pub multi_down: Option<Permille>,
}

/// A part of a sorted list of users or torrents.
#[derive(Clone, Debug)]
pub struct Find<K> {
    /// Matches names that contain it, or the id.
    pub text: Option<String>,
    pub enabled: Option<bool>,
    pub sort: K,
    pub descending: bool,
    /// Rows to skip.
    pub offset: u64,
    pub limit: u32,
}

/// A page of results, and how many there are in all.
#[derive(Debug)]
pub struct Found<T> {
    pub rows: Vec<T>,
    pub total: u64,
}

/// Sort keys of users.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoStaticStr, ToSchema, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum UserKey {
    #[default]
    Id,
    #[strum(serialize = "username")]
    Name,
    Uploaded,
    Downloaded,
    Snatches,
    Announces,
    SeedTime,
}

/// Sort keys of torrents.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoStaticStr, ToSchema, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum TorrentKey {
    #[default]
    Id,
    #[strum(serialize = "release_name")]
    Name,
    Seeders,
    Leechers,
    Snatches,
    Announces,
    Uploaded,
    Downloaded,
}

/// A sort key: a column of the result, of the same name in every schema.
pub trait SortKey: Copy + Into<&'static str> {
    fn column(self) -> &'static str {
        self.into()
    }
}

impl SortKey for UserKey {}

impl SortKey for TorrentKey {}

/// The torrents of a user, each list ordered by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserTorrents {
    /// The user is in the swarm.
    pub active: Vec<TorrentId>,
    /// In the swarm, and never completed.
    pub incomplete: Vec<TorrentId>,
    /// Snatched, or seeding now.
    pub complete: Vec<TorrentId>,
    /// Hit and run.
    pub hnr: Vec<TorrentId>,
}

/// The client of a row of the whitelist: without the blanks and line ends around its prefix that imports
/// leave, which no peer id has. None for an empty prefix, which would allow every client.
pub(super) fn client(prefix: &str, name: String) -> Result<ClientPrefix, String> {
    let prefix = trimmed_prefix(prefix);
    if (1..=PREFIX_BYTES_MAX).contains(&prefix.len()) {
        let prefix = prefix.to_owned();
        return Ok(ClientPrefix { prefix, name });
    }
    Err("peer_id is not 1 to 20 characters".into())
}

/// Deduplicates clients by prefix: of rows that differ in blanks only, keeps the one without any.
pub(super) fn distinct(clients: Vec<(ClientPrefix, String)>) -> Vec<ClientPrefix> {
    let mut by_prefix: BTreeMap<String, ClientPrefix> = BTreeMap::new();
    for (client, written) in clients {
        if written == client.prefix || !by_prefix.contains_key(&client.prefix) {
            by_prefix.insert(client.prefix.clone(), client);
        }
    }
    by_prefix.into_values().collect()
}

/// The error for a user without a passkey.
pub fn no_passkey(id: &str) -> StorageError {
    StorageError::Invalid(format!(
        "the user {id} has no passkey yet; give one with: mika-manage users passkey {id}"
    ))
}

// === impl Page ===

impl<T> Page<T> {
    /// An empty last page.
    pub(super) fn empty() -> Self {
        Self {
            rows: Vec::new(),
            bad: Vec::new(),
            unfinished: 0,
            last: true,
        }
    }

    pub(super) fn push(&mut self, row: Result<T, Unusable>) {
        match row {
            Ok(row) => self.rows.push(row),
            Err(Unusable::Bad(bad)) => self.bad.push(bad),
            Err(Unusable::Unfinished) => self.unfinished += 1,
        }
    }
}

// === impl Unusable ===

impl From<BadRow> for Unusable {
    fn from(bad: BadRow) -> Self {
        Self::Bad(bad)
    }
}

// === impl NewUser and NewTorrent ===

impl NewUser {
    /// The row that is stored under an id: enabled, without totals.
    pub fn stored(self, id: UserId) -> StoredUser {
        StoredUser {
            user: User {
                id,
                passkey: self.passkey,
                username: self.username,
                enabled: true,
                can_leech: self.can_leech,
            },
            totals: UserTotals::default(),
        }
    }
}

impl NewTorrent {
    /// Its info hashes, of which a hybrid has two.
    pub fn hashes(&self) -> impl Iterator<Item = InfoHash> + use<> {
        let both = [Some(self.info_hash), self.info_hash_v2];
        both.into_iter().flatten()
    }

    /// The row that is stored under an id: enabled, without totals.
    pub fn stored(self, id: TorrentId) -> StoredTorrent {
        StoredTorrent {
            torrent: Torrent {
                id,
                info_hash: self.info_hash,
                info_hash_v2: self.info_hash_v2,
                enabled: true,
                reason: None,
                multi_up: Permille::ONE,
                multi_down: Permille::ONE,
                snatches: 0,
            },
            name: self.name,
            seeders: 0,
            leechers: 0,
            announces: 0,
            uploaded: 0,
            downloaded: 0,
        }
    }
}

// === impl Find ===

impl<K: SortKey> Find<K> {
    /// The text as a pattern for `LIKE … ESCAPE '!'`.
    pub(super) fn pattern(&self) -> Option<String> {
        let text = self.text.as_deref()?;
        let mut pattern = String::from("%");
        for char in text.chars() {
            if matches!(char, '%' | '_' | '!') {
                pattern.push('!');
            }
            pattern.push(char);
        }
        pattern.push('%');
        Some(pattern)
    }

    /// The text as an id, if it can be one.
    pub(super) fn id(&self) -> Option<u32> {
        self.text.as_deref()?.parse().ok()
    }

    /// The end of a SELECT: ORDER BY and LIMIT.
    pub(super) fn tail(&self) -> String {
        let direction = if self.descending { "DESC" } else { "ASC" };
        format!(
            " ORDER BY {} {direction}, id ASC LIMIT {} OFFSET {}",
            self.sort.column(),
            self.limit,
            self.offset
        )
    }
}

// === impl UserTorrents ===

impl UserTorrents {
    /// From the histories of a user (snatched, marked as hit and run), and from its peers in swarms
    /// (whether each has all of its torrent).
    pub(super) fn of(
        histories: impl IntoIterator<Item = (TorrentId, bool, bool)>,
        peers: impl IntoIterator<Item = (TorrentId, bool)>,
    ) -> Self {
        let mut present: BTreeMap<TorrentId, bool> = BTreeMap::new();
        for (torrent, has_all) in peers {
            *present.entry(torrent).or_default() |= has_all;
        }
        let mut torrents = Self::default();
        let mut snatched: BTreeMap<TorrentId, bool> = BTreeMap::new();
        for (torrent, is_snatched, hnr) in histories {
            snatched.insert(torrent, is_snatched);
            if hnr {
                torrents.hnr.push(torrent);
            }
        }
        for (&torrent, &has_all) in &present {
            torrents.active.push(torrent);
            let complete = snatched.entry(torrent).or_default();
            *complete |= has_all;
            if !*complete {
                torrents.incomplete.push(torrent);
            }
        }
        let complete = snatched.into_iter().filter(|(_, is_complete)| *is_complete);
        torrents.complete = complete.map(|(torrent, _)| torrent).collect();
        torrents.hnr.sort_unstable();
        torrents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Find<UserKey> {
        Find {
            text: Some(text.into()),
            enabled: None,
            sort: UserKey::SeedTime,
            descending: true,
            offset: 20,
            limit: 10,
        }
    }

    #[test]
    fn what_people_type_is_no_pattern() {
        assert_eq!(find("50%_!").pattern().unwrap(), "%50!%!_!!%");
        assert_eq!((find("17").id(), find("-1").id()), (Some(17), None));
        let tail = find("x").tail();
        assert_eq!(tail, " ORDER BY seed_time DESC, id ASC LIMIT 10 OFFSET 20");
    }

    #[test]
    fn a_torrent_is_complete_once_snatched_or_seeded() {
        let ids = |ids: &[u32]| ids.iter().copied().map(TorrentId).collect::<Vec<_>>();
        let histories = [(4, true, true), (1, false, false), (2, true, false)];
        let peers = [(1, false), (2, false), (3, false), (3, true)];
        let torrents = UserTorrents::of(
            histories.map(|(id, snatched, hnr)| (TorrentId(id), snatched, hnr)),
            peers.map(|(id, has_all)| (TorrentId(id), has_all)),
        );
        assert_eq!(torrents.active, ids(&[1, 2, 3]));
        assert_eq!(torrents.incomplete, ids(&[1]));
        assert_eq!(torrents.complete, ids(&[2, 3, 4]));
        assert_eq!(torrents.hnr, ids(&[4]));
    }
}
