//! Opens storage and cache for the commands.

use std::sync::Arc;

use anyhow::{Context as _, Error, Result};

use super::UsageError;
use super::print::Printer;
use crate::cache::{self, Cache, owner};
use crate::config::Config;
use crate::storage::{self, Storage, StorageConfig, StorageDrivers, StorageError, migrate};
use crate::sync::edit::Editor;

/// Config, storage and cache, for most commands.
pub struct Site {
    pub config: Config,
    pub storage: Arc<dyn Storage>,
    /// None if nodes share no cache.
    pub cache: Option<Arc<dyn Cache>>,
    pub editor: Editor,
}

/// The storage of the config, whether or not it has its tables.
pub fn bare_storage(config: &Config) -> Result<Arc<dyn Storage>> {
    let drivers = StorageDrivers::built_in();
    let name = &config.storage.driver;
    let open = drivers.get(name).ok_or_else(|| {
        UsageError(format!(
            "storage.driver: there is no driver {name:?}; there are: {}",
            drivers.names().join(", ")
        ))
    })?;
    open(&place(config)).with_context(|| name_of(config))
}

/// Whether the schema of the config, and its statements, can be understood.
pub fn check_statements(config: &Config) -> Result<(), StorageError> {
    storage::check_statements(&config.storage.driver, &place(config))
}

fn place(config: &Config) -> StorageConfig {
    let storage = &config.storage;
    StorageConfig::of(&storage.url, &storage.schema, &storage.statements)
}

/// The cache of the config; none with the memory driver.
pub fn cache(config: &Config) -> Result<Option<Arc<dyn Cache>>> {
    let drivers = cache::CacheDrivers::built_in();
    let name = &config.cache.driver;
    let open = drivers.get(name).ok_or_else(|| {
        UsageError(format!(
            "cache.driver: there is no driver {name:?}; there are: {}",
            drivers.names().join(", ")
        ))
    })?;
    open(&config.cache.url).with_context(|| cache_name(config))
}

/// Whether the database exists; assumed for a server. Opening would create an embedded one.
pub fn database_exists(config: &Config) -> bool {
    let file = storage::file_of(&config.storage.driver, &config.storage.url);
    file.is_none_or(|file| file.exists())
}

/// The storage for messages, with the password masked.
pub fn name_of(config: &Config) -> String {
    format!("storage {}", config.storage.url)
}

/// The cache for messages, likewise.
pub fn cache_name(config: &Config) -> String {
    format!("cache {}", config.cache.url)
}

/// Adds the name of storage or cache to an error that does not mention it.
pub fn named(error: impl std::error::Error + Send + Sync + 'static, name: String) -> Error {
    let url = name.split_once(' ').map_or(name.as_str(), |(_, url)| url);
    if error.to_string().contains(url) {
        return error.into();
    }
    Error::new(error).context(name)
}

impl Site {
    /// Opens the storage of the config with all its tables, and the cache.
    pub async fn open(config: Config, printer: &mut Printer) -> Result<Self> {
        let storage = bare_storage(&config)?;
        let cache = cache(&config)?;
        let applied = migrate::prepare(&*storage).await;
        let applied = applied.map_err(|error| named(error, name_of(&config)))?;
        if !applied.is_empty() {
            let url = &config.storage.url;
            printer.message(format_args!("created or updated the tables of {url}"));
        }
        Ok(Self {
            editor: Editor::new(storage.clone(), cache.clone()),
            storage,
            cache,
            config,
        })
    }

    /// The cache, checked to belong to this storage; none if nodes share no cache.
    pub async fn own_cache(&self) -> Result<Option<&dyn Cache>> {
        let Some(cache) = self.cache.as_deref() else {
            return Ok(None);
        };
        let database = self.storage.identity().await?;
        let checked = owner::refuse_foreign(cache, &database).await;
        checked.map_err(|error| named(error, cache_name(&self.config)))?;
        Ok(Some(cache))
    }
}
