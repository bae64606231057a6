//! SQLite: a prepared statement for each table, in one transaction.

use anyhow::Context;
use mika::storage::sql::cells::Cell;
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::rows::{Kind, Table};

/// A connection with the durability and the page cache of Mika's own.
pub struct Sqlite(Connection);

impl Sqlite {
    pub fn open(url: &str) -> anyhow::Result<Self> {
        let file = url.strip_prefix("sqlite://").context("not a file")?;
        let connection = Connection::open(file)?;
        connection.execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536; \
             PRAGMA wal_autocheckpoint = 16384",
        )?;
        Ok(Self(connection))
    }

    pub fn write(&mut self, tables: &[(Table, String)]) -> anyhow::Result<()> {
        self.0.execute_batch("BEGIN IMMEDIATE")?;
        for (table, _) in tables {
            let mut statement = self.0.prepare_cached(&sql(table))?;
            let parameters = statement.parameter_count();
            for row in table.rows.iter() {
                for (number, cell) in row.cells().take(parameters).enumerate() {
                    statement.raw_bind_parameter(number + 1, value(cell))?;
                }
                statement.raw_execute()?;
            }
        }
        Ok(self.0.execute_batch("COMMIT")?)
    }
}

/// The cell of column `n` is the parameter `n + 1`.
fn sql(table: &Table) -> String {
    let Table { name, columns, .. } = table;
    let parameter = |name: &str| {
        let place = columns.iter().position(|column| *column == name);
        format!("?{}", place.map_or(0, |place| place + 1))
    };
    // SQLite has the other index in another form.
    let columns = || columns.iter().filter(|name| **name != "inactive_since");
    if table.kind == Kind::New {
        let values: Vec<String> = columns().map(|name| parameter(name)).collect();
        let names: Vec<&str> = columns().copied().collect();
        let (names, values) = (names.join(", "), values.join(", "));
        return format!("INSERT INTO {name} ({names}) VALUES ({values})");
    }
    let assignments = table.assignments("", parameter);
    let assignments = assignments.split(", inactive_since").next();
    let keys = table.columns[..table.keys].iter().enumerate();
    let keys: Vec<String> = keys
        .map(|(place, key)| format!("{key} = ?{}", place + 1))
        .collect();
    format!(
        "UPDATE {name} AS old SET {} WHERE {}",
        assignments.unwrap_or_default(),
        keys.join(" AND ")
    )
}

fn value(cell: Cell<'_>) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match cell {
        Cell::Null => ValueRef::Null,
        Cell::Int(number) => ValueRef::Integer(number),
        Cell::Real(number) => ValueRef::Real(number),
        Cell::Text(text) | Cell::Expression(text) => ValueRef::Text(text.as_bytes()),
        Cell::Bytes(bytes) => ValueRef::Blob(bytes),
    })
}
