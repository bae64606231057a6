//! The log: lines on stderr, for people or as JSON, with times in UTC.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel};

/// Changes the level of a log that runs.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<Targets, Registry>);

/// Starts the log of this process; fails if it has one already.
pub fn init(level: LogLevel, format: LogFormat) -> Result<LevelHandle, SetGlobalDefaultError> {
    let (filter, handle) = reload::Layer::new(filter(level));
    let subscriber = Registry::default().with(filter).with(lines(format));
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(LevelHandle(handle))
}

// === impl LevelHandle ===

impl LevelHandle {
    pub fn set(&self, level: LogLevel) {
        // It fails only when the log itself is gone, and then nobody is left to be told.
        let _ = self.0.reload(filter(level));
    }
}

/// Libraries are heard from `info` up: below it they may show what a client sent,
/// and with that a passkey.
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

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
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
