//! The cache in Redis or Valkey. docs/redis.md names every key.
//!
//! Only commands of one key, and pipelines of them: nothing here needs all keys on one server.

mod commands;
mod control;
mod derived;
mod fault;
mod journal;
mod keys;
mod link;
mod nodes;
mod reply;
mod rows;
mod scan;
mod swarms;
mod torrents;
mod users;
mod whitelist;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::link::Link;
use super::{
    Cache, CacheError, ControlPosition, Generation, Mirrored, Notice, Scan, SharedPeer, Stats,
    Write,
};
use crate::change::Batch;
use crate::ids::{InfoHash, UserId};
use crate::registry::{Client, StoredTorrent, StoredUser};
use crate::secret::Secret;

/// The driver `redis`.
struct Redis {
    link: Link,
}

/// Reads the URL; the first call connects.
pub(super) fn open(url: &Secret) -> Result<Option<Arc<dyn Cache>>, CacheError> {
    let link = Link::new(url)?;
    Ok(Some(Arc::new(Redis { link })))
}

/// Does a job for each item, a few at the same time; the first error ends it.
async fn side_by_side<T, F: Future<Output = Result<(), CacheError>>>(
    items: impl Iterator<Item = T>,
    job: impl Fn(T) -> F,
) -> Result<(), CacheError> {
    let items = Mutex::new(items);
    let next = || items.lock().next();
    let work = || async {
        while let Some(item) = next() {
            job(item).await?;
        }
        Ok(())
    };
    tokio::try_join!(work(), work(), work()).map(drop)
}

#[async_trait]
impl Cache for Redis {
    async fn ping(&self) -> Result<Generation, CacheError> {
        let session = self.link.session().await?;
        session.one(redis::cmd("PING")).await?;
        Ok(session.generation())
    }

    async fn keep(&self, generation: Generation, batches: &[Arc<Batch>]) -> Result<(), CacheError> {
        journal::keep(&self.link, generation, batches).await
    }

    async fn applied(&self, node: &str, number: u64) -> Result<(), CacheError> {
        journal::applied(&self.link, node, number).await
    }

    async fn last_kept(&self, node: &str) -> Result<u64, CacheError> {
        journal::last_kept(&self.link, node).await
    }

    async fn kept(&self, node: &str, after: u64, limit: u32) -> Result<Vec<Batch>, CacheError> {
        journal::kept(&self.link, node, after, limit).await
    }

    async fn follow(
        &self,
        node: &str,
        after: u64,
        limit: u32,
        wait: Duration,
    ) -> Result<Vec<Batch>, CacheError> {
        journal::follow(&self.link, node, after, limit, wait).await
    }

    async fn peers(
        &self,
        torrents: &[InfoHash],
    ) -> Result<Vec<(InfoHash, Vec<SharedPeer>)>, CacheError> {
        swarms::peers(&self.link, torrents).await
    }

    async fn put_peers(&self, swarms: &[(InfoHash, Vec<SharedPeer>)]) -> Result<(), CacheError> {
        swarms::put_peers(&self.link, swarms).await
    }

    async fn swarms(&self, cursor: u64) -> Result<Scan<InfoHash>, CacheError> {
        swarms::swarms(&self.link, cursor).await
    }

    async fn remove_swarms(&self, torrents: &[InfoHash]) -> Result<(), CacheError> {
        swarms::remove_swarms(&self.link, torrents).await
    }

    async fn mirrored(&self) -> Result<Option<Mirrored>, CacheError> {
        whitelist::mirrored(&self.link).await
    }

    async fn set_mirrored(&self, mirrored: Mirrored) -> Result<(), CacheError> {
        whitelist::set_mirrored(&self.link, mirrored).await
    }

    // Whether a row is new has to be known for its counters anyway, and the answer names a
    // former passkey: both ways to write are one.
    async fn put_users(&self, users: &[StoredUser], _write: Write) -> Result<(), CacheError> {
        users::put(&self.link, users).await
    }

    async fn put_torrents(
        &self,
        torrents: &[StoredTorrent],
        _write: Write,
    ) -> Result<(), CacheError> {
        torrents::put(&self.link, torrents).await
    }

    async fn put_whitelist(&self, clients: &[Client]) -> Result<(), CacheError> {
        whitelist::put(&self.link, clients).await
    }

    async fn remove_users(&self, users: &[UserId]) -> Result<(), CacheError> {
        users::remove(&self.link, users).await
    }

    async fn remove_torrents(&self, torrents: &[InfoHash]) -> Result<(), CacheError> {
        torrents::remove(&self.link, torrents).await
    }

    async fn users(&self, cursor: u64) -> Result<Scan<StoredUser>, CacheError> {
        users::ROWS.scan(&self.link, cursor).await
    }

    async fn torrents(&self, cursor: u64) -> Result<Scan<StoredTorrent>, CacheError> {
        torrents::ROWS.scan(&self.link, cursor).await
    }

    async fn whitelist(&self) -> Result<Vec<Client>, CacheError> {
        whitelist::get(&self.link).await
    }

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, CacheError> {
        users::ROWS.get(&self.link, id).await
    }

    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, CacheError> {
        torrents::ROWS.get(&self.link, info_hash).await
    }

    async fn publish(&self, notices: &[Notice]) -> Result<(), CacheError> {
        control::publish(&self.link, notices).await
    }

    async fn control_position(&self) -> Result<ControlPosition, CacheError> {
        control::position(&self.link).await
    }

    async fn control(
        &self,
        after: &ControlPosition,
        wait: Duration,
    ) -> Result<(Vec<Notice>, ControlPosition), CacheError> {
        control::read(&self.link, after, wait).await
    }

    async fn beat(&self, node: &str, sign: &str) -> Result<(), CacheError> {
        nodes::beat(&self.link, node, sign).await
    }

    async fn nodes(&self) -> Result<Vec<(String, String)>, CacheError> {
        nodes::nodes(&self.link).await
    }

    async fn leave(&self, node: &str) -> Result<(), CacheError> {
        nodes::leave(&self.link, node).await
    }

    async fn lease(&self, name: &str, holder: &str, time: Duration) -> Result<bool, CacheError> {
        nodes::lease(&self.link, name, holder, time).await
    }

    async fn add_stats(&self, stats: Stats) -> Result<(), CacheError> {
        nodes::add_stats(&self.link, stats).await
    }
}
