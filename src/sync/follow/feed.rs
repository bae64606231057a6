//! Following storage's feed of changes.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::base::ids::{InfoHash, TorrentId};
use crate::registry::{RegistryChange, RowChange};
use crate::storage::{Feed, FeedPosition, StorageError};
use crate::sync::load::{self, LoadPass};
use crate::sync::{Replica, SyncError};
use crate::telemetry::events::{Events, LiveEvent};

/// Changes read at once.
const CHANGES_AT_ONCE: u32 = 5000;

/// The info hashes under which torrents were registered before they were deleted or changed.
pub type FormerHashes = HashMap<TorrentId, InfoHash>;

/// Applies changes from the position in `position_tx` on, and keeps that position up to date; runs
/// until cancelled.
pub(super) async fn run(
    replica: Replica,
    position_tx: watch::Sender<FeedPosition>,
    wake: Arc<Notify>,
) {
    let mut position = *position_tx.borrow();
    let mut is_failing = false;
    loop {
        match step(&replica, position).await {
            Ok((next, has_more)) => {
                position = next;
                position_tx.send_replace(next);
                if is_failing {
                    tracing::info!("registry changes are followed again");
                }
                is_failing = false;
                if has_more {
                    continue;
                }
            }
            Err(error) if !is_failing => {
                tracing::error!(%error, "registry changes can't be followed; trying again until they can");
                is_failing = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            biased;
            () = wake.notified() => {}
            () = replica.storage.feed_changed() => {}
            () = tokio::time::sleep(replica.poll_interval) => {}
        }
    }
}

/// Applies all changes from `position` on, once. Returns the former hashes of the torrents among
/// them; none if the feed has lost changes.
pub(super) async fn catch_up(
    replica: &Replica,
    mut position: FeedPosition,
    pass: LoadPass,
) -> Result<Option<FormerHashes>, StorageError> {
    let mut former = FormerHashes::new();
    while let Feed::Changes(changes, next) = replica.storage.feed(position, CHANGES_AT_ONCE).await?
    {
        for id in changes.iter().filter_map(RowChange::torrent) {
            if let Some(hash) = replica.registry.canonical(id) {
                former.entry(id).or_insert(hash);
            }
        }
        apply(replica, changes, pass).await?;
        // None are left, or only some after an open transaction. These do not move the position: they
        // are read again until it ends.
        if next == position {
            return Ok(Some(former));
        }
        position = next;
    }
    Ok(None)
}

/// Applies the next changes; returns the position after them, and whether there may be more.
async fn step(
    replica: &Replica,
    position: FeedPosition,
) -> Result<(FeedPosition, bool), SyncError> {
    let _turn = replica.turn.lock().await;
    match replica.storage.feed(position, CHANGES_AT_ONCE).await? {
        Feed::Changes(changes, next) => {
            log_changes(replica.hooks.is_public(), &changes);
            for change in &changes {
                publish_event(&replica.events, change);
            }
            apply(replica, changes, LoadPass::Again).await?;
            Ok((next, next != position))
        }
        Feed::Lost => {
            tracing::warn!(
                "not every registry change can be followed one by one; loading the registry again"
            );
            let position = load::from_storage(replica, LoadPass::Again).await?;
            replica.events.publish(LiveEvent::Registry);
            Ok((position, true))
        }
    }
}

async fn apply(
    replica: &Replica,
    changes: Vec<RowChange>,
    pass: LoadPass,
) -> Result<(), StorageError> {
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    for change in changes {
        match RegistryChange::from(change) {
            RegistryChange::Torrent(torrent) => changed.push(torrent),
            RegistryChange::TorrentGone(id) => gone.push(id),
            other => replica.registry.apply(other),
        }
    }
    replica.hooks.apply_torrents(changed, gone, pass).await
}

/// Logs how many rows of each kind changed.
fn log_changes(is_public: bool, changes: &[RowChange]) {
    let (mut users, mut torrents, mut whitelist) = (0, 0, 0);
    for change in changes {
        match change {
            RowChange::User(_) | RowChange::UserGone(_) => users += 1,
            // A public tracker registers torrents by itself, all the time.
            RowChange::Torrent(_) if is_public => {}
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

fn publish_event(events: &Events, change: &RowChange) {
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
