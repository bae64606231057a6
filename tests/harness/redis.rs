//! A Redis server of a test's own: in a temporary folder, on a free port and on a Unix socket.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::net::{self, Host};
use super::{free_port, poll, send};

/// How long a server may take to start or to stop.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long a rewrite of the log may take: after some that failed, Redis waits for a minute or more.
const REWRITTEN: Duration = Duration::from_secs(180);

/// How often a server is started on another port when the free one was taken meanwhile.
const PORT_ATTEMPTS: u32 = 5;

/// The config file of a server, which is empty until the server writes it: a server that others made a replica or a
/// master is the same after a restart.
const CONFIG: &str = "redis.conf";

/// Where a server listens that has an address for itself.
const PORT: u16 = 6379;

/// Keeps what was written when the process is killed. `--appendfsync everysec` is the default.
pub const AOF: [&str; 2] = ["--appendonly", "yes"];

/// The server's program: `MIKA_REDIS_SERVER` names another one, such as `valkey-server`.
pub fn program() -> String {
    env::var("MIKA_REDIS_SERVER").unwrap_or_else(|_| "redis-server".into())
}

/// Whether a server with these arguments speaks TLS, and nothing else.
pub fn has_tls<S: AsRef<str>>(arguments: &[S]) -> bool {
    arguments.iter().any(|it| it.as_ref() == "--tls-cert-file")
}

/// A server with its log and its data. It is killed when it goes out of scope.
pub struct Redis {
    folder: TempDir,
    address: SocketAddr,
    arguments: Vec<String>,
    /// What clients log in with.
    password: Option<String>,
    /// The network namespace that it runs in, if not the machine's own.
    namespace: Option<String>,
    process: Option<Child>,
}

// === impl Redis ===

