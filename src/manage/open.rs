//! Opens what the commands work on: the config, and storage with its tables.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::UsageError;
use super::print::Printer;
use crate::config::{self, Config};
use crate::storage::{Drivers, Storage};

/// Reads the config and says on stderr what is doubtful in it.
pub fn config(named: Option<&Path>, printer: &mut Printer) -> Result<Config> {
    let loaded = config::load(named)?;
    for warning in loaded.warnings {
        printer.message(format_args!("warning: {warning}"));
    }
    Ok(loaded.config)
}

/// The storage of the config as it is, be its tables there or not.
pub fn bare_storage(config: &Config) -> Result<Arc<dyn Storage>> {
    let drivers = Drivers::built_in();
    let name = &config.storage.driver;
    let open = drivers.get(name).ok_or_else(|| {
        UsageError(format!(
            "storage.driver: there is no driver {name:?}; there are: {}",
            drivers.names().join(", ")
        ))
    })?;
    open(&config.storage.url).with_context(|| name_of(config))
}

/// The storage of the config with all its tables.
///
/// An embedded database is Mika's own, so its tables are made at first use; those of a
/// server stand in somebody's application, who shall be asked.
pub async fn storage(config: &Config, printer: &mut Printer) -> Result<Arc<dyn Storage>> {
    let storage = bare_storage(config)?;
    if config.storage.driver == "sqlite" {
        let applied = storage.migrate().await.with_context(|| name_of(config))?;
        if !applied.is_empty() {
            printer.message(format_args!("created or updated the tables of {}", config.storage.url));
        }
        return Ok(storage);
    }
    let migrations = storage.migrations().await.with_context(|| name_of(config))?;
    anyhow::ensure!(
        migrations.iter().all(|migration| migration.applied),
        "{}: tables are missing; create them with: mika-manage migrate",
        name_of(config)
    );
    Ok(storage)
}

/// The storage as messages name it; the password of the URL is masked.
pub fn name_of(config: &Config) -> String {
    format!("storage {}", config.storage.url)
}
