//! A MariaDB server of a test's own, in a temporary folder.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::database::numbers;
use super::net::{self, Host};
use super::session::Session;
use super::{copy, free_port, poll, send};

/// How long the server may take to start or to stop.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often a server is started on another port when the free one was taken meanwhile.
const PORT_ATTEMPTS: u32 = 5;

/// Where a server listens that has an address for itself.
const PORT: u16 = 3306;

/// Small and quick: what a crash of the process loses is the same as with larger values.
const OPTIONS: &[&str] = &[
    "--no-defaults",
    "--skip-name-resolve",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    "--key-buffer-size=1M",
    "--aria-pagecache-buffer-size=1M",
    "--performance-schema=OFF",
];

/// A running server. Its root has no password. It is killed when it goes out of scope.
pub struct MariaDb {
    folder: TempDir,
    address: SocketAddr,
    options: Vec<OsString>,
    /// The account that it runs as, if root starts it.
    account: &'static str,
    /// The network namespace that it runs in, if not the machine's own.
    namespace: Option<String>,
    process: Option<Child>,
}

/// The data folder of a new server, made once a process: that takes longer than to copy it.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = Command::new("mariadb-install-db")
            // A server that starts deletes the temporary tables that it finds, whosever they are.
            .env("TMPDIR", folder.path())
            .args(OPTIONS)
            .args([
                "--user=root",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .arg(format!(
                "--datadir={}",
                folder.path().join("data").display()
            ))
            .output()
            .expect("mariadb-install-db starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mariadb-install-db: {text}");
        folder
    });
    made.path()
}

// === impl MariaDb ===

impl MariaDb {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with more options, such as `--max-connections=3`.
    pub fn start_with(options: &[&str]) -> Self {
        Self::launch(options, None)
    }

    /// A server on a host of its own network.
    pub fn start_in(host: &Host) -> Self {
        Self::start_in_with(host, &[])
    }

    /// The same with more options.
    pub fn start_in_with(host: &Host, options: &[&str]) -> Self {
        Self::launch(options, Some(host))
    }

    fn launch(options: &[&str], host: Option<&Host>) -> Self {
        let options = options.iter().map(OsString::from).collect();
        let folder = host.map(Host::folder);
        let folder = folder.unwrap_or_else(|| tempfile::tempdir().expect("a temporary folder"));
        let mut server = Self::prepare(options, "root", folder);
        server.namespace = host.map(|host| host.namespace.clone());
        for _ in 0..PORT_ATTEMPTS {
            server.address = host.map_or_else(free_port, |host| (host.v4, PORT).into());
            if server.try_run(&[]) {
                return server;
            }
        }
        panic!("mariadbd does not start:\n{}", server.log());
    }

    /// A server that does not run yet.
    pub(super) fn prepare(options: Vec<OsString>, account: &'static str, folder: TempDir) -> Self {
        copy(&template().join("data"), folder.path());
        Self {
            folder,
            address: free_port(),
            options,
            account,
            namespace: None,
            process: None,
        }
    }

