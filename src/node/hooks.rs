//! What a node's tracker and journal do for its registry.

use async_trait::async_trait;
use tokio::sync::watch;

use crate::base::ids::TorrentId;
use crate::cache::Generation;
use crate::node::torrents::TorrentUpdater;
use crate::registry::Torrent;
use crate::storage::StorageError;
use crate::sync::{LoadPass, NodeHooks};
use crate::tracker::Mode;

#[async_trait]
impl NodeHooks for TorrentUpdater {
    fn is_public(&self) -> bool {
        self.tracker.mode() == Mode::Public
    }

    async fn apply_torrents(
        &self,
        changed: Vec<Torrent>,
        gone: Vec<TorrentId>,
        pass: LoadPass,
    ) -> Result<(), StorageError> {
        self.apply(changed, gone, pass).await
    }

    fn wipe_snatches(&self) {
        self.tracker.wipe_snatches();
    }

    async fn all_applied(&self) {
        self.journal.all_applied().await;
    }

    fn cache_generation(&self) -> watch::Receiver<Generation> {
        self.journal.generation()
    }

    fn on_cache_disconnected(&self) {
        self.journal.on_cache_disconnected();
    }
}
