//! A Redis server with a replica, watched by three sentinels.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::net::{self, Host};
use super::redis::{Redis, has_tls, program};
use super::{free_port, has_ended, poll, send};

/// The name under which the sentinels watch the master.
pub const SERVICE: &str = "mika";

pub const SENTINELS: usize = 3;

/// The file that a sentinel reads and writes.
const CONFIG: &str = "sentinel.conf";

/// How long servers and sentinels may take to agree. They take a second or two.
const AGREED: Duration = Duration::from_secs(60);

/// The port of a sentinel that has an address for itself.
const PORT: u16 = 26379;

/// How long without an answer until the sentinels take a master for dead: longer than a test, so that none is on a
/// slow machine. [`Watched::fail_over`] does not wait for that.
const DOWN_AFTER: Duration = Duration::from_secs(60);

/// Master and replica, in the order in which they began, and the sentinels. All are killed when they go out of scope.
pub struct Watched {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
}

/// One sentinel, with its config and its log. It is killed when it goes out of scope.
pub struct Sentinel {
    folder: TempDir,
    address: SocketAddr,
    /// The network namespace that it runs in, if not the machine's own.
    namespace: Option<String>,
    /// Arguments by which `redis-cli` reaches it over TLS, if that is all it speaks.
    tls: Vec<String>,
    process: Option<Child>,
}

// === impl Watched ===

impl Watched {
    pub fn start(arguments: &[&str]) -> Self {
        let [master, replica] = [(); 2].map(|()| Redis::start_with(arguments));
        let sentinel = |_| Sentinel::start(None, master.address(), DOWN_AFTER, arguments);
        let sentinels = (0..SENTINELS).map(sentinel).collect();
        Self::join(master, replica, sentinels)
    }

    /// The same with a host for each server and each sentinel; they take a master for dead after `down_after`.
    pub fn start_in(
        servers: &[Host; 2],
        sentinels: &[Host; SENTINELS],
        down_after: Duration,
        arguments: &[&str],
    ) -> Self {
        let [master, replica] = servers
            .each_ref()
            .map(|host| Redis::start_in_with(host, arguments));
        let sentinel = |host| Sentinel::start(Some(host), master.address(), down_after, arguments);
        let sentinels = sentinels.iter().map(sentinel).collect();
        Self::join(master, replica, sentinels)
    }

    fn join(master: Redis, replica: Redis, sentinels: Vec<Sentinel>) -> Self {
        replica.follow(&master);
        poll(AGREED, "the replica is connected", || {
            replica
                .cli(&["INFO", "replication"])
                .contains("master_link_status:up")
        });
        let watched = Self {
            sentinels,
            servers: vec![master, replica],
        };
        poll(
            AGREED,
            "the sentinels know each other and the replica",
            || {
                watched.sentinels.iter().all(|sentinel| {
                    let known = sentinel.cli(&["SENTINEL", "MASTER", SERVICE]);
                    let field = |name: &str| known.lines().skip_while(|line| *line != name).nth(1);
                    field("num-other-sentinels") == Some("2") && field("num-slaves") == Some("1")
                })
            },
        );
        watched
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|it| it.address.to_string())
            .collect();
        let scheme = self.servers[0].scheme();
        format!("{scheme}+sentinel://{}/{SERVICE}", hosts.join(","))
    }

    /// Waits until a server that was started again is a replica with all that its master has.
    pub fn follows(&self, replica: usize) {
        poll(AGREED, "the old master follows the new one", || {
            let info = self.servers[replica].cli(&["INFO", "replication"]);
            info.contains("role:slave") && info.contains("master_link_status:up")
        });
    }

    /// Cuts a master off from its replica: what is written from now on is lost with it.
    pub fn cut_replica(&self, master: usize) {
        self.servers[master].cut_replica();
    }

    pub fn stop_sentinel(&mut self) {
        self.sentinels.pop();
    }

    /// Kills a master and has the sentinels make the other server one.
    pub fn fail_over(&mut self, master: usize) -> usize {
        self.servers[master].kill9();
        let replica = 1 - master;
        let mut said = String::new();
        poll(AGREED, "a sentinel begins a failover", || {
            said = self.sentinels[0].cli(&["SENTINEL", "FAILOVER", SERVICE]);
            said == "OK" || said.starts_with("INPROG")
        });
        poll(AGREED, "the replica has taken over", || {
            self.servers[replica].is_master()
        });
        let port = self.servers[replica].address().port().to_string();
        poll(AGREED, "all sentinels know", || {
            let name = |sentinel: &Sentinel| {
                sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE])
            };
            self.sentinels
                .iter()
                .all(|sentinel| name(sentinel).lines().nth(1) == Some(&port))
        });
        replica
    }
}

