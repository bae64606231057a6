//! A schema that an operator writes for a site: a file of statements, with a head that says what it is based on and
//! which tables are followed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::{fs, io};

use super::calls::{CALLS, Call, FEED};
use super::header::{SchemaHead, WrongLine};
use super::statements::{NAME, Schema, call, named, no_statement};
use crate::storage::migrate::{self, Migration};
use crate::storage::{StorageError, StorageResult};

/// The longest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The schema from which Mika's own tables are.
const OWN: &str = "mika";

/// Reads the schema in a file. It stays in memory for as long as the process lives, as those of this crate do.
pub fn load(built_in: &'static [Schema], path: &Path) -> StorageResult<&'static Schema> {
    let name = path.display().to_string();
    let unread = |error: io::Error| wrong(&name, error);
    if fs::metadata(path).map_err(unread)?.len() > FILE_MAX {
        return Err(wrong(&name, format!("it is longer than {FILE_MAX} bytes")));
    }
    let file = fs::read_to_string(path).map_err(unread)?;
    // What some editors put before the text.
    let file = file.trim_start_matches('\u{feff}');
    Ok(Box::leak(Box::new(parse(built_in, &name, file, "")?)))
}

/// The schema that the text of a file makes. `beside`: the SQL of tables that its statements need beside those of the
/// site, if it is not based on a schema that has some.
pub fn parse(
    built_in: &[Schema],
    name: &str,
    file: &str,
    beside: &'static str,
) -> StorageResult<Schema> {
    let head = SchemaHead::read(file)
        .and_then(|head| names(file).map(|()| head))
        .map_err(|WrongLine { line, problem }| wrong(&format!("{name}:{line}"), problem))?;
    schema(built_in, name, file, head, beside).map_err(|problem| wrong(name, problem))
}

fn wrong(place: &str, problem: impl Display) -> StorageError {
    StorageError::Broken(format!("storage.schema {place}: {problem}"))
}

/// Whether each statement of a file has a name that there is, and no other has it.
fn names(file: &str) -> Result<(), WrongLine> {
    let mut seen = BTreeMap::new();
    for (text, line) in file.lines().zip(1..) {
        let Some(name) = text.strip_prefix(NAME).map(str::trim) else {
            continue;
        };
        let wrong = |problem| Err(WrongLine { line, problem });
        if let Some(before) = seen.insert(name, line) {
            return wrong(format!(
                "the statement {name:?} is there twice, first in line {before}"
            ));
        }
        if call(name).is_none() {
            return wrong(no_statement(name));
        }
    }
    Ok(())
}

fn schema(
    built_in: &[Schema],
    name: &str,
    file: &str,
    head: SchemaHead,
    beside: &'static str,
) -> Result<Schema, String> {
    let theirs = named(file);
    let find = |name: &str| built_in.iter().find(|schema| schema.name == name);
    let Some(own) = find(OWN) else {
        return Err(format!("this driver does not have the schema {OWN:?}"));
    };
    let (base, beside) = match head.based_on.as_deref() {
        None => {
            let feed = named(own.statements).remove(FEED.name);
            let text = feed.map_or_else(String::new, |feed| feed.text);
            (format!("{NAME} {}\n{text}", FEED.name), beside)
        }
        Some(name) => match find(name) {
            Some(base) => (base.statements.to_owned(), base.beside),
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
        statements: kept(file.to_owned()),
        base: kept(base),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn error(file: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.sql");
        fs::write(&path, file).unwrap();
        let error = load(crate::storage::sqlite::schemas(), &path).err();
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        text.replace(&path.display().to_string(), "site.sql")
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_with_its_line() {
        let right = "\u{feff}-- based on: mika\n-- follow users as user by id: passkey\n\n-- name: whitelist\nSELECT 1, 2\n";
        assert_eq!(error(right), "");
        for (from, to, problem) in [
            (
                "-- follow users",
                "-- folow users",
                "site.sql:2: \"-- folow users as user by id: passkey\"",
            ),
            (
                "-- follow users",
                "-- prefix: a-b\n-- follow users",
                "site.sql:2: \"-- prefix: a-b\"",
            ),
            (
                "whitelist",
                "whitelst",
                "site.sql:4: there is no statement \"whitelst\": did you mean \"whitelist\"?",
            ),
            (
                "-- name",
                "-- name: whitelist\n-- name",
                "site.sql:5: the statement \"whitelist\" is there twice, first in line 4",
            ),
            (
                "SELECT 1, 2",
                "-- prefix: t_",
                "site.sql:5: \"-- prefix: t_\"",
            ),
            (
                "-- based on: mika",
                "-- based on: mica",
                "site.sql: it is based on \"mica\"",
            ),
            (
                "-- based on: mika",
                "-- Ours.",
                "site.sql: it lacks the statements users, ",
            ),
        ] {
            let said = error(&right.replace(from, to));
            assert!(
                said.starts_with(&format!("storage.schema {problem}")),
                "{said}"
            );
        }
    }
}
