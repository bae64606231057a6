//! The cache in Redis or Valkey: one server, one that sentinels name, or a cluster. docs/redis.md documents every key.
//!
//! Each command has one key, so that a cluster can execute it. What is to be done goes to a [`session::RedisSession`], in
//! the same way for all of them; `link`, `view`, `cluster` and `sentinel` know which servers there are, and `routed` sends
//! the commands to the masters of a cluster.

mod cluster;
mod commands;
mod connection;
mod control;
mod derived;
mod epoch;
mod fault;
mod journal;
mod keys;
mod leftovers;
mod link;
mod marks;
mod nodes;
mod owner;
mod place;
mod registry;
mod reply;
mod routed;
mod rows;
mod scan;
mod sentinel;
mod server;
mod session;
mod slots;
mod swarms;
mod torrents;
mod troubles;
mod upkeep;
mod users;
mod view;
mod whitelist;
mod wire;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::derived::Derived;
use self::link::RedisLink;
use self::wire::RedisClient;
use super::{
    Cache, CacheError, CacheFinding, CacheKey, CacheLeftover, CacheUpkeep, ControlPosition,
    Generation, KeySet, Mark, Membership, NodeStats, Notice, RegistryCursor, RegistryScan,
    Replayed, Rows, Scan, SharedPeer, Wiped, Write,
};
use crate::base::ids::{InfoHash, PeerId, UserId};
use crate::base::secret::Secret;
use crate::change::sums::Credited;
use crate::change::{Batch, SwarmCounts};
use crate::registry::{ClientPrefix, StoredTorrent, StoredUser, Wipe};

pub use self::wire::RedisDial;
#[cfg(feature = "contract")]
pub use self::wire::RedisWire;

/// The driver `redis`.
struct Redis {
    link: Arc<RedisLink>,
    streams: journal::Streams,
}

pub(super) fn check_url(url: &Secret) -> Result<(), String> {
    place::Place::of(url).map(drop)
}

/// A likely mistake in a URL that works: without a colon, the text before the '@' is a user, not a password.
pub(super) fn url_warning(url: &Secret) -> Option<String> {
    let text = url.expose();
    let (scheme, rest) = text.split_once("://")?;
    if scheme.ends_with("unix") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let (login, _) = authority.rsplit_once('@')?;
    (!login.contains(':')).then(|| {
        "a user without a password: if it is the password, write redis://:PASSWORD@…: the colon is \
         missing"
            .into()
    })
}

/// Parses the URL; the first call connects.
pub(super) fn open(url: &Secret) -> Result<Option<Arc<dyn Cache>>, CacheError> {
    Ok(Some(Arc::new(Redis::new(url, Arc::new(RedisClient))?)))
}

/// Like the driver `redis`, over connections that the caller provides.
///
/// # Errors
/// The URL is malformed.
#[cfg(feature = "contract")]
pub fn open_over(url: &Secret, dial: Arc<dyn RedisDial>) -> Result<Arc<dyn Cache>, CacheError> {
    Ok(Arc::new(Redis::new(url, dial)?))
}

impl Redis {
    fn new(url: &Secret, dial: Arc<dyn RedisDial>) -> Result<Self, CacheError> {
        let link = RedisLink::new(url, dial)?;
        let streams = journal::Streams::default();
        Ok(Self { link, streams })
    }
}

