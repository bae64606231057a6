//! The start: opens, restores and loads everything, and waits for servers that can't be reached.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::cache::{Cache, CacheError, owner};
use crate::change::journals::node_of;
use crate::config::{Config, Drivers};
use crate::journal::{self, Journal, JournalError, JournalParts};
use crate::node::clocks::Clocks;
use crate::node::shared::{self, CacheTasks, NodeProcess};
use crate::node::torrents::TorrentUpdater;
use crate::node::{Node, load, settings};
use crate::registry::Registry;
use crate::storage::{self, Claim, Severity, Storage, StorageError, migrate};
use crate::sync::load::{LoadPass, from_storage};
use crate::sync::{RegistryFollower, Replica, SyncError};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notify;
use crate::tracker::Tracker;

/// Delays between attempts to reach a server.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Storage, and the cache if nodes share one.
pub(super) type Stores = (Arc<dyn Storage>, Option<Arc<dyn Cache>>);

/// What a node gets from the system that it runs on.
pub(super) struct ProcessContext {
    pub clock: Clock,
    pub process: NodeProcess,
}

/// A node that is ready to serve.
pub(super) struct Ready {
    pub node: Node,
    pub journal: Journal,
    pub follower: RegistryFollower,
    /// None where nodes share nothing.
    pub shared: Option<CacheTasks>,
    /// Held as long as the node runs.
    pub claim: Claim,
}

/// Why a start failed.
#[derive(Debug)]
enum StartError {
    /// A server is away, and may be there at the next try.
    Away(String),
    Fatal(anyhow::Error),
}

/// Opens the drivers; none of them needs its server for that.
pub(super) fn open(config: &Config, drivers: &Drivers) -> Result<Stores> {
    let storage = drivers.open_storage(config);
    let storage = storage.with_context(|| storage_name(config))?;
    let cache = drivers.open_cache(config);
    let cache = cache.with_context(|| cache_name(config))?;
    Ok((storage, cache))
}

/// Restores what earlier starts left, and loads the rest. Waits for servers that are away, unless
/// `no_wait` is set.
pub(super) async fn begin(
    config: &Config,
    stores: &Stores,
    host: &ProcessContext,
    no_wait: bool,
) -> Result<Ready> {
    retry_until_available(no_wait, || try_to_begin(config, stores, host)).await
}

async fn retry_until_available<T, F: Future<Output = Result<T, StartError>>>(
    no_wait: bool,
    mut start: impl FnMut() -> F,
) -> Result<T> {
    let mut delays = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut logged = String::new();
    loop {
        let problem = match start().await {
            Ok(ready) => return Ok(ready),
            Err(StartError::Fatal(error)) => return Err(error),
            Err(StartError::Away(problem)) if no_wait => return Err(anyhow!(problem)),
            Err(StartError::Away(problem)) => problem,
        };
        if logged != problem {
            tracing::warn!(problem, "waiting until it can be reached");
            notify::status(&format!("waiting for {problem}"));
            logged = problem;
        }
        delays.pause().await;
    }
}

