//! Texts that must not be shown: passwords, and URLs with one.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A text that `Debug`, `Display` and serde mask. [`Secret::expose`] is the only way to read it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The masked text. In a URL, only the password and what follows a '?' or '#' are masked.
    pub fn masked(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return if self.0.is_empty() { "" } else { "***" }.into();
        };
        let query_start = rest.find(['?', '#']).unwrap_or(rest.len());
        let (before, query) = rest.split_at(query_start);
        if query.contains('@') {
            // A query with a mail address, or a password with a '?': ambiguous.
            return format!("{scheme}://***");
        }
        // A password may hold '/' and '@' too, so it ends at the last '@'. A URL of only a path has none.
        let login = before.rsplit_once('@').filter(|_| !rest.starts_with('/'));
        let before = match login {
            Some((login, host)) => match login.split_once(':') {
                Some((user, _)) => format!("{user}:***@{host}"),
                None if has_plain_users(scheme) => before.into(),
                // The colon before a password may have been forgotten.
                None => format!("***@{host}"),
            },
            None => without_port_secret(scheme, before),
        };
        // Some drivers accept the password in the query.
        match query.chars().next() {
            Some(mark) => format!("{scheme}://{before}{mark}***"),
            None => format!("{scheme}://{before}"),
        }
    }
}

/// Whether a text without a colon before the '@' is a user's name or part of a path, not a password.
fn has_plain_users(scheme: &str) -> bool {
    let mut schemes = "mysql mariadb postgres postgresql sqlite unix redis+unix".split(' ');
    schemes.any(|known| scheme.eq_ignore_ascii_case(known))
}

/// A URL without an '@': an invalid port may be a password.
fn without_port_secret(scheme: &str, before: &str) -> String {
    let is_path = before.starts_with('/') || scheme.eq_ignore_ascii_case("sqlite");
    let (authority, _) = before.split_once('/').unwrap_or((before, ""));
    let has_port = |host: &str| match host.rsplit_once(':') {
        Some((_, port)) => port.ends_with(']') || port.bytes().all(|byte| byte.is_ascii_digit()),
        None => true,
    };
    match authority.split_once(':') {
        // One host of several is enough.
        Some((host, _)) if !is_path && !authority.split(',').all(has_port) => {
            format!("{host}:***")
        }
        _ => before.into(),
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.masked())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_of_a_url_is_masked() {
        let shown = |text: &str| Secret::new(text).to_string();
        assert_eq!(
            shown("mysql://user:pass@host/db"),
            "mysql://user:***@host/db"
        );
        assert_eq!(
            shown("redis://localhost:6379/0"),
            "redis://localhost:6379/0"
        );
        assert_eq!(
            shown("sqlite:///var/lib/mika.db"),
            "sqlite:///var/lib/mika.db"
        );
        for (url, expected) in [
            ("mysql://user:a/b@c@host/db", "mysql://user:***@host/db"),
            ("mysql://user:/pass@host/db", "mysql://user:***@host/db"),
            ("mysql://user:p@a?ss@host/db", "mysql://***"),
            ("mysql://user@host/db", "mysql://user@host/db"),
            ("sqlite:///srv/a:b@c/mika.db", "sqlite:///srv/a:b@c/mika.db"),
            ("sqlite://data/a@b.db", "sqlite://data/a@b.db"),
            ("redis://:pass@host:6379/0", "redis://:***@host:6379/0"),
            // The colon before the password was forgotten.
            ("redis://s3cret@host:6379/0", "redis://***@host:6379/0"),
            ("rediss://s3@cret@host", "rediss://***@host"),
            ("REDIS://s3/cret@host", "REDIS://***@host"),
            ("other://s3cret@host", "other://***@host"),
            ("unix:///run/a@b.sock?db=1", "unix:///run/a@b.sock?***"),
            // The '@' and the host were forgotten.
            ("redis://:s3cret/0", "redis://:***"),
            ("mysql://user:pass/db", "mysql://user:***"),
            ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
            ("redis://[::1]/0", "redis://[::1]/0"),
            ("mysql://host/a:b", "mysql://host/a:b"),
            (
                "postgres://host/db?user=u&password=pass",
                "postgres://host/db?***",
            ),
            (
                "postgres://user:pass@host/db?sslmode=require#x",
                "postgres://user:***@host/db?***",
            ),
        ] {
            assert_eq!(shown(url), expected);
        }
        assert_eq!(shown("hunter2"), "***");
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }
}
