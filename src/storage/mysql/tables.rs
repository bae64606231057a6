//! Mika's own tables: their names, and making them.

use super::cells::Cells;
use super::fault::Fault;
use super::feed::RELOAD;
use super::inspect;
use super::link::{Link, PATIENCE, Session};
use crate::storage::migrate::{self, Migration};
use crate::storage::schema::{FEED, Schema};
use crate::storage::triggers::{Misplaced, Trigger};
use crate::storage::{MigrationStatus, StorageError};

/// Seconds that one `mika-manage` waits for another one's migration, or for its edit.
const LOCK_SECONDS: u32 = 8;

/// The table that says which migrations were applied.
const MIGRATIONS: &str = "CREATE TABLE IF NOT EXISTS mika_migrations (
        name VARCHAR(190) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
    ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4";

/// What tells a statement that makes or drops a trigger.
const TRIGGER: &str = "TRIGGER ";

/// The names of the tables that differ between schemas.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) peers: String,
    pub(super) history: String,
}

// === impl Own ===

impl Own {
    pub(super) fn of(schema: &Schema) -> Self {
        let named = |table: &str| format!("{}{table}", schema.prefix);
        Self {
            peers: named("peers"),
            history: named("history"),
        }
    }
}

pub(super) async fn begin(session: &mut Session<'_>) -> Result<(), Fault> {
    session.run("START TRANSACTION").await?;
    Ok(())
}

/// Takes the lock of that name, which other processes with the same database wait for.
/// It is given back when the job is done.
pub(super) async fn lock(session: &mut Session<'_>, name: &str) -> Result<(), Fault> {
    // Locks belong to the server; a name has 64 characters at most.
    let sql = format!(
        "SELECT GET_LOCK(CONCAT('mika.{name}.', LEFT(MD5(DATABASE()), 16)), {LOCK_SECONDS})"
    );
    session.is_locking = true;
    let rows = session.query(&sql).await?;
    if rows.first().is_some_and(|row| Cells(row).flag(0)) {
        return Ok(());
    }
    let text = "another mika or mika-manage is changing the same tables: try again";
    Err(StorageError::Away(text.into()).into())
}

/// Whether the table of migrations is there.
pub(super) async fn is_there(session: &mut Session<'_>) -> Result<bool, Fault> {
    let rows = session
        .query(
            "SELECT 1 FROM information_schema.tables \
             WHERE table_schema = DATABASE() AND table_name = 'mika_migrations'",
        )
        .await?;
    Ok(!rows.is_empty())
}

/// The names of the migrations that the database has; none if it is new.
async fn applied(session: &mut Session<'_>) -> Result<Vec<String>, Fault> {
    if !is_there(session).await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT name FROM mika_migrations ORDER BY name";
    let rows = session.query(sql).await?;
    Ok(rows.iter().map(|row| Cells(row).text(0)).collect())
}

pub(super) async fn migrations(
    session: &mut Session<'_>,
    schema: &Schema,
) -> Result<Vec<MigrationStatus>, Fault> {
    let applied = applied(session).await?;
    Ok(migrate::status(schema.migrations, &applied)?)
}

/// Applies what is missing, and puts triggers right that went astray. The server commits after every
/// statement, so each can be repeated: an interrupted run begins its migration again.
pub(super) async fn migrate(
    session: &mut Session<'_>,
    link: &Link,
    schema: &Schema,
) -> Result<Vec<String>, Fault> {
    lock(session, "migrate").await?;
    if let Some(view) = inspect::view_in_the_way(session, schema).await? {
        return Err(Fault::broken(format!("{}: {}", view.problem, view.hint)));
    }
    // An account without CREATE can still put triggers right.
    if !is_there(session).await? {
        run(session, link, MIGRATIONS).await?;
    }
    let mut done = Vec::new();
    let statuses = migrations(session, schema).await?;
    let pending = schema.migrations.iter().zip(statuses);
    for (migration, _) in pending.filter(|(_, status)| !status.applied) {
        let is_followed = session.has(&FEED);
        for statement in statements(migration) {
            // The tables that they are for may have other names.
            if !is_followed && statement.contains(TRIGGER) {
                continue;
            }
            run(session, link, &statement).await?;
        }
        let sql = format!(
            "INSERT INTO mika_migrations (name) VALUES ('{}')",
            migration.name
        );
        session.run(&sql).await?;
        done.push(migration.name.to_owned());
    }
    if session.has(&FEED) {
        done.extend(mend_triggers(session, link, schema).await?);
    }
    Ok(done)
}

