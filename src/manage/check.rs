//! `mika-manage check`: tries what the tracker needs, and says what is wrong and how to mend it.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::print::Printer;
use super::{ExitStatus, open};
use crate::certificate::{EXPIRY_NOTICE_DAYS, validity};
use crate::clock::Clock;
use crate::config::{Api, Config, ConfigError, Loaded, TlsFiles};
use crate::registry::Client;
use crate::storage::{Finding, Storage, StorageError};

/// One thing that was tried.
#[derive(Serialize)]
struct Tried {
    what: String,
    ok: bool,
    /// What was found, or what is wrong.
    found: String,
    /// What to do about it.
    mend: Option<String>,
}

/// Collects what was tried, and shows each at once.
struct Report<'a> {
    printer: &'a mut Printer,
    all: Vec<Tried>,
}

/// What is wrong, and what to do about it.
struct Problem {
    problem: String,
    mend: String,
}

pub async fn run(loaded: Result<Loaded, ConfigError>, printer: &mut Printer) -> Result<ExitStatus> {
    let mut report = Report {
        printer,
        all: Vec::new(),
    };
    match loaded {
        Ok(loaded) => check_all(&loaded, &mut report).await?,
        Err(error) => {
            report.problem(
                "config",
                &error.to_string(),
                "see docs/config.md for every key",
            )?;
        }
    }
    report.end()
}

async fn check_all(loaded: &Loaded, report: &mut Report<'_>) -> Result<()> {
    let config = &loaded.config;
    report.ok("config", &loaded.source.to_string())?;
    for warning in &loaded.warnings {
        report.printer.message(format_args!("note: {warning}"));
    }
    let now = Clock::start().now().unix;
    match &config.http.tls {
        Some(files) => report.result(
            "http.tls",
            check_tls(files, "name the files of your certificate", now),
        )?,
        None => report.ok("http.tls", "off: HTTP without TLS")?,
    }
    check_api(&config.api, now, report)?;
    check_cache(config, report).await?;
    check_storage(config, report).await
}

fn check_api(api: &Api, now: i64, report: &mut Report<'_>) -> Result<()> {
    let has_files = api.tls.key.exists() || api.tls.cert.exists();
    if api.listen.is_empty() {
        return report.ok("api.tls", "the API is off");
    }
    if !has_files && api.is_default {
        let how = "no key, so there is no API; make one with: mika-manage genkey";
        return report.ok("api.tls", how);
    }
    let mend = if has_files {
        "mika-manage genkey --force"
    } else {
        "mika-manage genkey"
    };
    report.result("api.tls", check_tls(&api.tls, mend, now))?;
    if api.is_open() {
        let note =
            "note: the API is open to everybody on this host: set api.password or api.tokens";
        report.printer.message(note);
    }
    Ok(())
}

/// Whether the cache takes commands, and has the registry that a node starts from.
async fn check_cache(config: &Config, report: &mut Report<'_>) -> Result<()> {
    let cache = match open::cache(config) {
        Ok(Some(cache)) => cache,
        Ok(None) => return report.ok("cache", &config.cache.driver),
        Err(error) => {
            let mend = "look at cache.driver and cache.url";
            return report.problem("cache", &error.root_cause().to_string(), mend);
        }
    };
    let state = match cache.ping().await {
        Ok(_) => cache.mirrored().await,
        Err(error) => Err(error),
    };
    match state {
        Ok(Some(_)) => report.ok("cache", &config.cache.url.to_string()),
        Ok(None) => report.problem(
            "cache",
            &format!("{}: it was never loaded completely", config.cache.url),
            "mika-manage warmup",
        ),
        Err(error) => {
            let mend = "look at cache.url, and whether the server is up";
            report.problem("cache", &error.to_string(), mend)
        }
    }
}

async fn check_storage(config: &Config, report: &mut Report<'_>) -> Result<()> {
    if !open::is_there(config) {
        let url = &config.storage.url;
        report.ok(
            "storage",
            &format!("{url}: not there yet, it is made at the first use"),
        )?;
        return report_whitelist(config, 0, report);
    }
    let storage = match open::bare_storage(config) {
        Ok(storage) => storage,
        Err(error) => {
            let mend = "look at storage.driver and storage.url";
            return report.problem("storage", &error.root_cause().to_string(), mend);
        }
    };
    let migrations = match storage.migrations().await {
        Ok(migrations) => migrations,
        Err(error) => {
            let mend = "look at storage.url, and whether the database is up";
            return report.problem("storage", &error.to_string(), mend);
        }
    };
    report.ok("storage", &config.storage.url.to_string())?;
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
        // Without tables, nobody is allowed either.
        return report_whitelist(config, 0, report);
    } else {
        let problem = format!("not applied: {}", missing.join(", "));
        return report.problem("migrations", &problem, "mika-manage migrate");
    }
    match contents(&*storage).await {
        Ok((findings, clients)) => {
            report_findings(&findings, report)?;
            report_whitelist(config, clients.len(), report)
        }
        Err(error) => report.problem(
            "tables",
            &error.to_string(),
            "look at the database's own log",
        ),
    }
}

