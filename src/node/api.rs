//! The API of this node: when there is one, what it works on, and its ordered end.

use std::net::TcpListener;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::metrics::Sources;
use crate::api::{self, About, Api, Credentials, Host, Token};
use crate::cache::Cache;
use crate::config::{self, Config};
use crate::control::Control;
use crate::node::followed::Followed;
use crate::node::{Certificates, Node};

/// The listening API.
pub(super) struct Listener {
    api: Arc<Api>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What the API asks of this node.
struct Hosting(Followed);

/// Whether the config asks for an API. The one that it has without being asked is there only once
/// somebody has made the files for it.
pub(super) fn is_wanted(config: &Config) -> bool {
    let api = &config.api;
    let has_files = || api.tls.key.exists() && api.tls.cert.exists();
    !api.listen.is_empty() && (!api.is_default || has_files())
}

pub(super) fn credentials(config: &Config) -> Credentials {
    let tokens = config.api.tokens.iter().map(|token| Token {
        name: token.name.clone(),
        token: token.token.clone(),
        scope: match token.scope {
            config::Scope::Read => api::Scope::Read,
            config::Scope::Write => api::Scope::Write,
        },
    });
    Credentials {
        username: config.api.username.clone(),
        password: config.api.password.clone(),
        tokens: tokens.collect(),
    }
}

// === impl Listener ===

impl Listener {
    /// None where the config asks for no API.
    pub fn start(
        config: &Config,
        listeners: Vec<TcpListener>,
        node: &Node,
        cache: Option<&Arc<dyn Cache>>,
        followed: Followed,
        certificates: &Certificates,
    ) -> Option<Self> {
        let certificate = certificates.api.clone()?;
        if listeners.is_empty() {
            return None;
        }
        for address in listeners.iter().filter_map(|it| it.local_addr().ok()) {
            tracing::info!(%address, "API at https://{address}/");
        }
        if config.api.is_open() {
            tracing::warn!(
                "the API is open to everybody on this host: set api.password or api.tokens"
            );
        }
        let (stop, stopped) = watch::channel(false);
        let parts = api::Parts {
            sources: Sources {
                metrics: Arc::clone(&node.metrics),
                tracker: Arc::clone(&node.tracker),
                registry: Arc::clone(&node.registry),
                journal: node.journal.clone(),
                clock: node.clock,
                census: Arc::default(),
            },
            storage: Arc::clone(&node.storage),
            control: Control::new(Arc::clone(&node.storage), cache.cloned()),
            events: Arc::clone(&node.events),
            host: Arc::new(Hosting(followed)),
            about: About {
                node: node.name.clone(),
                storage_driver: config.storage.driver.clone(),
                cache_driver: cache.map(|_| config.cache.driver.clone()),
            },
            stop: stopped.clone(),
        };
        let api = Arc::new(Api::new(parts, credentials(config)));
        let routes = api::routes(&api);
        let task = tokio::spawn(async move {
            if let Err(error) = api::serve(listeners, certificate, routes, stopped).await {
                tracing::error!(%error, "the API can't be served");
            }
        });
        Some(Self { api, stop, task })
    }

    pub fn api(&self) -> Arc<Api> {
        Arc::clone(&self.api)
    }

    /// Finishes what is in flight.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // A panic in it has been told, and keeps nobody from stopping.
        let _ = self.task.await;
    }
}

// === impl Hosting ===

#[async_trait]
impl Host for Hosting {
    async fn caught_up(&self) {
        self.0.caught_up().await;
    }
}
