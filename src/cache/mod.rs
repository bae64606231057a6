//! The cache: fast state shared between nodes, behind a trait.
//!
//! A driver implements [`Cache`] and is opened by name from the URL in the config, as with
//! storage. The driver `memory` is for a single node: it keeps nothing, so storage is what
//! makes a batch durable, and what a start loads from.

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::change::Batch;
use crate::secret::Secret;

/// Why a call to the cache failed: the same call may succeed later.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CacheError(pub String);

/// Where a batch is after [`Cache::keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Durable, and told to other nodes: replies that wait for it may go.
    Durable,
    /// Nowhere but with the caller: replies wait for storage.
    Nowhere,
}

/// What nodes share.
///
/// Every method may be called from any thread; none may block the thread that polls it.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// Keeps a batch until [`Cache::applied`] lets it go. Keeping one twice is harmless.
    async fn keep(&self, batch: &Batch) -> Result<Kept, CacheError>;

    /// Storage has applied the batches of that node up to this number.
    async fn applied(&self, node: &str, number: u64) -> Result<(), CacheError>;
}

/// Opens a cache from its URL.
pub type OpenCache = fn(&Secret) -> Result<Arc<dyn Cache>, CacheError>;

/// The cache drivers by name.
#[derive(Clone)]
pub struct Drivers {
    by_name: BTreeMap<&'static str, OpenCache>,
}

// === impl Drivers ===

impl Drivers {
    /// The drivers of this crate.
    pub fn built_in() -> Self {
        let mut drivers = Self {
            by_name: BTreeMap::new(),
        };
        drivers.register("memory", memory::open);
        drivers
    }

    /// Adds a driver, or replaces the one of that name.
    pub fn register(&mut self, name: &'static str, open: OpenCache) {
        self.by_name.insert(name, open);
    }

    pub fn get(&self, name: &str) -> Option<OpenCache> {
        self.by_name.get(name).copied()
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.by_name.keys().copied().collect()
    }
}
