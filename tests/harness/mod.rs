//! Shared by tests of the whole program: a `mika` in a folder of its own, HTTP to it,
//! and networks to run it in. Nothing here sleeps without a deadline.

#![allow(dead_code)] // each test binary uses a part of it
#![allow(clippy::print_stderr)] // output of a failed test

pub mod api;
pub mod batter;
pub mod certificate;
pub mod clock;
pub mod cluster;
pub mod database;
pub mod disk;
pub mod galera;
pub mod http;
pub mod load;
pub mod mariadb;
pub mod net;
pub mod postgres;
pub mod redis;
pub mod sentinel;
pub mod session;
pub mod site;
pub mod standby;
pub mod steady;
pub mod udp;

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a program may take to start or to stop.
pub const PROGRAM_DEADLINE: Duration = Duration::from_secs(30);

/// How often a daemon is started on another port when the free one was taken meanwhile.
const PORT_ATTEMPTS: u32 = 5;
/// Lines of a database server's log that are shown.
const LOG_LINES: usize = 5;

/// Variables that a test must not inherit from its environment.
pub const SECRETS: [&str; 4] = [
    "MIKA_STORAGE_URL",
    "MIKA_CACHE_URL",
    "MIKA_API_PASSWORD",
    "MIKA_API_TOKEN",
];

/// A daemon with its config, its database and its log in a temporary folder.
/// It is killed when it goes out of scope; if a test fails, its log is shown.
pub struct Mika {
    folder: TempDir,
    config: Value,
    http: SocketAddr,
    /// The network namespace that it runs in, if not the machine's own.
    namespace: Option<String>,
    /// Of its environment.
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    process: Option<Child>,
    /// The program, if not this package's `mika`.
    program: Option<PathBuf>,
    /// The tool, if not this package's `mika-manage` or a program that is both.
    tool: Option<PathBuf>,
    /// How many files it may open, if not as many as this process.
    files: Option<u64>,
}

/// An example, which `cargo test` does not build if it has tests of its own.
pub fn example(name: &str) -> PathBuf {
    let own = env::current_exe().expect("the path of this test");
    let folder = own.ancestors().nth(2).expect("target/debug or the like");
    let program = folder.join("examples").join(name);
    assert!(
        program.exists(),
        "{} is missing; `cargo build --example {name}` makes it",
        program.display()
    );
    program
}

/// A program of the Python packages that `scripts/test` installs.
pub fn python_tool(name: &str) -> Command {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/bin");
    let program = folder.join(name);
    assert!(
        program.exists(),
        "{} is missing: run scripts/test, which installs it",
        program.display()
    );
    Command::new(program)
}

/// Sends a signal to a child. One that is to stop has stopped then: its threads may go on for a moment.
fn send(process: Pid, signal: Signal) {
    kill_process(process, signal).expect("the process runs");
    if signal == Signal::STOP {
        poll(PROGRAM_DEADLINE, "the process stops", || {
            has_stopped(process)
        });
    }
}

/// Whether a process has ended by itself; if so, it is forgotten.
fn has_ended(process: &mut Option<Child>) -> bool {
    let status = process
        .as_mut()
        .map(|process| process.try_wait().expect("a child can be waited for"));
    let has_ended = matches!(status, Some(Some(_)));
    if has_ended {
        *process = None;
    }
    has_ended
}

/// Whether no thread of a process runs.
fn has_stopped(process: Pid) -> bool {
    let tasks = format!("/proc/{}/task", process.as_raw_nonzero());
    let mut tasks = fs::read_dir(tasks).expect("the process runs");
    tasks.all(|task| {
        let file = task.expect("a thread").path().join("stat");
        // The state follows the name, which stands in brackets. A thread may have ended meanwhile.
        let stat = fs::read_to_string(file).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    })
}

/// Calls `condition` until it is true; panics with `what` once `deadline` has passed.
pub fn poll(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = now();
    while !condition() {
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[allow(clippy::disallowed_methods)] // a test's deadline is real time
pub fn now() -> Instant {
    Instant::now()
}

/// Prints the end of a database server's log for a test that failed, or all of it if `MIKA_SERVER_LOGS` is set: it is
/// long, and what the test says should not be lost in it.
fn print_log(server: &str, log: &str) {
    let is_whole = env::var_os("MIKA_SERVER_LOGS").is_some();
    let skipped = if is_whole {
        0
    } else {
        log.lines().count().saturating_sub(LOG_LINES)
    };
    eprintln!("--- {server}, without {skipped} lines (MIKA_SERVER_LOGS=1 shows them) ---");
    log.lines()
        .skip(skipped)
        .for_each(|line| eprintln!("{line}"));
}

/// A number of the environment, by which a test is made longer.
pub fn number(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}: expected a number, found {text:?}")),
        Err(_) => default,
    }
}

