//! What storage holds, as values. Multi-field rows here are what pages and edits carry.

use crate::change::{PeerKey, PeerRecord};
use crate::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::registry::{BadRow, Permille};

/// One page of a table, in the order of its key.
#[derive(Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Rows that can't be used; the rest of the page is good.
    pub bad: Vec<BadRow>,
    /// Whether the table ends with this page.
    pub last: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPeer {
    pub key: PeerKey,
    pub record: PeerRecord,
}

/// What one user did with one torrent over all sessions: one row for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
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
    pub username: String,
    pub passkey: Passkey,
}

/// The fields of a user to change; `None` leaves one as it is.
#[derive(Clone, Debug, Default)]
pub struct UserPatch {
    pub passkey: Option<Passkey>,
    pub enabled: Option<bool>,
    pub can_leech: Option<bool>,
}

#[derive(Clone, Debug)]
pub struct NewTorrent {
    pub info_hash: InfoHash,
    /// The second info hash of a hybrid torrent (BEP 52).
    pub info_hash_v2: Option<InfoHash>,
    pub name: String,
}

/// The fields of a torrent to change; `None` leaves one as it is.
#[derive(Clone, Debug, Default)]
pub struct TorrentPatch {
    pub enabled: Option<bool>,
    /// `Some(None)` takes the reason away.
    pub reason: Option<Option<String>>,
    pub multi_up: Option<Permille>,
    pub multi_down: Option<Permille>,
}
