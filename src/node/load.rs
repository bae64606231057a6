//! Loading swarms and accounts from storage at the start, once the registry is there.

use crate::node::Node;
use crate::storage::{StorageError, StoredHistory};
use crate::sync::load::log_bad_rows;
use crate::tracker::{KnownHistory, Mode, Tracker};

/// Rows read at once.
const PAGE: u32 = 5000;

/// The base of a record whose age is unknown is dated this many seconds into the future (rule A7).
const OF_UNKNOWN_AGE: i64 = 86_400;

/// Loads what users did with torrents, and the peers with their accounts. Only private
/// trackers keep any.
pub(super) async fn swarms(node: &Node) -> Result<(), StorageError> {
    if node.tracker.mode() == Mode::Public {
        return Ok(());
    }
    histories(node).await?;
    let now = node.clock.now();
    let since = now.unix - i64::from(node.tracker.record_ttl());
    let mut bad = Vec::new();
    let (mut after, mut peers) = (None, 0);
    loop {
        let page = node.storage.peers(since, after, PAGE).await?;
        after = page.rows.last().map(|row| row.key);
        for mut row in page.rows {
            if node.clocks.was_set_back() {
                row.record.base_at = now.unix + OF_UNKNOWN_AGE;
            }
            // Peers of torrents that can't be used now are restored when these can.
            if let Some(info_hash) = node.registry.canonical(row.key.torrent) {
                node.tracker
                    .restore_peer(info_hash, &row.key, &row.record, true, now);
                peers += 1;
            }
        }
        bad.extend(page.bad);
        if page.last {
            break;
        }
    }
    log_bad_rows(&bad);
    sweep_all(node);
    let (_, seeders, leechers) = node.tracker.totals();
    tracing::info!(accounts = peers, seeders, leechers, "swarms loaded");
    Ok(())
}

/// Sweeps all swarms: at the start, to expire peers that fell silent while no tracker ran, before any is
/// handed out; at the end, so that peers that owe the journal no longer do.
pub(super) fn sweep_all(node: &Node) {
    let now = node.clock.now();
    for shard in 0..Tracker::SHARDS {
        node.tracker.sweep(shard, now);
    }
}

/// Loads what users did with torrents; only private trackers keep it.
pub(super) async fn histories(node: &Node) -> Result<(), StorageError> {
    if node.tracker.mode() == Mode::Public {
        return Ok(());
    }
    let mut bad = Vec::new();
    let mut after = None;
    loop {
        let page = node.storage.histories(after, PAGE).await?;
        after = page.rows.last().map(|row| (row.torrent, row.user));
        for row in &page.rows {
            if let Some(info_hash) = node.registry.canonical(row.torrent) {
                node.tracker.restore_history(info_hash, &known_history(row));
            }
        }
        bad.extend(page.bad);
        if page.last {
            break;
        }
    }
    log_bad_rows(&bad);
    Ok(())
}

pub(super) fn known_history(row: &StoredHistory) -> KnownHistory {
    KnownHistory {
        user: row.user,
        downloaded: row.downloaded,
        seed_time: u32::try_from(row.seed_time).unwrap_or(u32::MAX),
        completed_at: row.completed_at,
        hnr: row.hnr,
    }
}