/// A port of 127.0.0.1 that no other program gets, also while a daemon restarts: it is below those that
/// the system hands out to listeners on port 0 and to outgoing connections (32768 and up), and no test
/// of this process had it before.
pub fn free_port() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("the ports given");
    let port = |_| SocketAddr::from(([127, 0, 0, 1], fastrand::u16(10_000..32_000)));
    let is_free = |address: &SocketAddr| {
        !given.contains(&address.port()) && TcpListener::bind(address).is_ok()
    };
    let address = (0..1000).map(port).find(is_free).expect("a free port");
    given.insert(address.port());
    address
}

/// User and group of an account that a server runs as; none if the tests don't run as root.
fn account(name: &str) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let fields = accounts
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == name)
        .expect("the account of Debian's package");
    let number = |field: usize| fields[field].parse().expect("a number");
    Some((number(2), number(3)))
}

/// Copies a data folder of a server, with its owner.
fn copy(data: &Path, to: &Path) {
    let copied = Command::new("cp")
        .args(["--archive", "--sparse=always"])
        .args([data, to])
        .status()
        .expect("cp starts");
    assert!(copied.success(), "the data folder is copied");
}

/// Writes the entries of `over` into `base`, dictionary by dictionary.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

// === impl Mika ===

impl Mika {
    /// A daemon that listens on a free port of 127.0.0.1, with SQLite in its folder. `config` holds
    /// what else the test wants. It isn't running yet: [`Mika::manage`] can fill its database first.
    pub fn prepare(config: &Value) -> Self {
        Self::prepare_at(free_port(), None, config)
    }

    /// Like [`Mika::prepare`], on that address.
    pub fn prepare_on(http: SocketAddr, config: &Value) -> Self {
        Self::prepare_at(http, None, config)
    }

    /// Like [`Mika::prepare`], in a network namespace.
    pub fn prepare_in(host: &net::Host, http: SocketAddr, config: &Value) -> Self {
        Self::prepare_at(http, Some(host), config)
    }

    /// Like [`Mika::prepare`], with UDP at these addresses of this host, too, on the port of HTTP.
    pub fn prepare_udp(addresses: &[&str], config: &Value) -> Self {
        let http = free_port();
        let listen: Vec<_> = addresses
            .iter()
            .map(|ip| SocketAddr::new(ip.parse().expect("an address"), http.port()))
            .collect();
        let mut whole = json!({ "udp": { "listen": listen } });
        merge(&mut whole, config);
        Self::prepare_at(http, None, &whole)
    }

    /// A running daemon; see [`Mika::prepare`].
    pub fn start(config: &Value) -> Self {
        let mut mika = Self::prepare(config);
        mika.run();
        mika
    }

    /// The same with more arguments, also at later starts.
    pub fn start_with(config: &Value, arguments: &[&str]) -> Self {
        let mut mika = Self::prepare(config);
        mika.arguments = arguments.iter().map(ToString::to_string).collect();
        mika.run();
        mika
    }

    /// Sets a variable of the environment that the daemon is started in.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts this program in place of `mika`, with the same arguments.
    pub fn use_program(&mut self, program: PathBuf) {
        self.program = Some(program);
    }

    /// Takes `mika` and `mika-manage` from a folder, or this package's again.
    pub fn use_release(&mut self, folder: Option<&Path>) {
        self.program = folder.map(|folder| folder.join("mika"));
        self.tool = folder.map(|folder| folder.join("mika-manage"));
    }

    fn program(&self) -> &str {
        let other = self.program.as_deref().map(|path| path.to_str());
        other.map_or(env!("CARGO_BIN_EXE_mika"), |path| path.expect("UTF-8"))
    }

    /// Lets the daemon open no more files than that from its next start on.
    pub fn limit_files(&mut self, files: u64) {
        self.files = Some(files);
    }

    /// Changes the config file; a running daemon reads it at a reload.
    pub fn reconfigure(&mut self, over: &Value) {
        merge(&mut self.config, over);
        self.write_config();
    }

