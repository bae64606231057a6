//! Rows that can't be used, as findings.

use super::{BadRow, Finding};
use crate::registry::ClientPrefix;

/// Maximum of bad rows that a finding names; the others are counted.
const NAMED_MAX: usize = 5;

/// The problems of rows that a site writes.
#[derive(Debug, Default)]
pub(super) struct UnusableRows {
    pub(super) bad: Vec<BadRow>,
    /// Users without a passkey.
    pub(super) users_unfinished: u64,
    /// Torrents without an info hash.
    pub(super) torrents_unfinished: u64,
    /// Whitelist prefixes with blanks around them, verbatim.
    pub(super) untidy_prefixes: Vec<String>,
    /// Whitelist prefixes that no peer id begins with.
    pub(super) unmatched_prefixes: Vec<String>,
}

/// Prefixes with other characters than printable ASCII, which clients do not use.
pub(super) fn unmatched(clients: &[(ClientPrefix, String)]) -> Vec<String> {
    let prefixes = clients.iter().map(|(client, _)| &client.prefix);
    let is_usual = |prefix: &str| prefix.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    prefixes
        .filter(|prefix| !is_usual(prefix))
        .cloned()
        .collect()
}

impl UnusableRows {
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.add_bad(&mut findings);
        self.add_unfinished(&mut findings);
        self.add_prefixes(&mut findings);
        findings
    }

    fn add_bad(&self, findings: &mut Vec<Finding>) {
        for table in ["users", "torrents", "whitelist"] {
            let named: Vec<String> = self
                .bad
                .iter()
                .filter(|row| row.table == table)
                .map(|row| format!("{} ({})", row.id, row.problem))
                .collect();
            if !named.is_empty() {
                let rows = plural(named.len(), "row", "rows");
                findings.push(Finding::problem(
                    format!(
                        "{table}: {} {rows} can't be used: {}",
                        named.len(),
                        first_of(&named)
                    ),
                    plural(
                        named.len(),
                        "correct this row; until then it is passed over, and the others work",
                        "correct these rows; until then they are passed over, and the others work",
                    ),
                ));
            }
        }
    }

    fn add_unfinished(&self, findings: &mut Vec<Finding>) {
        let unfinished = [
            (
                self.users_unfinished,
                ("user has no passkey yet", "users have no passkey yet"),
            ),
            (
                self.torrents_unfinished,
                (
                    "torrent has no info hash yet",
                    "torrents have no info hash yet",
                ),
            ),
        ];
        for (count, (one, several)) in unfinished.into_iter().filter(|(count, _)| *count > 0) {
            let what = if count == 1 { one } else { several };
            findings.push(Finding::note(
                format!("{count} {what}"),
                "nothing to do: each takes effect once the site has written it",
            ));
        }
    }

    fn add_prefixes(&self, findings: &mut Vec<Finding>) {
        if !self.untidy_prefixes.is_empty() {
            let shown = |prefix: &String| format!("{prefix:?}");
            let shown: Vec<String> = self.untidy_prefixes.iter().map(shown).collect();
            findings.push(Finding::note(
                format!(
                    "whitelist: {} {} blanks or line ends around {}, which Mika leaves out: {}",
                    shown.len(),
                    plural(shown.len(), "prefix has", "prefixes have"),
                    plural(shown.len(), "it", "them"),
                    first_of(&shown)
                ),
                "nothing to do; these rows may be written without them",
            ));
        }
        if !self.unmatched_prefixes.is_empty() {
            let shown = |prefix: &String| format!("{prefix:?}");
            let shown: Vec<String> = self.unmatched_prefixes.iter().map(shown).collect();
            findings.push(Finding::note(
                format!(
                    "whitelist: {} prefixes have control characters or letters beyond ASCII, with which \
                     no client's peer id begins: {}",
                    shown.len(),
                    first_of(&shown)
                ),
                "write these rows as the client sends them, such as -LT30",
            ));
        }
    }
}

/// The singular or plural of a word for a number.
pub(super) fn plural<T>(count: usize, one: T, several: T) -> T {
    if count == 1 { one } else { several }
}

/// The first of these texts, and a sign that there are more.
pub(super) fn first_of(texts: &[String]) -> String {
    let more = if texts.len() > NAMED_MAX { ", …" } else { "" };
    let first: Vec<&str> = texts.iter().take(NAMED_MAX).map(String::as_str).collect();
    format!("{}{more}", first.join(", "))
}
