//! A node that serves: its tasks and threads, started from the inside outward and stopped from the
//! outside inward.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::cache::Cache;
use crate::journal::{Journal, Left, Unsaved};
use crate::node::followed::{self, Follow};
use crate::node::reload::Reloader;
use crate::node::serve::Workers;
use crate::node::shared::take_leave;
use crate::node::sockets::Sockets;
use crate::node::start::Follows;
use crate::node::{
    Certificates, Drivers, Node, Options, Signals, api, clocks, forget, health, load, until,
    upkeep, watchdog,
};
use crate::storage::Claim;
use crate::{log, notify};

/// What a node has come to before it serves anybody.
pub(super) struct Begun<'a> {
    pub options: Options,
    pub drivers: &'a Drivers,
    pub cache: Option<Arc<dyn Cache>>,
    pub sockets: Sockets,
    pub certificates: Certificates,
    pub log: log::Handle,
    pub node: Node,
    pub journal: Journal,
    pub follows: Follows,
    pub claim: Claim,
}

/// A node that serves.
pub(super) struct Running {
    node: Node,
    cache: Option<Arc<dyn Cache>>,
    saving: JoinHandle<Result<Left, Unsaved>>,
    stop_saving: watch::Sender<bool>,
    helpers: JoinSet<()>,
    api: Option<api::Listener>,
    workers: Workers,
    watchdog: JoinHandle<()>,
    reloader: Reloader,
    /// Held until everything is saved.
    _claim: Claim,
}

// === impl Running ===

impl Running {
    pub fn start(begun: Begun<'_>) -> Result<Self> {
        let Begun {
            options,
            drivers,
            cache,
            sockets,
            certificates,
            log,
            node,
            journal,
            follows,
            claim,
        } = begun;
        let config = options.config.config.clone();
        let (stop_saving, stopped) = watch::channel(false);
        let saving = tokio::spawn(journal.run(until(stopped)));
        let (follow, followed) = followed::begin(&node, cache.as_ref(), follows)?;
        let mut helpers = helpers(&node, cache.as_ref(), follow);
        helpers.spawn(until_claimed_by_another(claim.lost()));
        certificates.tell(&node.metrics);
        let serving = match sockets.announce_urls(&config) {
            1 => "serving 1 listener".to_owned(),
            listeners => format!("serving {listeners} listeners"),
        };
        let (sockets, listeners) = sockets.part();
        let shared = cache.as_ref();
        let api = api::Listener::start(&config, listeners, &node, shared, followed, &certificates)?;
        let mut workers = Workers::start(&options, sockets, &node, certificates.http.clone())?;
        let mut watched = workers.watched();
        watched.extend(api.as_ref().map(api::Listener::watched));
        let watchdog = tokio::spawn(watchdog::watch(watched));
        let (stats_interval, intervals) = watch::channel(config.log.stats_interval);
        helpers.spawn(upkeep::statistics(node.clone(), intervals, serving.clone()));
        notify::ready(&serving);
        let reloader = Reloader {
            started_with: config,
            options,
            node: node.clone(),
            settings: workers.settings(),
            certificates,
            api: api.as_ref().map(api::Listener::api),
            log,
            stats_interval,
            drivers: drivers.clone(),
            cache: cache.clone(),
            serving,
        };
        Ok(Self {
            node,
            cache,
            saving,
            stop_saving,
            helpers,
            api,
            workers,
            watchdog,
            reloader,
            _claim: claim,
        })
    }

    /// Serves until a signal says to stop, or until something ends that must not: then the inner
    /// error says what.
    ///
    /// # Errors
    /// Nothing can be saved any more, so there is nothing to stop in order.
    pub async fn serve(&mut self, signals: Signals) -> Result<Result<()>> {
        Ok(tokio::select! {
            served = wait_for_stop(&self.workers, &mut self.reloader, signals) => served,
            // None of them ends by itself, unless it panics or finds that it must not go on.
            _ = &mut self.saving => return Err(anyhow!("the journal ended early")),
            _ = self.helpers.join_next() => Err(anyhow!("a helper task ended early")),
        })
    }

    /// Nobody is answered any more when the journal saves the rest.
    /// What storage lacks then is returned.
    ///
    /// # Errors
    /// What could not be saved.
    pub async fn stop(mut self) -> Result<Left> {
        notify::stopping("stopping: answering what is in flight, saving the rest");
        self.watchdog.abort(); // workers that end don't turn any more
        let node = &self.node;
        let saved = notify::unhurried(async {
            if let Some(api) = &mut self.api {
                api.stop().await;
            }
            self.workers.stop().await;
            self.helpers.shutdown().await;
            // Peers that could not tell the journal what they owe it can do so now.
            load::expire(node);
            self.stop_saving.send_replace(true);
            self.saving.await
        });
        let left = saved.await.context("the journal ended early")??;
        if let Some(cache) = self.cache
            && let Err(error) = take_leave(&*cache, &node.database, node.journal.name()).await
        {
            tracing::debug!(%error, "the cache does not know that this node has stopped");
        }
        Ok(left)
    }
}

/// Starts what goes on beside the announces.
fn helpers(node: &Node, cache: Option<&Arc<dyn Cache>>, follow: Follow) -> JoinSet<()> {
    let mut helpers = JoinSet::new();
    helpers.spawn(upkeep::sweep(node.clone()));
    helpers.spawn(upkeep::prune(node.clone()));
    helpers.spawn(forget::forget(node.clone()));
    helpers.spawn(health::certificates(node.clone()));
    helpers.spawn(health::storage(node.clone()));
    helpers.spawn(health::database(node.clone()));
    helpers.spawn(clocks::watch(node.clone(), cache.map(Arc::clone)));
    if let Some(cache) = cache {
        helpers.spawn(health::cache(node.clone(), Arc::clone(cache)));
    }
    follow.start(node, &mut helpers);
    helpers
}

/// Two daemons without a cache would not know of each other: the one that lost the storage ends.
async fn until_claimed_by_another(lost: impl Future<Output = String>) {
    let problem = lost.await;
    tracing::error!(
        problem,
        "another mika has the database of this node; stopping"
    );
}

/// Waits for a signal to stop, or for a worker that can't go on; meanwhile reloads as signals ask.
async fn wait_for_stop(
    workers: &Workers,
    reloader: &mut Reloader,
    mut signals: Signals,
) -> Result<()> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.user.recv() => {}
            _ = signals.hangup.recv() => {}
            () = workers.failed() => return Err(anyhow!("a worker thread ended early")),
        }
        // A reload may have to wait for storage: a stop does not wait for it.
        tokio::select! {
            () = reloader.reload() => {}
            () = signals.stop() => break,
        }
    }
    tracing::info!("stopping");
    Ok(())
}
