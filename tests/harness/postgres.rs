//! A PostgreSQL server of a test's own, in a temporary folder.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::net::{self, Host};
use super::session::Session;
use super::{account, copy, free_port, poll, send};

/// How long the server may take to start or to stop.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often a server is started on another port when the free one was taken meanwhile.
const PORT_ATTEMPTS: u32 = 5;

/// Where a server listens that has an address for itself.
const PORT: u16 = 5432;

/// Where Debian has the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The account that Debian's package makes: the server does not run as root.
const ACCOUNT: &str = "postgres";
/// The superuser of the server, who has no password.
const SUPERUSER: &str = "mika";

/// Small and quick: what a crash of the process loses is the same as with larger values.
const OPTIONS: &[&str] = &[
    "shared_buffers=16MB",
    "max_wal_size=64MB",
    "max_connections=60",
    "autovacuum=off",
    // In its folder, and not in /dev/shm, where a server that is killed leaves it.
    "dynamic_shared_memory_type=mmap",
];

/// A running server. It is killed when it goes out of scope.
pub struct Postgres {
    folder: TempDir,
    address: SocketAddr,
    options: Vec<OsString>,
    /// The network namespace that it runs in, if not the machine's own.
    namespace: Option<String>,
    process: Option<Child>,
}

/// The folder with the server's programs: `MIKA_POSTGRES_BIN`, to test another version.
fn server_programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let chosen = env::var_os("MIKA_POSTGRES_BIN").map(PathBuf::from);
        chosen.unwrap_or_else(|| programs().to_owned())
    })
}

/// The folder with the programs of the newest version that is installed.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let versions = fs::read_dir(VERSIONS).expect("PostgreSQL is installed");
        let version = |path: &PathBuf| -> u32 {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.parse().ok()).unwrap_or(0)
        };
        let newest = versions
            .map(|entry| entry.expect("a version").path())
            .max_by_key(version);
        newest.expect("a version of PostgreSQL").join("bin")
    })
}

/// One of the server's programs, run by its account.
fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(server_programs().join(name));
    command.current_dir(folder).stdin(Stdio::null());
    if let Some((user, group)) = account(ACCOUNT) {
        command.uid(user).gid(group);
    }
    command
}

/// The server itself in a network namespace, which only root can enter.
fn server_in(namespace: &str, folder: &Path) -> Command {
    let mut command = net::command_in(namespace, "setpriv");
    command.current_dir(folder).stdin(Stdio::null());
    if let Some((user, group)) = account(ACCOUNT) {
        command.args([format!("--reuid={user}"), format!("--regid={group}")]);
        command.arg("--clear-groups");
    }
    command.arg(server_programs().join("postgres"));
    command
}

/// A temporary folder of the server's account.
fn folder() -> TempDir {
    given_away(tempfile::tempdir().expect("a temporary folder"))
}

/// The same folder, now the account's.
fn given_away(folder: TempDir) -> TempDir {
    if let Some((user, group)) = account(ACCOUNT) {
        chown(folder.path(), Some(user), Some(group)).expect("root gives folders away");
    }
    folder
}

/// The data folder of a new server, made once a process: that takes longer than to copy it.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| {
        let folder = folder();
        let output = program("initdb", folder.path())
            .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--username={SUPERUSER}"))
            .arg("--pgdata=data")
            .output()
            .expect("initdb starts");
        assert!(output.status.success(), "initdb: {}", errors(&output));
        folder
    });
    made.path()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// The processes that the server started: one for each connection, and some of its own.
fn parts(process: &Child) -> Vec<Pid> {
    let id = process.id();
    // The server has one thread.
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let children = children.expect("the system tells the children of a process");
    let pids = children
        .split_whitespace()
        .map(|pid| pid.parse().expect("a number"));
    pids.filter_map(Pid::from_raw).collect()
}

