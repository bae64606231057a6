//! Where the registry can be loaded from: the cache, if it has all of this database's.

use crate::cache::{Cache, Mirrored};
use crate::storage::{Feed, FeedPosition, Storage};

use super::SyncError;

/// What the cache has of the registry.
#[derive(Debug, PartialEq, Eq, strum::Display)]
pub(super) enum Origin {
    /// All of it, as it was at that position of the feed.
    #[strum(to_string = "it has the whole registry")]
    Cache(Mirrored),
    #[strum(to_string = "it was not filled since it was started or emptied")]
    Incomplete,
    #[strum(to_string = "it has the registry of another database")]
    Foreign,
    #[strum(to_string = "more changed since it was filled than the feed of changes keeps")]
    Behind,
    #[strum(to_string = "it threw keys away to make room: set maxmemory-policy noeviction")]
    Evicted,
    #[strum(to_string = "storage has no feed of changes, so it may be out of date")]
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
