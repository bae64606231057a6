//! Following the registry's feed: what is edited takes effect without a restart or a signal.

use std::time::Duration;

use crate::node::load::Registered;
use crate::node::{Node, load};
use crate::registry::{RegistryChange, RowChange};
use crate::storage::{Feed, FeedPosition, StorageError};
use crate::tracker::Mode;

/// How often the feed is looked at.
const PERIOD: Duration = Duration::from_millis(500);

/// Changes taken at once.
const AT_ONCE: u32 = 5000;

/// Applies changes from `position` on, for ever.
pub(super) async fn follow(node: Node, mut position: FeedPosition) {
    let mut failing = false;
    loop {
        match step(&node, position).await {
            Ok((next, more)) => {
                position = next;
                if failing {
                    tracing::info!("registry changes are followed again");
                }
                failing = false;
                if more {
                    continue;
                }
            }
            Err(error) if !failing => {
                tracing::error!(%error, "registry changes can't be followed; trying again until they can");
                failing = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Takes the next changes; returns the position after them, and whether there may be more.
async fn step(node: &Node, position: FeedPosition) -> Result<(FeedPosition, bool), StorageError> {
    let _turn = node.registry_turn.lock().await;
    match node.storage.feed(position, AT_ONCE).await? {
        Feed::Changes(changes, next) => {
            // A public tracker registers torrents by itself, all the time.
            let is_edit = |change: &&RowChange| {
                node.tracker.mode() == Mode::Private || !matches!(change, RowChange::Torrent(_))
            };
            match changes.iter().filter(is_edit).count() {
                0 if changes.is_empty() => {}
                0 => tracing::debug!(changes = changes.len(), "registry changed"),
                edits => tracing::info!(changes = edits, "registry changed"),
            }
            let mut torrents = Vec::new();
            for change in changes {
                match RegistryChange::from(change) {
                    RegistryChange::Torrent(torrent) => torrents.push(torrent),
                    other => node.registry.apply(other),
                }
            }
            load::registered(node, torrents, Registered::Again).await?;
            Ok((next, next != position))
        }
        Feed::Lost => {
            tracing::warn!(
                "too many registry changes to follow one by one; loading the registry again"
            );
            Ok((load::registry(node, Registered::Again).await?, true))
        }
    }
}
