//! What a start takes up: the registry, then the swarms and accounts as they were left.

use std::collections::HashSet;

use crate::node::{Node, torrents};
use crate::registry::{RegistryChange, Whitelist};
use crate::storage::{BadRow, FeedPosition, StorageError, StoredHistory};
use crate::tracker::{KnownHistory, Mode, Tracker};

/// Rows read at once.
const PAGE: u32 = 5000;

/// Bad rows that are named in the log; of the rest only the number is told.
const BAD_ROWS_SHOWN: usize = 10;

/// Seconds by which the base of a record lies in the future whose age is not known (rule A7).
const OF_UNKNOWN_AGE: i64 = 86_400;

/// Whether a registry is loaded for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registered {
    /// What is known of all torrents is loaded after it, at once.
    First,
    /// Torrents that are new bring what is known of them.
    Again,
}

/// Loads users, torrents and whitelist; returns the place in the feed to follow from.
///
/// What storage no longer has goes from the registry, so that this serves a reload too.
pub(super) async fn registry(node: &Node, when: Registered) -> Result<FeedPosition, StorageError> {
    // First, so that what changes during the load is found in the feed.
    let position = node.storage.feed_position().await?;
    let mut bad = Vec::new();
    let users_unfinished = users(node, &mut bad).await?;
    let torrents_unfinished = all_torrents(node, when, &mut bad).await?;
    let clients = node.storage.whitelist().await?;
    bad.extend(node.storage.bad_clients().await?);
    let whitelist = RegistryChange::Whitelist(Whitelist::new(&clients));
    node.registry.apply(whitelist);
    report(&bad);
    if users_unfinished + torrents_unfinished > 0 {
        tracing::info!(
            users = users_unfinished,
            torrents = torrents_unfinished,
            "some rows are not ready yet: users without a passkey, torrents without an info hash"
        );
    }
    let (users, torrents, clients) = node.registry.sizes();
    tracing::info!(users, torrents, clients, "registry loaded");
    Ok(position)
}

/// Returns how many users have no passkey yet.
async fn users(node: &Node, bad: &mut Vec<BadRow>) -> Result<u64, StorageError> {
    let (known, _) = node.registry.ids();
    let mut unfinished = 0;
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
        unfinished += page.unfinished;
        if page.last {
            break;
        }
    }
    let removals = gone.into_iter().map(RegistryChange::UserGone);
    removals.for_each(|change| node.registry.apply(change));
    Ok(unfinished)
}

/// Returns how many torrents have no info hash yet.
async fn all_torrents(
    node: &Node,
    when: Registered,
    bad: &mut Vec<BadRow>,
) -> Result<u64, StorageError> {
    let (_, known) = node.registry.ids();
    let mut unfinished = 0;
    let mut gone: HashSet<_> = known.into_iter().collect();
    let mut after = None;
    loop {
        let page = node.storage.torrents(after, PAGE).await?;
        after = page.rows.last().map(|row| row.torrent.id);
        let torrents = page.rows.into_iter().map(|row| row.torrent);
        let torrents: Vec<_> = torrents.collect();
        for torrent in &torrents {
            gone.remove(&torrent.id);
        }
        torrents::follow(node, torrents, Vec::new(), when).await?;
        bad.extend(page.bad);
        unfinished += page.unfinished;
        if page.last {
            break;
        }
    }
    torrents::follow(node, Vec::new(), gone.into_iter().collect(), when).await?;
    Ok(unfinished)
}

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
            // Those of torrents that can't be used now are taken up when these can.
            if let Some(info_hash) = node.registry.canonical(row.key.torrent) {
                node.tracker
                    .restore_peer(info_hash, &row.key, &row.record, now);
                peers += 1;
            }
        }
        bad.extend(page.bad);
        if page.last {
            break;
        }
    }
    report(&bad);
    expire(node);
    let (_, seeders, leechers) = node.tracker.totals();
    tracing::info!(accounts = peers, seeders, leechers, "swarms loaded");
    Ok(())
}

/// Lets go of those who fell silent while no tracker ran: they are not handed out even once.
pub(super) fn expire(node: &Node) {
    let now = node.clock.now();
    (0..Tracker::SHARDS).for_each(|shard| node.tracker.sweep(shard, now));
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
    report(&bad);
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

/// Names the rows that can't be used, so that somebody mends them.
pub(super) fn report(bad: &[BadRow]) {
    for row in bad.iter().take(BAD_ROWS_SHOWN) {
        tracing::warn!(table = row.table, id = %row.id, "row passed over: {}", row.problem);
    }
    if bad.len() > BAD_ROWS_SHOWN {
        let more = bad.len() - BAD_ROWS_SHOWN;
        tracing::warn!(more, "more rows were passed over; see: mika-manage check");
    }
}
