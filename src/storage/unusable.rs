//! Rows that can't be used, as findings.

use super::{BadRow, Finding};
use crate::registry::Client;

/// Bad rows that a finding names; the others are counted.
const NAMED_MAX: usize = 5;

/// What is wrong with the rows of the tables that a site writes.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) bad: Vec<BadRow>,
    /// Users without a passkey.
    pub(super) users_unfinished: u64,
    /// Torrents without an info hash.
    pub(super) torrents_unfinished: u64,
    /// Whitelist prefixes with blanks around them, as they are written.
    pub(super) untidy_prefixes: Vec<String>,
    /// Whitelist prefixes that no client's peer id begins with.
    pub(super) unmatched_prefixes: Vec<String>,
}

/// Prefixes with other characters than printable ASCII, which clients do not put there.
pub(super) fn unmatched(clients: &[(Client, String)]) -> Vec<String> {
    let prefixes = clients.iter().map(|(client, _)| &client.prefix);
    let is_usual = |prefix: &str| prefix.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    prefixes.filter(|it| !is_usual(it)).cloned().collect()
}

// === impl Rows ===

impl Rows {
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for table in ["users", "torrents", "whitelist"] {
            let bad = self.bad.iter().filter(|row| row.table == table);
            let named: Vec<String> = bad
                .map(|row| format!("{} ({})", row.id, row.problem))
                .collect();
            if !named.is_empty() {
                findings.push(Finding::problem(
                    format!(
                        "{table}: {} rows can't be used: {}",
                        named.len(),
                        first_of(&named)
                    ),
                    "correct these rows; until then they are passed over, and the others work",
                ));
            }
        }
        let unfinished = [
            (self.users_unfinished, "users have no passkey yet"),
            (self.torrents_unfinished, "torrents have no info hash yet"),
        ];
        for (count, what) in unfinished.into_iter().filter(|(count, _)| *count > 0) {
            findings.push(Finding::note(
                format!("{count} {what}"),
                "nothing to do: each takes effect once the site has written it",
            ));
        }
        if !self.untidy_prefixes.is_empty() {
            let shown = |prefix: &String| format!("{prefix:?}");
            let shown: Vec<String> = self.untidy_prefixes.iter().map(shown).collect();
            findings.push(Finding::note(
                format!(
                    "whitelist: {} prefixes have blanks or line ends around them, which Mika leaves \
                     out: {}",
                    shown.len(),
                    first_of(&shown)
                ),
                "nothing to do; to tidy up, write these rows without them",
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
        findings
    }
}

fn first_of(texts: &[String]) -> String {
    let more = if texts.len() > NAMED_MAX { ", …" } else { "" };
    let first: Vec<&str> = texts.iter().take(NAMED_MAX).map(String::as_str).collect();
    format!("{}{more}", first.join(", "))
}
