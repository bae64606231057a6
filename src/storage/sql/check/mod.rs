//! Checks the server, the tables of the site and Mika's own, the statements, and what the account may do.

mod columns;
pub(super) mod failing;
pub(super) mod inspect;
pub mod rights;

use self::failing::FailingStatements;
pub(in crate::storage) use self::inspect::NO_FEED;
use self::rights::MissingPrivileges;
use super::calls::{CALLS, COLUMNS, Call, FEED, IDENTITY, OWN_CALLS};
use super::catalogue::{self, column_names};
use super::database::{Lacking, SqlFault, SqlResult};
use super::followed::NO_INTEGER;
use super::header::{Dialect, FollowedTable};
use super::job::Job;
use super::statements::{Schema, has_word, is_file, mentions};
use super::{followed, migrations};
use crate::storage::identity::checked;
use crate::storage::unusable::plural;
use crate::storage::{Finding, StorageError, migrate};

/// The remedy for a table with a name of Mika's and other columns.
pub(super) const NOT_OURS: &str = "if it is another program's, name another database in storage.url, \
    another storage.schema, or statements that fit in storage.statements";

/// What is wrong, and whether the statements and rows can be looked at: all statements can be run.
pub(super) async fn check(job: &mut Job<'_>, schema: &Schema) -> SqlResult<(Vec<Finding>, bool)> {
    let mut findings = job.session().look_at_server().await?;
    let mut missing = MissingPrivileges::none(schema);
    let statuses = match migrations::migrations(job, schema).await {
        Err(fault) if missing.note(&fault) => Vec::new(),
        statuses => statuses?,
    };
    for status in statuses.iter().filter(|status| !status.applied) {
        findings.push(Finding::problem(
            format!("the migration {} is not applied", status.name),
            "run mika-manage migrate",
        ));
    }
    let is_new = !findings.is_empty();
    if is_new {
        findings.extend(job.session().look_at_session().await?);
    }
    if job.has(&FEED) {
        unlike(job, schema, &mut findings).await?;
    }
    if is_new {
        return Ok((findings, false));
    }
    own_tables(job, schema, &mut missing, &mut findings).await?;
    own_identity(job, &mut missing, &mut findings).await?;
    findings.extend(inspect::look(job, schema, true, &mut missing).await?);
    let mut unfit = followed(job, schema).await?;
    unfit.retain(|finding| !findings.contains(finding));
    findings.extend(unfit);
    let calls = CALLS.into_iter().chain(OWN_CALLS);
    let mut failing = look_at_statements(job, calls, &mut missing).await?;
    rights::look_at_ids(job, &mut missing).await?;
    let lacks = missing.finding(job).await?;
    let is_complete = lacks.is_none() && failing.is_empty();
    if !is_complete && let Some(unlike) = columns::unlike_hashes(job, schema.dialect).await? {
        // That is why statements fail.
        findings.push(unlike);
        failing = FailingStatements::default();
    }
    failing.leave_out_known(&findings);
    findings.extend(lacks);
    findings.extend(failing.findings(job.statements()));
    findings.extend(job.session().look_at_durability().await?);
    if is_complete {
        columns::look(job, schema.dialect, &mut findings).await?;
    }
    Ok((findings, is_complete))
}

/// What the statements about the site's tables lack.
pub(super) async fn schema(job: &mut Job<'_>, schema: &Schema) -> SqlResult<Vec<Finding>> {
    let mut findings = followed(job, schema).await?;
    if is_file(schema.name) {
        let tables = catalogue::tables(job).await?;
        findings.extend(followed::unfollowed(schema, job.statements(), &tables));
    }
    if findings
        .iter()
        .any(|finding| finding.problem.contains(NO_INTEGER))
    {
        // That is why statements fail, too.
        return Ok(findings);
    }
    let mut missing = MissingPrivileges::none(schema);
    let calls = CALLS.into_iter().filter(|call| call.name != FEED.name);
    let failing = look_at_statements(job, calls, &mut missing).await?;
    rights::look_at_ids(job, &mut missing).await?;
    rights::note_new_account(job, schema, &mut missing).await?;
    let lacks = missing.finding(job).await?;
    findings.extend(failing.findings(job.statements()).chain(lacks));
    Ok(findings)
}

/// What the tables lack that a file says to follow. Missing privileges show elsewhere.
pub(super) async fn followed(job: &mut Job<'_>, schema: &Schema) -> SqlResult<Vec<Finding>> {
    let mut findings = Vec::new();
    for table in schema.followed.iter().filter(|_| is_file(schema.name)) {
        match plan(job, &table.probe()).await? {
            Err(fault) if fault.lacks(&Lacking::Table) => {
                findings.push(followed::missing(schema, table));
            }
            Err(fault) if !fault.is_denied() => {
                let problem = fault.complaint.map(|complaint| complaint.text);
                findings.push(followed::lacking(
                    schema.name,
                    table,
                    &problem.unwrap_or_default(),
                ));
            }
            Err(_) => {}
            Ok(_) => findings.extend(unfit_key(job, schema, table).await?),
        }
    }
    Ok(findings)
}

