//! Checks the file, its tables, and the statements of the config.

use rusqlite::{Connection, Error, ErrorCode};

use super::fault::SqliteFault;
use super::statement::SqliteStatement;
use super::{tables, triggers};
use crate::storage::Finding;
use crate::storage::failing::FailingStatements;
use crate::storage::sql::calls::{CALLS, Call, FEED};
use crate::storage::sql::followed;
use crate::storage::sql::statements::{Schema, Statement, Statements, is_file, mentions};

/// The tables of the site and the columns that the schema uses. Statements of the config may do without.
const SITE_COLUMNS: &[(&str, &str)] = &[
    (
        "users",
        "id passkey username enabled can_leech uploaded downloaded snatches announces seed_time",
    ),
    (
        "torrents",
        "id info_hash info_hash_v2 release_name enabled reason multi_up multi_dn seeders leechers \
         snatches announces uploaded downloaded",
    ),
    ("whitelist", "peer_id vstring"),
];

/// Mika's own tables and the columns that it uses.
const OWN_COLUMNS: &[(&str, &str)] = &[
    (
        "peers",
        "user_id torrent_id peer_id base_up base_down base_at dip_up dip_down sessions uploaded \
         downloaded left_bytes ip4 port4 ip6 port6 speed_up speed_down seed_time announces first_announce \
         last_announce active paused completed_at hnr",
    ),
    (
        "history",
        "torrent_id user_id uploaded downloaded seed_time announces completed_at hnr \
         first_announce last_announce seeded_floor seeded_from seeded_until",
    ),
    ("mika_identity", "one id"),
    ("mika_journal", "node applied"),
    ("mika_feed", "seq kind key"),
];

/// Looks at all but the rows; returns what it found, and whether rows can be read.
pub(super) fn check(
    connection: &Connection,
    schema: &Schema,
    statements: &Statements,
) -> Result<(Vec<Finding>, bool), SqliteFault> {
    let mut findings = Vec::new();
    damage(connection, &mut findings)?;
    for status in tables::migrations(connection, schema)?
        .iter()
        .filter(|status| !status.applied)
    {
        findings.push(Finding::problem(
            format!("the migration {} is not applied", status.name),
            "run mika-manage migrate",
        ));
    }
    if !findings.is_empty() {
        return Ok((findings, false));
    }
    missing(connection, schema, statements, &mut findings)?;
    if !findings.is_empty() {
        return Ok((findings, false));
    }
    findings.extend(followed(connection, schema)?);
    findings.extend(triggers::inspect(connection, schema)?);
    let failing = failing(connection, statements, CALLS.into_iter())?;
    let has_rows = failing.is_empty();
    findings.extend(failing.findings(statements));
    findings.extend(text_hashes(connection)?);
    Ok((findings, has_rows))
}

/// The finding for info hashes that a site wrote as text, with the conversion to blobs.
fn text_hashes(connection: &Connection) -> Result<Vec<Finding>, SqliteFault> {
    let mut findings = Vec::new();
    let there = columns_of(connection, "torrents")?;
    let is_there = |column: &&str| there.iter().any(|name| name == column);
    for column in ["info_hash", "info_hash_v2"].into_iter().filter(is_there) {
        for (length, value) in [(40, "unhex({})"), (20, "CAST({} AS BLOB)")] {
            let value = value.replace("{}", column);
            let is_meant = format!("typeof({column}) = 'text' AND length({column}) = {length}");
            let sql = format!("SELECT count(*) FROM torrents WHERE {is_meant}");
            let count: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
            if count > 0 {
                findings.push(Finding::problem(
                    format!("torrents: {count} rows have {column} as text and not as a blob"),
                    format!("UPDATE torrents SET {column} = {value} WHERE {is_meant}"),
                ));
            }
        }
    }
    Ok(findings)
}

fn damage(connection: &Connection, findings: &mut Vec<Finding>) -> Result<(), SqliteFault> {
    let mut quick_check = connection.prepare("PRAGMA quick_check(5)")?;
    let answers = quick_check.query_map([], |row| row.get(0))?;
    let answers: Vec<String> = answers.collect::<Result<_, _>>()?;
    findings.extend(
        answers
            .into_iter()
            .filter(|answer| answer != "ok")
            .map(|answer| {
                Finding::problem(
                    format!("the file is damaged: {}", answer.replace('\n', " ")),
                    "restore a backup, or save what can be read with sqlite3's .recover",
                )
            }),
    );
    Ok(())
}