async fn try_to_begin(
    config: &Config,
    stores: &Stores,
    host: &ProcessContext,
) -> Result<Ready, StartError> {
    let (storage, cache) = stores;
    let in_storage = |error: StorageError| StartError::of_storage(config, &error);
    // Nodes that share a cache know of each other; others must not share a database.
    let claim = match cache {
        Some(_) => Claim::default(),
        None => storage.claim().await.map_err(in_storage)?,
    };
    for name in migrate::prepare(&**storage).await.map_err(in_storage)? {
        tracing::info!(%name, "migration applied");
    }
    refuse_unsafe(&**storage).await.map_err(in_storage)?;
    let database = storage.identity().await.map_err(in_storage)?;
    if let Some(cache) = cache {
        let taken = owner::take(&**cache, &database).await;
        taken.map_err(|error| StartError::of_cache(config, &error))?;
        let checked = refuse_double(config, &**cache, &host.process).await;
        checked.map_err(|error| match error.downcast::<CacheError>() {
            Ok(error) => StartError::of_cache(config, &error),
            Err(error) => StartError::Fatal(error),
        })?;
    }
    notify::status("loading users, torrents and swarms");
    let (node, journal) = restore(config, stores, host, database).await?;
    let (peer_ttl, record_ttl) = (node.tracker.peer_ttl(), node.tracker.record_ttl());
    let continue_from_newest = || {
        node.clocks
            .continue_from_newest(&**storage, peer_ttl, record_ttl)
    };
    let (shared, follower) = match cache {
        None => {
            continue_from_newest().await.map_err(in_storage)?;
            let loaded = load_from_storage(&node).await;
            (
                None,
                loaded.map_err(|error| StartError::of_both(config, error))?,
            )
        }
        Some(cache) => {
            let sent = shared::first_beat(&**cache, &node).await;
            sent.map_err(|error| StartError::of_cache(config, &error))?;
            let applied = journal.replay_leftover().await;
            applied.map_err(|error| StartError::of_resume(config, error))?;
            continue_from_newest().await.map_err(in_storage)?;
            let loaded = shared::load(&node, cache).await;
            let (shared, follower) = loaded.map_err(|error| StartError::of_both(config, error))?;
            (Some(shared), follower)
        }
    };
    settings::warn_of_empty_whitelist(config, &node.registry);
    Ok(Ready {
        node,
        journal,
        follower,
        shared,
        claim,
    })
}

/// Refuses a database in which credit would come out wrong.
async fn refuse_unsafe(storage: &dyn Storage) -> Result<(), StorageError> {
    let findings = match storage.inspect().await {
        Err(StorageError::Broken(problem)) => {
            tracing::warn!(
                problem,
                "the database could not be inspected; see: mika-manage check"
            );
            return Ok(());
        }
        found => found?,
    };
    let mut findings = findings.into_iter();
    match findings.find(|finding| finding.severity == Severity::Fatal) {
        Some(finding) => Err(finding.into()),
        None => Ok(()),
    }
}

/// Refuses to start under the name of a running node, or with the spill file of one.
async fn refuse_double(config: &Config, cache: &dyn Cache, own: &NodeProcess) -> Result<()> {
    let spill = &config.journal.spill;
    let owner = journal::spill_owner(spill.clone()).await?;
    if let Some(owner) = owner.filter(|owner| node_of(owner) != config.node)
        && let Some(host) = shared::host_of(cache, &owner, own).await?
    {
        return Err(anyhow!(
            "journal.spill: {} holds batches of node {:?}, which runs on {host}: name another \
             file, or stop that node",
            spill.display(),
            node_of(&owner),
        ));
    }
    shared::refuse_namesake(cache, &config.node, own).await
}

async fn load_from_storage(node: &Node) -> Result<RegistryFollower, SyncError> {
    let position = from_storage(&node.replica, LoadPass::First).await?;
    load::swarms(node).await?;
    Ok(RegistryFollower::of_feed(node.replica.clone(), position))
}

