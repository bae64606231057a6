//! The registry on its way: from editors to storage, from storage to the cache, and from there to
//! the nodes.
//!
//! - [`edit`] changes users, torrents and the whitelist: in storage, then in the cache.
//! - [`mirror`] brings rows of storage to the cache: those of an edit ([`Mirror`]'s methods), and
//!   what the feed of changes has ([`LeaseHolder`], one node at a time).
//! - [`warmup`] brings all rows there.
//! - [`load`] reads the registry of a node, from storage or from the cache.
//! - [`follow`] keeps it up to date, by storage's feed or by the cache's notices.
//!
//! Storage is the source of truth. What a node's tracker and journal do for the registry is passed
//! in as [`NodeHooks`].

pub mod edit;
pub mod follow;
pub mod load;
pub mod mirror;
mod origin;
pub mod warmup;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::base::ids::TorrentId;
use crate::cache::{CacheError, Generation};
use crate::registry::{Registry, Torrent};
use crate::storage::{Storage, StorageError};
use crate::telemetry::events::Events;

pub use follow::RegistryFollower;
pub use load::LoadPass;
pub use mirror::{LeaseHolder, Mirror};

/// Rows of the cache read at the same time.
const READS_AT_ONCE: usize = 256;

/// Why rows could not be brought from one side to the other.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A row changed each time it was written.
    #[error("others keep changing it")]
    KeepsChanging,
}

/// A node's copy of the registry, and what keeping it up to date takes.
#[derive(Clone)]
pub struct Replica {
    /// The name of the node.
    pub node: String,
    pub registry: Arc<Registry>,
    pub storage: Arc<dyn Storage>,
    /// How often storage's feed is read, unless storage says that it changed.
    pub poll_interval: Duration,
    pub events: Arc<Events>,
    pub hooks: Arc<dyn NodeHooks>,
    /// Held from reading rows until they are applied: a reload must not put back what a follower
    /// has changed meanwhile.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

/// What a node's tracker and journal do for its registry.
#[async_trait]
pub trait NodeHooks: Send + Sync + 'static {
    /// Whether clients register torrents by themselves.
    fn is_public(&self) -> bool;

    /// The name of the node's journal.
    fn journal(&self) -> &str;

    /// Applies torrents that were added or changed, and those that are gone, with their swarms. All
    /// that are known to have changed belong in one call, because info hashes may move from one
    /// torrent to another.
    async fn apply_torrents(
        &self,
        changed: Vec<Torrent>,
        gone: Vec<TorrentId>,
        pass: LoadPass,
    ) -> Result<(), StorageError>;

    /// Sets the snatches of all torrents to 0.
    fn wipe_snatches(&self);

    /// Waits until storage has all that was queued before the call.
    async fn all_applied(&self);

    /// The generation of the cache as this node has seen it.
    fn cache_generation(&self) -> watch::Receiver<Generation>;

    /// A connection to the cache has just broken.
    fn on_cache_disconnected(&self);
}

impl SyncError {
    /// Whether a retry may succeed: a server is away or was restarted, or others keep changing a row.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Storage(error) => matches!(error, StorageError::Away(_)),
            Self::Cache(error) => !matches!(error, CacheError::Broken(_)),
            Self::KeepsChanging => true,
        }
    }
}

/// Reads rows of the cache, some at a time. A row that can't be used must not stay in force, so it
/// counts as gone.
async fn read_rows<K, T, F>(
    keys: &[K],
    read: impl Fn(K) -> F,
) -> Result<Vec<(K, Option<T>)>, CacheError>
where
    K: Copy + Send + 'static,
    T: Send + 'static,
    F: Future<Output = Result<Option<T>, CacheError>> + Send + 'static,
{
    let mut rows = Vec::with_capacity(keys.len());
    for keys in keys.chunks(READS_AT_ONCE) {
        let mut reads = JoinSet::new();
        for &key in keys {
            let row = read(key);
            reads.spawn(async move { (key, row.await) });
        }
        while let Some(read) = reads.join_next().await {
            let (key, row) = read.map_err(|error| CacheError::Away(error.to_string()))?;
            let row = match row {
                Err(CacheError::Broken(problem)) => {
                    tracing::warn!(problem, "row of the cache passed over");
                    None
                }
                other => other?,
            };
            rows.push((key, row));
        }
    }
    Ok(rows)
}
