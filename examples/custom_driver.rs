//! A tracker with a driver of its own: a cache that also writes each batch to a file, as a
//! trail for auditors. Storage drivers are registered the same way.
//!
//! ```sh
//! echo '{ "mode": "private", "cache": { "driver": "trail", "url": "trail.log" } }' > config.json
//! cargo run --release --example custom_driver
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mika::cache::{Cache, CacheError, Kept};
use mika::change::Batch;
use mika::config;
use mika::node::{self, Drivers, Options};
use mika::secret::Secret;

/// Writes a line for each batch, and leaves it to storage to make the batch durable.
struct Trail {
    file: Mutex<File>,
}

fn open(url: &Secret) -> Result<Arc<dyn Cache>, CacheError> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(url.expose());
    let file = file.map_err(|error| CacheError(format!("{url}: {error}")))?;
    Ok(Arc::new(Trail {
        file: Mutex::new(file),
    }))
}

#[async_trait]
impl Cache for Trail {
    async fn keep(&self, batch: &Batch) -> Result<Kept, CacheError> {
        let line = format!(
            "{} {} {} changes\n",
            batch.node,
            batch.number,
            batch.changes.len()
        );
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())
            .map_err(|error| CacheError(error.to_string()))?;
        Ok(Kept::Nowhere)
    }

    async fn applied(&self, _node: &str, _number: u64) -> Result<(), CacheError> {
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let mut drivers = Drivers::built_in();
    drivers.cache.register("trail", open);
    let options = Options {
        config: config::load(None)?,
        config_path: None,
        procs: 1,
        no_wait: false,
    };
    node::check_with(&options, &drivers)?;
    node::run_with(options, &drivers)
}
