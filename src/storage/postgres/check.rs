//! Checks the tables of the site, and Mika's own.

use super::fault::PostgresFault;
use super::rights::Lacking;
use super::session::{PostgresSession, with_params};
use super::values::PostgresValue;
use super::{columns, durability, inspect, tables};
use crate::storage::identity::checked;
use crate::storage::sql::calls::{CALLS, Call, FEED, OWN_CALLS, TORRENTS};
use crate::storage::sql::cells::Cell;
use crate::storage::sql::followed;
use crate::storage::sql::statements::{Schema, Statement, Statements, is_file};
use crate::storage::{Finding, StorageError, failing};

/// The oldest supported server, as it numbers itself.
const OLDEST: i64 = 130_000;

/// Mika's own tables and the columns that it uses; {} stands for the prefix of their names.
const OWN_COLUMNS: &[(&str, &str)] = &[
    (
        "{}peers",
        "user_id torrent_id peer_id base_up base_down base_at dip_up dip_down sessions uploaded \
         downloaded left_bytes ip4 port4 ip6 port6 speed_up speed_down seed_time announces first_announce \
         last_announce active paused completed_at hnr inactive_since",
    ),
    (
        "{}history",
        "torrent_id user_id uploaded downloaded seed_time announces completed_at hnr \
         first_announce last_announce seeded_floor seeded_from seeded_until",
    ),
    ("mika_journal", "node applied"),
    ("mika_feed", "seq kind key noted_at"),
];

