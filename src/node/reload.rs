//! Reloading: config, whitelist and TLS files are read again while everything goes on.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::api::Api;
use crate::cache::Cache;
use crate::config::{self, Config, Loaded};
use crate::log::LevelHandle;
use crate::node::load::Registered;
use crate::node::serve::Settings;
use crate::node::{
    Certificates, Drivers, Node, Options, api, check_drivers, load, settings, shared,
};

/// What a reload changes.
pub(super) struct Reloader {
    options: Options,
    node: Node,
    settings: Settings,
    certificates: Certificates,
    api: Option<Arc<Api>>,
    level: LevelHandle,
    drivers: Drivers,
    cache: Option<Arc<dyn Cache>>,
}

// === impl Reloader ===

impl Reloader {
    pub fn new(
        options: Options,
        node: Node,
        settings: Settings,
        certificates: Certificates,
        api: Option<Arc<Api>>,
        level: LevelHandle,
        drivers: Drivers,
        cache: Option<Arc<dyn Cache>>,
    ) -> Self {
        Self {
            options,
            node,
            settings,
            certificates,
            api,
            level,
            drivers,
            cache,
        }
    }

    /// Reads everything again. What is invalid leaves all as it is.
    pub async fn reload(&mut self) {
        match self.try_reload().await {
            Ok(()) => tracing::info!(config = %self.options.config.source, "reloaded"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "not reloaded; going on as before");
            }
        }
    }

    async fn try_reload(&mut self) -> Result<()> {
        let loaded = config::load(self.options.config_path.as_deref())?;
        let (old, new) = (&self.options.config.config, &loaded.config);
        // The other mode has other defaults, which half a change would apply to this one.
        ensure!(
            old.mode == new.mode,
            "mode has changed: that needs a restart"
        );
        check_drivers(new, &self.drivers)?;
        let certificates = Certificates::load(new)?;
        let turn = self.node.registry_turn.lock().await;
        match &self.cache {
            None => {
                let loaded = load::registry(&self.node, Registered::Again).await;
                loaded.with_context(|| format!("storage {}", new.storage.url))?;
            }
            // It is followed all the time: a cache that is away now must not keep the rest from
            // being reloaded.
            Some(cache) => {
                if let Err(error) = shared::reload(&self.node, &**cache).await {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        error,
                        "the registry was not reloaded; its changes are followed"
                    );
                }
            }
        }
        drop(turn);
        // Nothing can fail from here on.
        self.certificates.replace(&certificates);
        self.apply(loaded);
        Ok(())
    }

    fn apply(&mut self, loaded: Loaded) {
        let (old, new) = (&self.options.config.config, &loaded.config);
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        for key in need_restart(old, new) {
            tracing::warn!("{key} has changed: it takes effect at the next start");
        }
        self.level.set(new.log.level);
        self.node.tracker.set_rules(settings::rules(new));
        self.settings.apply(new);
        if let Some(api) = &self.api {
            api.credentials.store(Arc::new(api::credentials(new)));
        }
        settings::warn_of_empty_whitelist(new, &self.node.registry);
        self.options.config = loaded;
    }
}

/// The keys that differ and that a reload can't apply.
fn need_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("node", old.node != new.node),
        ("http.listen", old.http.listen != new.http.listen),
        ("udp.listen", old.udp.listen != new.udp.listen),
        ("udp.secret", old.udp.secret != new.udp.secret),
        ("http.tls", old.http.tls.is_some() != new.http.tls.is_some()),
        (
            "http.max_connections",
            old.http.max_connections != new.http.max_connections,
        ),
        ("api.listen", old.api.listen != new.api.listen),
        ("cache", old.cache != new.cache),
        ("storage", old.storage != new.storage),
        (
            "journal.flush_interval",
            old.journal.flush_interval != new.journal.flush_interval,
        ),
        (
            "journal.max_pending",
            old.journal.max_pending != new.journal.max_pending,
        ),
        ("journal.spill", old.journal.spill != new.journal.spill),
        ("log.format", old.log.format != new.log.format),
        (
            "log.stats_interval",
            old.log.stats_interval != new.log.stats_interval,
        ),
    ];
    let changed = changed.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| key).collect()
}
