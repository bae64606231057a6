//! The privileges that Mika's account lacks, as one finding with the statements that grant them.

use std::collections::{BTreeMap, BTreeSet};

use super::plan;
use crate::storage::Finding;
use crate::storage::migrate;
use crate::storage::sql::calls::{self, CALLS, OWN_CALLS};
use crate::storage::sql::catalogue::column_names;
use crate::storage::sql::database::{Lacking, SqlFault, SqlResult};
use crate::storage::sql::header::Dialect;
use crate::storage::sql::job::Job;
use crate::storage::sql::statements::{Schema, mentions};
use crate::storage::sql::triggers;
use crate::storage::sql::uses::{self, TableUses};
use crate::storage::unusable::plural;

/// Privileges that Mika's account lacks.
#[derive(Debug, Default)]
pub struct MissingPrivileges {
    /// Whether all tables of the database are Mika's own, so that rights may be granted on the whole of it.
    is_own_database: bool,
    /// Each with the tables on which it is missing; none if it is missing at all.
    by_name: BTreeMap<String, BTreeSet<String>>,
    /// The tables of denials that name no privilege.
    unnamed: BTreeSet<String>,
    /// Sequences, each with what is missing on it.
    sequences: BTreeMap<String, String>,
    /// What the database says of others.
    others: BTreeSet<String>,
    /// Mika's own tables that are still to be made.
    new_tables: Vec<String>,
    /// What is to be granted then: all that the statements and triggers need of the site's tables. A denial names only
    /// the first privilege that is missing.
    needed: TableUses,
}

impl MissingPrivileges {
    /// Nothing so far, in a database with that schema.
    pub(super) fn none(schema: &Schema) -> Self {
        let made = migrate::tables(schema.migrations);
        let makes = |table: &str| made.iter().any(|(name, _)| name == table);
        Self {
            is_own_database: makes("users") && makes("torrents"),
            ..Self::default()
        }
    }

