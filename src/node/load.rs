//! What a start takes up: the registry, then the swarms and accounts as they were left.

use std::collections::HashSet;
use std::time::Duration;

use crate::node::Node;
use crate::registry::{RegistryChange, Whitelist};
use crate::storage::{BadRow, FeedPosition, StorageError};
use crate::tracker::{KnownHistory, Mode, Tracker};

/// Rows read at once.
const PAGE: u32 = 5000;

/// Bad rows that are named in the log; of the rest only the number is told.
const BAD_ROWS_SHOWN: usize = 10;

/// Loads users, torrents and whitelist; returns the place in the feed to follow from.
///
/// What storage no longer has goes from the registry, so that this serves a reload too.
pub(super) async fn registry(node: &Node) -> Result<FeedPosition, StorageError> {
    // First, so that what changes during the load is found in the feed.
    let position = node.storage.feed_position().await?;
    let mut bad = Vec::new();
    users(node, &mut bad).await?;
    torrents(node, &mut bad).await?;
    let clients = node.storage.whitelist().await?;
    let whitelist = RegistryChange::Whitelist(Whitelist::new(&clients));
    node.registry.apply(whitelist);
    report(&bad);
    let (users, torrents, clients) = node.registry.sizes();
    tracing::info!(users, torrents, clients, "registry loaded");
    Ok(position)
}

async fn users(node: &Node, bad: &mut Vec<BadRow>) -> Result<(), StorageError> {
    let (known, _) = node.registry.ids();
    let mut gone: HashSet<_> = known.into_iter().collect();
    let mut after = None;
    loop {
        let page = node.storage.users(after, PAGE).await?;
        after = page.rows.last().map(|row| row.user.id);
        for row in page.rows {
            gone.remove(&row.user.id);
            node.registry.apply(RegistryChange::User(row.user));
        }
        bad.extend(page.bad);
        if page.last {
            break;
        }
    }
    let removals = gone.into_iter().map(RegistryChange::UserGone);
    removals.for_each(|change| node.registry.apply(change));
    Ok(())
}

async fn torrents(node: &Node, bad: &mut Vec<BadRow>) -> Result<(), StorageError> {
    let (_, known) = node.registry.ids();
    let mut gone: HashSet<_> = known.into_iter().collect();
    let mut after = None;
    loop {
        let page = node.storage.torrents(after, PAGE).await?;
        after = page.rows.last().map(|row| row.torrent.id);
        for row in page.rows {
            let is_new = !gone.remove(&row.torrent.id);
            let (info_hash, snatches) = (row.torrent.info_hash, row.torrent.snatches);
            node.registry.apply(RegistryChange::Torrent(row.torrent));
            if is_new {
                node.tracker.restore_snatches(info_hash, snatches);
            }
        }
        bad.extend(page.bad);
        if page.last {
            break;
        }
    }
    let removals = gone.into_iter().map(RegistryChange::TorrentGone);
    removals.for_each(|change| node.registry.apply(change));
    Ok(())
}

/// Loads what users did with torrents, and the peers with their accounts. Only private
/// trackers keep any.
pub(super) async fn swarms(node: &Node, kept_for: Duration) -> Result<(), StorageError> {
    if node.tracker.mode() == Mode::Public {
        return Ok(());
    }
    histories(node).await?;
    let now = node.clock.now();
    let since = now.unix - i64::try_from(kept_for.as_secs()).unwrap_or(i64::MAX);
    let mut bad = Vec::new();
    let (mut after, mut peers) = (None, 0);
    loop {
        let page = node.storage.peers(since, after, PAGE).await?;
        after = page.rows.last().map(|row| row.key);
        for row in &page.rows {
            peers += u64::from(node.tracker.restore_peer(&row.key, &row.record, now));
        }
        bad.extend(page.bad);
        if page.last {
            break;
        }
    }
    report(&bad);
    // Those who fell silent while no tracker ran are not handed out even once.
    (0..Tracker::SHARDS).for_each(|shard| node.tracker.sweep(shard, now));
    let (_, seeders, leechers) = node.tracker.totals();
    tracing::info!(accounts = peers, seeders, leechers, "swarms loaded");
    Ok(())
}

async fn histories(node: &Node) -> Result<(), StorageError> {
    let mut bad = Vec::new();
    let mut after = None;
    loop {
        let page = node.storage.histories(after, PAGE).await?;
        after = page.rows.last().map(|row| (row.torrent, row.user));
        for row in &page.rows {
            node.tracker.restore_history(&KnownHistory {
                user: row.user,
                torrent: row.torrent,
                downloaded: row.downloaded,
                seed_time: u32::try_from(row.seed_time).unwrap_or(u32::MAX),
                completed_at: row.completed_at,
                hnr: row.hnr,
            });
        }
        bad.extend(page.bad);
        if page.last {
            break;
        }
    }
    report(&bad);
    Ok(())
}

/// Names the rows that can't be used, so that somebody mends them.
fn report(bad: &[BadRow]) {
    for row in bad.iter().take(BAD_ROWS_SHOWN) {
        tracing::warn!(table = row.table, id = %row.id, "row passed over: {}", row.problem);
    }
    if bad.len() > BAD_ROWS_SHOWN {
        let more = bad.len() - BAD_ROWS_SHOWN;
        tracing::warn!(more, "more rows were passed over; see: mika-manage check");
    }
}
