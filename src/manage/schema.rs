//! `mika-manage schema`: the schemas that Mika has, and whether one of a site's own works.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;
use serde::Serialize;

use super::print::{Column, Printer, Row, left};
use super::{ExitStatus, UsageError, open};
use crate::config::{Config, Drivers};
use crate::storage::sql::statements::is_file;
use crate::storage::{self, Severity, StorageDrivers};

#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// List the schemas of this version
    List,
    /// Print the statements of one, to begin a file of your own from
    #[command(after_help = "Examples:\n  mika-manage schema show mika > my-site.sql")]
    Show {
        name: String,
        /// Of this driver; without it, of the one in the config
        #[arg(long)]
        driver: Option<String>,
    },
    /// Have the database of the config run each statement of a file
    ///
    /// What they change is taken back, and Mika's own tables need not be there yet. docs/schemas.md explains the file.
    #[command(after_help = "Examples:\n  mika-manage schema test my-site.sql")]
    Test { file: PathBuf },
}

/// A schema of a driver.
#[derive(Serialize)]
struct SchemaRow {
    name: &'static str,
    driver: &'static str,
    about: String,
}

pub async fn run(
    command: SchemaCommand,
    config: Config,
    drivers: &Drivers,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    match command {
        SchemaCommand::List => list(printer),
        SchemaCommand::Show { name, driver } => show(
            &name,
            driver.as_deref().unwrap_or(&config.storage.driver),
            printer,
        ),
        SchemaCommand::Test { file } => test(file, config, drivers, printer).await,
    }
}

fn list(printer: &mut Printer) -> Result<ExitStatus> {
    let mut rows = Vec::new();
    for driver in StorageDrivers::built_in().names() {
        let schemas = storage::schemas(driver).into_iter();
        rows.extend(schemas.map(|(name, text)| SchemaRow {
            name,
            driver,
            about: storage::sql::header::summary(text),
        }));
    }
    printer.table(&rows)?;
    Ok(ExitStatus::Success)
}

fn show(name: &str, driver: &str, printer: &mut Printer) -> Result<ExitStatus> {
    let schemas = storage::schemas(driver);
    if is_file(name) {
        bail!(UsageError(format!(
            "{name} is a file, and this prints the schemas of this version by their names (mika-manage schema list). To \
             try the file: mika-manage schema test {name}"
        )));
    }
    let Some((_, text)) = schemas.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = schemas.iter().map(|(name, _)| *name).collect();
        bail!(UsageError(format!(
            "the driver {driver} has no schema {name:?}; there are: {}",
            names.join(", ")
        )));
    };
    for line in text.trim_end().lines() {
        printer.line(line)?;
    }
    Ok(ExitStatus::Success)
}

async fn test(
    file: PathBuf,
    mut config: Config,
    drivers: &Drivers,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    // A name without a folder would be that of a schema of this version.
    let file = if file.components().count() == 1 {
        PathBuf::from(".").join(file)
    } else {
        file
    };
    config.storage.schema = file.display().to_string();
    drivers.check_statements(&config)?;
    let storage = open::bare_storage(&config, drivers)?;
    let findings = storage.check_schema().await;
    let findings = findings.map_err(|error| open::named(error, open::name_of(&config)))?;
    for finding in &findings {
        printer.line(&finding.problem)?;
        printer.line(format_args!("  → {}", finding.hint))?;
    }
    if findings
        .iter()
        .any(|finding| finding.severity > Severity::Note)
    {
        return Ok(ExitStatus::Failure);
    }
    printer.line("ok: the statements work with the tables of the database")?;
    Ok(ExitStatus::Success)
}

impl Row for SchemaRow {
    const COLUMNS: &'static [Column<Self>] = &[
        left("SCHEMA", |row| row.name.into()),
        left("DRIVER", |row| row.driver.into()),
        left("FOR", |row| row.about.clone()),
    ];
}
