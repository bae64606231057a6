//! Rows that leave the program: the JSON of the API and of `mika-manage --json`, and what the latter
//! reads from a running daemon.
//!
//! The API and `mika-manage` name some fields of users and torrents differently. Both forms are
//! public, so each has a struct; they stand side by side here.

mod stats;
mod torrents;
mod users;

pub use stats::{
    BusySwarm, ClientCount, Connections, JournalState, PeersByFamily, ProtocolCounts,
    RegistrySizes, RoleCounts, ServerState, TrackerStats,
};
pub use torrents::{TorrentRecord, TorrentRow};
pub use users::{ClientRow, UserDetails, UserRecord, UserRow, UserTorrentIds};
