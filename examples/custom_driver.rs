//! A tracker with its own drivers, registered from its own `main`. These two read their
//! URL from a file, as container platforms hand out secrets, and leave the rest to Mika's drivers.
//!
//! A driver for a database or a cache that Mika does not know implements `mika::storage::Storage`
//! or `mika::cache::Cache`, is registered in the same way, and is tested by
//! `mika::storage::contract::run` or `mika::cache::contract::run` (feature `contract`).
//!
//! ```sh
//! echo 'sqlite://mika.db' > storage-url
//! echo '{ "storage": { "driver": "sqlite-by-file", "url": "storage-url" } }' > config.json
//! cargo run --release --example custom_driver
//! ```

use std::fs;
use std::io;
use std::sync::Arc;

use mika::base::secret::Secret;
use mika::cache::{self, Cache, CacheError};
use mika::config;
use mika::node::{self, Drivers, Options};
use mika::storage::{self, Storage, StorageConfig, StorageError};

/// The first line of the file that `path` names.
fn url_in(path: &Secret) -> io::Result<Secret> {
    let text = fs::read_to_string(path.expose())?;
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}

fn open_storage(place: &StorageConfig) -> Result<Arc<dyn Storage>, StorageError> {
    let url = url_in(&place.url)
        .map_err(|error| StorageError::Broken(format!("storage.url {}: {error}", place.url)))?;
    let open = storage::StorageDrivers::built_in().get("sqlite");
    let open = open.ok_or_else(|| StorageError::Broken("there is no driver sqlite".into()))?;
    open(&StorageConfig {
        url,
        ..place.clone()
    })
}

fn open_cache(path: &Secret) -> Result<Option<Arc<dyn Cache>>, CacheError> {
    let url =
        url_in(path).map_err(|error| CacheError::Broken(format!("cache.url {path}: {error}")))?;
    let open = cache::CacheDrivers::built_in().get("redis");
    let open = open.ok_or_else(|| CacheError::Broken("there is no driver redis".into()))?;
    open(&url)
}

fn main() -> anyhow::Result<()> {
    let mut drivers = Drivers::built_in();
    drivers.storage.register("sqlite-by-file", open_storage);
    drivers.cache.register("redis-by-file", open_cache);
    let options = Options {
        config: config::load(None)?,
        config_path: None,
        procs: 1,
        no_wait: false,
    };
    node::check_with(&options, &drivers)?;
    node::run_with(options, &drivers)
}
