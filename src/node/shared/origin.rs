//! Where the registry can be loaded from: the cache, if it has all of this database's.

use std::fmt;

use crate::cache::{Cache, Mirrored};
use crate::node::Node;
use crate::node::shared::LoadError;
use crate::storage::{Feed, FeedPosition};

/// What the cache has of the registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// All of it, as it was at that position of the feed.
    Cache(Mirrored),
    /// Not all: nobody has filled it since the server was started or emptied.
    Incomplete,
    /// The registry of another database.
    Foreign,
    /// More changed since than the feed of changes keeps.
    Behind,
    /// The server threw keys away to make room.
    Evicted,
    /// All of it as it was when it was filled; nobody knows what changed since.
    Unfollowed,
}

/// Looks at the marks of the cache, and whether storage still has what changed since.
pub(super) async fn of(node: &Node, cache: &dyn Cache) -> Result<Origin, LoadError> {
    let Some(mirrored) = cache.mirrored().await? else {
        return Ok(Origin::Incomplete);
    };
    if mirrored.storage != node.storage.identity().await? {
        return Ok(Origin::Foreign);
    }
    if cache.evicted().await? > mirrored.evicted {
        return Ok(Origin::Evicted);
    }
    if !node.storage.has_feed() {
        return Ok(Origin::Unfollowed);
    }
    let position = FeedPosition(mirrored.position);
    Ok(match node.storage.feed(position, 1).await? {
        Feed::Changes(..) => Origin::Cache(mirrored),
        Feed::Lost => Origin::Behind,
    })
}

// === impl Origin ===

impl Origin {
    /// Whether the registry may be loaded from the cache by a start or a reload.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Cache(_))
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
