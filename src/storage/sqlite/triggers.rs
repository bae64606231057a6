//! The triggers that fill the feed. SQLite drops them with a table that is recreated, which is how most
//! changes of a table are done.

use rusqlite::Connection;

use super::fault::SqliteFault;
use super::tables::begin;
use crate::storage::sql::RELOAD;
use crate::storage::triggers::{self, Misplaced, Trigger};
use crate::storage::{Finding, migrate};

const CREATE: &str = "CREATE TRIGGER ";
const END: &str = "\nEND;";

/// The triggers of the migrations; the body is the whole statement.
fn expected() -> Vec<Trigger> {
    let mut triggers = Vec::new();
    for migration in migrate::SQLITE {
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

fn misplaced(connection: &Connection) -> Result<Vec<Misplaced>, SqliteFault> {
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
    Ok(triggers::misplaced(&expected(), &found))
}

pub(super) fn inspect(connection: &Connection) -> Result<Option<Finding>, SqliteFault> {
    Ok(triggers::finding(&misplaced(connection)?))
}

/// Creates triggers again that are missing or changed; returns their names. Changes were missed meanwhile, so
/// followers load everything again.
pub(super) fn restore(connection: &mut Connection) -> Result<Vec<String>, SqliteFault> {
    if misplaced(connection)?.is_empty() {
        return Ok(Vec::new());
    }
    let transaction = begin(connection)?;
    let misplaced = misplaced(&transaction)?;
    let mut made = Vec::new();
    for wanted in expected() {
        if misplaced.iter().any(|other| other.name == wanted.name) {
            let name = &wanted.name;
            transaction
                .execute_batch(&format!("DROP TRIGGER IF EXISTS {name}; {}", wanted.body))?;
            made.push(format!("trigger {name}"));
        }
    }
    if !made.is_empty() {
        let sql = "INSERT INTO mika_feed (kind, key) VALUES (?1, 0)";
        transaction.execute(sql, [RELOAD])?;
    }
    transaction.commit()?;
    Ok(made)
}
