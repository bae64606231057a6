//! The API of this node: when there is one, what it works on, and how it is shut down.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{oneshot, watch};

use crate::api::metrics::Sources;
use crate::api::{self, About, Api, Credentials, Names};
use crate::cache::Cache;
use crate::config::Config;
use crate::node::watchdog::Watched;
use crate::node::{Certificates, Node, every};
use crate::sync::RegistryFollower;
use crate::sync::edit::Editor;
use crate::telemetry::pulse::Pulse;

/// The warning about an API without credentials.
pub(super) const OPEN: &str =
    "the API is open to everybody on this host: set api.password or api.tokens";

/// How often its thread beats.
const BEAT_PERIOD: Duration = Duration::from_secs(1);

/// The listening API. It has a thread of its own, so that strangers and large answers there delay
/// neither the journal nor announces.
pub(super) struct ApiListener {
    api: Arc<Api>,
    stop: watch::Sender<bool>,
    /// Resolves when the last request is answered.
    served: oneshot::Receiver<()>,
    pulse: Pulse,
    /// Keeps the thread alive until this is dropped: connections to storage and cache that were made on it
    /// need it as long as they are used.
    _alive: oneshot::Sender<()>,
}

/// Whether the config has an API. The default one is served only if its TLS files are there.
pub(super) fn is_wanted(config: &Config) -> bool {
    let api = &config.api;
    let has_files = || api.tls.key.exists() && api.tls.cert.exists();
    !api.listen.is_empty() && (!api.is_default || has_files())
}

pub(super) fn credentials(config: &Config) -> Credentials {
    Credentials {
        username: config.api.username.clone(),
        password: config.api.password.clone(),
        tokens: config.api.tokens.clone(),
    }
}

impl ApiListener {
    /// None where the config asks for no API.
    pub fn start(
        config: &Config,
        listeners: Vec<TcpListener>,
        node: &Node,
        cache: Option<&Arc<dyn Cache>>,
        follower: RegistryFollower,
        certificates: &Certificates,
    ) -> Result<Option<Self>> {
        let Some(certificate) = certificates.api.clone() else {
            return Ok(None);
        };
        if listeners.is_empty() {
            return Ok(None);
        }
        let addresses = listeners.iter().map(TcpListener::local_addr);
        let addresses: Vec<SocketAddr> = addresses.filter_map(Result::ok).collect();
        for address in &addresses {
            tracing::info!(%address, "API at https://{address}/");
        }
        if config.api.is_open() {
            tracing::warn!("{OPEN}");
        }
        let names = Names::new(addresses, certificate.clone(), &config.api.hosts);
        let (stop, stopped) = watch::channel(false);
        let parts = api::ApiParts {
            sources: Sources {
                metrics: Arc::clone(&node.metrics),
                tracker: Arc::clone(&node.tracker),
                registry: Arc::clone(&node.registry),
                journal: node.journal.clone(),
                clock: node.clock,
                swarm_stats: Arc::default(),
            },
            storage: Arc::clone(&node.storage),
            editor: Editor::new(Arc::clone(&node.storage), cache.cloned()),
            events: Arc::clone(&node.events),
            follower,
            about: About {
                node: node.name.clone(),
                storage_driver: config.storage.driver.clone(),
                cache_driver: cache.map(|_| config.cache.driver.clone()),
            },
            names,
            stop: stopped.clone(),
        };
        let api = Arc::new(Api::new(parts, credentials(config)));
        let routes = api::routes(&api);
        let evicted = Arc::clone(&node.metrics.api_connections_evicted);
        let (done, served) = oneshot::channel();
        let (alive, needed) = oneshot::channel();
        let pulse = Pulse::default();
        let beating = pulse.clone();
        let serve = async move {
            let beat = tokio::spawn(beat(beating));
            if let Err(error) = api::serve(listeners, certificate, routes, evicted, stopped).await {
                tracing::error!(%error, "the API can't be served");
            }
            let _ = done.send(());
            // It resolves, as an error, when the other end is dropped.
            let _: Result<(), _> = needed.await;
            beat.abort();
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new().name("api".into());
        let thread = thread.spawn(move || runtime.block_on(serve));
        thread.context("can't start the API thread")?;
        Ok(Some(Self {
            api,
            stop,
            served,
            pulse,
            _alive: alive,
        }))
    }

    /// The thread, for the watchdog.
    pub fn watched(&self) -> Watched {
        Watched::new("api", &self.pulse)
    }

    pub fn api(&self) -> Arc<Api> {
        Arc::clone(&self.api)
    }

    /// Stops serving, after the requests in flight were answered.
    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        // A panic of the thread was logged, and does not keep the node from stopping.
        let _ = (&mut self.served).await;
    }
}

/// Beats once a second, as long as the thread runs its loop.
async fn beat(pulse: Pulse) {
    every(BEAT_PERIOD, || async { pulse.beat() }).await;
}
