//! Keeping a node's registry up to date, and waiting until it has an edit.

mod feed;
mod notices;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::cache::{Cache, ControlPosition};
use crate::storage::FeedPosition;

use super::load::{self, LoadPass};
use super::mirror::NoticeLog;
use super::origin::Origin;
use super::{Replica, SyncError};

pub use feed::FormerHashes;

/// How long to wait for an edit: one that takes longer is not lost, it only comes later.
const CAUGHT_UP_MAX: Duration = Duration::from_secs(2);

/// Follows the registry: what is edited takes effect without a restart or a signal.
#[derive(Clone)]
pub struct RegistryFollower {
    replica: Replica,
    source: Source,
}

/// What is followed, and how far that has come.
#[derive(Clone)]
enum Source {
    /// Storage's feed, where nodes share nothing.
    Feed {
        position_tx: watch::Sender<FeedPosition>,
        /// Has the feed read at once.
        wake: Arc<Notify>,
    },
    Notices(Notices),
}

/// The notices of the cache.
#[derive(Clone)]
struct Notices {
    cache: Arc<dyn Cache>,
    position_tx: watch::Sender<ControlPosition>,
    log: Arc<NoticeLog>,
    wakers: Wakers,
}

/// The tasks that notices wake.
#[derive(Clone, Debug, Default)]
pub struct Wakers {
    /// Notified when peers are to be brought to the cache.
    pub peers: Arc<Notify>,
    /// Notified when a node starts.
    pub nodes: Arc<Notify>,
}

/// How a node loaded its registry at the start.
pub struct LoadedRegistry {
    /// Whether the cache had a usable registry of this database when the load began.
    pub cache_was_usable: bool,
    /// Former hashes, under which the cache may still have torrents that changed meanwhile.
    pub former: FormerHashes,
}

/// Loads the registry as it is in storage now: from the cache, if that is as new.
pub async fn load_first(replica: &Replica, cache: &dyn Cache) -> Result<LoadedRegistry, SyncError> {
    let origin = Origin::find(&*replica.storage, cache).await?;
    if let Origin::Cache(mirrored) = &origin
        && load::from_cache_if_still(replica, cache, LoadPass::First).await?
    {
        // What changed since is in the cache once a node has mirrored it; it is in force now.
        let from = FeedPosition(mirrored.position);
        if let Some(former) = feed::catch_up(replica, from, LoadPass::First).await? {
            return Ok(LoadedRegistry {
                cache_was_usable: true,
                former,
            });
        }
    }
    origin.log_load_from_storage();
    // The cache may have rows that storage no longer has, which the feed does not name again.
    cache.forget_mirrored().await?;
    load::from_storage(replica, LoadPass::First).await?;
    Ok(LoadedRegistry {
        cache_was_usable: origin.is_usable(),
        former: FormerHashes::new(),
    })
}

impl RegistryFollower {
    /// Follows storage's feed from a position on.
    pub fn of_feed(replica: Replica, from: FeedPosition) -> Self {
        let source = Source::Feed {
            position_tx: watch::Sender::new(from),
            wake: Arc::default(),
        };
        Self { replica, source }
    }

    /// Follows the notices of the cache from a position on.
    pub fn of_notices(
        replica: Replica,
        cache: Arc<dyn Cache>,
        from: ControlPosition,
        log: Arc<NoticeLog>,
        wakers: Wakers,
    ) -> Self {
        let source = Source::Notices(Notices {
            cache,
            position_tx: watch::Sender::new(from),
            log,
            wakers,
        });
        Self { replica, source }
    }

    /// How far the notices were followed; none where storage's feed is followed.
    pub fn notice_position(&self) -> Option<watch::Receiver<ControlPosition>> {
        match &self.source {
            Source::Feed { .. } => None,
            Source::Notices(notices) => Some(notices.position_tx.subscribe()),
        }
    }

    /// Applies changes to the registry; runs until cancelled.
    pub async fn run(self) {
        match self.source {
            Source::Feed { position_tx, wake } => feed::run(self.replica, position_tx, wake).await,
            Source::Notices(notices) => notices::run(self.replica, notices).await,
        }
    }

    /// Resolves when the registry has all that was saved before, or when that takes too long.
    pub async fn caught_up(&self) {
        let _ = tokio::time::timeout(CAUGHT_UP_MAX, self.reach_end()).await;
    }

    async fn reach_end(&self) {
        match &self.source {
            Source::Feed { position_tx, wake } => {
                let Ok(end) = self.replica.storage.feed_position().await else {
                    return;
                };
                wake.notify_one();
                let mut position_rx = position_tx.subscribe();
                let _ = position_rx.wait_for(|position| *position >= end).await;
                // A position stops before a number that may still appear; what has others is in force now.
                let _turn = self.replica.turn.lock().await;
                let position = *position_tx.borrow();
                let _ = feed::catch_up(&self.replica, position, LoadPass::Again).await;
            }
            Source::Notices(Notices {
                cache, position_tx, ..
            }) => {
                let Ok(end) = cache.control_position().await else {
                    return;
                };
                let mut position_rx = position_tx.subscribe();
                let is_there = |position: &ControlPosition| position.has_reached(&end);
                let _ = position_rx.wait_for(is_there).await;
            }
        }
    }
}