    /// The folder with its data, its socket and its log.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address that it serves on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The URL of a database, as the config has it.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@{}/{database}", self.address)
    }

    /// Creates an empty database; its URL.
    pub fn database(&self, name: &str) -> String {
        self.sql(&format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4"));
        self.url(name)
    }

    /// Runs SQL as root; the rows, a line each, with tabs between the columns.
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The numbers of one row.
    pub fn row<const N: usize>(&self, sql: &str) -> [i64; N] {
        numbers(sql, &self.sql(sql))
    }

    /// The same, which may fail.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        Self::run(&mut self.client(), sql)
    }

    /// The same in a database.
    pub fn try_sql_in(&self, database: &str, sql: &str) -> Result<String, String> {
        Self::run(self.client().arg(database), sql)
    }

    fn run(client: &mut Command, sql: &str) -> Result<String, String> {
        let output = client
            .args(["--execute", sql])
            .stdin(Stdio::null())
            .output()
            .expect("mariadb starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// A backup of a database, as docs/operations.md makes it.
    pub fn dump(&self, database: &str) -> Vec<u8> {
        let output = Command::new("mariadb-dump")
            .args(["--no-defaults", "--user=root", "--single-transaction"])
            .arg(format!("--socket={}", self.socket().display()))
            .arg(database)
            .output()
            .expect("mariadb-dump starts");
        assert!(output.status.success(), "mariadb-dump: {output:?}");
        output.stdout
    }

    /// Brings a database to what the backup has.
    pub fn restore(&self, database: &str, dump: &[u8]) {
        let file = self.folder.path().join("dump.sql");
        fs::write(&file, dump).expect("a file can be written");
        let file = File::open(file).expect("it is there");
        let restored = self.client().arg(database).stdin(file).status();
        assert!(restored.expect("mariadb starts").success());
    }

    /// The command-line client, connected as root.
    pub fn client(&self) -> Command {
        let mut client = Command::new("mariadb");
        client
            .args([
                "--no-defaults",
                "--user=root",
                "--batch",
                "--skip-column-names",
            ])
            .arg(format!("--socket={}", self.socket().display()));
        client
    }

    /// A client that stays connected to a database.
    pub fn session(&self, database: &str) -> Session {
        let mut client = self.client();
        client.args(["--unbuffered", database]);
        Session::open(client)
    }

    /// Ends the server as a crash would.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("mariadbd runs");
        process.kill().expect("a child can be killed");
        process.wait().expect("a child can be waited for");
    }

    /// Ends the server in order.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("mariadbd runs");
        send(Pid::from_child(&process), Signal::TERM);
        poll(DEADLINE, "mariadbd ends", || {
            process
                .try_wait()
                .expect("a child can be waited for")
                .is_some()
        });
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        super::has_ended(&mut self.process)
    }

    /// Starts it again on the same port, after [`MariaDb::kill9`] or [`MariaDb::stop`].
    pub fn restart(&mut self) {
        self.run_with(&[]);
    }

    /// Starts it with more options, this time.
    pub(super) fn run_with(&mut self, more: &[String]) {
        let has_started = self.try_run(more);
        assert!(has_started, "mariadbd does not start:\n{}", self.log());
    }

    /// Stops it from running, as a machine does that has no time for it; connections stay.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("mariadbd runs");
        send(Pid::from_child(process), signal);
    }

    /// The server with its options.
    pub(super) fn program(&self) -> Command {
        let path = self.folder.path();
        let mut command = match &self.namespace {
            Some(namespace) => net::command_in(namespace, "mariadbd"),
            None => Command::new("mariadbd"),
        };
        command
            .args(OPTIONS)
            .arg(format!("--user={}", self.account))
            .arg(format!("--bind-address={}", self.address.ip()))
            .arg(format!("--datadir={}", path.join("data").display()))
            // A server that starts deletes the temporary tables that it finds there, whosever they are.
            .arg(format!("--tmpdir={}", path.display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--pid-file={}", path.join("pid").display()))
            .arg(format!("--port={}", self.address.port()))
            .args(&self.options)
            .stdin(Stdio::null());
        command
    }

    /// Whether it has started; if not, it has ended.
    fn try_run(&mut self, more: &[String]) -> bool {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a log file");
        let process = self
            .program()
            .args(more)
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("mariadbd starts");
        let socket = self.socket();
        let process = self.process.insert(process);
        let mut has_ended = false;
        poll(DEADLINE, "mariadbd accepts connections", || {
            has_ended = process
                .try_wait()
                .expect("a child can be waited for")
                .is_some();
            has_ended || UnixStream::connect(&socket).is_ok()
        });
        if has_ended {
            self.process = None;
        }
        !has_ended
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            super::print_log("mariadbd", &self.log());
        }
    }
}
