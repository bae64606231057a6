//! Mika's own tables: migrations and checks.

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::fault::SqliteFault;
use super::{read, triggers};
use crate::storage::identity::checked;
use crate::storage::{Finding, MigrationStatus, StorageError, migrate};

/// The tables and columns that the driver uses.
const COLUMNS: &[(&str, &str)] = &[
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

/// The names of the migrations that the database has; none if it is new.
pub(super) fn applied(connection: &Connection) -> Result<Vec<String>, SqliteFault> {
    if !is_there(connection, "mika_migrations")? {
        return Ok(Vec::new());
    }
    let mut select = connection.prepare("SELECT name FROM mika_migrations ORDER BY name")?;
    let names = select.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// By a statement: `Connection::table_exists` does not see tables that others created meanwhile.
fn is_there(connection: &Connection, table: &str) -> Result<bool, SqliteFault> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    Ok(connection.prepare_cached(sql)?.exists([table])?)
}

/// The identity; a random text made by a migration.
pub(super) fn identity(connection: &Connection) -> Result<String, SqliteFault> {
    Ok(checked(found_identity(connection)?).map_err(StorageError::from)?)
}

/// Replaces the identity.
pub(super) fn renew_identity(connection: &Connection) -> Result<String, SqliteFault> {
    let sql = "UPDATE mika_identity SET id = lower(hex(randomblob(16)))";
    connection.execute(sql, [])?;
    identity(connection)
}

fn found_identity(connection: &Connection) -> Result<Option<String>, SqliteFault> {
    if !is_there(connection, "mika_identity")? {
        return Ok(None);
    }
    let mut select = connection.prepare_cached("SELECT id FROM mika_identity")?;
    Ok(select.query_row([], |row| row.get(0)).optional()?)
}

pub(super) fn migrations(connection: &Connection) -> Result<Vec<MigrationStatus>, SqliteFault> {
    Ok(migrate::status(migrate::SQLITE, &applied(connection)?)?)
}

/// Applies missing migrations, and restores triggers and identity. Each migration is a transaction with its
/// name, so an interrupted run continues where it stopped.
pub(super) fn migrate(connection: &mut Connection) -> Result<Vec<String>, SqliteFault> {
    let mut done = Vec::new();
    for migration in migrate::SQLITE {
        let transaction = begin(connection)?;
        // Read inside the transaction: another process may migrate at the same time.
        let pending = migrations(&transaction)?
            .iter()
            .any(|status| status.name == migration.name && !status.applied);
        if !pending {
            continue;
        }
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS mika_migrations (
                 name TEXT PRIMARY KEY NOT NULL,
                 applied_at INTEGER NOT NULL DEFAULT (unixepoch())
             )",
        )?;
        transaction.execute_batch(migration.sql)?;
        transaction.execute(
            "INSERT INTO mika_migrations (name) VALUES (?1)",
            [migration.name],
        )?;
        transaction.commit()?;
        done.push(migration.name.to_owned());
    }
    if make_identity(connection)? {
        done.push("identity".to_owned());
    }
    done.extend(triggers::restore(connection)?);
    Ok(done)
}

/// Gives the database a new identity if it was lost; returns whether it was.
fn make_identity(connection: &mut Connection) -> Result<bool, SqliteFault> {
    if found_identity(connection)?.is_some() {
        return Ok(false);
    }
    let transaction = begin(connection)?;
    if let Some(migration) = migrate::identity(migrate::SQLITE) {
        transaction.execute_batch(migration.sql)?;
    }
    transaction.commit()?;
    Ok(true)
}

/// A transaction that locks at its beginning, so that it can't fail half-way for a lock.
pub(super) fn begin(connection: &mut Connection) -> Result<Transaction<'_>, SqliteFault> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

pub(super) fn check(connection: &mut Connection) -> Result<Vec<Finding>, SqliteFault> {
    let mut findings = Vec::new();
    damage(connection, &mut findings)?;
    for status in migrations(connection)?
        .iter()
        .filter(|status| !status.applied)
    {
        findings.push(Finding::problem(
            format!("the migration {} is not applied", status.name),
            "run mika-manage migrate",
        ));
    }
    if !findings.is_empty() {
        return Ok(findings);
    }
    missing(connection, &mut findings)?;
    if findings.is_empty() {
        findings.extend(triggers::inspect(connection)?);
        findings.extend(text_hashes(connection)?);
        findings.extend(read::unusable_rows(connection)?.findings());
    }
    Ok(findings)
}

/// The finding for info hashes that a site wrote as text, with the conversion to blobs.
fn text_hashes(connection: &Connection) -> Result<Vec<Finding>, SqliteFault> {
    let mut findings = Vec::new();
    for column in ["info_hash", "info_hash_v2"] {
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

fn missing(connection: &Connection, findings: &mut Vec<Finding>) -> Result<(), SqliteFault> {
    let mut select = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    for (table, columns) in COLUMNS {
        let there = select.query_map([table], |row| row.get(0))?;
        let there: Vec<String> = there.collect::<Result<_, _>>()?;
        if there.is_empty() {
            findings.push(Finding::problem(
                format!("the table {table} is missing"),
                "restore it from a backup; docs/sql.md shows what belongs in it",
            ));
            continue;
        }
        for column in columns
            .split(' ')
            .filter(|name| !there.iter().any(|found| found == name))
        {
            findings.push(Finding::problem(
                format!("the table {table} has no column {column}"),
                format!("add it with ALTER TABLE {table} ADD COLUMN (see docs/sql.md)"),
            ));
        }
    }
    Ok(())
}

/// The error for an edit of a row that does not exist.
pub(super) fn found(changed: usize, what: impl FnOnce() -> String) -> Result<(), SqliteFault> {
    if changed == 0 {
        return Err(StorageError::NotFound(what()).into());
    }
    Ok(())
}