    /// Starts the daemon, again after [`Mika::stop`] or [`Mika::kill9`], and waits until it accepts.
    pub fn run(&mut self) {
        for attempt in 1.. {
            match self.try_run() {
                Ok(()) => break,
                Err(_) if attempt < PORT_ATTEMPTS && self.log().contains("in use") => {
                    self.move_to(free_port());
                }
                Err(status) => panic!("mika ended with {status}:\n{}", self.log()),
            }
        }
        // The kernel takes connections a moment before it has the sockets that are opened later.
        poll(PROGRAM_DEADLINE, "mika listens for the API", || {
            self.api_listen().all(|it| TcpStream::connect(it).is_ok())
        });
        poll(PROGRAM_DEADLINE, "mika answers over UDP", || {
            self.udp_listen().all(|it| self.answers_at(it))
        });
    }

    /// Starts the daemon and does not wait for anything.
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// The same with more arguments.
    pub fn launch_with(&mut self, arguments: &[&str]) {
        if let Some(before) = &mut self.process {
            let ended = before.try_wait().expect("a child can be waited for");
            assert!(ended.is_some(), "the running process would never end");
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("mika.log"))
            .expect("a log file");
        let program = self.program();
        let mut command = match self.files {
            None => self.command(program),
            Some(files) => {
                // It replaces itself by the program, whose pid is then the child's.
                let mut command = self.command("prlimit");
                command.args([&format!("--nofile={files}"), program]);
                command
            }
        };
        let process = command
            .args(["--config", "config.json"])
            .args(&self.arguments)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("mika starts");
        self.process = Some(process);
    }

    /// The addresses of its API.
    fn api_listen(&self) -> impl Iterator<Item = SocketAddr> {
        let listen = self.config["api"]["listen"].as_array();
        let listen = listen.into_iter().flatten().filter_map(Value::as_str);
        listen.map(|address| address.parse().expect("an address"))
    }

