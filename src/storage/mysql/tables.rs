//! Mika's own tables: their migrations and triggers.

use super::check;
use super::definers::Trial;
use super::fault::MysqlFault;
use super::inspect;
use super::link::ANSWER_TIMEOUT;
use super::rights;
use super::session::MysqlSession;
use crate::storage::migrate::{self, Migration};
use crate::storage::sql::RELOAD;
use crate::storage::sql::calls::{CALLS, FEED};
use crate::storage::sql::followed;
use crate::storage::sql::statements::{Schema, mentions};
use crate::storage::triggers::{Misplaced, Trigger};
use crate::storage::unusable::plural;
use crate::storage::{Finding, MigrationStatus, StorageError};

/// Seconds for which one `mika-manage` waits for the migration or edit of another.
const LOCK_SECONDS: u32 = 8;

/// The table of applied migrations.
const MIGRATIONS: &str = "CREATE TABLE IF NOT EXISTS mika_migrations (
        name VARCHAR(190) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
    ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4";

/// Marks a statement that creates or drops a trigger.
const TRIGGER: &str = "TRIGGER ";

/// Acquires a named lock that excludes other processes with the same database. It is released when the job
/// is done.
pub(super) async fn lock(session: &mut MysqlSession<'_>, name: &str) -> Result<(), MysqlFault> {
    // Locks are global on the server; a name has at most 64 characters.
    let sql = format!(
        "SELECT GET_LOCK(CONCAT('mika.{name}.', LEFT(MD5(DATABASE()), 16)), {LOCK_SECONDS})"
    );
    session.is_locking = true;
    let rows = session.query(&sql).await?;
    if rows.first().is_some_and(|row| row.flag(0)) {
        return Ok(());
    }
    let text = "another mika or mika-manage is changing the same tables: try again";
    Err(StorageError::Away(text.into()).into())
}

/// Whether the table of migrations is there.
pub(super) async fn is_there(session: &mut MysqlSession<'_>) -> Result<bool, MysqlFault> {
    let rows = session
        .query(
            "SELECT 1 FROM information_schema.tables \
             WHERE table_schema = DATABASE() AND table_name = 'mika_migrations'",
        )
        .await?;
    Ok(!rows.is_empty())
}

/// The names of the migrations that the database has; none if it is new.
async fn applied(session: &mut MysqlSession<'_>) -> Result<Vec<String>, MysqlFault> {
    if !is_there(session).await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT name FROM mika_migrations ORDER BY name";
    let rows = session.query(sql).await?;
    Ok(rows.iter().map(|row| row.text(0)).collect())
}

pub(super) async fn migrations(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
) -> Result<Vec<MigrationStatus>, MysqlFault> {
    let applied = applied(session).await?;
    Ok(migrate::status(schema.migrations, &applied)?)
}

/// Applies missing migrations, and repairs triggers. The server commits after every statement, so each is
/// idempotent: an interrupted run begins its migration again.
pub(super) async fn migrate(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
) -> Result<Vec<String>, MysqlFault> {
    lock(session, "migrate").await?;
    if let Some(view) = inspect::view_in_the_way(session, schema).await? {
        return Err(MysqlFault::broken(format!(
            "{}: {}",
            view.problem, view.hint
        )));
    }
    if let Some(lacking) = check::followed(session, schema).await?.into_iter().next() {
        return Err(StorageError::from(lacking).into());
    }
    // An account without CREATE can still repair triggers.
    if !is_there(session).await? {
        run(session, schema, MIGRATIONS).await?;
    }
    let mut done = Vec::new();
    let statuses = migrations(session, schema).await?;
    let pending = schema.migrations.iter().zip(statuses);
    for (migration, _) in pending.filter(|(_, status)| !status.applied) {
        let is_followed = session.has(&FEED);
        for statement in statements(migration) {
            // Their tables may have other names.
            if !is_followed && statement.contains(TRIGGER) {
                continue;
            }
            run(session, schema, &statement).await?;
        }
        let sql = format!(
            "INSERT INTO mika_migrations (name) VALUES ('{}')",
            migration.name
        );
        session.query(&sql).await?;
        done.push(migration.name.to_owned());
    }
    if make_identity(session, schema).await? {
        done.push("identity".to_owned());
    }
    if session.has(&FEED) {
        done.extend(mend_triggers(session, schema).await?);
    }
    Ok(done)
}

/// Gives the database a new identity if it was lost; returns whether it was.
async fn make_identity(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
) -> Result<bool, MysqlFault> {
    match session.query("SELECT 1 FROM mika_identity").await {
        Ok(rows) if !rows.is_empty() => return Ok(false),
        Err(fault) if !fault.is_no_table() => return Err(fault),
        _ => {}
    }
    let migration = migrate::identity(schema.migrations).into_iter();
    for statement in migration.flat_map(statements) {
        run(session, schema, &statement).await?;
    }
    Ok(true)
}

/// The triggers that the migrations of a schema create.
pub(super) fn triggers(schema: &Schema) -> Vec<Trigger> {
    schema
        .migrations
        .iter()
        .flat_map(statements)
        .filter_map(|statement| Trigger::of_statement(&statement))
        .collect()
}

