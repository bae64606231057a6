//! A site's database on either server, and the SQL in which they differ.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::copy;
use super::galera::Galera;
use super::mariadb::MariaDb;
use super::net::Host;
use super::postgres::Postgres;
use super::session::Session;
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

/// Makes two tests of each of these functions, `NAME::on_mariadb` and `NAME::on_postgresql`: it is run with
/// either [`Database`].
#[macro_export]
macro_rules! on_each_database {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use $crate::harness::database::Database;

            #[test]
            fn on_mariadb() {
                super::$test(Database::MariaDb);
            }

            #[test]
            fn on_postgresql() {
                super::$test(Database::Postgres);
            }
        }
    )+};
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

    /// One server on a host of its own network.
    pub fn start_in(database: Database, host: &Host) -> Self {
        match database {
            Database::MariaDb => Self::of_mariadb(MariaDb::start_in(host)),
            Database::Postgres => Self::of_postgres(Postgres::start_in(host)),
            _ => panic!("several servers on one host"),
        }
    }

    fn of_postgres(server: Postgres) -> Self {
        Self::fill_postgres(&server);
        Self::Postgres(server)
    }

    fn of_mariadb(server: MariaDb) -> Self {
        Self::fill_mariadb(&server);
        Self::MariaDb(server)
    }

    fn fill_mariadb(server: &MariaDb) {
        let account = format!("CREATE USER {ACCOUNT} IDENTIFIED BY '{PASSWORD}'");
        server.sql(&account);
        Self::create_on_mariadb(server, DATABASE);
    }

    fn fill_postgres(server: &Postgres) {
        let account = format!("CREATE ROLE {ACCOUNT} LOGIN PASSWORD '{PASSWORD}'");
        server.sql("postgres", &account);
        server.require_password(ACCOUNT);
        Self::create_on_postgres(server, DATABASE);
    }

    fn create_on_mariadb(server: &MariaDb, name: &str) {
        server.database(name);
        server.sql(&format!("GRANT {PRIVILEGES} ON {name}.* TO {ACCOUNT}"));
    }

    fn create_on_postgres(server: &Postgres, name: &str) {
        server.database(name);
        let grant = format!("GRANT CREATE, USAGE ON SCHEMA public TO {ACCOUNT}");
        server.sql(name, &grant);
    }

    /// Creates another empty database of the daemon's account on the same server.
    pub fn create(&self, name: &str) {
        match self {
            Self::MariaDb(server) => Self::create_on_mariadb(server, name),
            Self::Postgres(server) => Self::create_on_postgres(server, name),
            Self::Galera(cluster) => Self::create_on_mariadb(cluster, name),
            Self::Standby(pair) => Self::create_on_postgres(pair, name),
        }
    }

    /// The server, for tests of what only MariaDB has.
    pub fn mariadb(&self) -> &MariaDb {
        match self {
            Self::MariaDb(server) => server,
            _ => panic!("the site has no MariaDB of its own"),
        }
    }

    /// The two servers, for tests of what takes place when one of them takes over.
    pub fn standby(&mut self) -> &mut Pair {
        match self {
            Self::Standby(pair) => pair,
            _ => panic!("the site has no standby"),
        }
    }

    pub fn is_mariadb(&self) -> bool {
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
            Self::Standby(pair) => pair.addresses().to_vec(),
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
        self.try_sql_in(DATABASE, sql)
    }

    /// The same in another database of the server.
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        self.try_sql_in(database, sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn try_sql_in(&self, database: &str, sql: &str) -> Result<String, String> {
        match self {
            Self::MariaDb(server) => server.try_sql_in(database, sql),
            Self::Postgres(server) => server.try_sql(database, sql),
            Self::Galera(cluster) => cluster.try_sql_in(database, sql),
            Self::Standby(pair) => pair.try_sql(database, sql),
        }
    }

    /// A client of an administrator that stays connected.
    pub fn session(&self) -> Session {
        on!(self, |server| server.session(DATABASE))
    }

    /// A backup, as docs/operations.md makes it.
    pub fn dump(&self) -> Vec<u8> {
        on!(self, |server| server.dump(DATABASE))
    }

    /// Brings the database to what the backup has.
    pub fn restore(&self, dump: &[u8]) {
        on!(self, |server| server.restore(DATABASE, dump));
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

    /// The server's clock in seconds.
    pub fn unix_time(&self) -> &'static str {
        if self.is_mariadb() {
            "UNIX_TIMESTAMP()"
        } else {
            "floor(EXTRACT(EPOCH FROM now()))::bigint"
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

    /// Starts it again if it has ended by itself.
    pub fn revive(&mut self) {
        let has_ended = match self {
            Self::MariaDb(server) => server.has_ended(),
            Self::Postgres(server) => server.has_ended(),
            _ => panic!("the database has several servers"),
        };
        if has_ended {
            self.restart();
        }
    }

    /// Stops it from running; connections stay.
    pub fn pause(&self) {
        on!(self, |server| server.pause());
    }

    pub fn resume(&self) {
        on!(self, |server| server.resume());
    }

    /// The folder with the folder `data`.
    fn folder(&self) -> &Path {
        on!(self, |server| server.folder())
    }

    /// Stops it, starts it again, and returns a copy of its data as they were in between.
    pub fn back_up(&mut self) -> TempDir {
        self.stop();
        let backup = tempfile::tempdir().expect("a temporary folder");
        copy(&self.folder().join("data"), backup.path());
        self.restart();
        backup
    }

    /// Stops it, and starts it again with the data of a copy, as after a failover to a replica that was behind.
    pub fn go_back_to(&mut self, backup: &TempDir) {
        self.stop();
        let folder = self.folder();
        fs::remove_dir_all(folder.join("data")).expect("the data folder is deleted");
        copy(&backup.path().join("data"), folder);
        self.restart();
    }
}
