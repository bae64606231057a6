//! The composition root of the daemon: config → drivers → registry → tracker → journal →
//! listeners; signals; and the ordered stop.

mod api;
#[cfg(feature = "contract")]
pub mod bare;
mod carried;
mod clocks;
mod core;
mod forget;
pub mod handover;
mod health;
mod load;
mod reload;
mod running;
mod serve;
mod settings;
mod shared;
mod sockets;
mod start;
mod torrents;
mod upkeep;
mod watchdog;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::FutureExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::base::clock::Clock;
use crate::base::memory;
use crate::config::{Config, Drivers, Loaded, TlsFiles};
use crate::journal;
use crate::net::tls::Certificate;
use crate::registry::Registry;
use crate::storage::Storage;
use crate::sync::Replica;
use crate::telemetry::events::Events;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notify;
use crate::tracker::Tracker;

use self::clocks::Clocks;
use self::handover::{Inherited, Program, Successor};
use self::running::{Ending, Running};
use self::serve::Early;
use self::shared::NodeProcess;
use self::sockets::Sockets;
use self::start::ProcessContext;

/// What a daemon is started with.
pub struct Options {
    pub config: Loaded,
    /// The config file that was named; a reload reads it again.
    pub config_path: Option<PathBuf>,
    /// Worker threads.
    pub procs: usize,
    /// Fail at once if cache or storage can't be reached, instead of waiting for them.
    pub no_wait: bool,
    /// What a restart in place executes.
    pub program: Program,
}

/// The parts of a running node.
#[derive(Clone)]
struct Node {
    /// Its name among the nodes.
    name: String,
    process: NodeProcess,
    /// The identity of its storage.
    database: String,
    clock: Clock,
    clocks: Arc<Clocks>,
    metrics: Arc<Metrics>,
    registry: Arc<Registry>,
    tracker: Arc<Tracker>,
    storage: Arc<dyn Storage>,
    journal: journal::JournalHandle,
    /// Events for those who watch.
    events: Arc<Events>,
    /// The registry, and what keeps it up to date.
    replica: Replica,
}

/// The certificates of the listeners, where the config names any.
#[derive(Clone)]
struct Certificates {
    http: Option<Certificate>,
    api: Option<Certificate>,
}

/// The signals that a daemon handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    user: Signal,
    hangup: Signal,
    /// Restart in place.
    restart: Signal,
}

/// Checks what the config names: drivers, and the files of TLS.
///
/// # Errors
/// Names the key that is wrong, and why.
pub fn check(options: &Options, drivers: &Drivers) -> Result<()> {
    let config = &options.config.config;
    drivers.check(config)?;
    drivers.check_statements(config)?;
    Certificates::load(config)?;
    log::check(&config.log.file)?;
    Ok(())
}

/// Runs a tracker until a signal stops it, on sockets that it has inherited or opens. Returns the program to
/// execute in its place, if it was asked to restart.
///
/// # Errors
/// What keeps it from starting, or what could not be saved at the end.
pub fn run(options: Options, inherited: Inherited, drivers: &Drivers) -> Result<Option<Successor>> {
    memory::use_small_pages();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let has_file = !options.config.config.log.file.as_os_str().is_empty();
    let ended = runtime.block_on(run_until_signal(options, inherited, drivers));
    if let Err(error) = &ended {
        let error = format!("{error:#}");
        notify::status(&error);
        // The caller shows it on stderr, and not in the log file.
        if has_file {
            tracing::error!(error, "ended");
        }
    }
    ended
}

async fn run_until_signal(
    options: Options,
    mut inherited: Inherited,
    drivers: &Drivers,
) -> Result<Option<Successor>> {
    let config = &options.config.config;
    let log = log::init(&config.log)?;
    settings::warn(&options.config);
    // Signals during the start are handled after it.
    let mut signals = Signals::listen()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %options.config.source, "starting");
    settings::raise_file_limit(config.http.max_connections);
    // Bound before anything is loaded: a port in use fails the start at once.
    let (mut sockets, readers) = tokio::select! {
        opened = Sockets::open(&options, &mut inherited) => opened?,
        () = signals.stop() => return Ok(None),
    };
    let certificates = Certificates::load(config)?;

    let stores = start::open(config, drivers)?;
    let host = ProcessContext::current();
    let beginning = start::begin(config, &stores, &host, options.no_wait);
    let ready = tokio::select! {
        ready = notify::extending_timeout(beginning) => Some(ready?),
        () = signals.stop() => None,
    };
    let Some(ready) = ready else {
        tracing::info!("stopped before it was ready");
        return Ok(None);
    };
    let cache = stores.1;
    let program = options.program.clone();
    if let Some(swarms) = &inherited.swarms {
        carried::read(swarms, &ready.node);
    }
    sockets.early = Early {
        connections: inherited.connections,
        spools: readers.finish(),
    };
    let mut running = Running::start(options, drivers, cache, sockets, certificates, log, ready)?;
    let served = running.serve(&mut signals).await?;
    let left = match served {
        Ok(Ending::Restart) => {
            let (left, legacy) = running.hand_over().await?;
            // A stop that was asked for meanwhile counts.
            if signals.stop().now_or_never().is_none() {
                return Ok(Some(legacy.leave_to(program)?));
            }
            left
        }
        _ => running.stop().await?,
    };
    if left.changes == 0 {
        tracing::info!("stopped, storage has everything");
    } else {
        tracing::warn!(
            changes = left.changes,
            file = %left.file.display(),
            "stopped while storage does not take everything: the rest is kept in the spill file for the \
             next start"
        );
    }
    served.map(|_| None)
}

/// Resolves when the channel has `true`, or its sender is gone.
async fn until(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

/// Calls `work` repeatedly, `pause` apart; runs until cancelled.
async fn every<F: Future<Output = ()>>(pause: std::time::Duration, mut work: impl FnMut() -> F) {
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        work().await;
    }
}

/// How to make a key for the API: `genkey` replaces existing files only with `--force`.
fn api_key_hint(files: &TlsFiles) -> &'static str {
    if files.key.exists() || files.cert.exists() {
        "mika-manage genkey --force makes a new key and a certificate; api.listen [] is for no API"
    } else {
        "mika-manage genkey makes a key and a certificate; api.listen [] is for no API"
    }
}

// === impl Certificates ===

impl Certificates {
    fn load(config: &Config) -> Result<Self> {
        let load = |tls: &TlsFiles| Certificate::load(&tls.key, &tls.cert);
        let http = config.http.tls.as_ref().map(load).transpose();
        let api = api::is_wanted(config).then(|| load(&config.api.tls));
        Ok(Self {
            http: http.context("http.tls")?,
            api: api
                .transpose()
                .with_context(|| format!("api.tls ({})", api_key_hint(&config.api.tls)))?,
        })
    }

    /// Tells the metrics when they expire.
    fn update_metrics(&self, metrics: &Metrics) {
        for (listener, certificate) in [("http", &self.http), ("api", &self.api)] {
            let expires_at = certificate.as_ref().and_then(Certificate::expires_at);
            metrics.certificates.set(listener, expires_at);
        }
    }

    /// Serves connections with those of `other` from now on.
    fn replace(&self, other: &Self) {
        for (current, new) in [(&self.http, &other.http), (&self.api, &other.api)] {
            if let (Some(current), Some(new)) = (current, new) {
                current.replace(new);
            }
        }
    }
}

// === impl Signals ===

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user: signal(SignalKind::user_defined2())?,
            hangup: signal(SignalKind::hangup())?,
            restart: signal(SignalKind::user_defined1())?,
        })
    }

    /// Resolves at a signal to stop. Other signals stay pending.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
