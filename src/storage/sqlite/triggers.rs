//! The triggers that fill the feed. SQLite drops them with a table that is recreated, which is how most
//! changes of a table are done.

use rusqlite::Connection;

use super::fault::SqliteFault;
use super::tables::begin;
use crate::storage::Finding;
use crate::storage::sql::RELOAD;
use crate::storage::sql::statements::Schema;
use crate::storage::triggers::{self, Misplaced, Trigger};

const CREATE: &str = "CREATE TRIGGER ";
const END: &str = "\nEND;";

/// The triggers of the migrations; the body is the whole statement.
fn expected(schema: &Schema) -> Vec<Trigger> {
    let mut triggers = Vec::new();
    for migration in schema.migrations {
        let mut rest = migration.sql;
        while let Some(start) = rest.find(CREATE) {
            let Some(length) = rest[start..].find(END) else {
                break;
            };
            let (statement, after) = rest[start..].split_at(length + END.len());
            triggers.extend(trigger(statement));
            rest = after;
        }
    }
    triggers
}

fn trigger(statement: &str) -> Option<Trigger> {
    let mut words = statement.split_whitespace();
    let name = words.nth(2)?;
    let table = words.skip_while(|word| *word != "ON").nth(1)?;
    Some(Trigger {
        name: name.into(),
        table: table.into(),
        timing: String::new(),
        event: String::new(),
        body: statement.into(),
    })
}

fn misplaced(connection: &Connection, schema: &Schema) -> Result<Vec<Misplaced>, SqliteFault> {
    let mut select = connection
        .prepare("SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'trigger'")?;
    let found = select.query_map([], |row| {
        Ok(Trigger {
            name: row.get(0)?,
            table: row.get(1)?,
            timing: String::new(),
            event: String::new(),
            body: row.get(2)?,
        })
    })?;
    let found: Vec<Trigger> = found.collect::<Result<_, _>>()?;
    Ok(triggers::misplaced(&expected(schema), &found))
}

pub(super) fn inspect(
    connection: &Connection,
    schema: &Schema,
) -> Result<Option<Finding>, SqliteFault> {
    Ok(triggers::finding(&misplaced(connection, schema)?))
}

/// Creates triggers again that are missing or changed; returns their names. Changes were missed meanwhile, so
/// followers load everything again.
pub(super) fn restore(
    connection: &mut Connection,
    schema: &Schema,
) -> Result<Vec<String>, SqliteFault> {
    if misplaced(connection, schema)?.is_empty() {
        return Ok(Vec::new());
    }
    let transaction = begin(connection)?;
    let misplaced = misplaced(&transaction, schema)?;
    let mut made = Vec::new();
    for wanted in expected(schema) {
        if misplaced.iter().any(|other| other.name == wanted.name) {
            let name = &wanted.name;
            transaction
                .execute_batch(&format!("DROP TRIGGER IF EXISTS {name}; {}", wanted.body))?;
            made.push(format!("trigger {name}"));
        }
    }
    for Misplaced { name, left_on, .. } in &misplaced {
        if left_on.is_some() {
            transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS {name}"))?;
            made.push(format!("removal of the trigger {name}"));
        }
    }
    if !made.is_empty() {
        let sql = "INSERT INTO mika_feed (kind, key) VALUES (?1, 0)";
        transaction.execute(sql, [RELOAD])?;
    }
    transaction.commit()?;
    Ok(made)
}
