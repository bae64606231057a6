//! The privileges that Mika's account lacks, as one finding.

use std::collections::{BTreeMap, BTreeSet};

use super::plan;
use crate::storage::Finding;
use crate::storage::sql::calls::{self, ADD_TORRENT, ADD_USER};
use crate::storage::sql::database::{Lacking, SqlFault};
use crate::storage::sql::job::Job;
use crate::storage::sql::statements::mentions;
use crate::storage::unusable::plural;

/// Privileges that Mika's account lacks.
#[derive(Debug, Default)]
pub struct MissingPrivileges {
    /// Each with the tables on which it is missing; none if it is missing at all.
    by_name: BTreeMap<String, BTreeSet<String>>,
    /// What the database says of others.
    others: BTreeSet<String>,
}

impl MissingPrivileges {
    /// Records what a statement was denied for; returns false if that is not the cause.
    pub(super) fn note(&mut self, fault: &SqlFault) -> bool {
        let Some(complaint) = &fault.complaint else {
            return false;
        };
        match &complaint.about {
            Lacking::Privilege(None) => drop(self.others.insert(complaint.text.clone())),
            Lacking::Privilege(Some((names, table))) => {
                for name in names.split(", ") {
                    self.add(name, table);
                }
            }
            _ => return false,
        }
        true
    }

    fn add(&mut self, name: &str, table: &str) {
        let tables = self.by_name.entry(name.to_owned()).or_default();
        tables.insert(table.to_owned());
    }

    /// Records that triggers can't be seen.
    pub(super) fn note_trigger(&mut self) {
        self.by_name.entry("TRIGGER".into()).or_default();
    }

    /// The names of the privileges that are missing on tables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The same by tables, with commas between names.
    pub fn by_tables(&self) -> BTreeMap<String, String> {
        let mut by_tables: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (name, tables) in &self.by_name {
            by_tables.entry(joined(tables)).or_default().push(name);
        }
        let by_tables = by_tables.into_iter();
        by_tables
            .map(|(tables, names)| (tables, names.join(", ")))
            .collect()
    }

    /// Whether others are missing than those on tables.
    pub fn has_others(&self) -> bool {
        self.others().next().is_some()
    }

    /// Without those of which the tables are known.
    fn others(&self) -> impl Iterator<Item = &str> {
        let is_part = |char: char| char.is_alphanumeric() || char == '_';
        let is_known = move |text: &str| {
            let mut words = text.split(|char| !is_part(char));
            words.any(|word| self.has(word))
        };
        let others = self.others.iter().map(String::as_str);
        others.filter(move |text| !is_known(text))
    }

    /// Whether anything is missing on that table.
    pub(super) fn has(&self, table: &str) -> bool {
        self.by_name.values().any(|tables| tables.contains(table))
    }

    pub(super) async fn finding(&self, job: &mut Job<'_>) -> Result<Option<Finding>, SqlFault> {
        let on_tables = self.by_name.iter().map(|(name, tables)| {
            if tables.is_empty() {
                return format!("{name}: Mika's triggers can't be seen");
            }
            format!("{name} on {}", joined(tables))
        });
        let lacks: Vec<String> = on_tables
            .chain(self.others().map(ToOwned::to_owned))
            .collect();
        if lacks.is_empty() {
            return Ok(None);
        }
        let noun = match lacks.len() {
            _ if self.by_name.is_empty() => "a privilege:",
            count => plural(count, "the privilege", "the privileges"),
        };
        let grant = job.session().grant(self).await?;
        Ok(Some(Finding::problem(
            format!("Mika's account lacks {noun} {}", lacks.join("; ")),
            format!("as an administrator: {grant} (see Rights in docs/sql.md)"),
        )))
    }
}

fn joined(tables: &BTreeSet<String>) -> String {
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    tables.join(", ")
}

/// Looks at what Mika does with a table of its own, which has that column.
pub(super) async fn look_at_table(
    job: &mut Job<'_>,
    table: &str,
    column: &str,
    missing: &mut MissingPrivileges,
) -> Result<(), SqlFault> {
    let uses = [
        ("SELECT", format!("SELECT {column} FROM {table}")),
        (
            "INSERT",
            format!("INSERT INTO {table} ({column}) VALUES (NULL)"),
        ),
        ("UPDATE", format!("UPDATE {table} SET {column} = NULL")),
        ("DELETE", format!("DELETE FROM {table}")),
    ];
    for (name, sql) in uses {
        // A missing table is reported elsewhere.
        if plan(job, &sql).await?.is_err_and(|fault| fault.is_denied()) {
            missing.add(name, table);
        }
    }
    Ok(())
}

/// Looks at the sequences from which the ids of added rows come.
pub(super) async fn look_at_ids(
    job: &mut Job<'_>,
    missing: &mut MissingPrivileges,
) -> Result<(), SqlFault> {
    for (call, table) in [(&ADD_USER, "users"), (&ADD_TORRENT, "torrents")] {
        if mentions(job.statements_of(call), table) {
            let rows = job
                .call(&calls::ID_SEQUENCE, &[("table", table.into())])
                .await?;
            missing.others.extend(rows.iter().map(|row| row.text(0)));
        }
    }
    Ok(())
}
