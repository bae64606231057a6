//! The log: lines for people or as JSON, with times in UTC, on stderr or in a file.

use std::fs::File;
use std::io::{self, IsTerminal, Stderr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::EitherWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::base::file::folder_of;

/// The section `log` of the config.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, SmartDefault)]
#[serde(default)]
pub struct LogSettings {
    #[default(LogLevel::Info)]
    pub level: LogLevel,
    #[default(LogFormat::Text)]
    pub format: LogFormat,
    /// The file that lines are appended to; empty for stderr. Opened again at a reload.
    pub file: PathBuf,
    /// How often a line of statistics is written; `0s` for never.
    #[serde(with = "humantime_serde")]
    #[default(Duration::from_secs(60))]
    pub stats_interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Changes the running log.
pub struct LogHandle {
    level: reload::Handle<Targets, Registry>,
    output: Output,
    /// The file's path; empty for stderr.
    path: Mutex<PathBuf>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.file: can't write to {}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("this process has a log already")]
    Twice(#[from] SetGlobalDefaultError),
}

/// Where lines go now: to a file, or to stderr without one.
#[derive(Clone)]
struct Output(Arc<ArcSwapOption<File>>);

/// Starts the log of this process.
///
/// # Errors
/// The file can't be written, or the process has a log already.
pub fn init(settings: &LogSettings) -> Result<LogHandle, LogError> {
    let (filter, level) = reload::Layer::new(filter(settings.level));
    let output = Output(Arc::new(open(&settings.file)?.into()));
    let lines = lines(settings, output.clone());
    let subscriber = Registry::default().with(filter).with(lines);
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(LogHandle {
        level,
        output,
        path: Mutex::new(settings.file.clone()),
    })
}

/// The mode of a new log file, which has addresses of users.
const FILE_MODE: u32 = 0o640;

/// Opens a log file for appending; none for an empty path, which stands for stderr.
pub fn open(path: &Path) -> Result<Option<Arc<File>>, LogError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let file = File::options()
        .create(true)
        .append(true)
        .mode(FILE_MODE)
        .open(path);
    file.map(|file| Some(Arc::new(file)))
        .map_err(|error| LogError::File {
            path: path.into(),
            error,
        })
}

/// Checks that the log can be written there, as far as possible without creating the file.
pub fn check(path: &Path) -> Result<(), LogError> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let writable = if path.exists() {
        File::options().append(true).open(path).map(drop)
    } else {
        std::fs::read_dir(folder_of(path)).map(drop)
    };
    writable.map_err(|error| LogError::File {
        path: path.into(),
        error,
    })
}

// === impl LogHandle ===

impl LogHandle {
    pub fn set_level(&self, level: LogLevel) {
        // Fails only if the log itself is gone.
        let _ = self.level.reload(filter(level));
    }

    /// Opens the file again by its path, in case a rotation has renamed it. No line is lost: earlier ones
    /// are in the renamed file.
    ///
    /// # Errors
    /// The file can't be opened; the log stays where it was.
    pub fn reopen(&self) -> Result<(), LogError> {
        let file = open(&self.path.lock())?;
        self.output.0.store(file);
        Ok(())
    }

    /// Switches to another file, or to stderr.
    pub fn write_to(&self, path: &Path, file: Option<Arc<File>>) {
        self.output.0.store(file);
        *self.path.lock() = path.into();
    }
}

// === impl Output ===

impl<'a> MakeWriter<'a> for Output {
    type Writer = EitherWriter<Arc<File>, Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        match self.0.load_full() {
            Some(file) => EitherWriter::A(file),
            None => EitherWriter::B(io::stderr()),
        }
    }
}

/// Libraries log from `info` up: below it they may show what a client sent, and so a passkey.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target("mika", level)
}

fn lines<S>(settings: &LogSettings, output: Output) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let is_terminal = settings.file.as_os_str().is_empty() && io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(output);
    match settings.format {
        LogFormat::Text => lines.with_ansi(is_terminal).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_are_quiet_where_they_could_show_what_a_client_sent() {
        let shown = |level, target: &str, at: Level| filter(level).would_enable(target, &at);
        assert!(shown(LogLevel::Trace, "mika::listen", Level::TRACE));
        assert!(!shown(LogLevel::Trace, "hyper::proto", Level::DEBUG));
        assert!(shown(LogLevel::Info, "hyper::proto", Level::INFO));
        assert!(!shown(LogLevel::Error, "mika::journal", Level::WARN));
        assert!(!shown(LogLevel::Error, "hyper::proto", Level::WARN));
    }
}