/// Creates an empty tracker, and resumes its journal.
async fn restore(
    config: &Config,
    stores: &Stores,
    host: &ProcessContext,
    database: String,
) -> Result<(Node, Journal), StartError> {
    let (storage, cache) = stores;
    let clock = host.clock;
    let metrics = Arc::new(Metrics::default());
    let clocks = Clocks::new(clock, &config.node);
    let begun = clocks.begin(&**storage, cache.as_deref(), &metrics);
    begun
        .await
        .map_err(|error| StartError::Away(error.to_string()))?;
    let registry = Arc::new(Registry::default());
    let events = Arc::new(Events::default());
    let tracker = Tracker::new(
        config.mode,
        config.tracker.clone(),
        Arc::clone(&registry),
        config.journal.max_pending as usize,
        Arc::clone(&metrics),
    );
    let tracker = tracker.with_events(Arc::clone(&events));
    let tracker = Arc::new(match cache {
        Some(_) => tracker.shared(),
        None => tracker,
    });
    let parts = JournalParts {
        tracker: Arc::clone(&tracker),
        cache: cache.clone(),
        storage: Arc::clone(storage),
        metrics: Arc::clone(&metrics),
        clock,
    };
    let journal = Journal::resume(parts, settings::journal(config)).await;
    let journal = journal.map_err(|error| StartError::of_resume(config, error))?;
    let hooks = TorrentUpdater {
        tracker: Arc::clone(&tracker),
        registry: Arc::clone(&registry),
        storage: Arc::clone(storage),
        journal: journal.handle(),
        clock,
    };
    let replica = Replica {
        node: config.node.clone(),
        registry: Arc::clone(&registry),
        storage: Arc::clone(storage),
        poll_interval: config.storage.poll_interval,
        events: Arc::clone(&events),
        hooks: Arc::new(hooks),
        turn: Arc::default(),
    };
    let node = Node {
        name: config.node.clone(),
        process: host.process.clone(),
        database,
        clock,
        clocks: Arc::new(clocks),
        metrics,
        registry,
        tracker,
        storage: Arc::clone(storage),
        journal: journal.handle(),
        events,
        replica,
    };
    Ok((node, journal))
}

fn storage_name(config: &Config) -> String {
    format!("storage {}", config.storage.url)
}

fn cache_name(config: &Config) -> String {
    format!("cache {}", config.cache.url)
}

/// An error that names its server. The URL is in it only once, although many errors begin with it.
fn named(kind: &str, name: &str, error: &str) -> String {
    let url = name.split_once(' ').map_or("", |(_, url)| url);
    if error.starts_with(url) {
        format!("{kind} {error}")
    } else if error.contains(url) {
        format!("{kind}: {error}")
    } else {
        format!("{name}: {error}")
    }
}

// === impl ProcessContext ===

impl ProcessContext {
    /// Those of this process; the clock starts now.
    pub fn current() -> Self {
        Self {
            clock: Clock::start(),
            process: NodeProcess::current(),
        }
    }
}

// === impl StartError ===

impl StartError {
    fn of_storage(config: &Config, error: &StorageError) -> Self {
        let problem = named("storage", &storage_name(config), &error.to_string());
        match error {
            storage::StorageError::Away(_) => Self::Away(problem),
            _ => Self::Fatal(anyhow!(problem)),
        }
    }

    fn of_cache(config: &Config, error: &CacheError) -> Self {
        let problem = named("cache", &cache_name(config), &error.to_string());
        match error {
            CacheError::Broken(_) => Self::Fatal(anyhow!(problem)),
            CacheError::Away(_) | CacheError::Restarted(_) | CacheError::Moving => {
                Self::Away(problem)
            }
        }
    }

    fn of_resume(config: &Config, error: JournalError) -> Self {
        match error {
            JournalError::Storage(error) => Self::of_storage(config, &error),
            JournalError::Cache(error) => Self::of_cache(config, &error),
            error @ JournalError::Spill(_) => Self::Fatal(error.into()),
        }
    }

    fn of_both(config: &Config, error: SyncError) -> Self {
        match error {
            SyncError::Storage(error) => Self::of_storage(config, &error),
            SyncError::Cache(error) => Self::of_cache(config, &error),
            error @ SyncError::KeepsChanging => Self::Away(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_url_of_its_server_once() {
        let name = "storage mysql://u:***@h/d";
        for (error, expected) in [
            (
                "mysql://u:***@h/d: Access denied",
                "storage mysql://u:***@h/d: Access denied",
            ),
            (
                "Server mysql://u:***@h/d is full",
                "storage: Server mysql://u:***@h/d is full",
            ),
            ("locked", "storage mysql://u:***@h/d: locked"),
        ] {
            assert_eq!(named("storage", name, error), expected);
        }
    }
}
