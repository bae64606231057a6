//! Cheap checks: triggers and their accounts, tables, the session. They take a few small queries, so the daemon runs
//! them every half minute.

use super::rights::MissingPrivileges;
use crate::storage::Finding;
use crate::storage::migrate;
use crate::storage::sql::calls::{self, Call, FEED};
use crate::storage::sql::catalogue::{self, SqlTable, TriggerLook};
use crate::storage::sql::database::SqlResult;
use crate::storage::sql::followed;
use crate::storage::sql::header::Dialect;
use crate::storage::sql::job::Job;
use crate::storage::sql::statements::{Schema, mentions};
use crate::storage::sql::triggers::{self, Trigger};

/// The remedy where triggers can't be created.
pub(in crate::storage) const NO_FEED: &str = "set storage.statements.feed to \"\" in the config; changes are \
    then followed at a restart or reload only";

/// What findings say of an engine whose tables keep what was written although it is taken back.
pub(in crate::storage::sql) const NO_TRANSACTIONS: &str = "which has no transactions";

/// The remedy for such a table.
pub(in crate::storage::sql) fn to_innodb(table: &str) -> String {
    format!("ALTER TABLE `{table}` ENGINE = InnoDB")
}

/// Implements [`crate::storage::Storage::inspect`].
pub(in crate::storage::sql) async fn inspect(
    job: &mut Job<'_>,
    schema: &Schema,
) -> SqlResult<Vec<Finding>> {
    let mut missing = MissingPrivileges::none(schema);
    let mut findings = look(job, schema, false, &mut missing).await?;
    findings.extend(missing.finding(job).await?);
    Ok(findings)
}

/// Like [`inspect`], but leaves missing privileges to the caller. `tries_edits`: an edit without effect may be tried.
pub(super) async fn look(
    job: &mut Job<'_>,
    schema: &Schema,
    tries_edits: bool,
    missing: &mut MissingPrivileges,
) -> SqlResult<Vec<Finding>> {
    let mut findings = job.session().look_at_session().await?;
    let tables = catalogue::tables(job).await?;
    let unsafe_ones = tables
        .iter()
        .filter_map(|table| is_unsafe(job, schema, table));
    findings.extend(unsafe_ones);
    if job.has(&FEED) {
        let expected = triggers::expected(schema.migrations);
        let mut obstacles = views(schema, &expected, &tables);
        obstacles.extend(absent(schema, &expected, &tables));
        if obstacles.is_empty() {
            let found = look_at_triggers(job, &expected, tries_edits).await?;
            findings.extend(found.findings);
            if found.are_hidden {
                missing.note_trigger();
            } else {
                findings.extend(triggers::findings(&found.misplaced));
            }
        }
        findings.extend(obstacles);
    }
    Ok(findings)
}

/// Credit is exact because a batch and its number are one transaction. A table without transactions would keep half of
/// a batch, which would then be applied again, and a crash would empty one that is not logged, but not the others.
fn is_unsafe(job: &Job<'_>, schema: &Schema, table: &SqlTable) -> Option<Finding> {
    let name = &table.name;
    let (flaw, hint) = match &table.engine {
        Some(engine) => (
            format!("has the engine {engine}, {NO_TRANSACTIONS}"),
            to_innodb(name),
        ),
        None if table.is_unlogged => (
            "is unlogged, so that a crash empties it".into(),
            format!("ALTER TABLE {name} SET LOGGED"),
        ),
        None => return None,
    };
    let is_in = |calls: &[&Call]| {
        let mut calls = calls.iter();
        calls.any(|call| mentions(job.statements_of(call), name))
    };
    let is_for_edits =
        !table.is_unlogged && ["mika_feed", "mika_migrations"].contains(&name.as_str());
    let is_credited = is_in(&[
        &calls::CREDIT_USERS,
        &calls::CREDIT_TORRENTS,
        &calls::CREDIT_SNATCHES,
        &calls::ADD_SNATCHED,
    ]);
    let is_edited = is_in(&[
        &calls::ADD_USER,
        &calls::UPDATE_USER,
        &calls::ADD_TORRENT,
        &calls::UPDATE_TORRENT,
        &calls::ADD_CLIENT,
    ]);
    if is_credited || schema.owns(name) && !is_for_edits {
        let problem = format!("the table {name} {flaw}: credit could count twice");
        return Some(Finding::fatal(problem, hint));
    }
    let is_half = !table.is_unlogged && (is_for_edits || is_edited);
    is_half.then(|| {
        let problem =
            format!("the table {name} {flaw}: an edit that fails half-way is not taken back");
        Finding::note(problem, hint)
    })
}