/// What is wrong with the server, the tables, the statements and the account; and whether rows can be checked,
/// which needs all statements.
pub(super) async fn check(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<(Vec<Finding>, bool), PostgresFault> {
    let mut findings = Vec::new();
    let mut rights = Lacking::default();
    server(session, &mut findings).await?;
    let statuses = match tables::migrations(session, schema).await {
        Err(fault) if fault.is_denied() => {
            rights.note(&fault);
            Vec::new()
        }
        statuses => statuses?,
    };
    for status in statuses {
        if !status.applied {
            findings.push(Finding::problem(
                format!("the migration {} is not applied", status.name),
                "run mika-manage migrate",
            ));
        }
    }
    let unlike = if session.has(&FEED) {
        tables::unlike(session, schema).await?
    } else {
        Vec::new()
    };
    let is_new = !findings.is_empty();
    findings.extend(unlike);
    if is_new {
        return Ok((findings, false));
    }
    own_columns(session, schema, &mut rights, &mut findings).await?;
    own_identity(session, &mut rights, &mut findings).await?;
    findings.extend(inspect::inspect(session, schema).await?);
    let lacking = followed(session, schema).await?.into_iter();
    let lacking: Vec<Finding> = lacking.filter(|it| !findings.contains(it)).collect();
    findings.extend(lacking);
    let mut failures = Failures::default();
    look_at_hashes(session).await?;
    for call in CALLS.into_iter().chain(OWN_CALLS) {
        for statement in session.statements_of(call) {
            prepare(session, statement, &mut rights, &mut failures).await?;
        }
    }
    rights.look_at_ids(session).await?;
    let lacks = rights.finding(session).await?;
    let is_incomplete = lacks.is_some() || !failures.0.is_empty();
    failures.leave_out_known(&findings);
    findings.extend(lacks);
    findings.extend(failures.findings(session.statements));
    findings.extend(durability::inspect(session).await?);
    if !is_incomplete {
        columns::inspect(session, &mut findings).await?;
    }
    Ok((findings, !is_incomplete))
}

/// What the followed tables lack.
pub(super) async fn followed(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<Vec<Finding>, PostgresFault> {
    let mut findings = Vec::new();
    for table in schema.followed {
        if let Err(fault) = session.prepare_anew(&table.probe()).await {
            let lack = match fault.lack().filter(|_| fault.is_of_server()) {
                Some(_) if fault.is_no_table() => followed::NO_TABLE.to_owned(),
                Some(lack) => lack,
                None => return Err(fault),
            };
            findings.push(followed::lacking(schema.name, table, &lack));
        }
    }
    Ok(findings)
}

/// What the statements about the site's tables lack.
pub(super) async fn schema(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
) -> Result<Vec<Finding>, PostgresFault> {
    let mut findings = followed(session, schema).await?;
    if is_file(schema.name) {
        findings.extend(followed::unfollowed(schema, session.statements));
    }
    let (mut rights, mut failures) = (Lacking::default(), Failures::default());
    look_at_hashes(session).await?;
    for call in CALLS.into_iter().filter(|call| call.name != FEED.name) {
        for statement in session.statements_of(call) {
            prepare(session, statement, &mut rights, &mut failures).await?;
        }
    }
    let lacks = rights.finding(session).await?;
    findings.extend(failures.findings(session.statements).chain(lacks));
    Ok(findings)
}

/// Whether info hashes are bytes or text here, on which the other statements depend.
async fn look_at_hashes(session: &mut PostgresSession<'_>) -> Result<(), PostgresFault> {
    for torrents in session.statements_of(&TORRENTS) {
        match session.look_at_hashes(torrents).await {
            Err(fault) if !fault.is_of_server() => return Err(fault),
            _ => {}
        }
    }
    Ok(())
}

async fn server(
    session: &mut PostgresSession<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresFault> {
    let sql =
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')";
    let rows = session.query(sql, &[]).await?;
    if let Some(row) = rows.first()
        && row.integer(0).is_some_and(|version| version < OLDEST)
    {
        findings.push(Finding::problem(
            format!("the server is too old: {}", row.text(1)),
            format!("update it to {} or later", OLDEST / 10_000),
        ));
    }
    Ok(())
}

async fn own_columns(
    session: &mut PostgresSession<'_>,
    schema: &Schema,
    rights: &mut Lacking,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresFault> {
    for (table, columns) in OWN_COLUMNS {
        let table = table.replace("{}", schema.prefix);
        rights.look(session, &table).await?;
        let there = tables::columns(session, &table).await?;
        if there.is_empty() {
            findings.push(Finding::problem(
                format!("the table {table} is missing, or Mika's account may not see it"),
                "restore it from a backup; docs/sql.md shows what belongs in it, and the privileges",
            ));
            continue;
        }
        let lacks = |name: &&str| !there.iter().any(|found| found == name);
        for column in columns.split(' ').filter(lacks) {
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
    session: &mut PostgresSession<'_>,
    rights: &mut Lacking,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresFault> {
    rights.look(session, "mika_identity").await?;
    if rights.has("mika_identity") {
        return Ok(());
    }
    let found = match session.query("SELECT id FROM mika_identity", &[]).await {
        Err(fault) if fault.is_no_table() => None,
        rows => rows?.first().map(|row| row.text(0)),
    };
    if let Err(finding) = checked(found) {
        let problem = StorageError::from(finding).to_string();
        findings.push(Finding::problem(problem, "see docs/sql.md"));
    }
    Ok(())
}

/// Prepares and explains a named statement without running it, so that the server reports what it lacks.
async fn prepare(
    session: &mut PostgresSession<'_>,
    statement: &Statement,
    rights: &mut Lacking,
    failures: &mut Failures,
) -> Result<(), PostgresFault> {
    let call = statement.call;
    let sql = example(session, statement)?;
    match session.prepare_anew(&sql).await {
        Ok(prepared) if prepared.columns().len() < call.width() => {
            let columns = call.columns.replace(' ', ", ");
            let (width, wanted) = (prepared.columns().len(), call.width());
            let problem = format!("it gives {width} columns and not {wanted}: {columns}");
            failures.add(call, problem);
        }
        Ok(_) => match explain(session, &sql).await {
            Err(fault) if fault.is_denied() => rights.note(&fault),
            Err(fault) if !fault.is_of_server() => return Err(fault),
            // Not every statement can be explained.
            _ => {}
        },
        Err(fault) if fault.is_denied() => rights.note(&fault),
        Err(fault) => match fault.lack().filter(|_| fault.is_of_server()) {
            Some(lack) => failures.add(call, lack),
            None => return Err(fault),
        },
    }
    Ok(())
}

/// The server looks at privileges when it plans a statement with values.
async fn explain(session: &mut PostgresSession<'_>, sql: &str) -> Result<(), PostgresFault> {
    let prepared = session.prepare_anew(&format!("EXPLAIN {sql}")).await?;
    let nothing = prepared
        .params()
        .iter()
        .map(|_| PostgresValue::Cell(Cell::Null));
    let nothing: Vec<PostgresValue<'_>> = nothing.collect();
    session.run_prepared(&prepared, &nothing).await.map(drop)
}

fn example(session: &PostgresSession<'_>, statement: &Statement) -> Result<String, PostgresFault> {
    let columns = statement.call.rows;
    if columns.is_empty() {
        return Ok(with_params(statement, "").0);
    }
    session.with_rows(statement, columns)
}

/// Why statements fail: each problem with the names of the statements.
#[derive(Default)]
struct Failures(Vec<(String, Vec<&'static Call>)>);

impl Failures {
    fn add(&mut self, call: &'static Call, problem: String) {
        match self.0.iter_mut().find(|(known, _)| *known == problem) {
            Some((_, calls)) if calls.iter().any(|known| known.name == call.name) => {}
            Some((_, calls)) => calls.push(call),
            None => self.0.push((problem, vec![call])),
        }
    }

    /// Leaves out those whose table or column is reported already: the problem names it.
    fn leave_out_known(&mut self, findings: &[Finding]) {
        let is_known = |problem: &str| {
            let is_part = |char: char| char.is_alphanumeric() || char == '_';
            let mut words = problem.split(|char| !is_part(char));
            words.any(|word| {
                let is_missing = format!("the table `{word}` is missing");
                let is_own = format!("the table {word} is missing");
                findings.iter().any(|known| {
                    known.problem.starts_with(&is_missing)
                        || known.problem.starts_with(&is_own)
                        || tables::reports_column(known, word)
                })
            })
        };
        self.0.retain(|(problem, _)| !is_known(problem));
    }

    fn findings(self, statements: &Statements) -> impl Iterator<Item = Finding> {
        self.0.into_iter().map(|(problem, calls)| {
            let names: Vec<&str> = calls.iter().map(|call| call.name).collect();
            failing::finding(&problem, &names, statements)
        })
    }
}