/// Whether the key of a followed table is no integer: its triggers would refuse the site's own edits.
async fn unfit_key(
    job: &mut Job<'_>,
    schema: &Schema,
    table: &FollowedTable,
) -> SqlResult<Option<Finding>> {
    const INTEGERS: &str = "tinyint smallint mediumint int integer bigint numeric decimal";
    // A column of SQLite may hold values of any type.
    if schema.dialect == Dialect::Sqlite {
        return Ok(None);
    }
    let params = [("table", table.table.as_str().into())];
    let rows = job.call(&COLUMNS, &params).await?;
    let mut rows = rows.iter();
    let kind = rows.find(|row| row.text(0).eq_ignore_ascii_case(&table.key));
    let kind = kind.map(|row| row.text(1).to_ascii_lowercase());
    let is_integer = |kind: &String| {
        let end = kind.find(|char: char| !char.is_ascii_lowercase());
        has_word(INTEGERS, &kind[..end.unwrap_or(kind.len())])
    };
    Ok(kind
        .filter(|kind| !is_integer(kind))
        .map(|kind| followed::no_integer(schema.name, table, &kind)))
}

/// Has the database plan SQL without running it: the columns of its result, or why it does not take it.
async fn plan(job: &mut Job<'_>, sql: &str) -> SqlResult<SqlResult<usize>> {
    match job.session().plan(sql).await {
        Err(fault) if fault.complaint.is_none() => Err(fault),
        result => Ok(result),
    }
}

/// Plans the statements of calls.
async fn look_at_statements(
    job: &mut Job<'_>,
    calls: impl Iterator<Item = &'static Call>,
    missing: &mut MissingPrivileges,
) -> SqlResult<FailingStatements> {
    let mut failing = FailingStatements::default();
    // Some examples depend on whether info hashes are bytes or text here.
    match job.hash_forms().await {
        Err(fault) if fault.complaint.is_none() => return Err(fault),
        _ => {}
    }
    for call in calls {
        for statement in job.statements_of(call) {
            let sql = job.session().example(statement)?;
            match plan(job, &sql).await? {
                Ok(width) => failing.note_width(call, width),
                Err(fault) if missing.note(&fault) => {}
                Err(SqlFault { complaint, .. }) => {
                    let problem = complaint.map(|complaint| complaint.text);
                    failing.note(call, problem.unwrap_or_default());
                }
            }
        }
    }
    Ok(failing)
}

/// Whether a table that the migrations make is Mika's own, under that name, and has rows that Mika alone writes.
fn is_own(schema: &Schema, table: &str) -> bool {
    let is_prefixed = |name: &str| table.strip_prefix(schema.prefix) == Some(name);
    is_prefixed("peers") || is_prefixed("history") || ["mika_journal", "mika_feed"].contains(&table)
}

/// Privileges on Mika's own tables, and columns that they lack.
async fn own_tables(
    job: &mut Job<'_>,
    schema: &Schema,
    missing: &mut MissingPrivileges,
    findings: &mut Vec<Finding>,
) -> SqlResult<()> {
    let made = migrate::tables(schema.migrations).into_iter();
    for (table, columns) in made.filter(|(table, _)| is_own(schema, table)) {
        let first = columns.first().map_or("", String::as_str);
        rights::look_at_table(job, &table, first, missing).await?;
        let there = column_names(job, &table).await?;
        if there.is_empty() && !missing.has(&table) {
            findings.push(Finding::problem(
                format!("the table {table} is missing, or Mika's account may not see it"),
                "restore it from a backup; docs/sql.md shows what belongs in it, and the privileges",
            ));
        }
        if there.is_empty() {
            continue;
        }
        for column in columns.iter().filter(|column| !there.contains(column)) {
            findings.push(Finding::problem(
                format!("the table {table} has no column {column}"),
                format!("add it with ALTER TABLE {table} ADD COLUMN (see docs/sql.md)"),
            ));
        }
    }
    Ok(())
}

/// Whether the database has an identity.
async fn own_identity(
    job: &mut Job<'_>,
    missing: &mut MissingPrivileges,
    findings: &mut Vec<Finding>,
) -> SqlResult<()> {
    let found = match job.call(&IDENTITY, &[]).await {
        Err(fault) if missing.note(&fault) => return Ok(()),
        Err(fault) if fault.lacks(&Lacking::Table) => None,
        rows => rows?.first().map(|row| row.text(0)),
    };
    if let Err(finding) = checked(found) {
        let problem = StorageError::from(finding).to_string();
        findings.push(Finding::problem(problem, "see docs/sql.md"));
    }
    Ok(())
}

/// Columns that Mika's statements use and a table of the site lacks: it is another program's, or was changed.
async fn unlike(job: &mut Job<'_>, schema: &Schema, findings: &mut Vec<Finding>) -> SqlResult<()> {
    for (table, columns) in migrate::tables(schema.migrations) {
        let there = column_names(job, &table).await?;
        let is_used = |column: &str| {
            CALLS.iter().any(|call| {
                let statements = job.statements_of(call);
                mentions(statements, &table) && mentions(statements, column)
            })
        };
        let lacking: Vec<&str> = columns
            .iter()
            .map(String::as_str)
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
    Ok(())
}
