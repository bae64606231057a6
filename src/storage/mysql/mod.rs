//! The MySQL and MariaDB driver: a web application's own database on its own server.
//!
//! The engine runs its named statements on connections of a small pool (`link`, `session`), where every wait has a
//! timeout. The SQL in this folder is about the server itself: sessions, locks, accounts, character sets.

mod cells;
mod check;
mod claim;
mod columns;
mod definers;
mod durability;
mod fault;
mod feed;
mod galera;
mod hashes;
mod link;
mod refused;
mod rights;
mod rows;
mod server;
mod session;
mod settings;
mod url;

use std::sync::Arc;

use async_trait::async_trait;

use self::claim::NamedLock;
use self::link::MysqlLink;
use self::session::MysqlSession;
pub(super) use self::url::check as check_url;
use super::sql::database::{ANSWER_TIMEOUT, SqlDatabase, SqlResult, SqlSession, Use};
use super::sql::header::Dialect;
use super::sql::statements::{self, Schema, Statements};
use super::sql::{self, SqlStorage, keeper};
use super::{Claim, Finding, Storage, StorageConfig, StorageResult, migrate};

/// The schemas of this crate.
static SCHEMAS: [Schema; 2] = [
    Schema {
        name: "mika",
        statements: include_str!("../schemas/mika/mysql.sql"),
        base: "",
        own: OWN,
        prefix: "",
        migrations: migrate::MYSQL,
        beside: "",
        dialect: Dialect::Mysql,
        followed: &[],
        is_row_by_row: false,
    },
    Schema {
        name: "mika-2015",
        statements: include_str!("../schemas/mika-2015/mysql.sql"),
        base: "",
        own: OWN,
        prefix: "mika_",
        migrations: migrate::MYSQL_2015,
        beside: "",
        dialect: Dialect::Mysql,
        followed: &[],
        is_row_by_row: false,
    },
];

/// The statements about Mika's own tables.
const OWN: &str = include_str!("../schemas/own/mysql.sql");

/// A database on a server.
struct Mysql {
    link: MysqlLink,
    schema: &'static Schema,
    statements: Arc<Statements>,
}

/// The schemas of this driver.
pub(super) fn schemas() -> &'static [Schema] {
    &SCHEMAS
}

/// Opens the database of a URL; the first call connects.
pub fn open(config: &StorageConfig) -> StorageResult<Arc<dyn Storage>> {
    let schema = statements::chosen(&SCHEMAS, config)?;
    let statements = sql::statements(schema, config)?;
    let database = Mysql {
        link: MysqlLink::new(&config.url)?,
        schema,
        statements: Arc::clone(&statements),
    };
    Ok(Arc::new(SqlStorage::new(database, statements)))
}

impl Mysql {
    async fn open(&self, job: Use) -> SqlResult<MysqlSession<'_>> {
        let session = self.link.session(&self.statements, job.time_limit()).await;
        session.map_err(|fault| fault.told(self.link.place(), ANSWER_TIMEOUT))
    }
}

#[async_trait]
impl SqlDatabase for Mysql {
    fn schema(&self) -> &'static Schema {
        self.schema
    }

    fn reader(&self) -> Option<Self> {
        Some(Self {
            link: MysqlLink::of(self.link.dial.clone()),
            schema: self.schema,
            statements: Arc::clone(&self.statements),
        })
    }

    async fn session(&self, job: Use) -> SqlResult<Box<dyn SqlSession + '_>> {
        Ok(Box::new(self.open(job).await?))
    }

    async fn claim(&self, identity: &str) -> StorageResult<Claim> {
        let servers = self.link.dial.each();
        let locks = servers.map(|dial| NamedLock::new(dial, identity));
        keeper::claim(locks.collect()).await
    }

    async fn check_servers(&self) -> Vec<Finding> {
        self.link.dial.check().await
    }
}
