//! Following the registry's feed: what is edited takes effect without a restart or a signal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::base::ids::{InfoHash, TorrentId};
use crate::node::load::Registered;
use crate::node::{Node, load, torrents};
use crate::registry::{RegistryChange, RowChange};
use crate::storage::{Feed, FeedPosition, StorageError};
use crate::telemetry::events::{Events, LiveEvent};
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

/// The info hashes under which torrents were registered before they were deleted or changed.
pub(super) type FormerHashes = HashMap<TorrentId, InfoHash>;

/// Takes all changes from `position` on, once. Returns the former hashes of the torrents among them; none if the
/// feed has lost changes.
pub(super) async fn catch_up(
    node: &Node,
    mut position: FeedPosition,
    when: Registered,
) -> Result<Option<FormerHashes>, StorageError> {
    let mut former = FormerHashes::new();
    while let Feed::Changes(changes, next) = node.storage.feed(position, AT_ONCE).await? {
        for id in changes.iter().filter_map(RowChange::torrent) {
            if let Some(hash) = node.registry.canonical(id) {
                former.entry(id).or_insert(hash);
            }
        }
        take_over(node, changes, when).await?;
        // Changes behind a transaction that is still open are told again until it ends.
        if next == position {
            return Ok(Some(former));
        }
        position = next;
    }
    Ok(None)
}

/// Takes the next changes; returns the position after them, and whether there may be more.
async fn step(node: &Node, position: FeedPosition) -> Result<(FeedPosition, bool), StorageError> {
    let _turn = node.registry_turn.lock().await;
    match node.storage.feed(position, AT_ONCE).await? {
        Feed::Changes(changes, next) => {
            log_changes(node.tracker.mode(), &changes);
            for change in &changes {
                tell(&node.events, change);
            }
            take_over(node, changes, Registered::Again).await?;
            Ok((next, next != position))
        }
        Feed::Lost => {
            tracing::warn!(
                "not every registry change can be followed one by one; loading the registry again"
            );
            let position = load::registry(node, Registered::Again).await?;
            node.events.publish(LiveEvent::Registry);
            Ok((position, true))
        }
    }
}

async fn take_over(
    node: &Node,
    changes: Vec<RowChange>,
    when: Registered,
) -> Result<(), StorageError> {
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    for change in changes {
        match RegistryChange::from(change) {
            RegistryChange::Torrent(torrent) => changed.push(torrent),
            RegistryChange::TorrentGone(id) => gone.push(id),
            other => node.registry.apply(other),
        }
    }
    torrents::follow(node, changed, gone, when).await
}

/// Logs how many rows of each kind changed.
fn log_changes(mode: Mode, changes: &[RowChange]) {
    let (mut users, mut torrents, mut whitelist) = (0, 0, 0);
    for change in changes {
        match change {
            RowChange::User(_) | RowChange::UserGone(_) => users += 1,
            // A public tracker registers torrents by itself, all the time.
            RowChange::Torrent(_) if mode == Mode::Public => {}
            RowChange::Torrent(_) | RowChange::TorrentGone(_) => torrents += 1,
            RowChange::Whitelist(_) => whitelist += 1,
        }
    }
    match users + torrents + whitelist {
        0 if changes.is_empty() => {}
        0 => tracing::debug!(changes = changes.len(), "registry changed"),
        changes => tracing::info!(changes, users, torrents, whitelist, "registry changed"),
    }
}

fn tell(events: &Events, change: &RowChange) {
    events.publish(match change {
        RowChange::User(row) => LiveEvent::User(row.user.id),
        RowChange::UserGone(id) => LiveEvent::User(*id),
        RowChange::Torrent(row) => {
            LiveEvent::Torrent(Some(row.torrent.id), Some(row.torrent.info_hash))
        }
        RowChange::TorrentGone(id) => LiveEvent::Torrent(Some(*id), None),
        RowChange::Whitelist(_) => LiveEvent::Whitelist,
    });
}