/// Creates triggers again that are missing, on another table or changed; returns their names. Changes were
/// missed meanwhile, so followers load everything again.
async fn mend_triggers(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
) -> Result<Vec<String>, MysqlFault> {
    let misplaced = inspect::triggers(session, schema, Trial::Credit)
        .await?
        .misplaced;
    let all: Vec<String> = schema.migrations.iter().flat_map(statements).collect();
    let mut made = Vec::new();
    for Misplaced { name, left_on, .. } in &misplaced {
        let creates = |statement: &&String| {
            Trigger::of_statement(statement).is_some_and(|trigger| trigger.name == *name)
        };
        let create = all.iter().find(creates);
        if create.is_none() && left_on.is_none() {
            continue;
        }
        let drop = format!("DROP TRIGGER IF EXISTS {name}");
        run(session, schema, &drop).await?;
        let Some(create) = create else {
            made.push(format!("removal of the trigger {name}"));
            continue;
        };
        run(session, schema, create).await?;
        made.push(format!("trigger {name}"));
    }
    if !made.is_empty() {
        let sql = format!("INSERT INTO mika_feed (kind, `key`) VALUES ('{RELOAD}', 0)");
        session.query(&sql).await?;
    }
    Ok(made)
}

async fn run(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
    statement: &str,
) -> Result<(), MysqlFault> {
    match session.query(statement).await {
        Ok(_) => Ok(()),
        // Left by an interrupted migration.
        Err(fault) if fault.is_column_there() => Ok(()),
        Err(fault) if fault.is_denied() => {
            // A GRANT takes effect for later connections only.
            session.is_last = true;
            Err(denied(session, fault, statement).await)
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
    let makes = format!("CREATE TABLE IF NOT EXISTS {table} ");
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
        format!("the table `{table}` is missing, or Mika's account may not see it; the schema {} is for a web application that has it", schema.name),
        "restore it or rename it back, or name the web application's database in storage.url, or another \
         storage.schema"
            .into(),
    )
}

/// The remedy for a table with a name of Mika's and other columns.
pub(super) const NOT_OURS: &str = "if it is another program's, name another database in storage.url, \
    another storage.schema, or statements that fit in storage.statements";

/// The error for a trigger that can't be created.
fn unfit(fault: MysqlFault, place: &str, schema: &Schema, statement: &str) -> MysqlFault {
    let Some(Trigger { table, .. }) = Trigger::of_statement(statement) else {
        return fault;
    };
    match fault.unknown_column() {
        Some(text) => MysqlFault::broken(format!(
            "{place}: the table `{table}` is there and has other columns than Mika's ({text}): {NOT_OURS}"
        )),
        None if fault.is_no_table() => {
            let (problem, hint) = absence(schema, &table);
            MysqlFault::broken(format!("{place}: {problem}: {hint}"))
        }
        None => fault,
    }
}

/// Columns that Mika's statements use and a table lacks: it is another program's, or was changed.
pub(super) async fn unlike(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
) -> Result<Vec<Finding>, MysqlFault> {
    let sql = "SELECT column_name FROM information_schema.columns \
        WHERE table_schema = DATABASE() AND table_name = ?";
    let mut findings = Vec::new();
    for statement in schema.migrations.iter().flat_map(statements) {
        let Some((table, columns)) = columns_of(&statement) else {
            continue;
        };
        let rows = session.exec(sql, &[table.into()]).await?;
        let there: Vec<String> = rows.iter().map(|row| row.text(0)).collect();
        let is_used = |column: &str| {
            CALLS
                .iter()
                .map(|call| session.statements_of(call))
                .any(|call| mentions(call, table) && mentions(call, column))
        };
        let lacking: Vec<&str> = columns
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
    let rest = statement.strip_prefix("CREATE TABLE IF NOT EXISTS ")?;
    let (table, rest) = rest.split_once(" (")?;
    let words = rest
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    // Keys and the end of the statement begin with other characters.
    let is_column =
        |word: &&str| word.starts_with(|char: char| char.is_ascii_lowercase() || char == '`');
    let columns = words.filter(is_column).map(|word| word.trim_matches('`'));
    Some((table, columns.collect()))
}

/// The statements of a migration, which are separated by empty lines, because a trigger has several `;`.
fn statements(migration: &Migration) -> impl Iterator<Item = String> {
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

/// The privilege that a statement of a migration needs, in the words of a GRANT.
async fn denied(session: &mut MysqlSession<'_>, fault: MysqlFault, statement: &str) -> MysqlFault {
    let privileges = if statement.contains(TRIGGER) {
        "TRIGGER"
    } else {
        rights::ALL
    };
    let grant = match rights::grant(session, privileges).await {
        Ok(grant) => grant,
        Err(fault) => return fault,
    };
    let refused = fault.explain(session.place(), ANSWER_TIMEOUT);
    MysqlFault::broken(format!(
        "{refused}. As an administrator run: {grant}; and then mika-manage migrate again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_of_a_migration_can_be_repeated() {
        assert!(statements(&migrate::MYSQL[0]).count() > 20);
        for migration in migrate::MYSQL.iter().chain(migrate::MYSQL_2015) {
            let all: Vec<String> = statements(migration).collect();
            for (before, statement) in all.iter().zip(all.iter().skip(1)) {
                if let Some(trigger) = statement.strip_prefix("CREATE TRIGGER ") {
                    let name = trigger.split(' ').next().unwrap();
                    assert_eq!(*before, format!("DROP TRIGGER IF EXISTS {name}"));
                } else {
                    let is_safe = [
                        "CREATE TABLE IF NOT EXISTS",
                        "DROP TRIGGER IF EXISTS",
                        "INSERT IGNORE INTO mika_identity (one, id) VALUES (1, ",
                    ];
                    // A column that is there is left alone.
                    let is_one_column =
                        statement.contains(" ADD COLUMN ") && !statement.contains(',');
                    assert!(
                        is_one_column || is_safe.iter().any(|begin| statement.starts_with(begin)),
                        "{statement}"
                    );
                }
            }
        }
    }
}
