//! Makes and updates Mika's own tables: the migrations of a schema, the identity, and the triggers.

use super::RELOAD;
use super::calls::{self, FEED};
use super::catalogue::column_names;
use super::check::inspect::{self, absence};
use super::check::{self, NOT_OURS};
use super::database::{Lacking, SqlFault, SqlResult};
use super::header::Dialect;
use super::job::Job;
use super::statements::{Piece, Schema};
use super::triggers::{self, Misplaced, Trigger, quoted};
use crate::storage::migrate::{self, Migration};
use crate::storage::{MigrationStatus, StorageError};

/// Binds functions to the schemas of this account.
const PATH: &str = "SELECT set_config('search_path'";

/// Every migration that this version knows, and whether the database has it.
pub(super) async fn migrations(
    job: &mut Job<'_>,
    schema: &Schema,
) -> SqlResult<Vec<MigrationStatus>> {
    let mut applied = Vec::new();
    if is_there(job, "mika_migrations").await? {
        let rows = job.call(&calls::MIGRATIONS, &[]).await?;
        applied.extend(rows.iter().map(|row| row.text(0)));
    }
    Ok(migrate::status(schema.migrations, &applied)?)
}

async fn is_there(job: &mut Job<'_>, table: &str) -> SqlResult<bool> {
    Ok(!column_names(job, table).await?.is_empty())
}

/// Applies missing migrations, and restores identity and triggers, in one transaction. MySQL commits after every
/// statement about tables, so each is idempotent there: an interrupted run begins its migration again.
pub(super) async fn migrate(job: &mut Job<'_>, schema: &Schema) -> SqlResult<Vec<String>> {
    let is_followed = job.has(&FEED);
    if is_followed {
        let mut obstacle = inspect::view_in_the_way(job, schema).await?;
        if obstacle.is_none() {
            obstacle = check::followed(job, schema).await?.into_iter().next();
        }
        if let Some(obstacle) = obstacle {
            return Err(StorageError::from(obstacle).into());
        }
    }
    job.begin().await?;
    job.session().lock("migrate").await?;
    let statuses = migrations(job, schema).await?;
    // An account that can't make tables can still repair triggers.
    if !is_there(job, "mika_migrations").await? {
        for statement in job.statements_of(&calls::CREATE_MIGRATIONS) {
            if let [Piece::Text(sql)] = &statement.pieces[..] {
                run(job, schema, sql).await?;
            }
        }
    }
    let is_new = statuses.first().is_some_and(|status| !status.applied);
    if is_new && is_followed {
        // Before an index on a table of another program fails.
        lacking_columns(job, &triggers::expected(&schema.migrations[..1])).await?;
    }
    let pending = schema.migrations.iter().zip(statuses);
    let pending: Vec<&Migration> = pending
        .filter_map(|(migration, status)| (!status.applied).then_some(migration))
        .collect();
    for migration in &pending {
        apply(job, schema, migration).await?;
    }
    let mut done: Vec<String> = pending.iter().map(|it| it.name.to_owned()).collect();
    if make_identity(job, schema).await? {
        done.push("identity".to_owned());
    }
    if is_followed {
        let made = mend_triggers(job, schema).await?;
        // A new database has no followers that missed anything.
        if !made.is_empty() && !is_new {
            let kind = [("kind", RELOAD.into())];
            job.call(&calls::ADD_RELOAD, &kind).await?;
            done.extend(made);
        }
    }
    // A migration without its triggers was not applied.
    for migration in pending {
        let name = [("name", migration.name.into())];
        job.call(&calls::ADD_MIGRATION, &name).await?;
    }
    job.commit().await?;
    Ok(done)
}

/// Runs the statements of a migration, except those about triggers, whose tables may have other names.
async fn apply(job: &mut Job<'_>, schema: &Schema, migration: &Migration) -> SqlResult<()> {
    for statement in migrate::statements(migration) {
        let is_trigger = ["CREATE TRIGGER ", "DROP TRIGGER "]
            .iter()
            .any(|begin| statement.starts_with(begin));
        if !is_trigger && !is_done(job, schema.dialect, &statement).await? {
            run(job, schema, &statement).await?;
        }
    }
    Ok(())
}

/// Whether a statement was run before, and does not notice that by itself.
async fn is_done(job: &mut Job<'_>, dialect: Dialect, statement: &str) -> SqlResult<bool> {
    match dialect {
        // Left by an interrupted migration.
        Dialect::Mysql => match migrate::added_column(statement) {
            Some((table, column)) => {
                let there = column_names(job, table).await?;
                Ok(there.iter().any(|name| name.eq_ignore_ascii_case(column)))
            }
            None => Ok(false),
        },
        // `IF NOT EXISTS` looks at one schema only, and a table of the site may be in another.
        Dialect::Postgres => match migrate::made_table(statement) {
            Some(table) => is_there(job, table).await,
            None => Ok(false),
        },
        Dialect::Sqlite => Ok(false),
    }
}

/// Gives the database a new identity if it was lost; returns whether it was.
async fn make_identity(job: &mut Job<'_>, schema: &Schema) -> SqlResult<bool> {
    if is_there(job, "mika_identity").await? && !job.call(&calls::IDENTITY, &[]).await?.is_empty() {
        return Ok(false);
    }
    if let Some(migration) = migrate::identity(schema.migrations) {
        apply(job, schema, migration).await?;
    }
    Ok(true)
}