    /// The address that it serves HTTP on.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// An address that it serves UDP on, if it was prepared for it: any one of this host.
    pub fn udp(&self, ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().expect("an address"), self.http.port())
    }

    /// The network namespace that it runs in, if not the machine's own.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The folder with `config.json`, `mika.db` and `mika.log`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the daemon has said so far, on stdout and stderr, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("mika.log")).unwrap_or_default()
    }

    /// The process id of the running daemon.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("mika runs"))
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Stops it from doing anything; its connections stay.
    pub fn pause(&self) {
        send(self.pid(), Signal::STOP);
    }

    pub fn resume(&self) {
        send(self.pid(), Signal::CONT);
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        has_ended(&mut self.process)
    }

    /// Ends the daemon as a crash would. It must not have ended by itself.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("mika runs");
        process.kill().expect("a child can be killed");
        let status = process.wait().expect("a child can be waited for");
        assert_eq!(status.signal(), Some(9), "mika ended with {status}");
    }

    /// Asks the daemon to stop by SIGTERM; its exit code.
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.wait(PROGRAM_DEADLINE)
    }

    /// Waits until the daemon has ended; its exit code.
    pub fn wait(&mut self, deadline: Duration) -> i32 {
        let process = self.process.as_mut().expect("mika was started");
        let mut status = None;
        poll(deadline, "mika ends", || {
            status = process.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        self.process = None;
        status.and_then(|status| status.code()).unwrap_or(-1)
    }

    /// Runs `mika-manage` with the daemon's config.
    pub fn manage(&self, arguments: &[&str]) -> Output {
        let mut command = match (&self.tool, &self.program) {
            (Some(tool), _) => self.command(tool.to_str().expect("UTF-8")),
            (None, None) => self.command(env!("CARGO_BIN_EXE_mika-manage")),
            (None, Some(_)) => {
                let mut command = self.command(self.program());
                command.arg("manage");
                command
            }
        };
        command.args(["--config", "config.json"]).args(arguments);
        command
            .stdin(Stdio::null())
            .output()
            .expect("mika-manage starts")
    }

    /// Runs `mika-manage`, which must succeed; its stdout.
    pub fn managed(&self, arguments: &[&str]) -> String {
        let output = self.manage(arguments);
        assert!(
            output.status.success(),
            "mika-manage {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("mika-manage writes UTF-8")
    }

    /// The body of a GET, from within the daemon's namespace.
    pub fn fetch(&self, target: &str) -> Vec<u8> {
        let url = format!("http://{}{target}", self.http);
        let output = self
            .command("curl")
            .args([
                "--silent",
                "--show-error",
                "--noproxy",
                "*",
                "--max-time",
                "20",
                &url,
            ])
            .output()
            .expect("curl starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "GET {url}: {stderr}");
        output.stdout
    }

    /// The daemon's database, to look into it.
    pub fn storage(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let storage =
            Connection::open_with_flags(self.path("mika.db"), flags).expect("mika.db is there");
        storage
            .busy_timeout(PROGRAM_DEADLINE)
            .expect("a busy timeout can be set");
        storage
    }

    /// The numbers of one row.
    pub fn row<const N: usize>(&self, sql: &str) -> [i64; N] {
        self.storage()
            .query_row(sql, [], |row| {
                let mut numbers = [0; N];
                for (column, number) in numbers.iter_mut().enumerate() {
                    *number = row.get(column)?;
                }
                Ok(numbers)
            })
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Whether the daemon takes a connection at this moment.
    pub fn accepts(&self) -> bool {
        if self.namespace.is_none() {
            return TcpStream::connect(self.http).is_ok();
        }
        let script = format!("exec 3<>/dev/tcp/{}/{}", self.http.ip(), self.http.port());
        self.command("bash")
            .args(["-c", &script])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command in the daemon's folder and namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => net::command_in(namespace, program),
            None => Command::new(program),
        };
        command.current_dir(self.folder.path());
        for secret in SECRETS {
            command.env_remove(secret);
        }
        let variables = self.variables.iter();
        command.envs(variables.map(|(name, value)| (name, value)));
        command
    }

    fn try_run(&mut self) -> Result<(), ExitStatus> {
        self.launch();
        let mut ended = None;
        poll(PROGRAM_DEADLINE, "mika accepts connections", || {
            let process = self.process.as_mut().expect("mika was started");
            ended = process.try_wait().expect("a child can be waited for");
            ended.is_some() || self.accepts()
        });
        ended.map_or(Ok(()), Err)
    }

    fn udp_listen(&self) -> impl Iterator<Item = SocketAddr> {
        let listen = self.config["udp"]["listen"]
            .as_array()
            .into_iter()
            .flatten();
        listen.map(|address| {
            let text = address.as_str().expect("an address");
            text.parse().expect("an address")
        })
    }

    /// Whether a connect that is sent there is answered.
    fn answers_at(&self, udp: SocketAddr) -> bool {
        match &self.namespace {
            Some(namespace) => net::within(namespace, || udp::is_there(udp)),
            None => udp::is_there(udp),
        }
    }

    fn move_to(&mut self, http: SocketAddr) {
        self.config["http"]["listen"] = json!([http]);
        // UDP listeners keep their addresses, and go along with the port.
        if let Some(listen) = self.config["udp"]["listen"].as_array_mut() {
            for address in listen {
                let text = address.as_str().unwrap_or_default();
                let of_old = format!(":{}", self.http.port());
                if let Some(ip) = text.strip_suffix(&of_old) {
                    *address = json!(format!("{ip}:{}", http.port()));
                }
            }
        }
        self.http = http;
        fs::remove_file(self.path("mika.log")).expect("the log of the last attempt");
        self.write_config();
    }

    fn write_config(&self) {
        fs::write(self.path("config.json"), self.config.to_string()).expect("config.json");
    }

    fn prepare_at(http: SocketAddr, host: Option<&net::Host>, config: &Value) -> Self {
        let mut whole = json!({
            "http": { "listen": [http] },
            "udp": { "listen": [] },
            "api": { "listen": [] },
            "cache": { "driver": "memory" },
            "storage": { "driver": "sqlite", "url": "sqlite://mika.db" },
        });
        merge(&mut whole, config);
        let mika = Self {
            folder: host.map_or_else(
                || tempfile::tempdir().expect("a temporary folder"),
                net::Host::folder,
            ),
            config: whole,
            http,
            namespace: host.map(|host| host.namespace.clone()),
            variables: Vec::new(),
            arguments: Vec::new(),
            process: None,
            program: None,
            tool: None,
            files: None,
        };
        mika.write_config();
        mika
    }
}

impl Drop for Mika {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            match process.kill() {
                Ok(()) => drop(process.wait()),
                Err(error) if error.kind() == ErrorKind::InvalidInput => {} // it has ended
                Err(error) => eprintln!("mika could not be killed: {error}"),
            }
        }
        if thread::panicking() {
            eprintln!("--- mika.log ---\n{}", self.log());
        }
    }
}
