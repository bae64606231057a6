//! Mika's own tables: their migrations and triggers.

use super::check;
use super::fault::PostgresFault;
use super::inspect;
use super::rights;
use super::session::PostgresSession;
use crate::storage::migrate::{self, Migration};
use crate::storage::sql::RELOAD;
use crate::storage::sql::calls::FEED;
use crate::storage::sql::cells::Cell;
use crate::storage::sql::followed;
use crate::storage::sql::statements::{Schema, mentions};
use crate::storage::triggers::{Misplaced, Trigger};
use crate::storage::unusable::plural;
use crate::storage::{Finding, MigrationStatus, StorageError};

/// The table of applied migrations.
const MIGRATIONS: &str = "CREATE TABLE mika_migrations (
        name       text        COLLATE \"C\" NOT NULL PRIMARY KEY,
        applied_at timestamptz NOT NULL DEFAULT now()
    )";

/// How statements of a migration begin.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS ";
const FUNCTION: &str = "CREATE OR REPLACE FUNCTION ";
const TRIGGER: &str = "CREATE TRIGGER ";
/// What binds functions to the schemas of this account.
const PATH: &str = "SELECT set_config('search_path'";

/// Excludes other processes that do the same with these tables, until the end of the transaction. The first half of
/// the lock's name is `mika`.
pub(super) async fn lock(
    session: &mut PostgresSession<'_>,
    name: &str,
) -> Result<(), PostgresFault> {
    let sql =
        "SELECT pg_advisory_xact_lock(1835625313, hashtext($1::text || '.' || current_schema()))";
    match session.query(sql, &[Cell::Text(name)]).await {
        Err(fault) if fault.is_locked() => {
            let text = "another mika or mika-manage is changing the same tables: try again";
            Err(StorageError::Away(text.into()).into())
        }
        result => result.map(drop),
    }
}

/// Whether there is a table or view of that name.
pub(super) async fn is_there(
    session: &mut PostgresSession<'_>,
    table: &str,
) -> Result<bool, PostgresFault> {
    let sql = "SELECT to_regclass($1) IS NOT NULL";
    let rows = session.query(sql, &[Cell::Text(table)]).await?;
    Ok(rows.first().is_some_and(|row| row.flag(0)))
}

/// The names of the columns of a table; none if there is no such table.
pub(super) async fn columns(
    session: &mut PostgresSession<'_>,
    table: &str,
) -> Result<Vec<String>, PostgresFault> {
    let sql = "SELECT attname FROM pg_attribute \
        WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
    let rows = session.query(sql, &[Cell::Text(table)]).await?;
    Ok(rows.iter().map(|row| row.text(0)).collect())
}

/// The names of the migrations that the database has; none if it is new.
async fn applied(session: &mut PostgresSession<'_>) -> Result<Vec<String>, PostgresFault> {
    if !is_there(session, "mika_migrations").await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT name FROM mika_migrations ORDER BY name";
    let rows = session.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.text(0)).collect())
}

