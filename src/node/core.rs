//! The part of a node that runs without listeners: the journal and the background tasks.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::journal::{Remaining, Unsaved};
use crate::node::shared::{CacheTasks, take_leave};
use crate::node::start::Ready;
use crate::node::{Node, clocks, forget, health, load, until, upkeep};
use crate::storage::Claim;
use crate::sync::RegistryFollower;

/// A node's tasks. They are aborted when it is dropped.
pub(super) struct Core {
    pub node: Node,
    cache: Option<Arc<dyn Cache>>,
    /// The journal alone.
    saving: JoinSet<Result<Remaining, Unsaved>>,
    stop_saving: watch::Sender<bool>,
    helpers: JoinSet<()>,
    /// Held until everything is saved.
    _claim: Claim,
}

/// What ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing can be saved any more.
    Journal,
    /// One of the others: it panicked, or found that it must not go on.
    Helper,
}

/// Starts the background tasks.
fn helpers(
    node: &Node,
    cache: Option<&Arc<dyn Cache>>,
    follower: &RegistryFollower,
    shared: Option<CacheTasks>,
) -> JoinSet<()> {
    let mut helpers = JoinSet::new();
    helpers.spawn(upkeep::sweep(node.clone()));
    helpers.spawn(upkeep::prune(node.clone()));
    helpers.spawn(upkeep::give_memory_back(node.clone()));
    helpers.spawn(forget::forget(node.clone()));
    helpers.spawn(health::certificates(node.clone()));
    helpers.spawn(health::storage(node.clone()));
    helpers.spawn(health::database(node.clone()));
    helpers.spawn(clocks::watch(node.clone(), cache.map(Arc::clone)));
    if let Some(shared) = shared {
        shared.start(node, follower, &mut helpers);
    }
    helpers.spawn(follower.clone().run());
    helpers
}

/// Two daemons without a cache do not know of each other: the one that lost its claim ends.
async fn until_claimed_by_another(lost: impl Future<Output = String>) {
    let problem = lost.await;
    tracing::error!(
        problem,
        "another mika has the database of this node; stopping"
    );
}

impl Core {
    /// Starts the tasks; also returns the follower of the registry.
    pub fn start(ready: Ready, cache: Option<Arc<dyn Cache>>) -> (Self, RegistryFollower) {
        let Ready {
            node,
            journal,
            follower,
            shared,
            claim,
        } = ready;
        let (stop_saving, stopped) = watch::channel(false);
        let mut saving = JoinSet::new();
        saving.spawn(journal.run(until(stopped)));
        let mut helpers = helpers(&node, cache.as_ref(), &follower, shared);
        helpers.spawn(until_claimed_by_another(claim.lost()));
        let core = Self {
            node,
            cache,
            saving,
            stop_saving,
            helpers,
            _claim: claim,
        };
        (core, follower)
    }

    /// Adds a task that goes on as long as the node does.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.helpers.spawn(task);
    }

    /// Resolves when a task ends, which none does in normal operation.
    pub async fn ended(&mut self) -> Ended {
        tokio::select! {
            _ = self.saving.join_next() => Ended::Journal,
            _ = self.helpers.join_next() => Ended::Helper,
        }
    }

    /// Stops the tasks and saves the rest; returns what storage still lacks. The listeners must have stopped.
    pub async fn save(&mut self) -> Result<Remaining> {
        self.helpers.shutdown().await;
        // Now the journal has room for the credit that peers still owe it.
        load::sweep_all(&self.node);
        self.stop_saving.send_replace(true);
        let saved = self
            .saving
            .join_next()
            .await
            .context("there is no journal")?;
        Ok(saved.context("the journal ended early")??)
    }

    /// Records in the cache that this node has stopped.
    pub async fn leave(&self) {
        let node = &self.node;
        if let Some(cache) = &self.cache
            && let Err(error) = take_leave(&**cache, &node.database, node.journal.name()).await
        {
            tracing::debug!(%error, "the cache does not know that this node has stopped");
        }
    }
}
