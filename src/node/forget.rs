//! Removes a public tracker's rows of unused torrents: before the registry is full, and after
//! `tracker.forget_torrents_after`.
//!
//! A torrent is registered by its first snatch, which takes a client only two packets. So rows that
//! clients created are kept while the torrent has peers, and after that while there is room.

use std::time::Duration;

use crate::base::clock::Seconds;
use crate::node::Node;
use crate::storage::{StorageError, TorrentRemoval};
use crate::tracker::{IdleTorrents, Mode, Tracker};

/// The registry is checked every eighth of the peer TTL, within these bounds.
const PERIOD_MIN: Duration = Duration::from_secs(1);
const PERIOD_MAX: Duration = Duration::from_secs(60);

/// Rows removed in one turn, and in one transaction.
const ROWS_MAX: usize = 50_000;
const ROWS_AT_ONCE: usize = 500;

/// Removes rows periodically; runs until cancelled.
pub(super) async fn forget(node: Node) {
    loop {
        let eighth = Duration::from_secs(u64::from(node.tracker.peer_ttl()) / 8);
        tokio::time::sleep(eighth.clamp(PERIOD_MIN, PERIOD_MAX)).await;
        if node.tracker.mode() != Mode::Public {
            continue;
        }
        match turn(&node).await {
            Ok(0) => {}
            Ok(forgotten) => {
                let (registered, max_torrents) = node.tracker.registered_torrents();
                tracing::info!(
                    forgotten,
                    registered,
                    max_torrents,
                    "torrents that nobody uses have been removed"
                );
            }
            Err(error) => {
                tracing::debug!(%error, "unused torrents were not removed; trying again later");
            }
        }
    }
}

/// Removes the rows that are due; returns how many.
async fn turn(node: &Node) -> Result<u64, StorageError> {
    let (registered, room) = node.tracker.registered_torrents();
    let (peer_ttl, old) = (
        node.tracker.peer_ttl(),
        node.tracker.forget_torrents_after(),
    );
    let excess = rows_to_remove(registered, room);
    let mut forgotten = 0;
    if excess > 0 {
        forgotten += remove_idle(node, peer_ttl, excess).await?;
    }
    if old > 0 {
        forgotten += remove_idle(node, old.max(peer_ttl), ROWS_MAX).await?;
    }
    Ok(forgotten)
}

/// How many rows to remove: none while less than seven eighths are taken, else enough to leave a quarter
/// free, or [`ROWS_MAX`] if that is less.
fn rows_to_remove(registered: usize, room: usize) -> usize {
    if registered < room - room / 8 {
        return 0;
    }
    (registered.saturating_sub(room - room / 4)).min(ROWS_MAX)
}

/// Removes up to `most` rows of torrents that had no peers for `idle` seconds.
async fn remove_idle(node: &Node, idle: u32, most: usize) -> Result<u64, StorageError> {
    let now = node.clock.now().mono;
    let before = Seconds(now.0.saturating_sub(idle));
    let mut found = IdleTorrents::new(most);
    for shard in 0..Tracker::SHARDS {
        node.tracker.find_idle(shard, before, &mut found);
        tokio::task::yield_now().await;
    }
    let removals: Vec<TorrentRemoval> = found
        .into_vec()
        .into_iter()
        .map(|torrent| TorrentRemoval {
            info_hash: torrent.info_hash,
            unused: Some(torrent.snatches.into()),
        })
        .collect();
    let mut removed = 0;
    for chunk in removals.chunks(ROWS_AT_ONCE) {
        let gone = node.storage.remove_torrents(chunk).await?;
        node.metrics.torrents_forgotten.add(gone);
        removed += gone;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_free_again_once_an_eighth_is_left() {
        for (registered, room, expected) in [
            (0, 1000, 0),
            (874, 1000, 0),
            (875, 1000, 125),
            (1000, 1000, 250),
            (5000, 1000, 4250),
            (1, 1, 0),
            (10_000_000, 4_000_000, ROWS_MAX),
        ] {
            assert_eq!(rows_to_remove(registered, room), expected, "{registered}");
        }
    }
}
