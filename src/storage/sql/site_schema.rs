//! A schema that an operator writes for a site: a file of statements, with a head that says what it is based on and
//! which tables are followed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::calls::{CALLS, Call, FEED};
use super::header::SchemaHead;
use super::statements::{NAME, Schema, call, named};
use crate::base::suggest::nearest;
use crate::storage::StorageError;
use crate::storage::migrate::{self, Migration};

/// The longest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The schema from which Mika's own tables are.
const OWN: &str = "mika";

/// Reads the schema in a file. It stays in memory for as long as the process lives, as those of this crate do.
pub fn load(built_in: &'static [Schema], path: &Path) -> Result<&'static Schema, StorageError> {
    let wrong = |problem: String| {
        StorageError::Broken(format!("storage.schema {}: {problem}", path.display()))
    };
    let length = fs::metadata(path)
        .map_err(|error| wrong(error.to_string()))?
        .len();
    if length > FILE_MAX {
        return Err(wrong(format!("it is longer than {FILE_MAX} bytes")));
    }
    let file = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let name = path.display().to_string();
    let schema = parse(built_in, &name, &file, "").map_err(wrong)?;
    Ok(Box::leak(Box::new(schema)))
}

/// The schema that the text of a file makes. `beside`: the SQL of tables that its statements need beside those of the
/// site, if it is not based on a schema that has some.
pub fn parse(
    built_in: &[Schema],
    name: &str,
    file: &str,
    beside: &'static str,
) -> Result<Schema, String> {
    let head = SchemaHead::read(file)?;
    let theirs = named(file);
    let names = file.lines().filter_map(|line| line.strip_prefix(NAME));
    let mut seen = BTreeSet::new();
    if let Some(twice) = names.map(str::trim).find(|name| !seen.insert(*name)) {
        return Err(format!("the statement {twice:?} is there twice"));
    }
    if let Some(unknown) = theirs.keys().find(|name| call(name).is_none()) {
        let names = CALLS.map(|call| call.name);
        let hint = match nearest(unknown, names) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("there are: {}", names.join(", ")),
        };
        return Err(format!("there is no statement {unknown:?}: {hint}"));
    }
    let find = |name: &str| built_in.iter().find(|schema| schema.name == name);
    let Some(own) = find(OWN) else {
        return Err(format!("this driver does not have the schema {OWN:?}"));
    };
    let (base, beside) = match head.based_on.as_deref() {
        None if theirs.contains_key(FEED.name) => (String::new(), beside),
        None => {
            let feed = named(own.statements).remove(FEED.name).unwrap_or_default();
            (format!("-- name: {}\n{feed}\n", FEED.name), beside)
        }
        Some(name) => match find(name) {
            Some(base) => (format!("{}\n", base.statements), base.beside),
            None => {
                return Err(format!(
                    "it is based on {name:?}, which this driver does not have"
                ));
            }
        },
    };
    let is_needed = |call: &&&Call| !call.optional && head.based_on.is_none();
    let lacking: Vec<&str> = CALLS
        .iter()
        .filter(is_needed)
        .map(|call| call.name)
        .filter(|name| !theirs.contains_key(name))
        .collect();
    if !lacking.is_empty() {
        return Err(format!(
            "it lacks the statements {}: write them, or say which schema it is based on",
            lacking.join(", ")
        ));
    }
    Ok(Schema {
        name: kept(name.to_owned()),
        // A statement of the file replaces that of the base.
        statements: kept(format!("{base}{file}")),
        own: own.own,
        prefix: kept(head.prefix.clone()),
        migrations: migrations(own, &head, beside),
        beside,
        dialect: own.dialect,
        followed: head.followed.leak(),
        is_row_by_row: own.is_row_by_row,
    })
}

/// Mika's own tables under their names in this schema, and the triggers on the tables of the site.
fn migrations(own: &Schema, head: &SchemaHead, beside: &str) -> &'static [Migration] {
    let peers = format!("{}peers", head.prefix);
    let triggers: String = head
        .followed
        .iter()
        .enumerate()
        .map(|(number, table)| {
            // The first table of a kind has the rows; others add columns to them.
            let is_first = !head.followed[..number]
                .iter()
                .any(|other| other.kind == table.kind);
            table.triggers(own.dialect, is_first.then_some(peers.as_str()))
        })
        .collect();
    let migrations: Vec<Migration> = own
        .migrations
        .iter()
        .enumerate()
        .map(|(number, migration)| {
            let mut sql = migrate::own_tables(migration.sql, &head.prefix);
            if number == 0 {
                sql.push_str(beside);
                sql.push('\n');
                sql.push_str(&triggers);
            }
            Migration {
                name: migration.name,
                sql: kept(sql),
            }
        })
        .collect();
    migrations.leak()
}

fn kept(text: String) -> &'static str {
    text.leak()
}
