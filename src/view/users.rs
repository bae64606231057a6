//! Users and the clients of the whitelist.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::base::ids::TorrentId;
use crate::registry::ClientPrefix;
use crate::storage::{StoredUser, UserTorrents};

/// A user as lists show it, without the passkey.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserRow {
    #[schema(format = Int64)]
    pub user_id: u32,
    pub username: String,
    pub enabled: bool,
    pub can_leech: bool,
    /// Bytes credited
    pub uploaded: u64,
    /// Bytes credited
    pub downloaded: u64,
    pub snatches: u64,
    pub announces: u64,
    /// Seconds
    pub seed_time: u64,
}

/// A user; with the passkey for those who may change it.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserDetails {
    #[serde(flatten)]
    pub user: UserRow,
    /// The secret part of the announce URL; left out for a token that may only read
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passkey: Option<String>,
    /// The key of the user in Redis
    #[schema(example = "t:u:1")]
    pub key: String,
}

/// A user in the JSON of `mika-manage users`; lists leave the passkey out. Names and order of the fields differ from
/// the API's.
#[derive(Serialize)]
pub struct UserRecord {
    pub id: u32,
    pub username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passkey: Option<String>,
    pub enabled: bool,
    pub can_leech: bool,
    /// Bytes.
    pub uploaded: u64,
    pub downloaded: u64,
    pub snatches: u64,
    pub announces: u64,
    /// Seconds.
    pub seed_time: u64,
}

/// The torrents that a user has to do with, by their ids.
#[derive(Serialize, ToSchema)]
#[schema(as = UserTorrents)]
pub struct UserTorrentIds {
    /// The user is in the swarm
    active: Vec<String>,
    /// Hit and run: left with too little seed time
    hnr: Vec<String>,
    /// Snatched, or seeding
    complete: Vec<String>,
    /// In the swarm, and not complete
    incomplete: Vec<String>,
}

/// An allowed client.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Entry)]
pub struct ClientRow {
    /// What its peer ids begin with
    #[schema(
        min_length = 1,
        max_length = 20,
        pattern = r##"^[!"$-~]([ -~]*[!-~])?$"##,
        example = "-TR3000-"
    )]
    pub prefix: String,
    /// What people call it
    #[schema(
        max_length = 255,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$",
        example = "Transmission 3.00"
    )]
    pub client: String,
}

impl From<StoredUser> for UserRow {
    fn from(stored: StoredUser) -> Self {
        let StoredUser { user, totals } = stored;
        Self {
            user_id: user.id.0,
            username: user.username,
            enabled: user.enabled,
            can_leech: user.can_leech,
            uploaded: totals.uploaded,
            downloaded: totals.downloaded,
            snatches: totals.snatches,
            announces: totals.announces,
            seed_time: totals.seed_time,
        }
    }
}

/// Without the passkey.
impl From<StoredUser> for UserRecord {
    fn from(stored: StoredUser) -> Self {
        let row = UserRow::from(stored);
        Self {
            id: row.user_id,
            username: row.username,
            passkey: None,
            enabled: row.enabled,
            can_leech: row.can_leech,
            uploaded: row.uploaded,
            downloaded: row.downloaded,
            snatches: row.snatches,
            announces: row.announces,
            seed_time: row.seed_time,
        }
    }
}

impl From<UserTorrents> for UserTorrentIds {
    fn from(torrents: UserTorrents) -> Self {
        let texts = |ids: Vec<TorrentId>| ids.into_iter().map(|id| id.0.to_string()).collect();
        Self {
            active: texts(torrents.active),
            hnr: texts(torrents.hnr),
            complete: texts(torrents.complete),
            incomplete: texts(torrents.incomplete),
        }
    }
}

impl From<ClientPrefix> for ClientRow {
    fn from(client: ClientPrefix) -> Self {
        Self {
            prefix: client.prefix,
            client: client.name,
        }
    }
}

impl From<ClientRow> for ClientPrefix {
    fn from(row: ClientRow) -> Self {
        Self {
            prefix: row.prefix,
            name: row.client,
        }
    }
}
