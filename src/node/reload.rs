//! Reloading: config, whitelist, TLS files and the log file are opened again while the node
//! keeps running.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;

use crate::api::Api;
use crate::cache::Cache;
use crate::config::{self, Config, Drivers, Loaded, SettingChange};
use crate::node::serve::ListenerSettings;
use crate::node::{Certificates, Node, Options, api, settings};
use crate::sync::load::{self, LoadPass};
use crate::telemetry::log;
use crate::telemetry::notify;

/// What a reload changes.
pub(super) struct Reloader {
    pub options: Options,
    /// The config at the start: keys that need a restart keep its values.
    pub started_with: Config,
    pub node: Node,
    pub settings: ListenerSettings,
    pub certificates: Certificates,
    pub api: Option<Arc<Api>>,
    pub log: log::LogHandle,
    pub stats_interval: watch::Sender<Duration>,
    pub drivers: Drivers,
    pub cache: Option<Arc<dyn Cache>>,
    /// What the service manager shows while nothing happens.
    pub serving: String,
}

impl Reloader {
    /// Reads everything again. If anything is invalid, nothing changes.
    pub async fn reload(&mut self) {
        notify::reloading("reloading");
        match notify::extending_timeout(self.try_reload()).await {
            Ok(()) => {
                tracing::info!(config = %self.options.config.source, "reloaded");
                notify::ready(&self.serving);
            }
            Err(error) => {
                let error = format!("{error:#}");
                notify::ready(&format!("not reloaded: {error}"));
                tracing::error!(error, "not reloaded; going on as before");
            }
        }
    }

    async fn try_reload(&mut self) -> Result<()> {
        // First, so that log lines go to the new file after a rotation even if the config is invalid.
        if let Err(error) = self.log.reopen() {
            tracing::warn!(%error, "the log goes on where it was");
        }
        let loaded = config::load(self.options.config_path.as_deref())?;
        let (old, new) = (&self.options.config.config, &loaded.config);
        // The other mode has other defaults, which would be applied to the running mode.
        ensure!(
            old.mode == new.mode,
            "mode has changed: that needs a restart"
        );
        self.drivers.check(new)?;
        // The listener stays where it is until the next start, whatever the new config has for it.
        ensure!(
            !(new.api.is_open() && self.started_with.api.is_reachable()),
            "api.password, api.tokens: both are empty, and other hosts can reach the API until the \
             next start"
        );
        let certificates = Certificates::load(new)?;
        let log_file = log::open(&new.log.file)?;
        self.reload_registry(new).await?;
        // Nothing can fail from here on.
        self.certificates.replace(&certificates);
        self.certificates.update_metrics(&self.node.metrics);
        self.log_changes(new);
        self.log.write_to(&new.log.file, log_file);
        self.apply(loaded);
        Ok(())
    }

    async fn reload_registry(&self, config: &Config) -> Result<()> {
        let replica = &self.node.replica;
        let _turn = replica.turn.lock().await;
        let Some(cache) = &self.cache else {
            let loaded = load::from_storage(replica, LoadPass::Again).await;
            loaded.with_context(|| format!("storage {}", config.storage.url))?;
            return Ok(());
        };
        // Changes of the registry are followed anyway, so a cache that can't be reached now must not keep the
        // rest from being reloaded.
        if let Err(error) = load::reload(replica, &**cache).await {
            tracing::warn!(
                %error,
                "the registry was not reloaded; its changes are followed"
            );
        }
        Ok(())
    }

    fn apply(&mut self, loaded: Loaded) {
        let new = &loaded.config;
        settings::warn(&loaded);
        self.log.set_level(new.log.level);
        self.stats_interval.send_replace(new.log.stats_interval);
        self.node.tracker.set_rules(new.tracker.clone());
        self.node
            .journal
            .set_flush_interval(new.journal.flush_interval);
        settings::raise_file_limit(new.http.max_connections);
        self.settings.apply(new);
        if let Some(api) = &self.api {
            if new.api.is_open() {
                tracing::warn!("{}", api::OPEN);
            }
            api.set_credentials(api::credentials(new));
            api.set_hosts(&new.api.hosts);
        }
        settings::warn_of_empty_whitelist(new, &self.node.registry);
        self.options.config = loaded;
    }

    /// Names each key that has changed, and whether that takes effect now.
    fn log_changes(&self, new: &Config) {
        let applied = config::changes(&self.options.config.config, new);
        for SettingChange { key, values } in
            applied.into_iter().filter(|change| !change.needs_restart())
        {
            if let Some((old, new)) = values {
                tracing::info!(%old, %new, "{key} has changed");
            } else {
                tracing::info!("{key} has changed");
            }
        }
        // Logged at each reload until the restart, or until the old value is back.
        let waiting = config::changes(&self.started_with, new);
        for SettingChange { key, values } in
            waiting.into_iter().filter(SettingChange::needs_restart)
        {
            const WHEN: &str = "it takes effect at the next start";
            if let Some((old, new)) = values {
                tracing::warn!(%old, %new, "{key} has changed: {WHEN}");
            } else {
                tracing::warn!("{key} has changed: {WHEN}");
            }
        }
    }
}