async fn contents(storage: &dyn Storage) -> Result<(Vec<Finding>, Vec<Client>), StorageError> {
    Ok((storage.check().await?, storage.whitelist().await?))
}

fn report_findings(findings: &[Finding], report: &mut Report<'_>) -> Result<()> {
    if findings.is_empty() {
        return report.ok("tables", "every row can be used");
    }
    findings
        .iter()
        .try_for_each(|finding| report.problem("tables", &finding.problem, &finding.mend))
}

fn report_whitelist(config: &Config, clients: usize, report: &mut Report<'_>) -> Result<()> {
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

/// Whether a TLS listener could use the files; says until when. `absent` mends that one is not there.
fn check_tls(files: &TlsFiles, absent: &str, now: i64) -> Result<String, Problem> {
    let certs: Vec<CertificateDer> = read(&files.cert, absent, |text| {
        CertificateDer::pem_slice_iter(text).collect()
    })?;
    let key = read(&files.key, absent, PrivateKeyDer::from_pem_slice)?;
    let Some(first) = certs.first().cloned() else {
        return Err(Problem::new(
            format!("{}: no certificate in it", files.cert.display()),
            "it must be a PEM file",
        ));
    };
    CertifiedKey::from_der(certs, key, &ring::default_provider()).map_err(|error| {
        let (key, cert) = (files.key.display(), files.cert.display());
        Problem::new(
            format!("{key} does not go with {cert}: {error}"),
            "name a key and a certificate that were made together",
        )
    })?;
    let path = files.cert.display();
    let validity = validity(&first).map_err(|error| {
        Problem::new(
            format!("{path}: {error}"),
            "make or request a new certificate",
        )
    })?;
    let (from, until) = (&validity.not_before, &validity.not_after);
    let days = (until.timestamp() - now) / 86_400;
    if until.timestamp() < now {
        let problem = format!("{path} expired on {until}");
        return Err(Problem::new(problem, "make or request a new certificate"));
    }
    if from.timestamp() > now {
        let problem = format!("{path} is not valid before {from}");
        return Err(Problem::new(problem, "look at the clock of this machine"));
    }
    if days < EXPIRY_NOTICE_DAYS {
        let problem = format!("{path} expires in {days} days");
        return Err(Problem::new(problem, "make or request a new certificate"));
    }
    Ok(format!("{path} is valid for {days} more days"))
}

fn read<T>(
    path: &Path,
    absent: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, pem::Error>,
) -> Result<T, Problem> {
    let text = fs::read(path).map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::NotFound => absent,
            _ => "let the user that runs the tracker read it",
        };
        Problem::new(format!("{}: {error}", path.display()), mend)
    })?;
    parse(&text).map_err(|error| {
        Problem::new(
            format!("{}: {error}", path.display()),
            "it must be a PEM file",
        )
    })
}

// === impl Problem ===

impl Problem {
    fn new(problem: String, mend: &str) -> Self {
        Self {
            problem,
            mend: mend.into(),
        }
    }
}

// === impl Report ===

impl Report<'_> {
    fn ok(&mut self, what: &str, found: &str) -> Result<()> {
        self.add(what, found, None)
    }

    fn problem(&mut self, what: &str, problem: &str, mend: &str) -> Result<()> {
        self.add(what, problem, Some(mend))
    }

    fn result(&mut self, what: &str, result: Result<String, Problem>) -> Result<()> {
        match result {
            Ok(found) => self.ok(what, &found),
            Err(Problem { problem, mend }) => self.problem(what, &problem, &mend),
        }
    }

    fn add(&mut self, what: &str, found: &str, mend: Option<&str>) -> Result<()> {
        if !self.printer.is_json() {
            match mend {
                None => self
                    .printer
                    .line(format_args!("ok       {what}: {found}"))?,
                Some(mend) => {
                    self.printer
                        .line(format_args!("problem  {what}: {found} → {mend}"))?;
                }
            }
        }
        self.all.push(Tried {
            what: what.into(),
            ok: mend.is_none(),
            found: found.into(),
            mend: mend.map(Into::into),
        });
        Ok(())
    }

    fn end(self) -> Result<ExitStatus> {
        if self.printer.is_json() {
            self.printer.document(&self.all)?;
        }
        Ok(if self.all.iter().all(|tried| tried.ok) {
            ExitStatus::Success
        } else {
            ExitStatus::Failure
        })
    }
}