/// Kills the server and its parts. Paused ones would not notice its end.
fn kill(mut process: Child) {
    // Stopped, it starts no others and waits for none that ends, so that each number stays that of its part.
    send(Pid::from_child(&process), Signal::STOP);
    for part in parts(&process) {
        let _ = kill_process(part, Signal::KILL);
    }
    let _ = process.kill();
    let _ = process.wait();
}

/// Removes the shared memory that a killed server leaves behind: a machine has 4096 such segments.
fn remove_shared_memory(folder: &Path) {
    // Its seventh line has the key and the id of the segment. A server that has ended in order removes the file.
    let lock = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
    let line = lock.lines().nth(6).unwrap_or_default();
    if let Some(id) = line.split_whitespace().nth(1) {
        // It fails if the server did not get as far as that.
        let _ = Command::new("ipcrm").args(["-m", id]).output();
    }
}

// === impl Postgres ===

impl Postgres {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with more options, such as `max_connections=3`.
    pub fn start_with(options: &[&str]) -> Self {
        Self::launch(options, None)
    }

    /// A server on a host of its own network.
    pub fn start_in(host: &Host) -> Self {
        Self::launch(&[], Some(host))
    }

    fn launch(options: &[&str], host: Option<&Host>) -> Self {
        let mut server = Self {
            folder: host.map_or_else(folder, |host| given_away(host.folder())),
            address: free_port(),
            options: options.iter().map(OsString::from).collect(),
            namespace: host.map(|host| host.namespace.clone()),
            process: None,
        };
        copy(&template().join("data"), server.folder.path());
        for _ in 0..PORT_ATTEMPTS {
            server.address = match host {
                Some(host) => (host.v4, PORT).into(),
                None => (Ipv4Addr::LOCALHOST, free_port().port()).into(),
            };
            if server.try_run() {
                return server;
            }
        }
        panic!("postgres does not start:\n{}", server.log());
    }

