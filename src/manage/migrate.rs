//! `mika-manage migrate`: creates and updates Mika's own tables.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::print::{self, Column, Printer, Row, left};
use super::{ExitStatus, open, report_problems};
use crate::config::{Config, Drivers};
use crate::storage::{StorageError, migrate};

#[derive(Serialize)]
struct MigrationRow {
    name: String,
    applied: bool,
}

pub async fn run(
    status: bool,
    config: &Config,
    drivers: &Drivers,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let named = |error| open::named(error, open::name_of(config));
    if status {
        let migrations = if open::database_exists(config) {
            let storage = open::bare_storage(config, drivers)?;
            storage.migrations().await.map_err(named)?
        } else {
            migrate::status(migrate::SQLITE, &[])?
        };
        let mut rows: Vec<MigrationRow> = migrations
            .into_iter()
            .map(|migration| MigrationRow {
                name: migration.name.into(),
                applied: migration.applied,
            })
            .collect();
        let drift = drift(&rows, config, drivers, printer).await;
        rows.extend(drift.map_err(named)?);
        printer.table(&rows)?;
        return Ok(ExitStatus::of(rows.iter().all(|row| row.applied)));
    }
    let storage = open::bare_storage(config, drivers)?;
    let applied = storage.migrate().await.map_err(named)?;
    if printer.is_json() {
        printer.document(&json!({ "applied": applied }))?;
    } else if applied.is_empty() {
        printer.line("up to date")?;
    } else {
        for name in applied {
            printer.line(format_args!("applied {name}"))?;
        }
    }
    // What is left to administrators, such as triggers on a table of another account.
    let is_right = !report_problems(&storage.inspect().await.map_err(named)?, printer);
    Ok(ExitStatus::of(is_right))
}

/// Prints the SQL of all migrations of the schema. Each is recorded in `mika_migrations`, by its name.
pub fn show(config: &Config, drivers: &Drivers, printer: &mut Printer) -> Result<ExitStatus> {
    let storage = open::bare_storage(config, drivers)?;
    for (name, sql) in storage.migration_texts() {
        printer.line(format_args!("-- {name}"))?;
        for line in sql.trim_end().lines() {
            printer.line(line)?;
        }
        printer.line("")?;
    }
    Ok(ExitStatus::Success)
}

/// Checks that the objects of the migrations are unchanged; reports those that are not.
async fn drift(
    rows: &[MigrationRow],
    config: &Config,
    drivers: &Drivers,
    printer: &mut Printer,
) -> Result<Option<MigrationRow>, StorageError> {
    let is_all_applied = rows.iter().all(|row| row.applied);
    if !is_all_applied || !open::database_exists(config) {
        return Ok(None);
    }
    let Ok(storage) = open::bare_storage(config, drivers) else {
        return Ok(None);
    };
    Ok(Some(MigrationRow {
        name: "triggers and tables in place".into(),
        applied: !report_problems(&storage.inspect().await?, printer),
    }))
}

impl Row for MigrationRow {
    const COLUMNS: &'static [Column<Self>] = &[
        left("MIGRATION", |row| row.name.clone()),
        left("APPLIED", |row| print::yes_no(row.applied)),
    ];
}
