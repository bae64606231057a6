//! PostgreSQL: `COPY` into a temporary table, and one statement from there.

use std::collections::HashSet;
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio_postgres::{Client, NoTls};

use super::rows::{Kind, Table};

/// A connection that looks up rows by index, as Mika's own do.
pub struct Postgres {
    client: Client,
    /// The temporary tables that are there.
    made: HashSet<String>,
}

impl Postgres {
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        client
            .batch_execute(
                "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET jit = off",
            )
            .await?;
        Ok(Self {
            client,
            made: HashSet::new(),
        })
    }

    pub async fn write(&mut self, tables: Vec<(Table, String)>) -> anyhow::Result<()> {
        self.client.batch_execute("BEGIN").await?;
        for (table, text) in tables {
            let (name, given) = (table.name, table.given());
            let names = table.columns.join(", ");
            if self.made.insert(given.clone()) {
                let temporary = format!(
                    "CREATE TEMPORARY TABLE {given} ON COMMIT DELETE ROWS AS SELECT {names} FROM {name} LIMIT 0"
                );
                self.client.batch_execute(&temporary).await?;
            }
            let copy = format!("COPY {given} ({names}) FROM STDIN");
            let mut sink = pin!(self.client.copy_in::<_, Bytes>(&copy).await?);
            sink.send(text.into()).await?;
            sink.finish().await?;
            let write = match table.kind {
                Kind::New => {
                    format!("INSERT INTO {name} ({names}) SELECT {names} FROM {given}")
                }
                Kind::Changed | Kind::Sums => format!(
                    "UPDATE {name} AS old SET {} FROM {given} AS given WHERE {}",
                    table.assignments("", |name| format!("given.{name}")),
                    table.matches()
                ),
            };
            self.client.batch_execute(&write).await?;
        }
        Ok(self.client.batch_execute("COMMIT").await?)
    }
}
