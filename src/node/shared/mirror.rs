//! Mirroring storage into the cache: one node at a time follows storage's feed for all.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::backoff::Backoff;
use crate::base::ids::TorrentId;
use crate::cache::{Cache, CacheError, ControlPosition, Mirrored, Notice, Write};
use crate::node::follow::FormerHashes;
use crate::node::{Node, load};
use crate::registry::{BadRow, RowChange};
use crate::storage::{Feed, FeedPosition, StorageError};
use crate::warmup::{self, Parts, Progress, WarmupError};

/// How often the feed is looked at.
const PERIOD: Duration = Duration::from_millis(300);

/// The longest pause after failures: filling a cache may fail late, and reads all of storage.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How long a lease holds without being renewed.
const LEASE: Duration = Duration::from_secs(5);

/// How long to wait for what was told before; less than the lease.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Changes taken at once.
const AT_ONCE: u32 = 5000;

/// How often some of the cache's peers are looked through for old ones.
const SWEEP_PERIOD: Duration = Duration::from_secs(2);

/// Why a step of the mirror failed.
#[derive(Debug, thiserror::Error)]
enum MirrorError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Warmup(#[from] WarmupError),
}

/// Mirrors changes whenever it is this node's turn, for ever. `heard` is how far this node has
/// followed the notices; `former` has hashes that its registry has no longer, and the cache perhaps has.
pub(super) async fn mirror(
    node: Node,
    cache: Arc<dyn Cache>,
    mut heard: watch::Receiver<ControlPosition>,
    former: FormerHashes,
) {
    let mut delays = None;
    let mut own = String::new();
    loop {
        let pause = match step(&node, &cache, &mut heard, &mut own, &former).await {
            Ok(more) => {
                if delays.take().is_some() {
                    tracing::info!("registry changes are mirrored again");
                }
                if more {
                    continue;
                }
                PERIOD
            }
            Err(error) => {
                if delays.is_none() {
                    tracing::warn!(%error, "registry changes can't be mirrored into the cache; trying again until they can");
                }
                let delays = delays.get_or_insert_with(|| Backoff::new(PERIOD, RETRY_MAX));
                delays.next().unwrap_or(RETRY_MAX)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Mirrors the next changes; returns whether there may be more.
async fn step(
    node: &Node,
    cache: &Arc<dyn Cache>,
    heard: &mut watch::Receiver<ControlPosition>,
    own: &mut String,
    former: &FormerHashes,
) -> Result<bool, MirrorError> {
    if !cache.lease("mirror", &node.name, LEASE).await? {
        return Ok(false);
    }
    let generation = cache.ping().await?;
    let Some(mirrored) = cache.mirrored().await? else {
        tracing::info!("the cache has no complete registry: filling it from storage");
        warm_up(node, cache).await?;
        return Ok(true);
    };
    if !is_own(node, &mirrored, own).await? {
        tracing::error!(
            "the cache has the registry of another database: filling it from this node's; nodes \
             and mika-manage must name the same storage.url, or another cache.url"
        );
        warm_up(node, cache).await?;
        return Ok(true);
    }
    let position = FeedPosition(mirrored.position);
    match node.storage.feed(position, AT_ONCE).await? {
        Feed::Changes(changes, next) if next == position && changes.is_empty() => Ok(false),
        Feed::Changes(changes, next) => {
            if !knows_former(&**cache, heard, &changes).await? {
                return Ok(false);
            }
            write(node, &**cache, changes, former).await?;
            let mirrored = Mirrored {
                position: next.0,
                ..mirrored
            };
            cache.set_mirrored(generation, mirrored).await?;
            // Changes behind a transaction that is still open are told again until it ends.
            Ok(next != position)
        }
        Feed::Lost => {
            tracing::warn!(
                "not every registry change can be followed one by one; filling the cache from storage again"
            );
            warm_up(node, cache).await?;
            Ok(true)
        }
    }
}

/// Whether the cache has the registry of this node's database. `own` is what that was last named.
async fn is_own(node: &Node, mirrored: &Mirrored, own: &mut String) -> Result<bool, StorageError> {
    if mirrored.storage != *own {
        *own = node.storage.identity().await?;
    }
    Ok(mirrored.storage == *own)
}

/// Whether this node knows under which info hashes torrents that changed are in the cache: it
/// learns from the notices, so it must have followed those that were given before.
async fn knows_former(
    cache: &dyn Cache,
    heard: &mut watch::Receiver<ControlPosition>,
    changes: &[RowChange],
) -> Result<bool, CacheError> {
    if changes.iter().all(|change| change.torrent().is_none()) {
        return Ok(true);
    }
    let end = cache.control_position().await?;
    let caught_up = heard.wait_for(|position| cache.has_reached(position, &end));
    Ok(tokio::time::timeout(CATCH_UP, caught_up).await.is_ok())
}

/// Fills the cache, and holds the lease meanwhile.
async fn warm_up(node: &Node, cache: &Arc<dyn Cache>) -> Result<(), MirrorError> {
    // Totals are read from storage, so it should have what was counted until now.
    let _ = tokio::time::timeout(CATCH_UP, node.journal.all_applied()).await;
    let hold = async || -> Infallible {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            // A lease that is lost lets another node do the same, which does no harm.
            let _ = cache.lease("mirror", &node.name, LEASE).await;
        }
    };
    let options = warmup::Options {
        parts: Parts::ALL,
        dry_run: false,
    };
    let mut skipped = Skipped::default();
    tokio::select! {
        report = warmup::run(&node.storage, cache, &options, &mut skipped) => report?,
        never = hold() => match never {},
    };
    load::report(&skipped.rows);
    Ok(())
}

/// Rows that a warmup passed over.
#[derive(Default)]
struct Skipped {
    rows: Vec<BadRow>,
}

impl Progress for Skipped {
    fn skipped(&mut self, row: &BadRow) {
        self.rows.push(row.clone());
    }
}

/// Writes rows to the cache, and tells all nodes of them.
async fn write(
    node: &Node,
    cache: &dyn Cache,
    changes: Vec<RowChange>,
    former: &FormerHashes,
) -> Result<(), MirrorError> {
    let hashes_of = |id: TorrentId| {
        let former = former.get(&id).copied();
        let former = former.filter(|hash| node.registry.torrent(hash).is_none());
        node.registry.canonical(id).into_iter().chain(former)
    };
    let (mut users, mut gone_users) = (Vec::new(), Vec::new());
    let (mut torrents, mut gone_torrents) = (Vec::new(), Vec::new());
    let mut notices = Vec::new();
    for change in changes {
        match change {
            RowChange::User(row) => {
                notices.push(Notice::User(row.user.id));
                users.push(row);
            }
            RowChange::UserGone(id) => {
                notices.push(Notice::User(id));
                gone_users.push(id);
            }
            RowChange::Torrent(row) => {
                // One that has another info hash now is gone under the old one.
                let old = hashes_of(row.torrent.id);
                gone_torrents.extend(old.filter(|old| *old != row.torrent.info_hash));
                notices.push(Notice::Torrent(row.torrent.info_hash));
                torrents.push(row);
            }
            RowChange::TorrentGone(id) => gone_torrents.extend(hashes_of(id)),
            RowChange::Whitelist(clients) => {
                cache.put_whitelist(&clients).await?;
                notices.push(Notice::Whitelist);
            }
        }
    }
    // One that is gone under an id may be there under another.
    let there: HashSet<_> = torrents.iter().map(|row| row.torrent.info_hash).collect();
    gone_torrents.retain(|info_hash| !there.contains(info_hash));
    notices.extend(gone_torrents.iter().copied().map(Notice::Torrent));
    cache.remove_users(&gone_users).await?;
    cache.remove_torrents(&gone_torrents).await?;
    cache.put_users(&users, Write::Edit).await?;
    cache.put_torrents(&torrents, Write::Edit).await?;
    cache.publish(&notices).await?;
    Ok(())
}

/// Removes peers from the cache that nobody has heard of for long, for ever, some at a time.
pub(super) async fn sweep(node: Node, cache: Arc<dyn Cache>) {
    let mut cursor = 0;
    loop {
        tokio::time::sleep(SWEEP_PERIOD).await;
        let members_before = node.clocks.before(node.tracker.record_ttl());
        let guests_before = node.clocks.before(node.tracker.peer_ttl());
        let (Some(guests_before), members_before) =
            (guests_before, members_before.unwrap_or(i64::MIN))
        else {
            // Another node can.
            continue;
        };
        let is_ours = cache.lease("sweep", &node.name, LEASE).await;
        if !is_ours.unwrap_or(false) {
            continue;
        }
        match cache.prune(cursor, members_before, guests_before).await {
            Ok(next) => cursor = next.unwrap_or(0),
            Err(error) => tracing::debug!(%error, "old peers were not removed from the cache"),
        }
    }
}