pub(super) async fn migrations(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<Vec<MigrationStatus>, PostgresFault> {
    let applied = applied(session).await?;
    Ok(migrate::status(schema.migrations, &applied)?)
}

/// Applies missing migrations, and repairs triggers, in one transaction.
pub(super) async fn migrate(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<Vec<String>, PostgresFault> {
    session.start().await?;
    lock(session, "migrate").await?;
    if let Some(view) = inspect::view_in_the_way(session, schema).await? {
        return Err(StorageError::from(view).into());
    }
    if let Some(lacking) = check::followed(session, schema).await?.into_iter().next() {
        return Err(StorageError::from(lacking).into());
    }
    // An account without CREATE can still repair triggers.
    if !is_there(session, "mika_migrations").await? {
        run(session, schema, MIGRATIONS).await?;
    }
    let mut done = Vec::new();
    let statuses = migrations(session, schema).await?;
    let is_new = statuses.first().is_some_and(|status| !status.applied);
    let pending = schema.migrations.iter().zip(statuses);
    for (migration, _) in pending.filter(|(_, status)| !status.applied) {
        apply(session, schema, migration).await?;
        let sql = "INSERT INTO mika_migrations (name) VALUES ($1)";
        session.query(sql, &[Cell::Text(migration.name)]).await?;
        done.push(migration.name.to_owned());
    }
    if make_identity(session, schema).await? {
        done.push("identity".to_owned());
    }
    if session.has(&FEED) {
        let made = mend_triggers(session, schema).await?;
        // A new database has no followers that missed anything.
        if !made.is_empty() && !is_new {
            let sql = "INSERT INTO mika_feed (kind, key) VALUES ($1, 0)";
            session.query(sql, &[Cell::Text(RELOAD)]).await?;
            done.extend(made);
        }
    }
    session.finish().await?;
    Ok(done)
}

/// Runs the statements of a migration, except those that make triggers.
async fn apply(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
    migration: &Migration,
) -> Result<(), PostgresFault> {
    for statement in statements(migration) {
        if statement.starts_with(TRIGGER) {
            continue;
        }
        // `IF NOT EXISTS` looks at one schema only, and a table of the site may be in another.
        if let Some((table, _)) = columns_of(&statement)
            && is_there(session, table).await?
        {
            continue;
        }
        run(session, schema, &statement).await?;
    }
    Ok(())
}

/// Gives the database a new identity if it was lost; returns whether it was.
async fn make_identity(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<bool, PostgresFault> {
    if is_there(session, "mika_identity").await? {
        let rows = session.query("SELECT 1 FROM mika_identity", &[]).await?;
        if !rows.is_empty() {
            return Ok(false);
        }
    }
    if let Some(migration) = migrate::identity(schema.migrations) {
        apply(session, schema, migration).await?;
    }
    Ok(true)
}

/// Creates triggers that are missing, on another table or changed; returns their names. Changes were
/// missed meanwhile, so followers load everything again.
async fn mend_triggers(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<Vec<String>, PostgresFault> {
    let misplaced = inspect::misplaced(session, schema).await?;
    if misplaced.is_empty() {
        return Ok(Vec::new());
    }
    lacking_columns(session, schema).await?;
    let all: Vec<String> = schema.migrations.iter().flat_map(statements).collect();
    for statement in &all {
        let is_needed = match function_of(statement) {
            // Only its owner can replace a function.
            Some((name, text)) => function(session, name).await?.as_deref() != Some(text),
            None => statement.starts_with(PATH),
        };
        if is_needed {
            run(session, schema, statement).await?;
        }
    }
    let mut made = Vec::new();
    for Misplaced { name, left_on, .. } in &misplaced {
        if let Some(table) = left_on {
            let drop = format!("DROP TRIGGER {name} ON {table}; DROP FUNCTION IF EXISTS {name}()");
            run(session, schema, &drop).await?;
            made.push(format!("removal of the trigger {name}"));
        }
        let creates = |statement: &String| {
            let trigger = Trigger::of_statement(statement)?;
            (trigger.name == *name).then(|| (trigger.table, statement.clone()))
        };
        let Some((table, create)) = all.iter().find_map(creates) else {
            continue;
        };
        // Only the owner of the table can do this.
        if inspect::has_trigger(session, &table, name).await? {
            run(session, schema, &format!("DROP TRIGGER {name} ON {table}")).await?;
        }
        run(session, schema, &create).await?;
        made.push(format!("trigger {name}"));
    }
    Ok(made)
}

/// The name and the text of the function that a statement makes.
pub(super) fn function_of(statement: &str) -> Option<(&str, &str)> {
    let name = statement.strip_prefix(FUNCTION)?.split('(').next()?;
    Some((name, statement.split("$$").nth(1)?))
}

/// The text of a function, which is empty if it has not the rights that it should have; none if it is missing.
async fn function(
    session: &mut PostgresSession<'_>,
    name: &str,
) -> Result<Option<String>, PostgresFault> {
    let sql = "SELECT CASE WHEN prosecdef OR proname = 'mika_feed_entry' THEN prosrc ELSE '' END \
        FROM pg_proc WHERE oid = to_regprocedure($1 || '()')";
    let rows = session.query(sql, &[Cell::Text(name)]).await?;
    Ok(rows.first().map(|row| row.text(0)))
}

async fn run(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
    statement: &str,
) -> Result<(), PostgresFault> {
    match session.batch(statement).await {
        Ok(()) => Ok(()),
        Err(fault) if fault.is_denied() => {
            session.recover().await?;
            let is_new = match function_of(statement) {
                Some((name, _)) => function(session, name).await?.is_none(),
                None => statement.starts_with("CREATE TABLE "),
            };
            Err(rights::denied(session, fault, statement, is_new).await)
        }
        Err(fault) => Err(unfit(fault, session.place(), schema, statement)),
    }
}

/// The problem and the remedy for a table that is missing although the migrations are applied, or to be
/// applied.
pub(super) fn absence(schema: &Schema, table: &str) -> (String, String) {
    if let Some(Finding { problem, hint, .. }) = followed::absent(schema, table) {
        return (problem, hint);
    }
    let makes = format!("{TABLE}{table} ");
    let mut all = schema.migrations.iter().flat_map(statements);
    if all.any(|statement| statement.starts_with(&makes)) {
        return (
            format!(
                "the table `{table}` is missing, or Mika's account may not see it, though the migration was applied"
            ),
            "restore it from a backup, or rename it back".into(),
        );
    }
    (
        format!(
            "the table `{table}` is missing, or Mika's account may not see it; the schema {} is for a web application \
             that has it",
            schema.name
        ),
        "restore it or rename it back, or name the web application's database in storage.url, or another \
         storage.schema"
            .into(),
    )
}

/// The remedy for a table with a name of Mika's and other columns.
const NOT_OURS: &str = "if it is another program's, name another database in storage.url, \
    another storage.schema, or statements that fit in storage.statements";

/// The error for a trigger that can't be created.
fn unfit(fault: PostgresFault, place: &str, schema: &Schema, statement: &str) -> PostgresFault {
    match Trigger::of_statement(statement) {
        Some(Trigger { table, .. }) if fault.is_no_table() => {
            let (problem, hint) = absence(schema, &table);
            PostgresFault::broken(format!("{place}: {problem}: {hint}"))
        }
        _ => fault,
    }
}

/// An error if a table lacks a column that its triggers compare: it is another program's. The server would create
/// them, and then refuse the changes of that program.
async fn lacking_columns(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<(), PostgresFault> {
    for trigger in inspect::expected(schema) {
        let there = columns(session, &trigger.table).await?;
        let lacking = compared(&trigger.body).find(|name| !there.iter().any(|found| found == name));
        if let Some(column) = lacking.filter(|_| !there.is_empty()) {
            let (place, table) = (session.place(), &trigger.table);
            return Err(PostgresFault::broken(format!(
                "{place}: the table `{table}` is there and has other columns than Mika's (no `{column}`): {NOT_OURS}"
            )));
        }
    }
    Ok(())
}

/// The columns of the row that a function names.
fn compared(function: &str) -> impl Iterator<Item = &str> {
    let is_part = |char: char| char.is_alphanumeric() || char == '_' || char == '.';
    let words = function.split(move |char| !is_part(char));
    words.filter_map(|word| word.strip_prefix("OLD.").or(word.strip_prefix("NEW.")))
}

/// Columns that Mika's statements use and a table lacks: it is another program's, or was changed.
pub(super) async fn unlike(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<Vec<Finding>, PostgresFault> {
    let mut findings = Vec::new();
    for statement in schema.migrations.iter().flat_map(statements) {
        let Some((table, wanted)) = columns_of(&statement) else {
            continue;
        };
        let there = columns(session, table).await?;
        let is_used = |column: &str| {
            let mut statements = session.statements();
            statements.any(|statement| {
                let one = std::slice::from_ref(statement);
                mentions(one, table) && mentions(one, column)
            })
        };
        let lacking: Vec<&str> = wanted
            .into_iter()
            .filter(|column| !there.iter().any(|name| name.eq_ignore_ascii_case(column)))
            .filter(|column| is_used(column))
            .collect();
        if !there.is_empty() && !lacking.is_empty() {
            let noun = plural(lacking.len(), "the column", "the columns");
            findings.push(Finding::problem(
                format!("the table `{table}` lacks {noun} {}", lacking.join(", ")),
                format!("{NOT_OURS}; if it is Mika's, add what it lacks (see docs/sql.md)"),
            ));
        }
    }
    Ok(findings)
}

/// Whether a finding of [`unlike`] names that column.
pub(super) fn reports_column(finding: &Finding, column: &str) -> bool {
    finding
        .problem
        .split_once("` lacks the column")
        .is_some_and(|(_, columns)| {
            columns
                .split([' ', ','])
                .any(|name| name.eq_ignore_ascii_case(column))
        })
}

/// The table that a statement makes, and its columns.
fn columns_of(statement: &str) -> Option<(&str, Vec<&str>)> {
    let rest = statement.strip_prefix(TABLE)?;
    let (table, rest) = rest.split_once(" (")?;
    let words = rest
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    // Keys and the end of the statement begin with other characters.
    let columns = words.filter(|word| word.starts_with(|char: char| char.is_ascii_lowercase()));
    Some((table, columns.collect()))
}

/// The statements of a migration, which are separated by empty lines, because a function has several `;`.
pub(super) fn statements(migration: &Migration) -> impl Iterator<Item = String> {
    let parts = migration.sql.split("\n\n").map(|part| {
        part.lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .collect::<Vec<_>>()
            .join("\n")
            .trim()
            .trim_end_matches(';')
            .to_owned()
    });
    parts.filter(|statement| !statement.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_comes_apart_at_empty_lines() {
        let all: Vec<String> = statements(&migrate::POSTGRES[0]).collect();
        assert!(all[0].starts_with(PATH));
        for statement in &all {
            let begins = |start: &str| statement.starts_with(start);
            assert!(
                [
                    PATH,
                    TABLE,
                    FUNCTION,
                    TRIGGER,
                    "CREATE INDEX IF NOT EXISTS ",
                    "DO $$"
                ]
                .into_iter()
                .any(begins),
                "{statement}"
            );
        }
        let tables: Vec<_> = all.iter().filter_map(|one| columns_of(one)).collect();
        assert_eq!(tables[0].0, "users");
        assert_eq!(tables[0].1.len(), 10);
    }
}
