//! Applying the rest of nodes that died: what they left in the cache, any node may bring to storage.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::{Cache, CacheError, members_of, memberships_of};
use crate::clock::Seconds;
use crate::storage::{CreditRules, Storage, StorageError};

/// Seconds without a sign of life after which a node counts as dead.
const DEAD_AFTER: u32 = 15;

/// Seconds without a sign of life after which a node is taken off the list of those whose journal is
/// followed, if storage has all of it. One that comes back puts itself on the list again.
const FORGOTTEN_AFTER: u32 = 86_400;

/// Batches applied at once.
const PAGE: u32 = 20;

/// Watches the other nodes.
pub struct Replay {
    cache: Arc<dyn Cache>,
    storage: Arc<dyn Storage>,
    own: String,
    /// The last sign of each node, and since when it is the same.
    signs: HashMap<String, (String, Seconds)>,
}

/// Why the rest of a node could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

// === impl Replay ===

impl Replay {
    pub fn new(cache: Arc<dyn Cache>, storage: Arc<dyn Storage>, own: String) -> Self {
        Self {
            cache,
            storage,
            own,
            signs: HashMap::new(),
        }
    }

    /// Looks at all nodes once, and applies what dead ones left, by the rules in force; to be
    /// called every few seconds.
    pub async fn look(&mut self, now: Seconds, rules: &CreditRules) -> Result<(), ReplayError> {
        let nodes = self.cache.nodes().await?;
        self.signs
            .retain(|node, _| nodes.iter().any(|(name, _)| name == node));
        for (node, sign) in nodes {
            if node == self.own {
                continue;
            }
            let known = self
                .signs
                .entry(node.clone())
                .or_insert_with(|| (sign.clone(), now));
            if known.0 != sign {
                *known = (sign, now);
                continue;
            }
            let silence = now.since(known.1);
            if silence >= DEAD_AFTER {
                self.apply(&node, rules).await?;
            }
            if silence >= FORGOTTEN_AFTER && self.is_done(&node).await? {
                self.cache.leave(&node).await?;
                tracing::info!(node, "a node that is gone is not followed any more");
            }
        }
        Ok(())
    }

    /// Whether storage has all that the node ever gave to the cache.
    async fn is_done(&self, node: &str) -> Result<bool, ReplayError> {
        let last = self.cache.last_kept(node).await?;
        let is_kept = !self.cache.kept(node, 0, 1).await?.is_empty();
        Ok(!is_kept && last <= self.storage.applied(node).await?)
    }

    async fn apply(&self, node: &str, rules: &CreditRules) -> Result<(), ReplayError> {
        let applied = self.storage.applied(node).await?;
        let generation = self.cache.ping().await?;
        let mut after = 0;
        loop {
            let batches = self.cache.kept(node, after, PAGE).await?;
            let batches: Vec<_> = batches.into_iter().map(Arc::new).collect();
            let Some(last) = batches.last().map(|batch| batch.number) else {
                break;
            };
            for batch in &batches {
                // The node may have died before it wrote them.
                let written = self.cache.put_peers(&members_of(batch)).await?;
                let memberships = memberships_of(batch, &written);
                self.cache.put_memberships(&memberships).await?;
            }
            if last > applied {
                let credited = self.storage.apply(&batches, rules).await?;
                self.cache.add_totals(generation, &credited).await?;
                tracing::info!(node, batch = last, "applied what a node left that is gone");
            }
            after = last;
        }
        // What storage had before this round: whoever follows that node has read it by now.
        Ok(self.cache.applied(node, applied).await?)
    }
}
