//! From the file and the environment to a checked [`Config`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

use ipnet::IpNet;
use serde_json::Value;

use super::{Config, Mode, check, host_name, shape};
use crate::base::secret::Secret;
use crate::cache;

/// The file that is read when none is named.
const DEFAULT_PATH: &str = "config.json";

/// Environment variables with secrets, and the keys that they replace.
const VARIABLES: [(&str, &str); 3] = [
    ("MIKA_STORAGE_URL", "storage.url"),
    ("MIKA_CACHE_URL", "cache.url"),
    ("MIKA_API_PASSWORD", "api.password"),
];

/// A checked config, and its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    pub source: ConfigSource,
    /// Valid settings that have no effect or are risky, a sentence each.
    pub warnings: Vec<String>,
    /// Whether the file itself contains passwords or tokens.
    pub file_has_secrets: bool,
}

/// The source of a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    File(PathBuf),
    BuiltIn,
}

/// Why a config is refused: one line with the place, the key, and what was expected.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    place: String,
    problem: String,
}

/// Reads the named file; without a name `./config.json`, and without that the built-in defaults.
pub fn load(named: Option<&Path>) -> Result<Loaded, ConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT_PATH));
    let source = ConfigSource::File(path.into());
    match fs::read_to_string(path) {
        Ok(text) => resolve(Some(&text), source, |name| env::var_os(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
            resolve(None, ConfigSource::BuiltIn, |name| env::var_os(name))
        }
        Err(error) => Err(ConfigError::new(&source, unreadable(&error))),
    }
}

/// Everything but reading the file: parses its text, if any, and checks the result.
pub(super) fn resolve(
    text: Option<&str>,
    source: ConfigSource,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Loaded, ConfigError> {
    let mut config = match text {
        Some(text) => parse(text).map_err(|problem| ConfigError::new(&source, problem))?,
        None => Config::default(),
    };
    if config.node.is_empty() {
        config.node = host_name();
    }
    let file_has_secrets = has_secrets(&config);
    let replaced = take_secrets(&mut config, variable)?;
    check::check(&config).map_err(|problem| {
        match replaced.iter().find(|(_, key)| *key == problem.key) {
            Some((name, _)) => ConfigError::new(name, problem.text),
            None => ConfigError::new(&source, format!("{}: {}", problem.key, problem.text)),
        }
    })?;
    Ok(Loaded {
        warnings: warnings(&config),
        config,
        source,
        file_has_secrets,
    })
}

fn parse(text: &str) -> Result<Config, String> {
    let given: Value = serde_json::from_str(text).map_err(|error| syntax(&error))?;
    shape::check(&given)?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let mut config: Config = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let key = error.path().to_string();
        let cause = error.inner().to_string();
        // A duplicate key can't be described from the value, which keeps only the last.
        match cause
            .strip_prefix("duplicate field `")
            .and_then(|rest| rest.split_once('`'))
        {
            Some((name, _)) => duplicate(&key, name),
            None => format!("{key}: {}", shape::describe(error.path(), &given)),
        }
    })?;
    settle(&mut config, &given);
    Ok(config)
}

/// Fills in the defaults that depend on something else.
fn settle(config: &mut Config, given: &Value) {
    let private = config.mode == Mode::Private;
    if given.pointer("/tracker/auto_register").is_none() {
        config.tracker.auto_register = !private;
    }
    if given.pointer("/tracker/whitelist").is_none() {
        config.tracker.whitelist = private;
    }
    if given.pointer("/udp/listen").is_none() {
        config.udp.listen.clone_from(&config.http.listen);
    }
    config.api.is_default = given.pointer("/api/listen").is_none();
}

/// Whether a password or a token is set. Only a URL that may hold a secret differs from its masked form.
fn has_secrets(config: &Config) -> bool {
    let is_secret = |url: &Secret| url.masked() != url.expose();
    !config.api.is_open() || is_secret(&config.storage.url) || is_secret(&config.cache.url)
}

/// Takes secrets from the environment; returns which. An empty variable counts as unset.
fn take_secrets(
    config: &mut Config,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<(&'static str, &'static str)>, ConfigError> {
    let mut replaced = Vec::new();
    for (name, key) in VARIABLES {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else {
            continue;
        };
        let value = value
            .into_string()
            .map_err(|_| ConfigError::new(&name, "expected UTF-8 text".into()))?;
        let target = match key {
            "storage.url" => &mut config.storage.url,
            "cache.url" => &mut config.cache.url,
            _ => &mut config.api.password,
        };
        *target = Secret::new(value);
        replaced.push((name, key));
    }
    Ok(replaced)
}

/// Settings without an effect, or with a risky one.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.http.listen.is_empty() && config.udp.listen.is_empty() {
        warnings.push("http.listen, udp.listen: both are empty, so no client can announce".into());
    }
    if config.http.trusted_proxies.is_empty() && !config.http.forwarded_header.is_empty() {
        warnings.push("http.forwarded_header: has no effect without http.trusted_proxies".into());
    }
    if config.http.trusted_proxies.is_empty() && config.http.proxy_protocol {
        warnings.push("http.proxy_protocol: has no effect without http.trusted_proxies".into());
    }
    warnings.extend(proxy_warnings(&config.http.trusted_proxies));
    if let Some(warning) = cache::url_warning(&config.cache.driver, &config.cache.url) {
        warnings.push(format!("cache.url: {warning}"));
    }
    warnings
}

/// Warns of proxies that are all addresses of a family.
fn proxy_warnings(proxies: &[IpNet]) -> impl Iterator<Item = String> {
    let everything = proxies.iter().filter(|network| network.prefix_len() == 0);
    everything.map(|network| {
        format!(
            "http.trusted_proxies: {network} is every address, so anyone can forge the address of a \
             client: list only your proxies"
        )
    })
}

/// A syntax error, with its position first.
fn syntax(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(what, _)| what);
    let (line, column) = (error.line(), error.column());
    format!("line {line}, column {column}: not JSON: {what}")
}

fn duplicate(path: &str, name: &str) -> String {
    let has_name = path.rsplit('.').next() == Some(name);
    let path = match path {
        "." => name.to_owned(),
        path if has_name => path.to_owned(),
        section => shape::join(section, name),
    };
    format!("{path}: the key is there twice")
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "no such file; name one with --config PATH, or begin with a copy of config.json.dist"
                .into()
        }
        io::ErrorKind::InvalidData => "expected UTF-8 text".into(),
        _ => format!("can't be read: {error}"),
    }
}

// === impl ConfigSource ===

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::BuiltIn => f.write_str("built-in defaults"),
        }
    }
}

// === impl ConfigError ===

impl ConfigError {
    fn new(place: &impl fmt::Display, problem: String) -> Self {
        Self {
            place: place.to_string(),
            problem,
        }
    }
}