impl Redis {
    /// A server that keeps everything in memory only.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments for `redis-server`, such as [`AOF`].
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::launch(arguments, None, None)
    }

    /// A server on a host of its own network.
    pub fn start_in(host: &Host) -> Self {
        Self::start_in_with(host, &[])
    }

    /// The same with more arguments.
    pub fn start_in_with(host: &Host, arguments: &[&str]) -> Self {
        // Without a password, it would refuse other hosts.
        let mut all = vec!["--protected-mode", "no"];
        all.extend(arguments);
        Self::launch(&all, None, Some(host))
    }

    /// A server that wants a password.
    pub fn start_locked(password: &str) -> Self {
        Self::launch(&["--requirepass", password], Some(password.into()), None)
    }

    fn launch(arguments: &[&str], password: Option<String>, host: Option<&Host>) -> Self {
        for attempt in 1.. {
            let mut redis = Self {
                folder: host.map_or_else(
                    || tempfile::tempdir().expect("a temporary folder"),
                    Host::folder,
                ),
                address: host.map_or_else(free_port, |host| (host.v4, PORT).into()),
                arguments: arguments.iter().map(|&it| it.into()).collect(),
                password: password.clone(),
                namespace: host.map(|host| host.namespace.clone()),
                process: None,
            };
            File::create(redis.folder.path().join(CONFIG)).expect("a config file");
            if redis.run() {
                return redis;
            }
            assert!(attempt < PORT_ATTEMPTS, "{}", redis.log());
        }
        unreachable!("the attempts end before the numbers do");
    }

    /// Spawns the server and waits until it answers, also while it loads; false if it ended.
    fn run(&mut self) -> bool {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("redis.log"))
            .expect("a log file");
        let mut command = match &self.namespace {
            Some(namespace) => net::command_in(namespace, &program()),
            None => Command::new(program()),
        };
        let port = self.address.port().to_string();
        let ports = if has_tls(&self.arguments) {
            ["--port", "0", "--tls-port", &port]
        } else {
            ["--port", &port, "--tls-port", "0"]
        };
        let process = command
            .current_dir(self.folder.path())
            .arg(CONFIG)
            .args(["--bind", &self.address.ip().to_string(), "--save", ""])
            .args(ports)
            .args(["--unixsocket", "redis.sock"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("redis-server starts: is Debian's package redis-server installed?");
        self.process = Some(process);
        let mut has_ended = false;
        poll(DEADLINE, "redis-server answers", || {
            let process = self.process.as_mut().expect("it was spawned");
            has_ended = process
                .try_wait()
                .expect("a child can be waited for")
                .is_some();
            has_ended || self.answers()
        });
        !has_ended
    }

    fn answers(&self) -> bool {
        // By the socket in its own folder: on the port, another server may listen.
        let socket = self.folder.path().join("redis.sock");
        let reply = Command::new("redis-cli")
            .arg("-s")
            .arg(socket)
            .arg("PING")
            .output()
            .expect("redis-cli runs");
        let reply = String::from_utf8_lossy(&reply.stdout).into_owned();
        ["PONG", "LOADING", "NOAUTH", "MASTERDOWN"]
            .iter()
            .any(|word| reply.contains(word))
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL by TCP, or by TLS.
    pub fn url(&self) -> String {
        let scheme = self.scheme();
        match &self.password {
            Some(password) => format!("{scheme}://:{password}@{}/0", self.address),
            None => format!("{scheme}://{}/0", self.address),
        }
    }

    /// With what a URL of it begins.
    pub fn scheme(&self) -> &'static str {
        if has_tls(&self.arguments) {
            "rediss"
        } else {
            "redis"
        }
    }

    /// The URL by its Unix socket.
    pub fn socket_url(&self) -> String {
        format!("unix://{}/redis.sock?db=0", self.folder.path().display())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("redis.log")).unwrap_or_default()
    }

    /// What `redis-cli` prints for a command.
    pub fn cli(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        if let Some(password) = &self.password {
            cli.env("REDISCLI_AUTH", password);
        }
        let output = cli
            .arg("-s")
            .arg(self.folder.path().join("redis.sock"))
            .args(command)
            .output()
            .expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim_end().into()
    }

    /// Makes it a replica of another server.
    pub fn follow(&self, master: &Self) {
        let (ip, port) = (master.address.ip().to_string(), master.address.port());
        let port = port.to_string();
        assert_eq!(self.cli(&["REPLICAOF", &ip, &port]), "OK");
        assert_eq!(self.cli(&["CONFIG", "REWRITE"]), "OK");
    }

    /// Whether it was started and not killed.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it runs, and is not a replica.
    pub fn is_master(&self) -> bool {
        self.runs() && self.cli(&["ROLE"]).starts_with("master")
    }

    /// Cuts a master off from its replica, which gets nothing of what is written from now on.
    pub fn cut_replica(&self) {
        let forbid = ["ACL", "SETUSER", "default", "-psync", "-sync"];
        assert_eq!(self.cli(&forbid), "OK");
        self.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
        poll(DEADLINE, "the replica is cut off", || {
            let info = self.cli(&["INFO", "replication"]);
            info.contains("connected_slaves:0")
        });
    }

    /// Writes its log of writes again. After a full disk, Redis 7.0 may have an unreadable one, and would not start with it.
    pub fn rewrite_log(&self) {
        let is_idle = || {
            let info = self.cli(&["INFO", "persistence"]);
            info.contains("aof_enabled:0")
                || (info.contains("aof_rewrite_in_progress:0")
                    && info.contains("aof_rewrite_scheduled:0"))
        };
        poll(REWRITTEN, "Redis has no rewrite to do", is_idle);
        self.cli(&["BGREWRITEAOF"]);
        poll(REWRITTEN, "Redis has rewritten its log", is_idle);
    }

    /// Cuts off what can't be read of its log of writes, as an operator does if it does not start.
    pub fn repair_log(&self) {
        let mut manifest = self.folder.path().join("appendonlydir");
        manifest.push("appendonly.aof.manifest");
        if !manifest.exists() {
            return;
        }
        let mut check = Command::new("redis-check-aof")
            .arg("--fix")
            .arg(manifest)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-check-aof starts");
        let mut input = check.stdin.take().expect("it asks whether it may");
        // It does not ask if there is nothing to cut off, and may have ended.
        let _ = input.write_all(b"y\n");
        drop(input);
        check.wait().expect("a child can be waited for");
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        super::has_ended(&mut self.process)
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("redis-server runs");
        send(Pid::from_child(process), signal);
    }

    /// Stops it from doing anything; its connections stay.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it as a crash would.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("redis-server runs");
        process.kill().expect("a child can be killed");
        process.wait().expect("a child can be waited for");
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let process = self.process.as_mut().expect("redis-server runs");
        poll(DEADLINE, "redis-server ends", || {
            let status = process.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        self.process = None;
    }

    /// Starts it again with more arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|&it| it.into()));
        self.restart();
    }

    /// Starts it again, at the same address and with the data that it kept; a running one is
    /// killed before.
    pub fn restart(&mut self) {
        if self.process.is_some() {
            self.kill9();
        }
        assert!(self.run(), "{}", self.log());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill9();
        }
    }
}