/// Runs a job for each item, a few concurrently; the first error ends it.
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
        epoch::ping(&self.link).await
    }

    async fn begin_epoch(&self) -> Result<Generation, CacheError> {
        epoch::begin(&self.link).await
    }

    async fn keep(&self, generation: Generation, batches: &[Arc<Batch>]) -> Result<(), CacheError> {
        journal::keep(&self.link, &self.streams, generation, batches).await
    }

    async fn add_totals(
        &self,
        generation: Generation,
        credited: &Credited,
    ) -> Result<(), CacheError> {
        journal::add_totals(&self.link, generation, credited).await
    }

    async fn trim_journal(&self, journal: &str, number: Option<u64>) -> Result<(), CacheError> {
        journal::trim(&self.link, journal, number).await
    }

    async fn last_kept(&self, journal: &str) -> Result<u64, CacheError> {
        journal::last_kept(&self.link, journal).await
    }

    async fn kept(
        &self,
        journal: &str,
        after: u64,
        limit: u32,
        wait: Duration,
    ) -> Result<Vec<Batch>, CacheError> {
        if wait.is_zero() {
            return journal::kept(&self.link, journal, after, limit).await;
        }
        journal::follow(&self.link, journal, after, limit, wait).await
    }

    async fn peers(
        &self,
        torrents: &[InfoHash],
    ) -> Result<Vec<(InfoHash, Vec<SharedPeer>)>, CacheError> {
        swarms::peers(&self.link, torrents).await
    }

    async fn put_peers(
        &self,
        swarms: &[(InfoHash, Vec<SharedPeer>)],
    ) -> Result<Vec<(InfoHash, UserId, PeerId)>, CacheError> {
        swarms::put_peers(&self.link, swarms).await
    }

    async fn put(&self, rows: Rows<'_>, write: Write) -> Result<(), CacheError> {
        match rows {
            Rows::Users(users) => users::put(&self.link, users, write).await,
            Rows::Torrents(torrents) => torrents::put(&self.link, torrents, write).await,
            Rows::Whitelist(clients) => whitelist::put(&self.link, clients).await,
        }
    }

    async fn users(&self, cursor: u64) -> Result<Scan<StoredUser>, CacheError> {
        users::ROWS.scan(&self.link, cursor).await
    }

    async fn torrents(&self, cursor: u64) -> Result<Scan<StoredTorrent>, CacheError> {
        torrents::ROWS.scan(&self.link, cursor).await
    }

    async fn whitelist(&self) -> Result<Vec<ClientPrefix>, CacheError> {
        whitelist::get(&self.link).await
    }

    async fn registry(&self, cursor: RegistryCursor) -> Result<RegistryScan, CacheError> {
        registry::scan(&self.link, cursor).await
    }

    async fn user(&self, id: UserId) -> Result<Option<StoredUser>, CacheError> {
        users::ROWS.get(&self.link, id).await
    }

    async fn torrent(&self, info_hash: InfoHash) -> Result<Option<StoredTorrent>, CacheError> {
        torrents::ROWS.get(&self.link, info_hash).await
    }

    async fn keys(&self, which: KeySet, cursor: u64) -> Result<Scan<CacheKey>, CacheError> {
        match which {
            KeySet::Registry => scan::registry_keys(&self.link, cursor).await,
            KeySet::Passkeys => users::scan_passkeys(&self.link, cursor).await,
            KeySet::Swarms => {
                let (swarms, next) = swarms::scan(&self.link, cursor).await?;
                let rows = swarms.into_iter().map(CacheKey::Swarm).collect();
                Ok(Scan {
                    next,
                    ..Scan::whole(rows)
                })
            }
        }
    }

    async fn remove(&self, keys: &[CacheKey]) -> Result<(), CacheError> {
        let (mut users, mut passkeys) = (Vec::new(), Vec::new());
        let (mut torrents, mut swarms) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                CacheKey::User(id) => users.push(*id),
                CacheKey::Passkey(passkey, of) => passkeys.push((passkey, *of)),
                CacheKey::Torrent(info_hash) => torrents.push(*info_hash),
                CacheKey::Swarm(info_hash) => swarms.push(*info_hash),
            }
        }
        users::remove(&self.link, &users).await?;
        users::remove_passkeys(&self.link, &passkeys).await?;
        torrents::remove(&self.link, &torrents).await?;
        swarms::remove(&self.link, &swarms).await
    }

    async fn mark(&self, mark: Mark) -> Result<Option<String>, CacheError> {
        marks::get(&self.link, mark).await
    }

    async fn set_mark(
        &self,
        mark: Mark,
        text: Option<(Generation, &str)>,
    ) -> Result<(), CacheError> {
        marks::set(&self.link, mark, text).await
    }

    async fn publish(&self, notices: &[Notice]) -> Result<(), CacheError> {
        control::publish(&self.link, notices).await
    }

    async fn control(
        &self,
        after: Option<&ControlPosition>,
        wait: Duration,
    ) -> Result<(Vec<Notice>, ControlPosition), CacheError> {
        control::read(&self.link, after, wait).await
    }

    async fn beat(&self, journal: &str, sign: &str) -> Result<(), CacheError> {
        nodes::beat(&self.link, journal, sign).await
    }

    async fn nodes(&self) -> Result<Vec<(String, String)>, CacheError> {
        nodes::nodes(&self.link).await
    }

    async fn leave(&self, journal: &str) -> Result<(), CacheError> {
        nodes::leave(&self.link, journal).await
    }

    async fn lease(&self, name: &str, holder: &str, time: Duration) -> Result<bool, CacheError> {
        nodes::lease(&self.link, name, holder, time).await
    }
}