/// Tables and columns that are not there. Those of the site only if a statement names them.
fn missing(
    connection: &Connection,
    schema: &Schema,
    statements: &Statements,
    findings: &mut Vec<Finding>,
) -> Result<(), SqliteFault> {
    let is_used = |name: &str| CALLS.iter().any(|call| mentions(statements.of(call), name));
    for (table, columns) in SITE_COLUMNS {
        // What a schema of the site's own lacks shows in its statements.
        if is_used(table) && !is_file(schema.name) {
            let columns = columns.split(' ').filter(|column| is_used(column));
            missing_of(connection, table, columns, findings)?;
        }
    }
    for (table, columns) in OWN_COLUMNS {
        let is_prefixed = matches!(*table, "peers" | "history");
        let prefix = if is_prefixed { schema.prefix } else { "" };
        let table = format!("{prefix}{table}");
        missing_of(connection, &table, columns.split(' '), findings)?;
    }
    Ok(())
}

fn missing_of(
    connection: &Connection,
    table: &str,
    columns: impl Iterator<Item = &'static str>,
    findings: &mut Vec<Finding>,
) -> Result<(), SqliteFault> {
    let there = columns_of(connection, table)?;
    if there.is_empty() {
        findings.push(Finding::problem(
            format!("the table {table} is missing"),
            "restore it from a backup; docs/sql.md shows what belongs in it",
        ));
        return Ok(());
    }
    for column in columns.filter(|name| !there.iter().any(|found| found == name)) {
        findings.push(Finding::problem(
            format!("the table {table} has no column {column}"),
            format!("add it with ALTER TABLE {table} ADD COLUMN (see docs/sql.md)"),
        ));
    }
    Ok(())
}

/// The columns of a table; none if it is missing.
fn columns_of(connection: &Connection, table: &str) -> Result<Vec<String>, SqliteFault> {
    let mut select = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let there = select.query_map([table], |row| row.get(0))?;
    Ok(there.collect::<Result<_, _>>()?)
}

/// What the followed tables lack.
pub(super) fn followed(
    connection: &Connection,
    schema: &Schema,
) -> Result<Vec<Finding>, SqliteFault> {
    let mut findings = Vec::new();
    for table in schema.followed {
        if let Err(error) = connection.prepare(&table.probe()) {
            findings.push(followed::lacking(schema.name, table, &fault_of(error)?));
        }
    }
    Ok(findings)
}

/// What the statements about the site's tables lack.
pub(super) fn schema(
    connection: &Connection,
    schema: &Schema,
    statements: &Statements,
) -> Result<Vec<Finding>, SqliteFault> {
    let mut findings = followed(connection, schema)?;
    if is_file(schema.name) {
        findings.extend(followed::unfollowed(schema, statements));
    }
    let calls = CALLS.into_iter().filter(|call| call.name != FEED.name);
    let failing = failing(connection, statements, calls)?;
    findings.extend(failing.findings(statements));
    Ok(findings)
}

/// Prepares statements of the schema without running them.
fn failing(
    connection: &Connection,
    statements: &Statements,
    calls: impl Iterator<Item = &'static Call>,
) -> Result<FailingStatements, SqliteFault> {
    let mut failing = FailingStatements::default();
    for call in calls {
        for statement in statements.of(call) {
            match prepared(connection, call, statement) {
                Ok(width) => failing.note_width(call, width),
                Err(error) => failing.note(call, fault_of(error)?),
            }
        }
    }
    Ok(failing)
}

/// How many columns the result of a statement has.
fn prepared(connection: &Connection, call: &Call, statement: &Statement) -> Result<usize, Error> {
    let params = call.params.split_whitespace();
    let columns: Vec<&str> = params.chain(call.rows.split_whitespace()).collect();
    let statement = SqliteStatement::new(statement, &columns, "");
    Ok(connection.prepare(&statement.sql)?.column_count())
}

/// What SQLite says of a statement, without its text; an error if the statement is not the cause.
fn fault_of(error: Error) -> Result<String, Error> {
    match error {
        Error::SqlInputError { msg, .. } => Ok(msg),
        Error::SqliteFailure(failure, Some(msg)) if failure.code == ErrorCode::Unknown => Ok(msg),
        other => Err(other),
    }
}
