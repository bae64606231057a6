//! Texts that must not be shown: passwords, and URLs that hold one.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A text that `Debug`, `Display` and serde show masked. [`Secret::expose`] is the one way to read it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

// === impl Secret ===

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

    /// The text as it may be shown: of a URL, everything but the password and the query.
    pub fn masked(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return if self.0.is_empty() { "" } else { "***" }.into();
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, _)) => (rest, "?***"),
            None => (rest, ""),
        };
        // The last `@`, because a password that nobody escaped may hold one too, or a `/`.
        match rest.rsplit_once('@') {
            Some((login, host)) => {
                let user = login.split_once(':').map_or(login, |(user, _)| user);
                format!("{scheme}://{user}:***@{host}{query}")
            }
            None => format!("{scheme}://{rest}{query}"),
        }
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
        assert_eq!(
            shown("mysql://u:p@ss/w@host:3306/db"),
            "mysql://u:***@host:3306/db"
        );
        assert_eq!(
            shown("redis://host/0?password=hunter2"),
            "redis://host/0?***"
        );
        assert_eq!(shown("hunter2"), "***");
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }
}
