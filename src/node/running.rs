//! A node that serves: its tasks and threads, started from the inside outward and stopped from the
//! outside inward.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cache::Cache;
use crate::config::Drivers;
use crate::journal::Remaining;
use crate::node::api::ApiListener;
use crate::node::core::{Core, Ended};
use crate::node::handover::Legacy;
use crate::node::reload::Reloader;
use crate::node::serve::Workers;
use crate::node::sockets::{KeptSockets, Sockets};
use crate::node::start::Ready;
use crate::node::{Certificates, Options, Signals, carried, upkeep, watchdog};
use crate::telemetry::{log, notify};
use crate::tracker::Mode;

/// A node that serves.
pub(super) struct Running {
    core: Core,
    api: Option<ApiListener>,
    workers: Workers,
    kept: KeptSockets,
    watchdog: JoinHandle<()>,
    reloader: Reloader,
}

/// What a signal asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Stop,
    /// A restart in place.
    Restart,
}

impl Running {
    pub fn start(
        options: Options,
        drivers: &Drivers,
        cache: Option<Arc<dyn Cache>>,
        sockets: Sockets,
        certificates: Certificates,
        log: log::LogHandle,
        ready: Ready,
    ) -> Result<Self> {
        let config = options.config.config.clone();
        let (mut core, follower) = Core::start(ready, cache.clone());
        let node = core.node.clone();
        certificates.update_metrics(&node.metrics);
        let serving = match sockets.log_announce_urls(&config) {
            1 => "serving 1 listener".to_owned(),
            listeners => format!("serving {listeners} listeners"),
        };
        let kept = sockets.keep()?;
        let (sockets, listeners) = sockets.split();
        let shared = cache.as_ref();
        let api = ApiListener::start(&config, listeners, &node, shared, follower, &certificates)?;
        let mut workers = Workers::start(&options, sockets, &node, certificates.http.clone())?;
        let mut watched = workers.watched();
        watched.extend(api.as_ref().map(ApiListener::watched));
        let watchdog = tokio::spawn(watchdog::watch(watched));
        let (stats_interval, intervals) = watch::channel(config.log.stats_interval);
        core.spawn(upkeep::statistics(node.clone(), intervals, serving.clone()));
        notify::ready(&serving);
        let reloader = Reloader {
            started_with: config,
            options,
            node,
            settings: workers.settings(),
            certificates,
            api: api.as_ref().map(ApiListener::api),
            log,
            stats_interval,
            drivers: drivers.clone(),
            cache,
            serving,
        };
        Ok(Self {
            core,
            api,
            workers,
            kept,
            watchdog,
            reloader,
        })
    }

    /// Serves until a signal to stop or to restart, or until something ends that must not, which the inner error names.
    ///
    /// # Errors
    /// The journal has ended: nothing can be saved any more, so an ordered stop makes no sense.
    pub async fn serve(&mut self, signals: &mut Signals) -> Result<Result<Ending>> {
        Ok(tokio::select! {
            served = wait_for_end(&self.workers, &mut self.reloader, signals) => served,
            ended = self.core.ended() => match ended {
                Ended::Journal => return Err(anyhow!("the journal ended early")),
                Ended::Helper => Err(anyhow!("a helper task ended early")),
            },
        })
    }

    /// Stops in order: nothing is answered any more when the journal saves the rest. Returns what
    /// storage lacks then.
    pub async fn stop(mut self) -> Result<Remaining> {
        notify::stopping("stopping: answering what is in flight, saving the rest");
        self.watchdog.abort(); // workers that end don't beat any more
        drop(self.kept);
        let saved = notify::extending_timeout(async {
            if let Some(api) = &mut self.api {
                api.stop().await;
            }
            self.workers.stop().await;
            self.core.save().await
        });
        let left = saved.await?;
        self.core.leave().await;
        Ok(left)
    }

    /// Stops in order, for a restart in place: requests in flight are answered, and everything is saved. All
    /// others wait for the next process. Returns what storage lacks then, and what the next process gets.
    ///
    /// # Errors
    /// What could not be saved.
    pub async fn hand_over(mut self) -> Result<(Remaining, Legacy)> {
        notify::reloading("restarting in place: saving everything");
        self.watchdog.abort();
        let saved = notify::extending_timeout(async {
            if let Some(api) = &mut self.api {
                api.stop().await;
            }
            self.workers.hand_over().await;
            let saved = self.core.save().await;
            self.core.leave().await;
            saved
        });
        let left = saved.await?;
        let (spools, connections) = self.workers.finish().await;
        let mut legacy = self.kept.leave(spools);
        legacy.connections = connections;
        if self.reloader.cache.is_none() && self.reloader.node.tracker.mode() == Mode::Public {
            legacy.swarms = Some(carried::write(&self.reloader.node)?);
        }
        tracing::info!(
            connections = legacy.connections.len(),
            packets = legacy.packets(),
            "restarting in place"
        );
        Ok((left, legacy))
    }
}

/// Waits for a signal to stop or to restart, or for a worker that can't go on; meanwhile reloads as signals
/// ask.
async fn wait_for_end(
    workers: &Workers,
    reloader: &mut Reloader,
    signals: &mut Signals,
) -> Result<Ending> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.restart.recv() => {
                match reloader.options.program.check().await {
                    Ok(()) => return Ok(Ending::Restart),
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::error!(error, "not restarted; going on as before");
                    }
                }
                continue;
            }
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
    Ok(Ending::Stop)
}