/// Creates triggers that are missing, on another table or changed, and drops those on tables that should not have them;
/// returns what was done.
async fn mend_triggers(job: &mut Job<'_>, schema: &Schema) -> SqlResult<Vec<String>> {
    let mut done = make_triggers(job, schema).await?;
    // Where triggers have the names of their tables only, those of a renamed table stay.
    let expected = triggers::expected(schema.migrations);
    let found = inspect::look_at_triggers(job, &expected, false).await?;
    for Misplaced { name, left_on, .. } in &found.misplaced {
        let Some(table) = left_on else {
            continue;
        };
        if drop_left(job, schema, name, table).await? {
            let is_expected = expected.iter().any(|trigger| trigger.name == *name);
            if schema.dialect == Dialect::Postgres && !is_expected {
                run(job, schema, &format!("DROP FUNCTION IF EXISTS {name}()")).await?;
            }
            done.push(format!("removal of the trigger {name} from {table}"));
        }
    }
    Ok(done)
}

/// Drops a trigger from a table that should not have it; false if that is left to the table's owner.
async fn drop_left(job: &mut Job<'_>, schema: &Schema, name: &str, table: &str) -> SqlResult<bool> {
    if schema.dialect != Dialect::Postgres {
        drop_trigger(job, schema, name, table).await?;
        return Ok(true);
    }
    let session = job.session();
    session.savepoint().await?;
    let drop = format!("DROP TRIGGER IF EXISTS {name} ON {}", quoted(table));
    match session.execute(&drop).await {
        Err(fault) if fault.is_denied() => {
            session.undo().await?;
            Ok(false)
        }
        result => result.map(|()| true),
    }
}

/// Creates triggers that are missing, on another table or changed; returns which.
async fn make_triggers(job: &mut Job<'_>, schema: &Schema) -> SqlResult<Vec<String>> {
    let expected = triggers::expected(schema.migrations);
    let mut found = inspect::look_at_triggers(job, &expected, false).await?;
    found.misplaced.retain(|it| it.left_on.is_none());
    if found.misplaced.is_empty() {
        return Ok(Vec::new());
    }
    lacking_columns(job, &expected).await?;
    let all: Vec<String> = schema
        .migrations
        .iter()
        .flat_map(migrate::statements)
        .collect();
    for statement in &all {
        let is_needed = match migrate::made_function(statement) {
            // Only its owner can replace a function.
            Some((name, text)) => {
                let rows = job.call(&calls::FUNCTION, &[("name", name.into())]).await?;
                rows.first().is_none_or(|row| row.text(0) != text)
            }
            None => statement.starts_with(PATH),
        };
        if is_needed {
            run(job, schema, statement).await?;
        }
    }
    let mut made = Vec::new();
    for Misplaced { name, .. } in &found.misplaced {
        let creates = |statement: &&String| {
            Trigger::of_statement(statement).filter(|trigger| trigger.name == *name)
        };
        let Some((create, trigger)) = all.iter().find_map(|it| Some((it, creates(&it)?))) else {
            continue;
        };
        drop_trigger(job, schema, name, &trigger.table).await?;
        run(job, schema, create).await?;
        made.push(format!("trigger {name}"));
    }
    Ok(made)
}

async fn drop_trigger(
    job: &mut Job<'_>,
    schema: &Schema,
    name: &str,
    table: &str,
) -> SqlResult<()> {
    let of_table = match schema.dialect {
        Dialect::Postgres => format!(" ON {table}"),
        Dialect::Mysql | Dialect::Sqlite => String::new(),
    };
    let drop = format!("DROP TRIGGER IF EXISTS {name}{of_table}");
    run(job, schema, &drop).await
}

/// An error if a table lacks a column that its trigger names: it is another program's. Some databases would create the
/// trigger, and then refuse the changes of that program.
async fn lacking_columns(job: &mut Job<'_>, triggers: &[Trigger]) -> SqlResult<()> {
    for trigger in triggers {
        let there = column_names(job, &trigger.table).await?;
        let is_there = |name: &str| there.iter().any(|found| found.eq_ignore_ascii_case(name));
        let lacking = trigger.columns().find(|name| !is_there(name));
        if let Some(column) = lacking.filter(|_| !there.is_empty()) {
            return Err(SqlFault::broken(format!(
                "{}: the table `{}` is there and has other columns than Mika's (no `{column}`): {NOT_OURS}",
                job.session().place(),
                trigger.table
            )));
        }
    }
    Ok(())
}

/// Runs a statement; the fault says what to grant, or which table is missing.
async fn run(job: &mut Job<'_>, schema: &Schema, statement: &str) -> SqlResult<()> {
    let Err(fault) = job.session().execute(statement).await else {
        return Ok(());
    };
    if fault.is_denied() {
        return Err(job.session().denied(fault, statement).await);
    }
    match Trigger::of_statement(statement) {
        Some(Trigger { table, .. }) if fault.lacks(&Lacking::Table) => {
            let error = StorageError::from(absence(schema, &table));
            Err(SqlFault::broken(format!(
                "{}: {error}",
                job.session().place()
            )))
        }
        _ => Err(fault),
    }
}