    /// Records what a statement was denied for; returns false if that is not the cause.
    pub(super) fn note(&mut self, fault: &SqlFault) -> bool {
        let Some(complaint) = &fault.complaint else {
            return false;
        };
        match &complaint.about {
            Lacking::Privilege(None) => drop(self.others.insert(complaint.text.clone())),
            Lacking::Privilege(Some((names, table))) if names.is_empty() => {
                self.unnamed.insert(table.clone());
            }
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

    /// What is to be granted on tables, with commas between names: by tables, of which there are none for what is
    /// missing at all.
    pub fn by_tables(&self) -> BTreeMap<Option<&str>, String> {
        let mut by_tables: BTreeMap<Option<&str>, BTreeSet<&str>> = BTreeMap::new();
        for (name, tables) in &self.by_name {
            if tables.is_empty() {
                by_tables.entry(None).or_default().insert(name);
            }
            for table in tables {
                by_tables.entry(Some(table)).or_default().insert(name);
            }
        }
        for (table, names) in &self.needed {
            by_tables.entry(Some(table)).or_default().extend(names);
        }
        let joined = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
        let by_tables = by_tables.into_iter();
        by_tables
            .map(|(table, names)| (table, joined(names)))
            .collect()
    }

    /// The names of what is missing on tables, if it may be granted on the whole database.
    pub fn on_database(&self) -> Option<String> {
        let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        (self.is_own_database && !names.is_empty()).then(|| names.join(", "))
    }

    /// Sequences, each with what is missing on it.
    pub fn sequences(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sequences
            .iter()
            .map(|(name, lacks)| (name.as_str(), lacks.as_str()))
    }

    /// Mika's own tables that are still to be made.
    pub fn new_tables(&self) -> &[String] {
        &self.new_tables
    }

    /// Whether something is missing of which it is not known where.
    pub fn has_others(&self) -> bool {
        self.others().next().is_some()
    }

    fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.sequences.is_empty() && self.others.is_empty()
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

    /// Works out what denials did not name: what the statements do with those tables, and the account may not. For a
    /// denial that names not even the table, all that they do with the site's tables is to be granted.
    async fn resolve(&mut self, job: &mut Job<'_>) -> SqlResult<()> {
        let calls = CALLS.into_iter().chain(OWN_CALLS);
        let uses = uses::of(calls.flat_map(|call| job.statements_of(call)));
        for table in std::mem::take(&mut self.unnamed) {
            let is_it = |name: &str| name == table || name.ends_with(&format!(".{table}"));
            let Some((name, needed)) = uses.iter().find(|(name, _)| is_it(name)) else {
                self.others
                    .insert(format!("permission denied for table {table}"));
                continue;
            };
            let held = held(job, name).await?;
            let is_lacking = |it: &&&str| !held.contains(**it);
            let lacking: Vec<&str> = needed.iter().filter(is_lacking).copied().collect();
            // It may hold them on some columns only.
            let all = || needed.iter().copied().collect();
            let names = if lacking.is_empty() { all() } else { lacking };
            for it in names {
                self.add(it, name);
            }
        }
        if self.has_others() && self.needed.is_empty() {
            self.needed = uses::of(CALLS.into_iter().flat_map(|call| job.statements_of(call)));
        }
        Ok(())
    }

    pub(super) async fn finding(&mut self, job: &mut Job<'_>) -> SqlResult<Option<Finding>> {
        self.resolve(job).await?;
        if self.is_empty() {
            return Ok(None);
        }
        let on_tables = self.by_name.iter().map(|(name, tables)| {
            if tables.is_empty() {
                return format!("{name}: Mika's triggers can't be seen");
            }
            format!("{name} on {}", joined(tables))
        });
        let on_sequences = self
            .sequences()
            .map(|(name, lacks)| format!("{lacks} on the sequence {name}"));
        let lacks: Vec<String> = on_tables
            .chain(on_sequences)
            .chain(self.others().map(ToOwned::to_owned))
            .collect();
        let noun = match lacks.len() {
            _ if self.by_name.is_empty() && self.sequences.is_empty() => "a privilege:",
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

/// What this account may do with a table, as far as the database says it.
async fn held(job: &mut Job<'_>, table: &str) -> SqlResult<BTreeSet<&'static str>> {
    let names = ["SELECT", "INSERT", "UPDATE", "DELETE"];
    let rows = job
        .call(&calls::TABLE_PRIVILEGES, &[("table", table.into())])
        .await?;
    let held = rows.first().map(|row| {
        let held = (0..).zip(names).filter(|(column, _)| row.flag(*column));
        held.map(|(_, name)| name).collect()
    });
    Ok(held.unwrap_or_default())
}

/// Looks at what Mika does with a table of its own, which has that column.
pub(super) async fn look_at_table(
    job: &mut Job<'_>,
    table: &str,
    column: &str,
    missing: &mut MissingPrivileges,
) -> SqlResult<()> {
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
) -> SqlResult<()> {
    for call in CALLS {
        let statements = job.statements_of(call);
        let tables = uses::of(statements.iter()).into_iter();
        for (table, _) in tables.filter(|(_, needed)| needed.contains("INSERT")) {
            let params = [("table", table.as_str().into())];
            let rows = job.call(&calls::ID_SEQUENCE, &params).await?;
            for row in rows.iter() {
                let is_set = mentions(statements, "setval");
                let lacking = [("USAGE", !row.flag(1)), ("UPDATE", is_set && !row.flag(2))];
                let lacking = lacking.into_iter().filter(|(_, is_lacking)| *is_lacking);
                let names: Vec<&str> = lacking.map(|(name, _)| name).collect();
                if !names.is_empty() {
                    missing.sequences.insert(row.text(0), names.join(", "));
                }
            }
        }
    }
    Ok(())
}

/// If Mika's own tables are not there yet, the account is new: all is to be granted that the statements and
/// `mika-manage migrate` need.
pub(super) async fn note_new_account(
    job: &mut Job<'_>,
    schema: &Schema,
    missing: &mut MissingPrivileges,
) -> SqlResult<()> {
    if schema.dialect == Dialect::Sqlite {
        return Ok(());
    }
    let mut new_tables = vec!["mika_migrations".to_owned()];
    for (table, _) in migrate::tables(schema.migrations) {
        if column_names(job, &table).await?.is_empty() {
            new_tables.push(table);
        }
    }
    if new_tables.len() == 1 {
        return Ok(());
    }
    let calls = CALLS.into_iter();
    let mut needed = uses::of(calls.flat_map(|call| job.statements_of(call)));
    for trigger in triggers::expected(schema.migrations) {
        needed.entry(trigger.table).or_default().insert("TRIGGER");
    }
    needed.retain(|table, _| !new_tables.contains(table) && !schema.owns(table));
    missing.new_tables = new_tables;
    missing.needed = needed;
    Ok(())
}
