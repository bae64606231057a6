//! The known keys, the form of their values, and messages for wrong ones.

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::check::TOKEN_MIN;
use super::{Config, HttpSection, TlsFiles};
use crate::base::suggest;

/// Keys whose value is never repeated in a message.
pub(super) const SECRETS: [&str; 4] = [
    "api.password",
    "api.tokens[].token",
    "cache.url",
    "storage.url",
];

/// The section whose keys are not listed here: names of SQL statements.
pub(super) const STATEMENTS: &str = "storage.statements";

/// Refuses unknown keys, and anything but a section where a section belongs.
pub(super) fn check(given: &Value) -> Result<(), String> {
    check_section("", given, &every_key())
}

/// The config with every key, including sections that are off by default.
pub(super) fn every_key() -> Value {
    let config = Config {
        http: HttpSection {
            tls: Some(TlsFiles::default()),
            ..HttpSection::default()
        },
        ..Config::default()
    };
    serde_json::to_value(config).unwrap_or_default()
}

/// Describes what was expected at `path`, and what `given` has there.
pub(super) fn describe(path: &Path, given: &Value) -> String {
    let mut key = String::new();
    let mut found = Some(given);
    for segment in path {
        match segment {
            Segment::Map { key: name } => {
                found = found.and_then(|value| value.get(name));
                key = join(&key, name);
            }
            Segment::Seq { index } => {
                found = found.and_then(|value| value.get(index));
                key.push_str("[]");
            }
            // Only lists and sections have names below them.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let found = found.unwrap_or(&Value::Null);
    let found = if is_secret(&key, found) {
        kind(found).to_owned()
    } else {
        shown(found)
    };
    format!("expected {}, found {found}", expected(&key))
}

fn check_section(path: &str, given: &Value, known: &Value) -> Result<(), String> {
    let Some(known) = known.as_object() else {
        return Ok(()); // a value, whose type the parser checks
    };
    let Some(given) = given.as_object() else {
        if path == "http.tls" && given.is_null() {
            return Ok(());
        }
        // The value may be a secret in the wrong place, so only its kind is shown.
        let place = if path.is_empty() { "" } else { ": " };
        let found = kind(given);
        return Err(format!("{path}{place}expected {{ … }}, found {found}"));
    };
    if path == STATEMENTS {
        return Ok(()); // checked by the driver
    }
    for (key, value) in given {
        match known.get(key) {
            Some(known) => check_section(&join(path, key), value, known)?,
            None => return Err(unknown(path, key, known)),
        }
    }
    Ok(())
}

fn unknown(section: &str, key: &str, known: &serde_json::Map<String, Value>) -> String {
    let path = join(section, key);
    if let Some(near) = suggest::nearest(key, known.keys().map(String::as_str)) {
        return format!("{path}: unknown key, did you mean {near:?}?");
    }
    if let Some(elsewhere) = same_name_elsewhere("", key, &every_key()) {
        return format!("{path}: unknown key, did you mean {elsewhere:?}?");
    }
    let keys: Vec<&str> = known.keys().map(String::as_str).collect();
    format!("{path}: unknown key, the keys here are {}", keys.join(", "))
}

/// The path of a key with exactly this name, in any section.
fn same_name_elsewhere(path: &str, name: &str, known: &Value) -> Option<String> {
    known.as_object()?.iter().find_map(|(key, value)| {
        let path = join(path, key);
        if key == name {
            Some(path)
        } else {
            same_name_elsewhere(&path, name, value)
        }
    })
}

/// The expected form of a key's value, in words. `[]` stands for any item of a list.
fn expected(key: &str) -> &'static str {
    match key {
        "mode" => r#""public" or "private""#,
        "log.level" => r#""error", "warn", "info", "debug" or "trace""#,
        "log.format" => r#""text" or "json""#,
        "http.listen[]" | "udp.listen[]" | "api.listen[]" => r#"an address like "0.0.0.0:34000""#,
        "http.listen" | "udp.listen" | "api.listen" => {
            r#"a list of addresses like ["0.0.0.0:34000"]"#
        }
        "api.tokens" | "api.tokens[]" | "api.tokens[][]" => {
            r#"a list of tokens like [{"name": "site", "token": "16 characters or more", "scope": "write"}]"#
        }
        "api.tokens[].scope" => r#""metrics", "read" or "write""#,
        "api.hosts" | "api.hosts[]" => r#"a list of hosts like ["tracker.example.org"]"#,
        "http.trusted_proxies[]" | "tracker.blocked_networks[]" => {
            r#"a network like "10.0.0.0/8", or an address like "::1""#
        }
        "http.trusted_proxies" | "tracker.blocked_networks" => {
            r#"a list of networks like ["10.0.0.0/8"]"#
        }
        "tracker.public_addresses" | "tracker.public_addresses[]" => {
            r#"a list of addresses like ["203.0.113.7"], or of networks with theirs like [{"network": "192.168.0.0/16", "address": "203.0.113.7"}]"#
        }
        "tracker.announce_interval"
        | "tracker.min_announce_interval"
        | "tracker.peer_ttl"
        | "tracker.tombstone_ttl"
        | "tracker.hnr_threshold"
        | "tracker.forget_torrents_after"
        | "udp.id_lifetime"
        | "journal.flush_interval"
        | "journal.ack_timeout"
        | "journal.keep"
        | "log.stats_interval" => r#"a time like "30m""#,
        "tracker.blocked_ports" => "a list of ports like [25, 80]",
        "tracker.blocked_ports[]" => "a port from 0 to 65535",
        "tracker.max_rate" | "tracker.hnr_min_bytes" => "a whole number of bytes",
        _ => match every_key().pointer(&format!("/{}", key.replace('.', "/"))) {
            Some(Value::Bool(_)) => "true or false",
            Some(Value::Number(_)) => "a whole number up to 4294967295",
            _ => "a text in quotes",
        },
    }
}

/// Whether the value may be a secret. A token may be in the wrong place, but a text that is shorter than
/// any token can't be one.
fn is_secret(key: &str, value: &Value) -> bool {
    let is_short = value.as_str().is_some_and(|text| text.len() < TOKEN_MIN);
    let is_scope = key == "api.tokens[].scope" && is_short;
    SECRETS.contains(&key) || (key.starts_with("api.tokens") && !is_scope)
}

/// A value for a message: as it is if it is short, otherwise its kind. A URL may hold a password.
fn shown(value: &Value) -> String {
    const LEN_MAX: usize = 60;
    let text = value.to_string();
    match value {
        Value::Array(_) | Value::Object(_) => kind(value).into(),
        _ if text.len() > LEN_MAX || text.contains("://") => kind(value).into(),
        _ => text,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a section",
    }
}

pub(super) fn join(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}
