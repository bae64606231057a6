//! A node without listeners, signals or threads, on stores that the caller provides (feature `contract`).
//! The simulator runs it.

use std::sync::Arc;

use anyhow::Result;

use crate::base::clock::Clock;
use crate::cache::Cache;
use crate::config::Config;
use crate::journal::{self, Remaining};
use crate::node::core::Core;
use crate::node::start::{self, ProcessContext};
use crate::registry::Registry;
use crate::storage::Storage;
use crate::tracker::Tracker;

pub use crate::node::shared::NodeProcess;

/// A running node. Dropping it is like killing its process: it stops wherever it is.
pub struct BareNode {
    core: Core,
}

impl BareNode {
    /// Starts a node, as the daemon does; waits for servers that are away.
    pub async fn start(
        config: &Config,
        storage: Arc<dyn Storage>,
        cache: Option<Arc<dyn Cache>>,
        clock: Clock,
        process: NodeProcess,
    ) -> Result<Self> {
        let stores = (storage, cache);
        let host = ProcessContext { clock, process };
        let ready = start::begin(config, &stores, &host, false).await?;
        let (core, _) = Core::start(ready, stores.1);
        Ok(Self { core })
    }

    pub fn tracker(&self) -> Arc<Tracker> {
        Arc::clone(&self.core.node.tracker)
    }

    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.core.node.registry)
    }

    pub fn journal(&self) -> journal::JournalHandle {
        self.core.node.journal.clone()
    }

    /// Resolves when the node has to stop.
    pub async fn ended(&mut self) {
        self.core.ended().await;
    }

    /// Shuts down cleanly; returns what storage still lacks.
    pub async fn stop(mut self) -> Result<Remaining> {
        let left = self.core.save().await?;
        self.core.leave().await;
        Ok(left)
    }
}
