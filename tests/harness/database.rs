//! A site's database on either server, and the SQL in which they differ.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::mariadb::MariaDb;
use super::net::Host;
use super::postgres::Postgres;

/// Its name.
pub const DATABASE: &str = "site";

/// The daemon's account, and its password.
pub const ACCOUNT: &str = "tracker";
pub const PASSWORD: &str = "long-and-secret";

/// What docs/sql.md gives the account on MySQL and MariaDB.
const PRIVILEGES: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, TRIGGER";

/// Which server a site has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    MariaDb,
    Postgres,
}

/// The server with the site's database. SQL runs there as an administrator.
pub enum SiteDatabase {
    MariaDb(MariaDb),
    Postgres(Postgres),
}

/// The numbers of a row, which is the answer to `sql`.
pub fn numbers<const N: usize>(sql: &str, row: &str) -> [i64; N] {
    let numbers = row.split_whitespace().map(|word| {
        let number = word.parse();
        number.unwrap_or_else(|error| panic!("{sql}: {word}: {error}"))
    });
    let numbers: Vec<i64> = numbers.collect();
    numbers
        .try_into()
        .unwrap_or_else(|found| panic!("{sql}: expected {N} numbers, found {found:?}"))
}

// === impl SiteDatabase ===

impl SiteDatabase {
    /// A server with the empty database, and the daemon's account.
    pub fn start(database: Database) -> Self {
        match database {
            Database::MariaDb => Self::of_mariadb(MariaDb::start()),
            Database::Postgres => Self::of_postgres(Postgres::start()),
        }
    }

    /// A MariaDB on a host of its own network.
    pub fn start_in(host: &Host) -> Self {
        Self::of_mariadb(MariaDb::start_in(host))
    }

    fn of_mariadb(server: MariaDb) -> Self {
        server.database(DATABASE);
        server.sql(&format!(
            "CREATE USER {ACCOUNT} IDENTIFIED BY '{PASSWORD}';
             GRANT {PRIVILEGES} ON {DATABASE}.* TO {ACCOUNT}"
        ));
        Self::MariaDb(server)
    }

    fn of_postgres(server: Postgres) -> Self {
        server.database(DATABASE);
        server.sql(
            DATABASE,
            &format!(
                "CREATE ROLE {ACCOUNT} LOGIN PASSWORD '{PASSWORD}';
                 GRANT CREATE, USAGE ON SCHEMA public TO {ACCOUNT}"
            ),
        );
        Self::Postgres(server)
    }

    /// The server, for tests of what only MariaDB has.
    pub fn mariadb(&self) -> &MariaDb {
        match self {
            Self::MariaDb(server) => server,
            Self::Postgres(_) => panic!("the site has no MariaDB"),
        }
    }

    fn driver(&self) -> &'static str {
        match self {
            Self::MariaDb(_) => "mysql",
            Self::Postgres(_) => "postgres",
        }
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Self::MariaDb(server) => server.address(),
            Self::Postgres(server) => server.address(),
        }
    }

    /// The daemon's way to it.
    pub fn url(&self) -> String {
        let (driver, address) = (self.driver(), self.address());
        format!("{driver}://{ACCOUNT}:{PASSWORD}@{address}/{DATABASE}")
    }

    /// What the daemon's config says of it.
    pub fn config(&self) -> Value {
        json!({ "driver": self.driver(), "url": self.url() })
    }

    /// Runs SQL; the rows, a line each, with tabs between the columns.
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, which may fail.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        match self {
            Self::MariaDb(server) => server.try_sql_in(DATABASE, sql),
            Self::Postgres(server) => server.try_sql(DATABASE, sql),
        }
    }

    /// The numbers of one row.
    pub fn row<const N: usize>(&self, sql: &str) -> [i64; N] {
        numbers(sql, &self.sql(sql))
    }

    /// A value of a binary column.
    pub fn bytes(&self, hex: &str) -> String {
        match self {
            Self::MariaDb(_) => format!("X'{hex}'"),
            Self::Postgres(_) => format!("decode('{hex}', 'hex')"),
        }
    }

    /// A binary column as upper-case hex.
    pub fn hex(&self, column: &str) -> String {
        match self {
            Self::MariaDb(_) => format!("HEX({column})"),
            Self::Postgres(_) => format!("upper(encode({column}, 'hex'))"),
        }
    }

    /// Lets the server confirm what it may lose in a crash, until its next start at least.
    pub fn confirms_too_early(&self) -> Result<(), String> {
        let statements: &[&str] = match self {
            Self::MariaDb(_) => &["SET GLOBAL innodb_flush_log_at_trx_commit = 0"],
            // It writes every ten seconds at most, so that a crash does lose something.
            Self::Postgres(_) => &[
                "ALTER SYSTEM SET synchronous_commit = off",
                "ALTER SYSTEM SET wal_writer_delay = '10s'",
                "SELECT pg_reload_conf()",
            ],
        };
        statements
            .iter()
            .try_for_each(|sql| self.try_sql(sql).map(drop))
    }

    /// Ends the server as a crash would.
    pub fn kill9(&mut self) {
        match self {
            Self::MariaDb(server) => server.kill9(),
            Self::Postgres(server) => server.kill9(),
        }
    }

    /// Ends the server in order.
    pub fn stop(&mut self) {
        match self {
            Self::MariaDb(server) => server.stop(),
            Self::Postgres(server) => server.stop(),
        }
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        match self {
            Self::MariaDb(server) => server.restart(),
            Self::Postgres(server) => server.restart(),
        }
    }

    /// Stops it from running; connections stay.
    pub fn pause(&self) {
        match self {
            Self::MariaDb(server) => server.pause(),
            Self::Postgres(server) => server.pause(),
        }
    }

    pub fn resume(&self) {
        match self {
            Self::MariaDb(server) => server.resume(),
            Self::Postgres(server) => server.resume(),
        }
    }

    /// Stops it, starts it again, and returns a copy of its data as they were in between.
    pub fn back_up(&mut self) -> TempDir {
        match self {
            Self::MariaDb(server) => server.back_up(),
            Self::Postgres(server) => server.back_up(),
        }
    }

    /// Starts it again with the data of a copy, as after a failover to a replica that was behind.
    pub fn go_back_to(&mut self, backup: &TempDir) {
        match self {
            Self::MariaDb(server) => server.go_back_to(backup),
            Self::Postgres(server) => server.go_back_to(backup),
        }
    }
}
