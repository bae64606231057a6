//! A site's database on either server, and the SQL in which they differ.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::galera::Galera;
use super::mariadb::MariaDb;
use super::net::Host;
use super::postgres::Postgres;
use super::standby::Pair;

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
    /// MariaDB on three nodes.
    Galera,
    /// PostgreSQL with a standby that follows synchronously.
    Standby,
    /// PostgreSQL with a standby that may lack the last transactions.
    LaggingStandby,
}

/// The server with the site's database. SQL runs there as an administrator.
pub enum SiteDatabase {
    MariaDb(MariaDb),
    Postgres(Postgres),
    Galera(Galera),
    Standby(Pair),
}

/// The same work on whichever server it is; of several, the one that SQL runs on.
macro_rules! on {
    ($database:expr, |$server:ident| $work:expr) => {
        match $database {
            SiteDatabase::MariaDb($server) => $work,
            SiteDatabase::Postgres($server) => $work,
            SiteDatabase::Galera($server) => $work,
            SiteDatabase::Standby($server) => $work,
        }
    };
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
            Database::Postgres => {
                let server = Postgres::start();
                Self::fill_postgres(&server);
                Self::Postgres(server)
            }
            Database::Galera => {
                let cluster = Galera::start();
                Self::fill_mariadb(&cluster);
                Self::Galera(cluster)
            }
            Database::Standby | Database::LaggingStandby => {
                let pair = Pair::start(database == Database::Standby);
                Self::fill_postgres(&pair);
                pair.is_level();
                Self::Standby(pair)
            }
        }
    }

    /// A MariaDB on a host of its own network.
    pub fn start_in(host: &Host) -> Self {
        Self::of_mariadb(MariaDb::start_in(host))
    }

    fn of_mariadb(server: MariaDb) -> Self {
        Self::fill_mariadb(&server);
        Self::MariaDb(server)
    }

    fn fill_mariadb(server: &MariaDb) {
        server.database(DATABASE);
        server.sql(&format!(
            "CREATE USER {ACCOUNT} IDENTIFIED BY '{PASSWORD}';
             GRANT {PRIVILEGES} ON {DATABASE}.* TO {ACCOUNT}"
        ));
    }

    fn fill_postgres(server: &Postgres) {
        server.database(DATABASE);
        server.sql(
            DATABASE,
            &format!(
                "CREATE ROLE {ACCOUNT} LOGIN PASSWORD '{PASSWORD}';
                 GRANT CREATE, USAGE ON SCHEMA public TO {ACCOUNT}"
            ),
        );
    }

    /// The server, for tests of what only MariaDB has.
    pub fn mariadb(&self) -> &MariaDb {
        match self {
            Self::MariaDb(server) => server,
            _ => panic!("the site has no MariaDB of its own"),
        }
    }

    fn is_mariadb(&self) -> bool {
        matches!(self, Self::MariaDb(_) | Self::Galera(_))
    }

    fn driver(&self) -> &'static str {
        if self.is_mariadb() {
            "mysql"
        } else {
            "postgres"
        }
    }

    pub fn address(&self) -> SocketAddr {
        on!(self, |server| server.address())
    }

    /// The daemon's way to it.
    pub fn url(&self) -> String {
        let addresses = match self {
            Self::Galera(cluster) => cluster.addresses(),
            Self::Standby(pair) => pair.addresses(),
            _ => vec![self.address()],
        };
        let hosts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let driver = self.driver();
        format!(
            "{driver}://{ACCOUNT}:{PASSWORD}@{}/{DATABASE}",
            hosts.join(",")
        )
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
            Self::Galera(cluster) => cluster.try_sql_in(DATABASE, sql),
            Self::Standby(pair) => pair.try_sql(DATABASE, sql),
        }
    }

    /// The numbers of one row.
    pub fn row<const N: usize>(&self, sql: &str) -> [i64; N] {
        numbers(sql, &self.sql(sql))
    }

    /// A value of a binary column.
    pub fn bytes(&self, hex: &str) -> String {
        if self.is_mariadb() {
            format!("X'{hex}'")
        } else {
            format!("decode('{hex}', 'hex')")
        }
    }

    /// A binary column as upper-case hex.
    pub fn hex(&self, column: &str) -> String {
        if self.is_mariadb() {
            format!("HEX({column})")
        } else {
            format!("upper(encode({column}, 'hex'))")
        }
    }

    /// Lets the server confirm what it may lose in a crash, until its next start at least.
    pub fn confirms_too_early(&self) -> Result<(), String> {
        let statements: &[&str] = if self.is_mariadb() {
            &["SET GLOBAL innodb_flush_log_at_trx_commit = 0"]
        } else {
            // It writes every ten seconds at most, so that a crash does lose something.
            &[
                "ALTER SYSTEM SET synchronous_commit = off",
                "ALTER SYSTEM SET wal_writer_delay = '10s'",
                "SELECT pg_reload_conf()",
            ]
        };
        statements
            .iter()
            .try_for_each(|sql| self.try_sql(sql).map(drop))
    }

    /// Ends the server as a crash would.
    pub fn kill9(&mut self) {
        on!(self, |server| server.kill9());
    }

    /// Ends the server in order.
    pub fn stop(&mut self) {
        on!(self, |server| server.stop());
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        on!(self, |server| server.restart());
    }

    /// Stops it from running; connections stay.
    pub fn pause(&self) {
        on!(self, |server| server.pause());
    }

    pub fn resume(&self) {
        on!(self, |server| server.resume());
    }

    /// Stops it, starts it again, and returns a copy of its data as they were in between.
    pub fn back_up(&mut self) -> TempDir {
        on!(self, |server| server.back_up())
    }

    /// Starts it again with the data of a copy, as after a failover to a replica that was behind.
    pub fn go_back_to(&mut self, backup: &TempDir) {
        on!(self, |server| server.go_back_to(backup));
    }
}
