//! Mika's own tables: migrations and identity.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::SqliteFault;
use super::{check, triggers};
use crate::storage::sql::statements::Schema;
use crate::storage::{MigrationStatus, StorageError, migrate};

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

fn has_identity(connection: &Connection) -> Result<bool, SqliteFault> {
    if !is_there(connection, "mika_identity")? {
        return Ok(false);
    }
    let sql = "SELECT 1 FROM mika_identity";
    Ok(connection.prepare_cached(sql)?.exists([])?)
}

pub(super) fn migrations(
    connection: &Connection,
    schema: &Schema,
) -> Result<Vec<MigrationStatus>, SqliteFault> {
    Ok(migrate::status(schema.migrations, &applied(connection)?)?)
}

/// Applies missing migrations, and restores triggers and identity. Each migration is a transaction with its
/// name, so an interrupted run continues where it stopped.
pub(super) fn migrate(
    connection: &mut Connection,
    schema: &Schema,
) -> Result<Vec<String>, SqliteFault> {
    if let Some(lacking) = check::followed(connection, schema)?.into_iter().next() {
        return Err(StorageError::from(lacking).into());
    }
    let mut done = Vec::new();
    for migration in schema.migrations {
        let transaction = begin(connection)?;
        // Read inside the transaction: another process may migrate at the same time.
        let pending = migrations(&transaction, schema)?
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
    if make_identity(connection, schema)? {
        done.push("identity".to_owned());
    }
    done.extend(triggers::restore(connection, schema)?);
    Ok(done)
}

/// Gives the database a new identity if it was lost; returns whether it was.
fn make_identity(connection: &mut Connection, schema: &Schema) -> Result<bool, SqliteFault> {
    if has_identity(connection)? {
        return Ok(false);
    }
    let transaction = begin(connection)?;
    if let Some(migration) = migrate::identity(schema.migrations) {
        transaction.execute_batch(migration.sql)?;
    }
    transaction.commit()?;
    Ok(true)
}

/// A transaction that locks at its beginning, so that it can't fail half-way for a lock.
pub(super) fn begin(connection: &mut Connection) -> Result<Transaction<'_>, SqliteFault> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}
