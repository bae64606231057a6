//! `mika-manage migrate`: Mika's own tables.

use anyhow::Result;
use serde::Serialize;

use super::print::{self, Column, Printer, Row, left};
use super::{ExitStatus, open};
use crate::config::Config;
use crate::storage::migrate;

#[derive(Serialize)]
struct Applied {
    applied: Vec<String>,
}

#[derive(Serialize)]
struct MigrationRow {
    name: &'static str,
    applied: bool,
}

pub async fn run(status: bool, config: &Config, printer: &mut Printer) -> Result<ExitStatus> {
    let named = |error| open::named(error, open::name_of(config));
    if status {
        let migrations = if open::is_there(config) {
            let storage = open::bare_storage(config)?;
            storage.migrations().await.map_err(named)?
        } else {
            migrate::status(migrate::SQLITE, &[])?
        };
        let rows: Vec<MigrationRow> = migrations
            .into_iter()
            .map(|migration| MigrationRow {
                name: migration.name,
                applied: migration.applied,
            })
            .collect();
        let mut list = printer.list()?;
        list.page(&rows)?;
        list.end()?;
        return Ok(ExitStatus::Success);
    }
    let storage = open::bare_storage(config)?;
    let applied = storage.migrate().await.map_err(named)?;
    if printer.is_json() {
        printer.document(&Applied { applied })?;
    } else if applied.is_empty() {
        printer.line("up to date")?;
    } else {
        for name in applied {
            printer.line(format_args!("applied {name}"))?;
        }
    }
    Ok(ExitStatus::Success)
}

// === impl MigrationRow ===

impl Row for MigrationRow {
    const COLUMNS: &'static [Column] = &[left("MIGRATION"), left("APPLIED")];

    fn cells(&self) -> Vec<String> {
        vec![self.name.into(), print::yes_no(self.applied)]
    }
}
