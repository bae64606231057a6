//! Warmup: brings the whole registry of the cache up to what storage has.
//!
//! Rows are written over those that are there, and only then is removed what storage no longer has.
//! So no row that is in force is missing at any moment, and a warmup may be repeated, or interrupted
//! anywhere. Totals and counters in the cache are left to the nodes, whose announces move them. The
//! sets of users are written from storage; running nodes know newer ones, and are notified to bring
//! them.
//!
//! The web application goes on editing meanwhile. So the feed of changes is read before the first
//! row, and followed after the last one and before every removal: the feed corrects what was read
//! too early.

mod compare;
mod load;
mod read;
mod remove;
mod sets;
mod stored;

use crate::cache::{Mirrored, Notice, owner};
use crate::registry::BadRow;

use self::load::Loader;
use self::read::Reader;
use super::{Mirror, SyncError};

/// What to warm up, and whether to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmupOptions {
    pub parts: WarmupParts,
    /// Only counts what would change.
    pub dry_run: bool,
}

/// Parts of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmupParts {
    pub whitelist: bool,
    pub users: bool,
    pub torrents: bool,
}

/// One step of a warmup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmupStep {
    Whitelist,
    Users,
    Torrents,
    /// The sets of users.
    Sets,
    /// Looking through the cache for what storage no longer has.
    Removal,
}

/// Shows how a warmup progresses; by default nothing.
pub trait WarmupProgress: Send {
    fn begin(&mut self, _step: WarmupStep) {}

    /// `rows` more are done.
    fn advance(&mut self, _rows: u64) {}

    /// A row of storage was passed over.
    fn skipped(&mut self, _row: &BadRow) {}

    /// The step is done. Users and torrents to remove are counted by then only in a dry run.
    fn end(&mut self, _step: WarmupStep, _counts: &WarmupCounts) {}
}

/// The rows of one part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmupCounts {
    /// Usable rows in storage.
    pub rows: u64,
    /// Counted by a dry run only: rows that the cache lacks.
    pub added: u64,
    /// Counted by a dry run only: rows that differ in the cache.
    pub changed: u64,
    /// Rows of the cache that storage no longer has.
    pub removed: u64,
}

/// What a warmup did. Parts that were not asked for are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmupReport {
    pub whitelist: Option<WarmupCounts>,
    pub users: Option<WarmupCounts>,
    pub torrents: Option<WarmupCounts>,
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

/// Brings the cache up to storage. When all parts were done, the cache counts as complete: nodes
/// may start from it. Running nodes load everything again at once.
pub async fn run(
    mirror: &Mirror,
    options: &WarmupOptions,
    progress: &mut impl WarmupProgress,
) -> Result<WarmupReport, SyncError> {
    let Mirror { storage, cache } = mirror;
    cache.ping().await?;
    let start = storage.feed_position().await?;
    let reader = Reader::new(&**storage, progress);
    if options.dry_run {
        return compare::run(reader, &**cache, options.parts).await;
    }
    let identity = storage.identity().await?;
    owner::take(&**cache, &identity).await?;
    // What is written to a server that is restarted or emptied meanwhile is not complete.
    let generation = cache.begin_epoch().await?;
    let before = cache.mirrored().await?;
    if before.is_some_and(|before| before.storage != identity) {
        // If this breaks off, the cache is left with rows of two databases, which are no registry.
        cache.forget_mirrored().await?;
    }
    let evicted = cache.evicted().await?;
    let mut loader = Loader::new(reader, cache, start);
    loader.look().await?;
    loader.load(options.parts).await?;
    loader.follow_feed().await?;
    let has_users = options.parts.users && options.parts.torrents;
    if has_users {
        loader.load_sets().await?;
    }
    let (report, position) = loader.remove(options.parts).await?;
    if options.parts == WarmupParts::ALL {
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

// === impl WarmupOptions ===

impl WarmupOptions {
    /// Everything.
    pub const ALL: Self = Self {
        parts: WarmupParts::ALL,
        dry_run: false,
    };
}

// === impl WarmupParts ===

impl WarmupParts {
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

// === impl WarmupProgress ===

impl WarmupProgress for () {}
