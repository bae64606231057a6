//! Following the registry, and waiting until it has been followed up to an edit.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::cache::{Cache, ControlPosition};
use crate::node::shared::Positions;
use crate::node::start::Follows;
use crate::node::{Node, follow, shared};
use crate::storage::{FeedPosition, Storage};

/// How long to wait for an edit: one that takes longer is not lost, it only comes later.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be followed.
pub(super) enum Follow {
    Storage {
        from: FeedPosition,
        reached: watch::Sender<FeedPosition>,
        nudge: Arc<Notify>,
    },
    Cache {
        cache: Arc<dyn Cache>,
        positions: Positions,
        reached: watch::Sender<ControlPosition>,
    },
}

/// How far it has been followed.
#[derive(Clone)]
pub(super) enum Followed {
    Storage {
        storage: Arc<dyn Storage>,
        reached: watch::Receiver<FeedPosition>,
        nudge: Arc<Notify>,
    },
    Cache {
        cache: Arc<dyn Cache>,
        reached: watch::Receiver<ControlPosition>,
    },
}

/// What a node that starts has to follow, and where it says how far it came.
pub(super) fn begin(
    node: &Node,
    cache: Option<&Arc<dyn Cache>>,
    follows: Follows,
) -> Result<(Follow, Followed)> {
    match (follows, cache) {
        (Follows::Storage(from), _) => {
            let (reached, told) = watch::channel(from);
            let nudge = Arc::new(Notify::new());
            let follow = Follow::Storage {
                from,
                reached,
                nudge: Arc::clone(&nudge),
            };
            let followed = Followed::Storage {
                storage: Arc::clone(&node.storage),
                reached: told,
                nudge,
            };
            Ok((follow, followed))
        }
        (Follows::Cache(positions), Some(cache)) => {
            let (reached, told) = watch::channel(positions.control.clone());
            let follow = Follow::Cache {
                cache: Arc::clone(cache),
                positions,
                reached,
            };
            let followed = Followed::Cache {
                cache: Arc::clone(cache),
                reached: told,
            };
            Ok((follow, followed))
        }
        (Follows::Cache(_), None) => Err(anyhow!("there is no cache to follow")),
    }
}

// === impl Follow ===

impl Follow {
    /// Follows, in tasks of its own.
    pub fn start(self, node: &Node, tasks: &mut JoinSet<()>) {
        match self {
            Self::Storage {
                from,
                reached,
                nudge,
            } => {
                tasks.spawn(follow::follow(node.clone(), from, reached, nudge));
            }
            Self::Cache {
                cache,
                positions,
                reached,
            } => shared::follow(node, &cache, positions, reached, tasks),
        }
    }
}

// === impl Followed ===

impl Followed {
    /// Resolves when the registry has all that was saved before, or when that takes too long.
    pub async fn caught_up(&self) {
        let _ = tokio::time::timeout(PATIENCE, self.reach_end()).await;
    }

    async fn reach_end(&self) {
        match self {
            Self::Storage {
                storage,
                reached,
                nudge,
            } => {
                let Ok(end) = storage.feed_position().await else {
                    return;
                };
                nudge.notify_one();
                let _ = reached.clone().wait_for(|position| *position >= end).await;
            }
            Self::Cache { cache, reached } => {
                let Ok(end) = cache.control_position().await else {
                    return;
                };
                let is_there = |position: &ControlPosition| cache.has_reached(position, &end);
                let _ = reached.clone().wait_for(is_there).await;
            }
        }
    }
}
