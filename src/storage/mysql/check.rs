//! Checks the tables of the site, and Mika's own.

use std::collections::HashMap;
use std::hash::Hash;

use mysql_async::Error;

use super::cells::MysqlCells;
use super::definers::Trial;
use super::fault::{self, MysqlFault};
use super::link::{MysqlSession, filled};
use super::rights::Missing;
use super::{columns, durability, identity, inspect, read, settings, tables};
use crate::base::ids::{InfoHash, Passkey, TorrentId, UserId};
use crate::storage::schema::{CALLS, Call, FEED, Piece, Schema, Statements};
use crate::storage::{BadRow, Finding, unusable};

/// Rows read at once.
const PAGE: u32 = 5000;
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

pub(super) async fn check(
    session: &mut MysqlSession<'_>,
    schema: &Schema,
    statements: &Statements,
) -> Result<Vec<Finding>, MysqlFault> {
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
        return Ok(findings);
    }
    findings.extend(unlike);
    let mut rights = Missing::default();
    own_privileges(session, schema, &mut rights).await?;
    own_columns(session, schema, &rights, &mut findings).await?;
    own_identity(session, &mut rights, &mut findings).await?;
    let trial = Trial::CreditAndEdits;
    findings.extend(inspect::inspect_with(session, schema, trial, &mut rights).await?);
    let mut failures = Failures::default();
    for call in CALLS {
        statement(session, statements, call, &mut rights, &mut failures).await?;
    }
    let lacks = rights.finding(session).await?;
    let is_incomplete = lacks.is_some() || !failures.0.is_empty();
    failures.leave_out_known(&findings);
    findings.extend(lacks);
    findings.extend(failures.findings());
    findings.extend(durability::inspect(session).await?);
    if is_incomplete {
        return Ok(findings);
    }
    // These checks run the statements.
    columns::inspect(session, &mut findings).await?;
    findings.extend(rows(session).await?.findings());
    Ok(findings)
}

async fn server(
    session: &mut MysqlSession<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), MysqlFault> {
    let rows = session.query("SELECT VERSION()").await?;
    let version = rows
        .first()
        .map(|row| MysqlCells(row).text(0))
        .unwrap_or_default();
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
        let rows = session.exec(sql, vec![table.as_str().into()]).await?;
        let there: Vec<String> = rows.iter().map(|row| MysqlCells(row).text(0)).collect();
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
    match identity::identity(session).await {
        Err(MysqlFault::Storage(error)) => {
            findings.push(Finding::problem(error.to_string(), "see docs/sql.md"));
        }
        Err(MysqlFault::Sql(Error::Server(error), _)) if fault::is_denial(&error) => {
            rights.note(&error);
        }
        found => drop(found?),
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
    statements: &Statements,
    call: &'static Call,
    rights: &mut Missing,
    failures: &mut Failures,
) -> Result<(), MysqlFault> {
    for pieces in statements.of(call) {
        match session.prepare(&example(call, pieces)).await {
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

    fn findings(self) -> impl Iterator<Item = Finding> {
        self.0.into_iter().map(|(problem, names)| {
            let (these, fits) = match names.as_slice() {
                [name] => (format!("statement {name} does"), format!(".{name}")),
                _ => (format!("statements {} do", names.join(", ")), String::new()),
            };
            Finding::problem(
                format!("the {these} not work: {problem}"),
                format!("correct the table, or put what fits it into storage.statements{fits}"),
            )
        })
    }
}

fn example(call: &Call, pieces: &[Piece]) -> String {
    let columns: Vec<String> = call
        .rows
        .split_whitespace()
        .map(|column| format!("0 AS {column}"))
        .collect();
    filled(pieces, &format!("(SELECT {})", columns.join(", ")))
}

async fn rows(session: &mut MysqlSession<'_>) -> Result<unusable::UnusableRows, MysqlFault> {
    let mut found = unusable::UnusableRows::default();
    found.users_unfinished = users(session, &mut found.bad).await?;
    found.torrents_unfinished = torrents(session, &mut found.bad).await?;
    let clients = read::clients(session).await?;
    found.bad.extend(clients.bad);
    found.unmatched_prefixes = unusable::unmatched(&clients.rows);
    let untidy = clients
        .rows
        .into_iter()
        .filter(|(client, written)| client.prefix != *written);
    found.untidy_prefixes = untidy.map(|(_, written)| written).collect();
    Ok(found)
}

/// Checks all users; returns how many have no passkey yet.
async fn users(session: &mut MysqlSession<'_>, bad: &mut Vec<BadRow>) -> Result<u64, MysqlFault> {
    let mut unfinished = 0;
    let mut holders: HashMap<Passkey, u32> = HashMap::new();
    let mut after: Option<UserId> = None;
    loop {
        let page = read::users(session, after, PAGE).await?;
        bad.extend(page.bad);
        unfinished += page.unfinished;
        for stored in page.rows {
            let (id, passkey) = (stored.user.id, stored.user.passkey);
            after = Some(id);
            held(&mut holders, passkey, id.0, "users", "passkey", bad);
        }
        if page.last {
            return Ok(unfinished);
        }
    }
}

/// Checks all torrents; returns how many have no info hash yet.
async fn torrents(
    session: &mut MysqlSession<'_>,
    bad: &mut Vec<BadRow>,
) -> Result<u64, MysqlFault> {
    let mut unfinished = 0;
    let mut holders: HashMap<InfoHash, u32> = HashMap::new();
    let mut after: Option<TorrentId> = None;
    loop {
        let page = read::torrents(session, after, PAGE).await?;
        bad.extend(page.bad);
        unfinished += page.unfinished;
        for stored in page.rows {
            let torrent = stored.torrent;
            after = Some(torrent.id);
            let hashes = [Some(torrent.info_hash), torrent.info_hash_v2];
            for hash in hashes.into_iter().flatten() {
                held(
                    &mut holders,
                    hash,
                    torrent.id.0,
                    "torrents",
                    "info hash",
                    bad,
                );
            }
        }
        if page.last {
            return Ok(unfinished);
        }
    }
}

/// A key that two rows have: lookups are ambiguous.
fn held<K: Eq + Hash>(
    holders: &mut HashMap<K, u32>,
    key: K,
    id: u32,
    table: &'static str,
    what: &str,
    bad: &mut Vec<BadRow>,
) {
    match holders.insert(key, id) {
        Some(other) if other != id => bad.push(BadRow {
            table,
            id: id.to_string(),
            problem: format!("its {what} is also that of {other}"),
        }),
        _ => {}
    }
}
