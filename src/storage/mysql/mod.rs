//! The MySQL and MariaDB driver: a web application's own database on its own server.
//!
//! The engine runs its named statements on connections of a small pool (`link`, `session`), where every wait has a
//! timeout. The SQL in this folder is about the server itself: sessions, migrations, locks, privileges, and
//! whether the site's tables and columns are as Mika needs them.

mod cells;
mod check;
mod claim;
mod columns;
mod definers;
mod durability;
mod fault;
mod feed;
mod hashes;
mod inspect;
mod link;
mod misfit;
mod refused;
mod rights;
mod rows;
mod session;
mod settings;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::definers::Trial;
use self::link::{ANSWER_TIMEOUT, MysqlLink, WHOLE_TABLE_TIMEOUT};
use self::session::MysqlSession;
use super::sql::database::{SqlDatabase, SqlFault, SqlSession, Use};
use super::sql::header::Dialect;
use super::sql::job::{Repeat, Retries};
use super::sql::statements::{self, Schema, Statements};
use super::sql::{self, SqlStorage};
use super::{Claim, Finding, MigrationStatus, Storage, StorageConfig, StorageError, migrate};
use crate::base::secret::Secret;
use crate::base::url;

/// The schemas of this crate.
static SCHEMAS: [Schema; 2] = [
    Schema {
        name: "mika",
        statements: include_str!("../schemas/mika/mysql.sql"),
        base: "",
        own: OWN,
        prefix: "",
        migrations: migrate::MYSQL,
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

pub(super) fn check_url(url: &Secret) -> Result<(), String> {
    let form = "mysql://USER:PASSWORD@HOST:PORT/DATABASE";
    url::check_scheme(url, "mysql", &["mysql", "mariadb"], form)?;
    url::check_login(url, true)
}

/// The schemas of this driver.
pub(super) fn schemas() -> &'static [Schema] {
    &SCHEMAS
}

/// Opens the database of a URL; the first call connects.
pub fn open(config: &StorageConfig) -> Result<Arc<dyn Storage>, StorageError> {
    let schema = statements::chosen(&SCHEMAS, config)?;
    let statements = sql::statements(schema, config)?;
    let database = Mysql {
        link: MysqlLink::new(&config.url)?,
        schema,
        statements: Arc::clone(&statements),
    };
    Ok(Arc::new(SqlStorage::new(database, statements)))
}

/// Runs a job of the driver's own on a session, and retries it where that may help. (A macro, because the compiler
/// can't prove yet that the future of an async closure is `Send`.)
macro_rules! job {
    ($database:expr, $use:expr, |$session:ident| $work:expr) => {{
        let mut retries = Retries::new(Repeat::Harmless);
        loop {
            let opened = $database.open($use).await;
            let mut opened = opened.map_err(|fault| fault.error)?;
            let $session = &mut opened;
            let result = $work.await;
            match opened.finish(result).await {
                Ok(done) => return Ok(done),
                Err(fault) if retries.wait(&fault).await => {}
                Err(fault) => return Err(fault.error),
            }
        }
    }};
}

impl Mysql {
    async fn open(&self, job: Use) -> Result<MysqlSession<'_>, SqlFault> {
        let session = self.link.session(&self.statements, time_limit(job)).await;
        session.map_err(|fault| fault.told(self.link.place(), ANSWER_TIMEOUT))
    }
}

/// How long a job waits for each answer.
fn time_limit(job: Use) -> Duration {
    match job {
        Use::Read | Use::Write => ANSWER_TIMEOUT,
        Use::WholeTables => WHOLE_TABLE_TIMEOUT,
    }
}

#[async_trait]
impl SqlDatabase for Mysql {
    fn schema(&self) -> &'static Schema {
        self.schema
    }

    async fn session(&self, job: Use) -> Result<Box<dyn SqlSession + '_>, SqlFault> {
        Ok(Box::new(self.open(job).await?))
    }

    async fn claim(&self, identity: &str) -> Result<Claim, StorageError> {
        claim::claim(self.link.dial.clone(), identity).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StorageError> {
        job!(self, Use::WholeTables, |session| {
            tables::migrate(session, self.schema)
        })
    }

    async fn migrations(&self) -> Result<Vec<MigrationStatus>, StorageError> {
        job!(self, Use::Read, |session| {
            tables::migrations(session, self.schema)
        })
    }

    async fn check(&self) -> Result<(Vec<Finding>, bool), StorageError> {
        job!(self, Use::WholeTables, |session| {
            check::check(session, self.schema)
        })
    }

    async fn check_schema(&self) -> Result<Vec<Finding>, StorageError> {
        job!(self, Use::Read, |session| check::schema(
            session,
            self.schema
        ))
    }

    async fn inspect(&self) -> Result<Vec<Finding>, StorageError> {
        job!(self, Use::Read, |session| {
            inspect::inspect(session, self.schema, Trial::Credit)
        })
    }

    async fn durability(&self) -> Result<Vec<Finding>, StorageError> {
        job!(self, Use::Read, |session| durability::inspect(session))
    }
}