/// The triggers that the migrations of a schema make.
pub(super) fn triggers(schema: &Schema) -> Vec<Trigger> {
    let all = schema.migrations.iter().flat_map(statements);
    all.filter_map(|statement| Trigger::of_statement(&statement))
        .collect()
}

/// Makes those triggers again that are missing, elsewhere or changed; returns what it made. No
/// change was followed meanwhile, so those who follow load everything again.
async fn mend_triggers(
    session: &mut Session<'_>,
    link: &Link,
    schema: &Schema,
) -> Result<Vec<String>, Fault> {
    let misplaced = inspect::misplaced(session, schema).await?;
    let all: Vec<String> = schema.migrations.iter().flat_map(statements).collect();
    let mut made = Vec::new();
    for Misplaced { name, .. } in &misplaced {
        let creates = |statement: &&String| {
            Trigger::of_statement(statement).is_some_and(|trigger| trigger.name == *name)
        };
        let Some(create) = all.iter().find(creates) else {
            continue;
        };
        run(session, link, &format!("DROP TRIGGER IF EXISTS {name}")).await?;
        run(session, link, create).await?;
        made.push(format!("trigger {name}"));
    }
    if !made.is_empty() {
        let sql = format!("INSERT INTO mika_feed (kind, `key`) VALUES ('{RELOAD}', 0)");
        session.run(&sql).await?;
    }
    Ok(made)
}

async fn run(session: &mut Session<'_>, link: &Link, statement: &str) -> Result<(), Fault> {
    match session.run(statement).await {
        Ok(_) => Ok(()),
        Err(fault) => {
            // A GRANT is of use to later connections only.
            session.is_last |= fault.is_denied();
            Err(hint(fault, link, statement))
        }
    }
}

/// The statements of a migration: they are parted by empty lines, for a trigger has several `;`.
fn statements(migration: &Migration) -> impl Iterator<Item = String> {
    let parts = migration.sql.split("\n\n").map(|part| {
        let lines: Vec<&str> = part
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .collect();
        lines.join("\n").trim().trim_end_matches(';').to_owned()
    });
    parts.filter(|statement| !statement.is_empty())
}

/// The privilege that a statement of a migration lacks, as it has to be granted.
fn hint(fault: Fault, link: &Link, statement: &str) -> Fault {
    let lacks_trigger = fault.is_denied() && statement.contains(TRIGGER);
    if !lacks_trigger && !fault.is_denied() {
        return fault;
    }
    let privileges = if lacks_trigger {
        "TRIGGER"
    } else {
        "CREATE, ALTER, INDEX, DROP, REFERENCES"
    };
    let refused = fault.explain(&link.place, PATIENCE);
    Fault::broken(format!(
        "{refused}. As an administrator run: GRANT {privileges} ON `{}`.* TO that user, and then \
         mika-manage migrate again",
        link.database
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_of_a_migration_can_be_repeated() {
        for migration in migrate::MYSQL.iter().chain(migrate::MYSQL_2015) {
            let all: Vec<String> = statements(migration).collect();
            assert!(all.len() > 20);
            for (before, statement) in all.iter().zip(all.iter().skip(1)) {
                if let Some(trigger) = statement.strip_prefix("CREATE TRIGGER ") {
                    let name = trigger.split(' ').next().unwrap();
                    assert_eq!(*before, format!("DROP TRIGGER IF EXISTS {name}"));
                } else {
                    let is_safe = ["CREATE TABLE IF NOT EXISTS", "DROP TRIGGER IF EXISTS"];
                    assert!(
                        is_safe.iter().any(|it| statement.starts_with(it)),
                        "{statement}"
                    );
                }
            }
        }
    }
}
