//! Checks the tables of the site, and Mika's own.

use mysql_async::Error;

use super::definers::Trial;
use super::fault::{self, MysqlFault};
use super::rights::Missing;
use super::session::{MysqlSession, example};
use super::{columns, durability, inspect, settings, tables};
use crate::storage::identity::checked;
use crate::storage::sql::calls::{CALLS, Call, FEED};
use crate::storage::sql::followed;
use crate::storage::sql::statements::{Schema, Statements, is_file};
use crate::storage::{Finding, StorageError, failing};

/// The oldest supported servers: Mika needs `NOWAIT`.
const MYSQL_OLDEST: (u16, u16, u16) = (8, 0, 1);
const MARIADB_OLDEST: (u16, u16, u16) = (10, 5, 2);

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
    session: &mut MysqlSession<'_>,
    schema: &Schema,
) -> Result<(Vec<Finding>, bool), MysqlFault> {
    let mut findings = Vec::new();
    server(session, &mut findings).await?;
    for status in tables::migrations(session, schema).await? {
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
    if !findings.is_empty() {
        settings::of_server(session, &mut findings).await?;
        findings.extend(unlike);
        return Ok((findings, false));
    }
    findings.extend(unlike);
    let mut rights = Missing::default();
    own_privileges(session, schema, &mut rights).await?;
    own_columns(session, schema, &rights, &mut findings).await?;
    own_identity(session, &mut rights, &mut findings).await?;
    let trial = Trial::CreditAndEdits;
    findings.extend(inspect::inspect_with(session, schema, trial, &mut rights).await?);
    let lacking = followed(session, schema).await?.into_iter();
    let lacking: Vec<Finding> = lacking.filter(|it| !findings.contains(it)).collect();
    findings.extend(lacking);
    let mut failures = Failures::default();
    for call in CALLS {
        statement(session, call, &mut rights, &mut failures).await?;
    }
    let lacks = rights.finding(session).await?;
    let is_incomplete = lacks.is_some() || !failures.0.is_empty();
    failures.leave_out_known(&findings);
    findings.extend(lacks);
    findings.extend(failures.findings(session.statements));
    findings.extend(durability::inspect(session).await?);
    if !is_incomplete {
        // This runs statements, too.
        columns::inspect(session, &mut findings).await?;
    }
    Ok((findings, !is_incomplete))
}

/// What the followed tables lack.
pub(super) async fn followed(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
) -> Result<Vec<Finding>, MysqlFault> {
    let mut findings = Vec::new();
    for table in schema.followed {
        match session.prepare(&table.probe()).await {
            Err(fault) if fault.is_no_table() => {
                findings.push(followed::lacking(schema.name, table, followed::NO_TABLE));
            }
            Err(MysqlFault::Sql(Error::Server(error), _)) => {
                findings.push(followed::lacking(schema.name, table, &fault::lack(&error)));
            }
            other => drop(other?),
        }
    }
    Ok(findings)
}

/// What the statements about the site's tables lack.
pub(super) async fn schema(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
) -> Result<Vec<Finding>, MysqlFault> {
    let mut findings = followed(session, schema).await?;
    if is_file(schema.name) {
        findings.extend(followed::unfollowed(schema, session.statements));
    }
    let (mut rights, mut failures) = (Missing::default(), Failures::default());
    for call in CALLS.into_iter().filter(|call| call.name != FEED.name) {
        statement(session, call, &mut rights, &mut failures).await?;
    }
    let lacks = rights.finding(session).await?;
    findings.extend(failures.findings(session.statements).chain(lacks));
    Ok(findings)
}

async fn server(
    session: &mut MysqlSession<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), MysqlFault> {
    let rows = session.query("SELECT VERSION()").await?;
    let version = rows.first().map(|row| row.text(0)).unwrap_or_default();
    let oldest = if version.contains("MariaDB") {
        MARIADB_OLDEST
    } else {
        MYSQL_OLDEST
    };
    if session.server_version() < oldest {
        let (major, minor, patch) = oldest;
        findings.push(Finding::problem(
            format!("the server is too old: {version}"),
            format!("update it to {major}.{minor}.{patch} or later"),
        ));
    }
    Ok(())
}

async fn own_columns(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
    rights: &Missing,
    findings: &mut Vec<Finding>,
) -> Result<(), MysqlFault> {
    let sql = "SELECT column_name FROM information_schema.columns \
        WHERE table_schema = DATABASE() AND table_name = ?";
    for (table, columns) in OWN_COLUMNS {
        let table = table.replace("{}", schema.prefix);
        let rows = session.exec(sql, &[table.as_str().into()]).await?;
        let there: Vec<String> = rows.iter().map(|row| row.text(0)).collect();
        if there.is_empty() && rights.has(&table) {
            continue;
        }
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
    session: &mut MysqlSession<'_>,
    rights: &mut Missing,
    findings: &mut Vec<Finding>,
) -> Result<(), MysqlFault> {
    let found = match session.query("SELECT id FROM mika_identity").await {
        Err(MysqlFault::Sql(Error::Server(error), _)) if fault::is_denial(&error) => {
            rights.note(&error);
            return Ok(());
        }
        Err(fault) if fault.is_no_table() => None,
        rows => rows?.first().map(|row| row.text(0)),
    };
    if let Err(finding) = checked(found) {
        let problem = StorageError::from(finding).to_string();
        findings.push(Finding::problem(problem, "see docs/sql.md"));
    }
    Ok(())
}

/// Prepares Mika's own statements, so that the server reports missing privileges.
async fn own_privileges(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
    rights: &mut Missing,
) -> Result<(), MysqlFault> {
    for (table, columns) in OWN_COLUMNS {
        let table = table.replace("{}", schema.prefix);
        let column = columns.split(' ').next().unwrap_or_default();
        let statements = [
            format!("SELECT {column} FROM {table} LIMIT 0"),
            format!("INSERT INTO {table} ({column}) SELECT {column} FROM {table} LIMIT 0"),
            format!("UPDATE {table} SET {column} = {column} WHERE 1 = 0"),
            format!("DELETE FROM {table} WHERE 1 = 0"),
        ];
        for sql in statements {
            match session.prepare(&sql).await {
                Err(MysqlFault::Sql(Error::Server(error), _)) if fault::is_denial(&error) => {
                    rights.note(&error);
                }
                // Missing tables are reported elsewhere.
                Err(MysqlFault::Sql(Error::Server(_), _)) | Ok(_) => {}
                Err(other) => return Err(other),
            }
        }
    }
    Ok(())
}

/// Prepares a named statement without running it, so that the server reports what it lacks.
async fn statement(
    session: &mut MysqlSession<'_>,
    call: &'static Call,
    rights: &mut Missing,
    failures: &mut Failures,
) -> Result<(), MysqlFault> {
    for statement in session.statements_of(call) {
        let sql = example(statement);
        // Columns of what a statement writes are looked up when it is planned, and not when it is prepared.
        let result = match session.prepare(&sql).await {
            Ok(width) if call.columns.is_empty() && !call.rows.is_empty() => {
                match session.query(&format!("EXPLAIN {sql}")).await {
                    Err(fault) if fault.unknown_column().is_some() => Err(fault),
                    Err(fault) if fault.is_lost() => Err(fault),
                    // What else it may lack is looked at elsewhere.
                    _ => Ok(width),
                }
            }
            result => result,
        };
        match result {
            Ok(width) if width < call.width() => {
                let columns = call.columns.replace(' ', ", ");
                let wanted = call.width();
                let problem = format!("it gives {width} columns and not {wanted}: {columns}");
                failures.add(call, problem);
            }
            Ok(_) => {}
            Err(MysqlFault::Sql(Error::Server(error), _)) if fault::is_denial(&error) => {
                rights.note(&error);
            }
            Err(MysqlFault::Sql(Error::Server(error), _)) => {
                failures.add(call, fault::lack(&error));
            }
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// Why statements fail: each problem with the names of the statements.
#[derive(Default)]
struct Failures(Vec<(String, Vec<&'static str>)>);

impl Failures {
    fn add(&mut self, call: &Call, problem: String) {
        match self.0.iter_mut().find(|(known, _)| *known == problem) {
            Some((_, names)) if names.contains(&call.name) => {}
            Some((_, names)) => names.push(call.name),
            None => self.0.push((problem, vec![call.name])),
        }
    }

    /// Leaves out those whose table or column is reported already.
    fn leave_out_known(&mut self, findings: &[Finding]) {
        let is_known = |problem: &str| {
            if let Some((_, table)) = problem
                .strip_suffix("' doesn't exist")
                .and_then(|text| text.rsplit_once('.'))
            {
                let missing = format!("the table `{table}` is missing");
                return findings
                    .iter()
                    .any(|finding| finding.problem.starts_with(&missing));
            }
            let column = problem
                .strip_prefix("Unknown column '")
                .and_then(|text| text.split('\'').next())
                .and_then(|name| name.rsplit('.').next());
            column.is_some_and(|column| {
                findings
                    .iter()
                    .any(|known| tables::reports_column(known, column))
            })
        };
        self.0.retain(|(problem, _)| !is_known(problem));
    }

    fn findings(self, statements: &Statements) -> impl Iterator<Item = Finding> {
        let all = self.0.into_iter();
        all.map(|(problem, names)| failing::finding(&problem, &names, statements))
    }
}
