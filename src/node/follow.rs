//! Following the registry's feed: what is edited takes effect without a restart or a signal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::events::{Event, Events};
use crate::node::load::Registered;
use crate::node::{Node, load};
use crate::registry::{RegistryChange, RowChange};
use crate::storage::{Feed, FeedPosition, StorageError};
use crate::tracker::Mode;

/// How often the feed is looked at.
const PERIOD: Duration = Duration::from_millis(500);

/// Changes taken at once.
const AT_ONCE: u32 = 5000;

/// Applies changes from `position` on, for ever, and tells in `reached` how far it came. A `nudge`
/// has it look at once.
pub(super) async fn follow(
    node: Node,
    mut position: FeedPosition,
    reached: watch::Sender<FeedPosition>,
    nudge: Arc<Notify>,
) {
    let mut failing = false;
    loop {
        match step(&node, position).await {
            Ok((next, more)) => {
                position = next;
                reached.send_replace(next);
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
        let _ = tokio::time::timeout(PERIOD, nudge.notified()).await;
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
                tell(&node.events, &change);
                match RegistryChange::from(change) {
                    RegistryChange::Torrent(torrent) => torrents.push(torrent),
                    RegistryChange::TorrentGone(id) => load::torrent_gone(node, id),
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
            let position = load::registry(node, Registered::Again).await?;
            node.events.tell(Event::Registry);
            Ok((position, true))
        }
    }
}

fn tell(events: &Events, change: &RowChange) {
    events.tell(match change {
        RowChange::User(row) => Event::User(row.user.id),
        RowChange::UserGone(id) => Event::User(*id),
        RowChange::Torrent(row) => {
            Event::Torrent(Some(row.torrent.id), Some(row.torrent.info_hash))
        }
        RowChange::TorrentGone(id) => Event::Torrent(Some(*id), None),
        RowChange::Whitelist(_) => Event::Whitelist,
    });
}