// === impl Sentinel ===

impl Sentinel {
    /// With the settings of TLS among the `arguments` of the servers.
    fn start(
        host: Option<&Host>,
        master: SocketAddr,
        down_after: Duration,
        arguments: &[&str],
    ) -> Self {
        let folder = host.map_or_else(
            || tempfile::tempdir().expect("a temporary folder"),
            Host::folder,
        );
        let address = host.map_or_else(free_port, |host| (host.v4, PORT).into());
        let (ip, port) = (master.ip(), master.port());
        let timeout = down_after.as_millis();
        let pairs = arguments.chunks(2).filter_map(|pair| {
            let name = pair[0].strip_prefix("--tls-")?;
            Some((name, pair[1]))
        });
        let number = address.port();
        let mut ports = format!("port {number}\n");
        let mut tls = Vec::new();
        if has_tls(arguments) {
            ports = format!("port 0\ntls-port {number}\n");
            tls.push("--tls".to_owned());
        }
        for (name, value) in pairs {
            writeln!(ports, "tls-{name} {value}").expect("a String takes everything");
            if name == "ca-cert-file" {
                tls.extend(["--cacert".to_owned(), value.to_owned()]);
            }
        }
        let text = format!(
            "{ports}bind {}\nprotected-mode no\nlogfile sentinel.log\n\
             sentinel monitor {SERVICE} {ip} {port} 2\n\
             sentinel down-after-milliseconds {SERVICE} {timeout}\n\
             sentinel failover-timeout {SERVICE} {timeout}\n",
            address.ip(),
        );
        fs::write(folder.path().join(CONFIG), text).expect("a file");
        let mut sentinel = Self {
            folder,
            address,
            namespace: host.map(|host| host.namespace.clone()),
            tls,
            process: None,
        };
        sentinel.run();
        sentinel
    }

    /// Starts it, with the config that it wrote itself after the first start, and waits until it answers.
    fn run(&mut self) {
        let process = self
            .command(&program())
            .args([CONFIG, "--sentinel"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.process = Some(process);
        poll(AGREED, "the sentinel answers", || {
            self.cli(&["PING"]) == "PONG"
        });
    }

    /// What `redis-cli` prints for a command.
    pub fn cli(&self, command: &[&str]) -> String {
        let output = self
            .command("redis-cli")
            .args(["-h", &self.address.ip().to_string()])
            .args(["-p", &self.address.port().to_string()])
            .args(&self.tls)
            .args(command)
            .output()
            .expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim_end().into()
    }

    /// A command in the sentinel's folder and namespace.
    fn command(&self, program: &str) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => net::command_in(namespace, program),
            None => Command::new(program),
        };
        command.current_dir(self.folder.path());
        command
    }

    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the sentinel runs");
        send(Pid::from_child(process), signal);
    }

    /// Ends it as a crash would.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("the sentinel runs");
        process.kill().expect("a child can be killed");
        process.wait().expect("a child can be waited for");
    }

    /// Starts it again, after [`Sentinel::kill9`].
    pub fn restart(&mut self) {
        self.run();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        has_ended(&mut self.process)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill9();
        }
    }
}
