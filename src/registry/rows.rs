//! Rows of the registry in storage and cache, with names and counters that announces don't need.

use crate::base::ids::{Passkey, TorrentId, UserId};
use crate::registry::{ClientPrefix, RegistryChange, Torrent, Whitelist};

/// An unusable row, named so that a person can find it; never with a passkey in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    pub table: &'static str,
    pub id: String,
    pub problem: String,
}

/// No total comes near this in a hundred years; a larger one is a mistake.
pub const PLAUSIBLE_MAX: u64 = 1 << 62;

/// Totals that announces add to; bytes and seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserTotals {
    pub uploaded: u64,
    pub downloaded: u64,
    pub snatches: u64,
    pub announces: u64,
    pub seed_time: u64,
}

/// A user as the tracker needs to know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub passkey: Passkey,
    pub username: String,
    /// A disabled user is refused.
    pub enabled: bool,
    /// Without it, announces with something left to download are refused.
    pub can_leech: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUser {
    pub user: User,
    pub totals: UserTotals,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTorrent {
    pub torrent: Torrent,
    pub name: String,
    pub seeders: u32,
    pub leechers: u32,
    pub announces: u64,
    /// Bytes before multipliers.
    pub uploaded: u64,
    pub downloaded: u64,
}

/// The totals to set to 0, in storage and in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wipe {
    /// Uploaded, downloaded, snatches, announces and seed time of all users.
    Users,
    /// Uploaded, downloaded, snatches and announces of all torrents.
    Torrents,
}

/// One change of the registry, with the whole row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// A user was added or changed.
    User(StoredUser),
    UserGone(UserId),
    /// A torrent was added or changed.
    Torrent(StoredTorrent),
    TorrentGone(TorrentId),
    /// The whole new whitelist.
    Whitelist(Vec<ClientPrefix>),
}

impl RowChange {
    /// The torrent that was added, changed or deleted; none if it is another kind of row.
    pub fn torrent(&self) -> Option<TorrentId> {
        match self {
            Self::Torrent(row) => Some(row.torrent.id),
            Self::TorrentGone(id) => Some(*id),
            Self::User(_) | Self::UserGone(_) | Self::Whitelist(_) => None,
        }
    }
}

impl From<RowChange> for RegistryChange {
    fn from(change: RowChange) -> Self {
        match change {
            RowChange::User(row) => Self::User(row.user),
            RowChange::UserGone(id) => Self::UserGone(id),
            RowChange::Torrent(row) => Self::Torrent(row.torrent),
            RowChange::TorrentGone(id) => Self::TorrentGone(id),
            RowChange::Whitelist(clients) => Self::Whitelist(Whitelist::new(&clients)),
        }
    }
}
