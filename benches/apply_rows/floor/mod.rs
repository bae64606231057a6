//! The floor: the same rows as Mika writes, by the database's own bulk way. They are worked out in memory and
//! written as text before the clock starts, so only the database's work counts.

mod mysql;
mod postgres;
mod rows;
mod sqlite;

use std::sync::Arc;

use anyhow::bail;
use mika::change::Batch;

pub use self::rows::Table;
use self::rows::{Accounts, tables};

/// Rows of some tables to a database, in a transaction.
pub struct Floor {
    accounts: Accounts,
    database: Database,
}

enum Database {
    Sqlite(sqlite::Sqlite),
    Mysql(mysql::Mysql),
    Postgres(postgres::Postgres),
}

impl Floor {
    /// A connection to a database that has Mika's tables.
    pub async fn open(driver: &str, url: &str) -> anyhow::Result<Self> {
        let database = match driver {
            "sqlite" => Database::Sqlite(sqlite::Sqlite::open(url)?),
            "mysql" => Database::Mysql(mysql::Mysql::open(url).await?),
            "postgres" => Database::Postgres(postgres::Postgres::open(url).await?),
            _ => bail!("no floor for {driver}"),
        };
        Ok(Self {
            accounts: Accounts::default(),
            database,
        })
    }

    /// What [`Self::write`] gets for some batches.
    pub fn prepare(&mut self, batches: &[Arc<Batch>]) -> Vec<(Table, String)> {
        let tables = tables(&mut self.accounts, batches).into_iter();
        let with_text = |table: Table| {
            let text = match self.database {
                Database::Sqlite(_) => String::new(),
                Database::Mysql(_) => table.text(""),
                Database::Postgres(_) => table.text("\\\\x"),
            };
            (table, text)
        };
        tables.map(with_text).collect()
    }

    /// Writes tables in one transaction.
    pub async fn write(&mut self, tables: Vec<(Table, String)>) -> anyhow::Result<()> {
        match &mut self.database {
            Database::Sqlite(sqlite) => sqlite.write(&tables),
            Database::Mysql(mysql) => mysql.write(tables).await,
            Database::Postgres(postgres) => postgres.write(tables).await,
        }
    }
}