#[async_trait]
impl CacheUpkeep for Redis {
    async fn database(&self) -> Result<Option<String>, CacheError> {
        owner::database(&self.link).await
    }

    async fn set_database(
        &self,
        database: &str,
        former: Option<&str>,
    ) -> Result<String, CacheError> {
        let owner = owner::set_database(&self.link, database, former).await?;
        if owner == database {
            self.streams.assign_to(database);
        }
        Ok(owner)
    }

    fn reader(&self) -> Option<Arc<dyn Cache>> {
        Some(Arc::new(Self {
            link: self.link.another(),
            streams: journal::Streams::default(),
        }))
    }

    async fn time(&self) -> Result<Option<i64>, CacheError> {
        server::time(&self.link).await.map(Some)
    }

    async fn is_persistent(&self) -> Result<bool, CacheError> {
        server::is_persistent(&self.link).await
    }

    async fn evicted(&self) -> Result<u64, CacheError> {
        server::evicted(&self.link).await
    }

    async fn check(&self) -> Result<Vec<CacheFinding>, CacheError> {
        server::check(&self.link).await
    }

    async fn inspect(&self) -> Result<Vec<CacheFinding>, CacheError> {
        server::inspect(&self.link).await
    }

    fn pack_guests(&self, is_read_by_all: bool) {
        self.streams.pack_guests(is_read_by_all);
    }

    fn away_part(&self) -> Option<String> {
        self.link.view()?.problem()
    }

    async fn prune(
        &self,
        cursor: u64,
        members_before: i64,
        guests_before: i64,
    ) -> Result<Option<u64>, CacheError> {
        swarms::prune(&self.link, cursor, members_before, guests_before).await
    }

    async fn set_totals(
        &self,
        user: UserId,
        uploaded: Option<u64>,
        downloaded: Option<u64>,
    ) -> Result<(), CacheError> {
        users::set_totals(&self.link, user, uploaded, downloaded).await
    }

    async fn wipe(&self, what: Wipe, cursor: u64) -> Result<Wiped, CacheError> {
        upkeep::wipe(&self.link, what, cursor).await
    }

    async fn leftovers(&self, since: i64, cursor: u64) -> Result<Scan<CacheLeftover>, CacheError> {
        leftovers::find(&self.link, since, cursor).await
    }

    async fn clean(&self, leftovers: &[CacheLeftover]) -> Result<(), CacheError> {
        upkeep::clean(&self.link, leftovers).await
    }

    async fn replayed(&self) -> Result<Vec<(String, Replayed)>, CacheError> {
        nodes::replayed(&self.link).await
    }

    async fn set_replayed(&self, journal: &str, replayed: Replayed) -> Result<(), CacheError> {
        nodes::set_replayed(&self.link, journal, replayed).await
    }

    async fn put_memberships(&self, memberships: &[Membership]) -> Result<(), CacheError> {
        let session = self.link.session().await?;
        derived::put_memberships(&session, memberships).await
    }

    async fn put_counts(&self, counts: &[(InfoHash, SwarmCounts)]) -> Result<(), CacheError> {
        // As of most shards of a small tracker.
        if counts.is_empty() {
            return Ok(());
        }
        let session = self.link.session().await?;
        Derived::of_counts(counts).write(&session).await
    }

    async fn add_stats(&self, stats: NodeStats) -> Result<(), CacheError> {
        nodes::add_stats(&self.link, stats).await
    }
}