    /// The folder with its data, its socket and its log.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address that it serves on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a database, as the config has it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@{}/{database}", self.address)
    }

    /// The same by the Unix socket.
    pub fn url_by_socket(&self, database: &str) -> String {
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        let port = self.address.port();
        format!("postgres://{SUPERUSER}@{folder}:{port}/{database}")
    }

    /// Creates an empty database; its URL.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// Runs SQL in a database; the rows, a line each, with tabs between the columns.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, which may fail.
    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut client = self.client(database);
        let client = client.args(["--command", sql]).stdin(Stdio::null());
        let output = client.output().expect("psql starts");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(errors(&output))
        }
    }

    /// The command-line client, connected to a database as the superuser, wherever the server is.
    fn client(&self, database: &str) -> Command {
        let url = match self.namespace {
            Some(_) => self.url_by_socket(database),
            None => self.url(database),
        };
        let mut client = Command::new(programs().join("psql"));
        client
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--field-separator=\t", "--set=ON_ERROR_STOP=1"])
            .arg(format!("--dbname={url}"));
        client
    }

    /// A client that stays connected to a database.
    pub fn session(&self, database: &str) -> Session {
        Session::open(self.client(database))
    }

    /// A backup of a database, as docs/operations.md makes it.
    pub fn dump(&self, database: &str) -> Vec<u8> {
        let output = Command::new(programs().join("pg_dump"))
            .args(["--clean", "--if-exists"])
            .arg(format!("--dbname={}", self.url(database)))
            .output()
            .expect("pg_dump starts");
        assert!(output.status.success(), "pg_dump: {}", errors(&output));
        output.stdout
    }

    /// Brings a database to what the backup has.
    pub fn restore(&self, database: &str, dump: &[u8]) {
        let file = self.folder.path().join("dump.sql");
        fs::write(&file, dump).expect("a file can be written");
        let output = self
            .client(database)
            .arg("--single-transaction")
            .stdin(File::open(file).expect("it is there"))
            .output()
            .expect("psql starts");
        assert!(output.status.success(), "psql: {}", errors(&output));
    }

    /// Lets an account in by its password only, unlike others.
    pub fn require_password(&self, account: &str) {
        let path = self.folder.path().join("data/pg_hba.conf");
        let others = fs::read_to_string(&path).expect("the server has it");
        // The first line that fits counts. To hash the password is slow in a debug build.
        let text = format!("host all {account} all password\n{others}");
        fs::write(&path, text).expect("a file can be written");
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// Ends the server as a crash would, with the processes that it started.
    pub fn kill9(&mut self) {
        let process = self.process.take().expect("postgres runs");
        kill(process);
    }

    /// Ends the server in order; clients are cut off.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("postgres runs");
        send(Pid::from_child(&process), Signal::INT);
        poll(DEADLINE, "postgres ends", || {
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

    /// Starts it again on the same port, after [`Postgres::kill9`] or [`Postgres::stop`].
    pub fn restart(&mut self) {
        // The processes of a server that was killed end by themselves, and the next one waits for that.
        poll(DEADLINE, "postgres starts again", || self.try_run());
    }

    /// Stops it from running, as a machine does that has no time for it; connections stay.
    pub fn pause(&self) {
        let process = self.process.as_ref().expect("postgres runs");
        // First: it starts no others after that, and waits for none that ends.
        send(Pid::from_child(process), Signal::STOP);
        for part in parts(process) {
            send(part, Signal::STOP);
        }
    }

    pub fn resume(&self) {
        let process = self.process.as_ref().expect("postgres runs");
        for part in parts(process) {
            send(part, Signal::CONT);
        }
        send(Pid::from_child(process), Signal::CONT);
    }

    /// A standby of this server, which follows it.
    pub fn standby(&self) -> Self {
        let mut standby = Self {
            folder: folder(),
            address: (Ipv4Addr::LOCALHOST, free_port().port()).into(),
            options: self.options.clone(),
            namespace: self.namespace.clone(),
            process: None,
        };
        standby.follow(self);
        standby
    }

    /// Makes it a standby of `primary`, with a new copy of its data, after [`Postgres::kill9`] or [`Postgres::stop`].
    pub fn follow(&mut self, primary: &Self) {
        let data = self.folder.path().join("data");
        if data.exists() {
            fs::remove_dir_all(&data).expect("the data folder is deleted");
        }
        let output = program("pg_basebackup", self.folder.path())
            .args([
                "--pgdata=data",
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--no-sync",
            ])
            .arg(format!("--dbname={}", primary.url("postgres")))
            .output()
            .expect("pg_basebackup starts");
        assert!(
            output.status.success(),
            "pg_basebackup: {}",
            errors(&output)
        );
        self.restart();
    }

    /// Makes a standby a primary.
    pub fn promote(&self) {
        self.sql("postgres", "SELECT pg_promote()");
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Whether it has started; if not, it has ended.
    fn try_run(&mut self) -> bool {
        let path = self.folder.path();
        let log = File::options()
            .create(true)
            .append(true)
            .open(path.join("log"))
            .expect("a log file");
        let mut command = match &self.namespace {
            Some(namespace) => server_in(namespace, path),
            None => program("postgres", path),
        };
        command.arg("-D").arg("data");
        let options = OPTIONS.iter().copied().map(OsString::from);
        for option in options.chain(self.options.iter().cloned()) {
            command.arg("-c").arg(option);
        }
        let process = command
            .arg("-c")
            .arg(format!("listen_addresses={}", self.address.ip()))
            .arg("-c")
            .arg(format!("unix_socket_directories={}", path.display()))
            .arg("-p")
            .arg(self.address.port().to_string())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        self.process = Some(process);
        let mut has_ended = false;
        poll(DEADLINE, "postgres accepts connections", || {
            let process = self.process.as_mut().expect("it was started");
            has_ended = process
                .try_wait()
                .expect("a child can be waited for")
                .is_some();
            has_ended || self.try_sql("postgres", "SELECT 1").is_ok()
        });
        if has_ended {
            self.process = None;
        }
        !has_ended
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            kill(process);
        }
        remove_shared_memory(self.folder.path());
        if std::thread::panicking() {
            super::print_log("postgres", &self.log());
        }
    }
}
