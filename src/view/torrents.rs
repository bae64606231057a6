//! Torrents.

use serde::Serialize;
use utoipa::ToSchema;

use crate::change::SwarmCounts;
use crate::storage::StoredTorrent;

/// A registered torrent, with the counts of its swarm as they are now.
#[derive(Serialize, ToSchema)]
#[schema(as = Torrent)]
pub struct TorrentRow {
    #[schema(format = Int64)]
    torrent_id: u32,
    /// 40 hexadecimal digits
    #[schema(example = "0123456789abcdef0123456789abcdef01234567")]
    info_hash: String,
    /// The second info hash of a hybrid torrent
    #[serde(skip_serializing_if = "Option::is_none")]
    info_hash_v2: Option<String>,
    name: String,
    seeders: u32,
    leechers: u32,
    /// Completed downloads
    snatches: u32,
    announces: u64,
    /// Bytes before multipliers
    uploaded: u64,
    /// Bytes before multipliers
    downloaded: u64,
    enabled: bool,
    /// What clients are told while it is disabled
    reason: String,
    /// Credit for a byte uploaded
    multi_up: f64,
    /// Credit for a byte downloaded
    multi_dn: f64,
}

/// A torrent in the JSON of `mika-manage torrents`, with the counters that storage has.
#[derive(Serialize)]
pub struct TorrentRecord {
    pub id: u32,
    pub info_hash: String,
    pub info_hash_v2: Option<String>,
    pub name: String,
    pub enabled: bool,
    pub reason: Option<String>,
    /// Credit for a byte.
    pub multi_up: f64,
    pub multi_down: f64,
    pub seeders: u32,
    pub leechers: u32,
    pub snatches: u32,
    pub announces: u64,
    /// Bytes before multipliers.
    pub uploaded: u64,
    pub downloaded: u64,
}

impl TorrentRow {
    /// A stored torrent with the counts of its live swarm.
    pub fn new(stored: StoredTorrent, counts: SwarmCounts) -> Self {
        let torrent = stored.torrent;
        Self {
            torrent_id: torrent.id.0,
            info_hash: torrent.info_hash.to_string(),
            info_hash_v2: torrent.info_hash_v2.map(|hash| hash.to_string()),
            name: stored.name,
            seeders: counts.seeders,
            leechers: counts.leechers,
            snatches: torrent.snatches,
            announces: stored.announces,
            uploaded: stored.uploaded,
            downloaded: stored.downloaded,
            enabled: torrent.enabled,
            reason: torrent.reason.unwrap_or_default(),
            multi_up: torrent.multi_up.factor(),
            multi_dn: torrent.multi_down.factor(),
        }
    }
}

impl From<StoredTorrent> for TorrentRecord {
    fn from(stored: StoredTorrent) -> Self {
        let torrent = stored.torrent;
        Self {
            id: torrent.id.0,
            info_hash: torrent.info_hash.to_string(),
            info_hash_v2: torrent.info_hash_v2.map(|hash| hash.to_string()),
            name: stored.name,
            enabled: torrent.enabled,
            reason: torrent.reason,
            multi_up: torrent.multi_up.factor(),
            multi_down: torrent.multi_down.factor(),
            seeders: stored.seeders,
            leechers: stored.leechers,
            snatches: torrent.snatches,
            announces: stored.announces,
            uploaded: stored.uploaded,
            downloaded: stored.downloaded,
        }
    }
}
