//! The difference between two configs, and the keys that need a restart.

use serde_json::Value;

use super::{Config, shape};
use crate::base::secret::Secret;

/// Keys that take effect at the next start; a reload applies all others. A test compares them with the
/// table in docs/config.md.
const NEED_RESTART: &[&str] = &[
    "mode",
    "node",
    "http.listen",
    "http.tls", // on or off; the files are read again
    "udp.listen",
    "udp.secret",
    "api.listen",
    "cache.driver",
    "cache.url",
    "storage.driver",
    "storage.url",
    "storage.schema",
    "storage.statements",
    "storage.poll_interval",
    "journal.keep",
    "journal.max_pending",
    "journal.spill",
    "log.format",
];

/// The list of the API's tokens.
const TOKENS: &str = "api.tokens";

/// Longer values are cut off in messages.
const SHOWN_MAX: usize = 100;

/// A key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    pub key: String,
    /// The old and new values as JSON; none for a secret.
    pub values: Option<(String, String)>,
}

impl SettingChange {
    fn new(key: &str, old: &Value, new: &Value) -> Self {
        Self {
            key: key.to_owned(),
            values: Some((shown(old), shown(new))),
        }
    }

    /// A change whose values are not shown.
    fn hidden(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            values: None,
        }
    }

    /// Whether it takes effect only at the next start.
    pub fn needs_restart(&self) -> bool {
        NEED_RESTART.contains(&self.key.as_str())
    }
}

/// All keys that differ, grouped by section.
pub fn changes(old: &Config, new: &Config) -> Vec<SettingChange> {
    let mut changes = Vec::new();
    let json = |config| serde_json::to_value(config).unwrap_or_default();
    compare("", &json(old), &json(new), &mut changes);
    // Secrets are masked in JSON, so different ones may look alike.
    changes.retain(|change| !shape::SECRETS.contains(&change.key.as_str()));
    changes.retain(|change| change.key != TOKENS);
    if old.api.tokens != new.api.tokens {
        changes.push(SettingChange::hidden(TOKENS));
    }
    for ((key, old), (_, new)) in secrets(old).into_iter().zip(secrets(new)) {
        if old != new {
            changes.push(SettingChange::hidden(key));
        }
    }
    changes
}

fn compare(path: &str, old: &Value, new: &Value, changes: &mut Vec<SettingChange>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if path != shape::STATEMENTS => {
            // Both have all keys of the section.
            for (key, old) in old {
                let new = new.get(key).unwrap_or(&Value::Null);
                compare(&shape::join(path, key), old, new, changes);
            }
        }
        (old, new) if old != new => changes.push(SettingChange::new(path, old, new)),
        _ => {}
    }
}

/// The values of the keys in [`shape::SECRETS`], except those in lists.
fn secrets(config: &Config) -> [(&'static str, &Secret); 3] {
    [
        ("api.password", &config.api.password),
        ("cache.url", &config.cache.url),
        ("storage.url", &config.storage.url),
    ]
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::TlsFiles;
    use super::*;

    const MANUAL: &str = include_str!("../../docs/config.md");

    /// The changes that a closure makes to the defaults.
    fn after(change: impl FnOnce(&mut Config)) -> Vec<SettingChange> {
        let old = Config::default();
        let mut new = old.clone();
        change(&mut new);
        changes(&old, &new)
    }

    #[test]
    fn each_key_that_differs_is_named_with_both_values() {
        assert_eq!(after(|_| {}), []);
        let changes = after(|config| {
            config.tracker.numwant = 30;
            config.log.stats_interval = Duration::from_secs(5);
            config.http.listen.clear();
        });
        let shown: Vec<_> = changes
            .iter()
            .map(|change| {
                (
                    change.key.as_str(),
                    change.values.clone().unwrap(),
                    change.needs_restart(),
                )
            })
            .collect();
        let texts = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        assert_eq!(
            shown,
            [
                (
                    "http.listen",
                    texts(r#"["0.0.0.0:34000","[::]:34000"]"#, "[]"),
                    true
                ),
                ("log.stats_interval", texts(r#""1m""#, r#""5s""#), false),
                ("tracker.numwant", texts("50", "30"), false),
            ]
        );
    }

    #[test]
    fn a_section_that_is_switched_on_needs_a_restart_and_its_files_do_not() {
        let on = |config: &mut Config| config.http.tls = Some(TlsFiles::default());
        let changes = after(on);
        assert_eq!(changes.len(), 1);
        assert!(changes[0].key == "http.tls" && changes[0].needs_restart());

        let mut old = Config::default();
        on(&mut old);
        let mut new = old.clone();
        new.http.tls = Some(TlsFiles {
            cert: "other".into(),
            ..TlsFiles::default()
        });
        let changes = super::changes(&old, &new);
        assert_eq!(changes.len(), 1);
        assert!(changes[0].key == "http.tls.cert" && !changes[0].needs_restart());
    }

    #[test]
    fn secrets_are_compared_and_never_shown() {
        let of = |url: &str, password: &str| {
            let mut config = Config::default();
            config.storage.url = Secret::new(url);
            config.api.password = Secret::new(password);
            config
        };
        let changes = super::changes(
            &of("mysql://u:hunter2@h/d", "hunter3"),
            &of("mysql://u:hunter4@h/d", "hunter5"),
        );
        let secret = |key: &str| SettingChange {
            key: key.to_owned(),
            values: None,
        };
        assert_eq!(changes, [secret("api.password"), secret("storage.url")]);
    }

    #[test]
    fn every_secret_is_compared() {
        let mut compared = secrets(&Config::default()).map(|(key, _)| key);
        compared.sort_unstable();
        // Those of lists are compared as part of the list.
        let single = shape::SECRETS.into_iter().filter(|key| !key.contains("[]"));
        assert!(compared.into_iter().eq(single));
    }

    #[test]
    fn statements_are_one_key_and_cut_short() {
        let changes = after(|config| {
            let statements = &mut config.storage.statements;
            statements.insert("users".into(), "SELECT ".repeat(100));
        });
        assert_eq!(changes.len(), 1);
        let (old, new) = changes[0].values.clone().unwrap();
        assert_eq!(
            (changes[0].key.as_str(), old.as_str()),
            (shape::STATEMENTS, "{}")
        );
        assert!(new.ends_with('…') && new.chars().count() == SHOWN_MAX + 1);
    }

    /// The last column of the manual says whether a reload applies the key.
    #[test]
    fn the_manual_says_which_keys_need_a_restart() {
        let mut documented = Vec::new();
        for line in MANUAL.lines().filter(|line| line.starts_with("| `")) {
            let key = line.split('`').nth(1).unwrap();
            let reload = line.trim_end_matches('|').rsplit('|').next().unwrap();
            match reload.trim() {
                "yes" => {}
                "no" | "the files: yes; on or off: no" => documented.push(key),
                other => panic!("{key}: {other}"),
            }
        }
        documented.sort_unstable();
        let mut known = NEED_RESTART.to_vec();
        known.sort_unstable();
        assert_eq!(documented, known);
    }
}
