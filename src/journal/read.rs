//! Reading queued batches from memory, the spill file or the cache.

use std::sync::Arc;
use std::time::Duration;

use super::JournalShared;
use super::queue::BatchRef;
use super::spill::{SpillError, SpilledBatch};
use crate::cache::CacheError;
use crate::change::Batch;

/// A batch, or why it is lost.
type Lookup = Result<Arc<Batch>, String>;

/// Why batches can't be read now.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Spill(#[from] SpillError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl JournalShared {
    /// Loads batches from wherever they are.
    pub(super) async fn read(&self, refs: Vec<BatchRef>) -> Result<Vec<Arc<Batch>>, ReadError> {
        let mut batches = Vec::with_capacity(refs.len());
        for batch_ref in refs {
            let (number, found) = match batch_ref {
                BatchRef::Memory(batch) => (batch.number, Ok(batch)),
                BatchRef::Spilled(number) => (number, self.read_spilled(number).await?),
                BatchRef::Cached(number) => (number, self.read_cached(number).await?),
            };
            batches.push(found.unwrap_or_else(|problem| self.lost_batch(number, &problem)));
        }
        Ok(batches)
    }

    /// An empty batch in place of a lost one, so that those after it can be applied.
    fn lost_batch(&self, number: u64, problem: &str) -> Arc<Batch> {
        tracing::error!(
            batch = number,
            problem,
            "a batch is lost: what clients reported in it is credited with their next announce, \
             except for those that never announce again"
        );
        Arc::new(Batch::new(self.name.clone(), number, Vec::new()))
    }

    async fn read_spilled(&self, number: u64) -> Result<Lookup, SpillError> {
        let Some(spill) = &self.spill else {
            return Ok(Err("there is no spill file".into()));
        };
        Ok(match spill.get(&self.name, number).await? {
            SpilledBatch::Batch(batch) => Ok(Arc::new(batch)),
            SpilledBatch::Missing => Err("it was deleted from the spill file".into()),
            SpilledBatch::Damaged(problem) => {
                spill.set_aside(number).await?;
                Err(format!(
                    "it can't be read: {problem}; it is kept in table \"damaged\" of the spill file"
                ))
            }
        })
    }

    async fn read_cached(&self, number: u64) -> Result<Lookup, CacheError> {
        let Some(cache) = &self.parts.cache else {
            return Ok(Err("there is no cache".into()));
        };
        let found = cache
            .kept(&self.name, number - 1, 1, Duration::ZERO)
            .await?;
        Ok(found
            .into_iter()
            .find(|batch| batch.number == number)
            .map(Arc::new)
            .ok_or_else(|| "the cache does not have it any more".into()))
    }
}
