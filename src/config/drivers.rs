//! The drivers that a config may name.

use std::sync::Arc;

use crate::base::drivers::DriverTable;
use crate::base::suggest::hint;
use crate::cache::{Cache, CacheDrivers, CacheError};
use crate::config::Config;
use crate::storage::{self, Storage, StorageConfig, StorageDrivers, StorageError};

/// The drivers of a program: those of this crate, and those that its `main` has registered.
#[derive(Clone)]
pub struct Drivers {
    pub cache: CacheDrivers,
    pub storage: StorageDrivers,
}

/// A driver that the config names and that the program does not have.
#[derive(Debug, thiserror::Error)]
#[error("{key}: there is no driver {name:?}; {hint}")]
pub struct UnknownDriver {
    key: &'static str,
    name: String,
    hint: String,
}

impl Drivers {
    /// The drivers of this crate.
    pub fn built_in() -> Self {
        Self {
            cache: CacheDrivers::built_in(),
            storage: StorageDrivers::built_in(),
        }
    }

    /// Whether the program has the drivers that the config names.
    pub fn check(&self, config: &Config) -> Result<(), UnknownDriver> {
        find(&self.storage, "storage.driver", &config.storage.driver)?;
        find(&self.cache, "cache.driver", &config.cache.driver)?;
        Ok(())
    }

    /// Whether the schema of the config, and its statements, can be understood, without the database.
    pub fn check_statements(&self, config: &Config) -> Result<(), StorageError> {
        storage::check_statements(&config.storage.driver, &place(config))
    }

    /// Opens the storage of the config, whose driver was checked.
    pub fn open_storage(&self, config: &Config) -> Result<Arc<dyn Storage>, StorageError> {
        let open = self.storage.get(&config.storage.driver);
        let open = open.ok_or_else(|| StorageError::Broken("there is no such driver".into()))?;
        open(&place(config))
    }

    /// Opens the cache of the config, whose driver was checked; none if nodes share none.
    pub fn open_cache(&self, config: &Config) -> Result<Option<Arc<dyn Cache>>, CacheError> {
        let open = self.cache.get(&config.cache.driver);
        let open = open.ok_or_else(|| CacheError::Broken("there is no such driver".into()))?;
        open(&config.cache.url)
    }
}

/// What opens the driver that a key of the config names.
fn find<F: Copy>(
    drivers: &DriverTable<F>,
    key: &'static str,
    name: &str,
) -> Result<F, UnknownDriver> {
    drivers.get(name).ok_or_else(|| UnknownDriver {
        key,
        name: name.to_owned(),
        hint: hint(name, &drivers.names()),
    })
}

fn place(config: &Config) -> StorageConfig {
    let storage = &config.storage;
    StorageConfig::of(&storage.url, &storage.schema, &storage.statements)
}
