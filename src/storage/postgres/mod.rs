//! The PostgreSQL driver: a web application's own database on its own server, version 13 or later.
//!
//! The engine runs its named statements on connections of a small pool (`link`, `session`), where every wait has a
//! timeout. The SQL in this folder is about the server itself: sessions, locks, accounts.

mod cells;
mod check;
mod claim;
mod durability;
mod fault;
mod feed;
mod link;
mod listen;
mod refused;
mod rights;
mod session;
mod settings;
mod statement;
mod tls;
mod url;
mod values;

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;

use self::claim::AdvisoryLock;
use self::link::PostgresLink;
use self::listen::FeedListener;
pub(super) use self::url::check as check_url;
use super::sql::database::{ANSWER_TIMEOUT, SqlDatabase, SqlResult, SqlSession, Use};
use super::sql::header::Dialect;
use super::sql::statements::{self, Schema};
use super::sql::{self, SqlStorage, keeper, site_schema};
use super::{Claim, Finding, Storage, StorageConfig, StorageResult, migrate};

/// The schemas of this crate.
static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    let mut schemas = vec![Schema {
        name: "mika",
        statements: include_str!("../schemas/mika/postgres.sql"),
        base: "",
        own: include_str!("../schemas/own/postgres.sql"),
        prefix: "",
        migrations: migrate::POSTGRES,
        beside: "",
        dialect: Dialect::Postgres,
        followed: &[],
        is_row_by_row: false,
    }];
    let batter = site_schema::parse(
        &schemas,
        "batter",
        include_str!("../schemas/batter/postgres.sql"),
        migrate::POSTGRES_BATTER,
    );
    schemas.push(batter.expect("a schema of this crate is whole"));
    schemas
});

/// A database on a server.
struct Postgres {
    link: PostgresLink,
    listener: FeedListener,
    schema: &'static Schema,
}

/// The schemas of this driver.
pub(super) fn schemas() -> &'static [Schema] {
    &SCHEMAS
}

/// Opens the database of a URL; the first call connects.
pub fn open(config: &StorageConfig) -> StorageResult<Arc<dyn Storage>> {
    let schema = statements::chosen(&SCHEMAS, config)?;
    let statements = sql::statements(schema, config)?;
    let database = Postgres {
        link: PostgresLink::new(&config.url)?,
        listener: FeedListener::default(),
        schema,
    };
    Ok(Arc::new(SqlStorage::new(database, statements)))
}

#[async_trait]
impl SqlDatabase for Postgres {
    fn schema(&self) -> &'static Schema {
        self.schema
    }

    fn reader(&self) -> Option<Self> {
        Some(Self {
            link: PostgresLink::of(self.link.dial.clone()),
            listener: FeedListener::default(),
            schema: self.schema,
        })
    }

    async fn session(&self, job: Use) -> SqlResult<Box<dyn SqlSession + '_>> {
        let session = self.link.session(job).await;
        let session = session.map_err(|fault| fault.told(self.link.place(), ANSWER_TIMEOUT))?;
        Ok(Box::new(session))
    }

    async fn claim(&self, identity: &str) -> StorageResult<Claim> {
        let lock = AdvisoryLock::new(self.link.dial.clone(), identity);
        keeper::claim(vec![lock]).await
    }

    async fn check_servers(&self) -> Vec<Finding> {
        self.link.dial.check().await
    }

    async fn feed_changed(&self) {
        self.listener.changed(&self.link.dial).await;
    }
}