/// Views that should be tables with triggers.
fn views(schema: &Schema, expected: &[Trigger], tables: &[SqlTable]) -> Vec<Finding> {
    let wants_triggers = |table: &&SqlTable| {
        let mut expected = expected.iter();
        table.is_view && expected.any(|trigger| trigger.table.eq_ignore_ascii_case(&table.name))
    };
    let finding = |table: &SqlTable| {
        Finding::problem(
            format!(
                "{} is a view, which can't have triggers: changes can't be followed",
                table.name
            ),
            followed::unfollow(schema, &table.name).unwrap_or_else(|| NO_FEED.into()),
        )
    };
    tables.iter().filter(wants_triggers).map(finding).collect()
}

/// The finding for the first view that should be a table with triggers.
pub(in crate::storage::sql) async fn view_in_the_way(
    job: &mut Job<'_>,
    schema: &Schema,
) -> SqlResult<Option<Finding>> {
    let tables = catalogue::tables(job).await?;
    let views = views(schema, &triggers::expected(schema.migrations), &tables);
    Ok(views.into_iter().next())
}

/// Missing tables that should have triggers.
fn absent(schema: &Schema, expected: &[Trigger], tables: &[SqlTable]) -> Vec<Finding> {
    let mut names: Vec<&str> = Vec::new();
    for Trigger { table: wanted, .. } in expected {
        let is_there = |table: &SqlTable| table.name.eq_ignore_ascii_case(wanted);
        if !tables.iter().any(is_there) && !names.contains(&wanted.as_str()) {
            names.push(wanted);
        }
    }
    names.iter().map(|name| absence(schema, name)).collect()
}

/// The finding for a table that is missing although the migrations are applied, or to be applied.
pub(in crate::storage::sql) fn absence(schema: &Schema, table: &str) -> Finding {
    if let Some(absent) = followed::absent(schema, table) {
        return absent;
    }
    let hidden = match schema.dialect {
        Dialect::Sqlite => "",
        Dialect::Mysql | Dialect::Postgres => ", or Mika's account may not see it",
    };
    let made = migrate::tables(schema.migrations);
    if made.iter().any(|(name, _)| name == table) {
        return Finding::problem(
            format!("the table `{table}` is missing{hidden}, though the migration was applied"),
            "restore it from a backup, or rename it back",
        );
    }
    Finding::problem(
        format!(
            "the table `{table}` is missing{hidden}; the schema {} is for a web application that has it",
            schema.name
        ),
        "restore it or rename it back, or name the web application's database in storage.url, or another \
         storage.schema",
    )
}

/// What keeps the triggers from working. Those of Mika that are to be made again are missing, on another table, changed,
/// or run as an account that can't be used.
pub(in crate::storage::sql) async fn look_at_triggers(
    job: &mut Job<'_>,
    expected: &[Trigger],
    tries_edits: bool,
) -> SqlResult<TriggerLook> {
    let found = catalogue::triggers(job).await?;
    let mut misplaced = triggers::misplaced(expected, &found);
    let is_own = |trigger: &Trigger| expected.iter().any(|own| own.name == trigger.name);
    let (own, site): (Vec<Trigger>, Vec<Trigger>) = found.into_iter().partition(is_own);
    let session = job.session();
    let mut look = session
        .look_at_triggers(&own, &misplaced, &site, tries_edits)
        .await?;
    misplaced.append(&mut look.misplaced);
    look.misplaced = misplaced;
    Ok(look)
}
