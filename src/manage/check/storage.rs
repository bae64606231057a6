//! Checks the database: that it responds, and has Mika's tables and usable rows.

use anyhow::Result;

use super::cache;
use super::report::CheckReport;
use crate::config::{Config, Drivers};
use crate::manage::open;
use crate::storage::{Finding, Severity, Storage, StorageError};

/// The hint for missing migrations.
const MIGRATE: &str = "mika-manage migrate";

pub(super) async fn check(
    config: &Config,
    drivers: &Drivers,
    report: &mut CheckReport<'_>,
) -> Result<()> {
    if let Err(error) = drivers.check_statements(config) {
        let hint = "docs/schemas.md explains the file, docs/sql.md the statements";
        return report.problem("schema", &error.to_string(), hint);
    }
    if !open::database_exists(config) {
        let url = &config.storage.url;
        report.ok(
            "storage",
            &format!("{url}: not there yet; it is made at the first use"),
        )?;
        return report_whitelist(config, 0, report);
    }
    let storage = match open::bare_storage(config, drivers) {
        Ok(storage) => storage,
        Err(error) => {
            let hint = "look at storage.driver and storage.url";
            return report.problem("storage", &error.root_cause().to_string(), hint);
        }
    };
    let migrations = match storage.migrations().await {
        Ok(migrations) => migrations,
        Err(error) => {
            let problem = error.to_string();
            return report.problem("storage", &problem, hint(&*storage, &error, &problem));
        }
    };
    report.ok("storage", &config.storage.url.to_string())?;
    cache::storage_clock(&*storage, report).await?;
    let missing: Vec<&str> = migrations
        .iter()
        .filter(|migration| !migration.applied)
        .map(|migration| migration.name)
        .collect();
    if missing.is_empty() {
        report.ok("migrations", "up to date")?;
    } else if storage.is_embedded() {
        let pending = missing.join(", ");
        report.ok(
            "migrations",
            &format!("{pending} will be applied at the next use"),
        )?;
        // Without tables, the whitelist is empty.
        return report_whitelist(config, 0, report);
    } else {
        // A foreign table with the name of one of Mika's has to be dealt with first.
        let findings = storage.check().await.unwrap_or_default();
        let obstacles: Vec<Finding> = findings
            .into_iter()
            .filter(|finding| finding.severity > Severity::Note && !finding.hint.contains(MIGRATE))
            .collect();
        if !obstacles.is_empty() {
            return report_findings(&obstacles, report);
        }
        let problem = format!("not applied: {}", missing.join(", "));
        return report.problem("migrations", &problem, MIGRATE);
    }
    let failed = |error: StorageError, report: &mut CheckReport<'_>| {
        let hint = "look at the database's own log";
        report.problem("tables", &error.to_string(), hint)
    };
    let findings = match storage.check().await {
        Ok(findings) => findings,
        Err(error) => return failed(error, report),
    };
    report_findings(&findings, report)?;
    match storage.whitelist().await {
        Ok(clients) => report_whitelist(config, clients.len(), report),
        Err(_) if !is_fine(&findings) => Ok(()),
        Err(error) => failed(error, report),
    }
}

/// The hint for a database that can't be queried.
fn hint(storage: &dyn Storage, error: &StorageError, problem: &str) -> &'static str {
    let is_away = matches!(error, StorageError::Away(_));
    match is_away {
        _ if storage.is_embedded() => "look at the file of storage.url",
        true if problem.contains("can't be reached") || problem.contains("not answer") => {
            "start it, or correct the address in storage.url"
        }
        true => "the server was reached: look at its own log, and try again",
        false if problem.contains("Access denied") => {
            "the server was reached: give the right user, password and database in storage.url"
        }
        false => "the server was reached: correct what it says",
    }
}

fn is_fine(findings: &[Finding]) -> bool {
    findings.iter().all(|it| it.severity == Severity::Note)
}

fn report_findings(findings: &[Finding], report: &mut CheckReport<'_>) -> Result<()> {
    for finding in findings {
        let Finding { problem, hint, .. } = finding;
        match finding.severity {
            Severity::Note => report.note("tables", problem, hint)?,
            Severity::Problem | Severity::Fatal => report.problem("tables", problem, hint)?,
        }
    }
    if is_fine(findings) {
        return report.ok("tables", "everything that Mika needs works");
    }
    Ok(())
}

fn report_whitelist(config: &Config, clients: usize, report: &mut CheckReport<'_>) -> Result<()> {
    if !config.tracker.whitelist {
        return report.ok("whitelist", "off: any client may announce");
    }
    if clients > 0 {
        return report.ok("whitelist", &format!("{clients} clients"));
    }
    report.problem(
        "whitelist",
        "empty while tracker.whitelist is on, so every client is refused",
        "mika-manage whitelist add -TR Transmission, or set tracker.whitelist to false",
    )
}
