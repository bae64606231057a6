//! Collects the privileges that Mika's account lacks into one finding.

use std::collections::{BTreeMap, BTreeSet};

use mysql_async::ServerError;

use super::definers::quoted;
use super::fault::{self, MysqlFault};
use super::session::MysqlSession;
use crate::storage::Finding;

/// What docs/sql.md grants to Mika's account.
pub(super) const ALL: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, TRIGGER";
const TRIGGER: &str = "TRIGGER";

/// Missing privileges, by table.
#[derive(Default)]
pub(super) struct Missing {
    tables: BTreeMap<String, BTreeSet<String>>,
    /// Denials that name no table.
    others: BTreeSet<String>,
}

impl Missing {
    /// Records what a statement was denied for.
    pub(super) fn note(&mut self, error: &ServerError) {
        let Some((privileges, table)) = denied(&error.message) else {
            self.others.insert(fault::lack(error));
            return;
        };
        for privilege in privileges.split(", ") {
            let tables = self.tables.entry(privilege.to_owned()).or_default();
            tables.insert(table.clone());
        }
    }

    /// Records that triggers can't be seen.
    pub(super) fn note_trigger(&mut self) {
        self.tables.entry(TRIGGER.into()).or_default();
    }

    /// Whether anything is missing on that table.
    pub(super) fn has(&self, table: &str) -> bool {
        self.tables.values().any(|tables| tables.contains(table))
    }

    pub(super) async fn finding(
        &self,
        session: &mut MysqlSession<'_>,
    ) -> Result<Option<Finding>, MysqlFault> {
        if self.tables.is_empty() {
            let others: Vec<&str> = self.others.iter().map(String::as_str).collect();
            return Ok((!others.is_empty()).then(|| {
                Finding::problem(
                    format!("Mika's account lacks a privilege: {}", others.join("; ")),
                    "grant what docs/sql.md lists under Rights to Mika's account",
                )
            }));
        }
        let each: Vec<String> = self
            .tables
            .iter()
            .map(|table| shown(table.0, table.1))
            .collect();
        let noun = if each.len() == 1 {
            "privilege"
        } else {
            "privileges"
        };
        let privileges: Vec<&str> = self.tables.keys().map(String::as_str).collect();
        Ok(Some(Finding::problem(
            format!("Mika's account lacks the {noun} {}", each.join("; ")),
            format!(
                "as an administrator: {} (see Rights in docs/sql.md)",
                grant(session, &privileges.join(", ")).await?
            ),
        )))
    }
}

fn shown(privilege: &str, tables: &BTreeSet<String>) -> String {
    if tables.is_empty() {
        return format!("{privilege}: Mika's triggers can't be seen");
    }
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    format!("{privilege} on {}", tables.join(", "))
}

/// The statement that grants these to Mika's account.
pub(super) async fn grant(
    session: &mut MysqlSession<'_>,
    privileges: &str,
) -> Result<String, MysqlFault> {
    let rows = session.query("SELECT DATABASE(), CURRENT_USER()").await?;
    let row = rows.first();
    let text = |place| row.map(|row| row.text(place)).unwrap_or_default();
    let (database, account) = (text(0), quoted(&text(1)));
    Ok(format!("GRANT {privileges} ON `{database}`.* TO {account}"))
}

/// The privileges and the table of a denial: `UPDATE command denied to user 'mika'@'%' for table
/// `mika`.`peers``, or without the database.
fn denied(message: &str) -> Option<(&str, String)> {
    let (privileges, rest) = message.split_once(" command denied to user ")?;
    let (_, table) = rest.rsplit_once(" table ")?;
    let table = table.trim_end_matches('.').replace(['`', '\''], "");
    let name = table
        .rsplit_once('.')
        .map_or(table.as_str(), |(_, name)| name);
    Some((privileges, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_read_in_each_form() {
        for message in [
            "DELETE, UPDATE command denied to user 'mika'@'%' for table `mika`.`peers`",
            "DELETE, UPDATE command denied to user 'mika'@'10.0.0.%' for table 'peers'",
        ] {
            let (privileges, table) = denied(message).unwrap();
            assert_eq!((privileges, &*table), ("DELETE, UPDATE", "peers"));
        }
        assert_eq!(denied("Access denied for user 'mika'@'%'"), None);
    }
}
