//! Warmup: brings the registry of the cache up to what storage has.
//!
//! Rows are written over those that are there, and only then goes what storage no longer has, so
//! at no moment is anything missing that is in force: a warmup may be repeated, and interrupted
//! anywhere. Totals and counters in the cache are left to the nodes, whose announces move them.
//! The sets of users are written from storage; nodes that run know newer ones, and are told to
//! bring them.
//!
//! The web application goes on editing meanwhile. So the feed of changes is read before the first
//! row, and followed after the last one and before every removal: what a page read too early for
//! is put right by the feed.

mod compare;
mod load;
mod remove;
mod seen;
mod sets;

use std::sync::Arc;

use crate::cache::{Cache, CacheError, Mirrored, Notice, owner};
use crate::registry::BadRow;
use crate::storage::{Storage, StorageError};

use self::load::Loader;

/// Rows read from storage at a time.
const PAGE: u32 = 2000;

/// What to warm up, and whether to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub parts: Parts,
    /// Only counts what would change.
    pub dry_run: bool,
}

/// Parts of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub whitelist: bool,
    pub users: bool,
    pub torrents: bool,
}

/// One step of a warmup, as progress tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Whitelist,
    Users,
    Torrents,
    /// The sets of users.
    Sets,
    /// Looking through the cache for what storage no longer has.
    Removal,
}

/// Hears how a warmup goes on. By default it listens to nothing.
pub trait Progress: Send {
    fn begin(&mut self, _step: Step) {}

    /// So many more rows are done.
    fn advance(&mut self, _rows: u64) {}

    /// A row of storage was passed over.
    fn skipped(&mut self, _row: &BadRow) {}

    /// The step is done. What is removed is counted by then in a dry run only.
    fn end(&mut self, _step: Step, _counts: &Counts) {}
}

/// What became of one part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Usable rows in storage.
    pub rows: u64,
    /// Counted by a dry run only: rows that the cache lacks.
    pub added: u64,
    /// Counted by a dry run only: rows that differ in the cache.
    pub changed: u64,
    /// Rows of the cache that storage no longer has.
    pub removed: u64,
}

/// What a warmup did; parts that were not asked for are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub whitelist: Option<Counts>,
    pub users: Option<Counts>,
    pub torrents: Option<Counts>,
    /// Rows of storage that can't be used.
    pub skipped: u64,
    /// Users without a passkey and torrents without an info hash, which the site has not finished.
    pub unfinished: Unfinished,
}

/// Rows that take effect once the site has written what they lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    pub users: u64,
    pub torrents: u64,
}

/// Which of the two failed.
#[derive(Debug, thiserror::Error)]
pub enum WarmupError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Brings `cache` up to `storage`. When all parts were done, the cache counts as complete: nodes
/// may start from it. Running nodes take everything over at once.
pub async fn run(
    storage: &Arc<dyn Storage>,
    cache: &Arc<dyn Cache>,
    options: &Options,
    progress: &mut impl Progress,
) -> Result<Report, WarmupError> {
    cache.ping().await?;
    let start = storage.feed_position().await?;
    if options.dry_run {
        return compare::run(&**storage, &**cache, options.parts, progress).await;
    }
    let identity = storage.identity().await?;
    owner::take(&**cache, &identity).await?;
    // What is written to a server that is restarted or emptied meanwhile is not complete.
    let generation = cache.begin_epoch().await?;
    let before = cache.mirrored().await?;
    if before.is_some_and(|before| before.storage != identity) {
        // Rows of two databases are no registry, should this break off.
        cache.forget_mirrored().await?;
    }
    let evicted = cache.evicted().await?;
    let mut loader = Loader::new(storage, cache, start, progress);
    loader.look().await?;
    loader.load(options.parts).await?;
    loader.follow_feed().await?;
    let has_users = options.parts.users && options.parts.torrents;
    if has_users {
        loader.load_sets().await?;
    }
    let (report, position) = loader.remove(options.parts).await?;
    if options.parts == Parts::ALL {
        let mirrored = Mirrored {
            position,
            storage: identity,
            evicted,
        };
        cache.set_mirrored(generation, mirrored).await?;
    }
    cache.publish(&[Notice::Registry]).await?;
    if has_users {
        cache.publish(&[Notice::Peers]).await?;
    }
    Ok(report)
}

// === impl Parts ===

impl Parts {
    pub const ALL: Self = Self {
        whitelist: true,
        users: true,
        torrents: true,
    };

    pub const NONE: Self = Self {
        whitelist: false,
        users: false,
        torrents: false,
    };
}

// === impl Progress ===

impl Progress for () {}

// === impl WarmupError ===

impl WarmupError {
    /// Whether the server could not be reached, or not now.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Storage(error) => matches!(error, StorageError::Away(_)),
            Self::Cache(error) => !matches!(error, CacheError::Broken(_)),
        }
    }
}
