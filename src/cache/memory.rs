//! The cache of a node that shares with nobody: its own memory is all there is.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Cache, CacheError, Kept};
use crate::change::Batch;
use crate::secret::Secret;

struct Memory;

#[allow(clippy::unnecessary_wraps)] // the form that every driver is opened by
pub(super) fn open(_url: &Secret) -> Result<Arc<dyn Cache>, CacheError> {
    Ok(Arc::new(Memory))
}

// === impl Memory ===

#[async_trait]
impl Cache for Memory {
    async fn keep(&self, _batch: &Batch) -> Result<Kept, CacheError> {
        Ok(Kept::Nowhere)
    }

    async fn applied(&self, _node: &str, _number: u64) -> Result<(), CacheError> {
        Ok(())
    }
}
