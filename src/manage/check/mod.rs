//! `mika-manage check`: checks what the tracker needs, and reports problems with hints.

mod cache;
mod host;
mod report;
mod storage;
mod tls;

use anyhow::Result;

use self::report::CheckReport;
use super::ExitStatus;
use super::print::Printer;
use crate::base::clock::Clock;
use crate::config::{self, ApiSection, ConfigError, Drivers, Exposed, Loaded};

pub async fn run(
    loaded: Result<Loaded, ConfigError>,
    drivers: &Drivers,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let mut report = CheckReport::new(printer);
    match loaded {
        Ok(loaded) => check_all(&loaded, drivers, &mut report).await?,
        Err(error) => {
            let hint = "see docs/config.md for every key";
            report.problem("config", &error.to_string(), hint)?;
        }
    }
    report.end()
}

async fn check_all(loaded: &Loaded, drivers: &Drivers, report: &mut CheckReport<'_>) -> Result<()> {
    let config = &loaded.config;
    report.ok("config", &loaded.source.to_string())?;
    for warning in &loaded.warnings {
        report.note("config", warning, "see docs/config.md")?;
    }
    for Exposed { problem, hint } in config::exposed(loaded) {
        report.note("files", &problem, &hint)?;
    }
    let now = Clock::start().now().unix;
    match &config.http.tls {
        Some(files) => {
            let hint = "name the files of your certificate";
            report.result("http.tls", tls::check(files, hint, now))?;
        }
        None => report.ok("http.tls", "off: HTTP without TLS")?,
    }
    check_api(&config.api, now, report)?;
    host::check(config, report)?;
    cache::check(config, drivers, report).await?;
    storage::check(config, drivers, report).await
}

fn check_api(api: &ApiSection, now: i64, report: &mut CheckReport<'_>) -> Result<()> {
    let has_files = api.tls.key.exists() || api.tls.cert.exists();
    if api.listen.is_empty() {
        return report.ok("api.tls", "the API is off");
    }
    if !has_files && api.is_default {
        let how = "no key, so there is no API; make one with: mika-manage genkey";
        return report.ok("api.tls", how);
    }
    let hint = if has_files {
        "mika-manage genkey --force, or set api.listen to [] for no API"
    } else {
        "mika-manage genkey, or set api.listen to [] for no API"
    };
    report.result("api.tls", tls::check(&api.tls, hint, now))?;
    if api.is_open() {
        let found = "the API is open to everybody on this host";
        report.note("api", found, "set api.password or api.tokens")?;
    }
    Ok(())
}
