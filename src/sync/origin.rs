//! Where the registry can be loaded from: the cache, if it has all of this database's.

use std::fmt;

use crate::cache::{Cache, Mirrored};
use crate::storage::{Feed, FeedPosition, Storage};

use super::SyncError;

/// What the cache has of the registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// All of it, as it was at that position of the feed.
    Cache(Mirrored),
    /// Not all: it was not filled since the server was started or emptied.
    Incomplete,
    /// The registry of another database.
    Foreign,
    /// More changed since than the feed of changes keeps.
    Behind,
    /// The server evicted keys to make room.
    Evicted,
    /// All of it as it was when it was filled; what changed since is not known.
    Unfollowed,
}

impl Origin {
    /// Reads the marks of the cache, and whether storage still has what changed since.
    pub async fn find(storage: &dyn Storage, cache: &dyn Cache) -> Result<Self, SyncError> {
        let Some(mirrored) = cache.mirrored().await? else {
            return Ok(Self::Incomplete);
        };
        if mirrored.storage != storage.identity().await? {
            return Ok(Self::Foreign);
        }
        if cache.evicted().await? > mirrored.evicted {
            return Ok(Self::Evicted);
        }
        if !storage.has_feed() {
            return Ok(Self::Unfollowed);
        }
        let position = FeedPosition(mirrored.position);
        Ok(match storage.feed(position, 1).await? {
            Feed::Changes(..) => Self::Cache(mirrored),
            Feed::Lost => Self::Behind,
        })
    }

    /// Whether the registry may be loaded from the cache by a start or a reload.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Cache(_))
    }

    pub fn log_load_from_storage(&self) {
        tracing::info!("the registry is loaded from storage, and not from the cache: {self}");
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cache(_) => "it has the whole registry",
            Self::Incomplete => "it was not filled since it was started or emptied",
            Self::Foreign => "it has the registry of another database",
            Self::Behind => "more changed since it was filled than the feed of changes keeps",
            Self::Unfollowed => "storage has no feed of changes, so it may be out of date",
            Self::Evicted => "it threw keys away to make room: set maxmemory-policy noeviction",
        })
    }
}
