//! What a start takes up: the registry, then the swarms and accounts as they were left.

use std::collections::HashSet;

use crate::ids::TorrentId;
use crate::node::Node;
use crate::registry::{RegistryChange, Torrent, Whitelist};
use crate::storage::{BadRow, FeedPosition, History, StorageError};
use crate::tracker::{KnownHistory, Mode, Tracker};

/// Rows read at once.
const PAGE: u32 = 5000;

/// Bad rows that are named in the log; of the rest only the number is told.
const BAD_ROWS_SHOWN: usize = 10;

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
    users(node, &mut bad).await?;
    torrents(node, when, &mut bad).await?;
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

async fn torrents(
    node: &Node,
    when: Registered,
    bad: &mut Vec<BadRow>,
) -> Result<(), StorageError> {
    let (_, known) = node.registry.ids();
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
        registered(node, torrents, when).await?;
        bad.extend(page.bad);
        if page.last {
            break;
        }
    }
    for id in gone {
        torrent_gone(node, id);
    }
    Ok(())
}

/// Takes a torrent out of the registry. What a public tracker counted of it goes with its row.
pub(super) fn torrent_gone(node: &Node, id: TorrentId) {
    let info_hash = node.registry.canonical(id);
    node.registry.apply(RegistryChange::TorrentGone(id));
    if let Some(info_hash) = info_hash {
        node.tracker.forget_snatches(&info_hash);
    }
}

/// Registers torrents or changes them. Those that were not known under their info hash go on from
/// what storage has of them, and are announced only after that.
pub(super) async fn registered(
    node: &Node,
    torrents: Vec<Torrent>,
    when: Registered,
) -> Result<(), StorageError> {
    let is_new = |it: &Torrent| node.registry.canonical(it.id) != Some(it.info_hash);
    let mut with_records = HashSet::new();
    if when == Registered::Again && node.tracker.mode() == Mode::Private {
        let new = torrents.iter().filter(|torrent| is_new(torrent));
        let new: Vec<TorrentId> = new.map(|torrent| torrent.id).collect();
        if !new.is_empty() {
            with_records.extend(node.storage.with_records(&new).await?);
        }
    }
    for torrent in torrents {
        if is_new(&torrent) {
            let (info_hash, snatches) = (torrent.info_hash, torrent.snatches);
            node.tracker.restore_snatches(info_hash, snatches);
            if with_records.contains(&torrent.id) {
                take_up(node, &torrent).await?;
            }
        }
        node.registry.apply(RegistryChange::Torrent(torrent));
    }
    Ok(())
}

async fn take_up(node: &Node, torrent: &Torrent) -> Result<(), StorageError> {
    // Refused until it is whole again; what is still on its way to storage belongs to it too.
    let old_hash = node.registry.canonical(torrent.id);
    if let Some(old_hash) = old_hash {
        node.tracker
            .sweep(node.tracker.shard_of(&old_hash), node.clock.now());
    }
    node.registry.apply(RegistryChange::TorrentGone(torrent.id));
    node.journal.all_applied().await;
    if let Some(old_hash) = old_hash {
        // From here on storage knows best: should the old hash come back, so does what is there then.
        node.tracker.forget(&old_hash);
    }
    let (histories, peers) = node.storage.records_of(torrent.id).await?;
    for row in &histories {
        let known = known_history(row);
        node.tracker.restore_history(torrent.info_hash, &known);
    }
    let now = node.clock.now();
    for row in &peers {
        node.tracker
            .restore_peer(torrent.info_hash, &row.key, &row.record, now);
    }
    Ok(())
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
        for row in &page.rows {
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

fn known_history(row: &History) -> KnownHistory {
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
