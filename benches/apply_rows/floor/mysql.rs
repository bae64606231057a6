//! MySQL and MariaDB: `LOAD DATA` into a temporary table, and one statement from there.

use std::collections::HashSet;

use futures_util::{StreamExt as _, stream};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};

use super::rows::{BYTES, Kind, Table};

/// A connection with the isolation of Mika's own.
pub struct Mysql {
    conn: Conn,
    /// The temporary tables that are there.
    made: HashSet<String>,
}

impl Mysql {
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let mut conn = Conn::new(Opts::from_url(url)?).await?;
        conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            .await?;
        Ok(Self {
            conn,
            made: HashSet::new(),
        })
    }

    pub async fn write(&mut self, tables: Vec<(Table, String)>) -> anyhow::Result<()> {
        let conn = &mut self.conn;
        conn.query_drop("BEGIN").await?;
        for (table, text) in tables {
            let (name, given) = (table.name, table.given());
            let names = table.columns.join(", ");
            if self.made.insert(given.clone()) {
                // Without a log or an index of its own.
                conn.query_drop(format!(
                    "CREATE TEMPORARY TABLE {given} ENGINE = MyISAM SELECT {names} FROM {name} LIMIT 0"
                ))
                .await?;
            }
            conn.query_drop(format!("DELETE FROM {given}")).await?;
            let file = async move { Ok(stream::iter([Ok(text.into())]).boxed()) };
            conn.set_infile_handler(file);
            conn.query_drop(load(&table)).await?;
            let write = match table.kind {
                Kind::New => {
                    format!("INSERT INTO {name} ({names}) SELECT {names} FROM {given}")
                }
                Kind::Changed | Kind::Sums => format!(
                    "UPDATE {given} AS given STRAIGHT_JOIN {name} AS old ON {} SET {}",
                    table.matches(),
                    table.assignments("old.", |name| format!("given.{name}"))
                ),
            };
            conn.query_drop(write).await?;
        }
        Ok(conn.query_drop("COMMIT").await?)
    }
}

/// The statement that reads the file.
fn load(table: &Table) -> String {
    let of_bytes = table.columns.iter().filter(|name| BYTES.contains(name));
    let set: Vec<String> = of_bytes
        .map(|name| format!("{name} = UNHEX(@{name})"))
        .collect();
    let targets = table.columns.iter().map(|name| {
        let mark = if BYTES.contains(name) { "@" } else { "" };
        format!("{mark}{name}")
    });
    let targets: Vec<String> = targets.collect();
    format!(
        "LOAD DATA LOCAL INFILE 'rows' INTO TABLE {} ({}) {} {}",
        table.given(),
        targets.join(", "),
        if set.is_empty() { "" } else { "SET" },
        set.join(", ")
    )
}
