//! A Redis server with a replica, watched by three sentinels.

use std::fmt::Write as _;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::redis::{Redis, has_tls, program};
use super::{free_port, poll};

/// The name under which the sentinels watch the master.
pub const SERVICE: &str = "mika";

/// How long servers and sentinels may take to agree. They take a second or two.
const AGREED: Duration = Duration::from_secs(60);

/// Master and replica, in the order in which they began, and the sentinels. All are killed when they go out of scope.
pub struct Watched {
    pub servers: Vec<Redis>,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    folder: TempDir,
    port: u16,
    /// Arguments by which `redis-cli` reaches it over TLS, if that is all it speaks.
    tls: Vec<String>,
    process: Child,
}

// === impl Watched ===

impl Watched {
    pub fn start(arguments: &[&str]) -> Self {
        let master = Redis::start_with(arguments);
        let (host, port) = (
            master.address().ip().to_string(),
            master.address().port().to_string(),
        );
        let mut of_replica = vec!["--replicaof", &host, &port];
        of_replica.extend(arguments);
        let replica = Redis::start_with(&of_replica);
        poll(AGREED, "the replica is connected", || {
            replica
                .cli(&["INFO", "replication"])
                .contains("master_link_status:up")
        });
        let watched = Self {
            sentinels: (0..3)
                .map(|_| Sentinel::start(&host, &port, arguments))
                .collect(),
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
            .map(|it| format!("127.0.0.1:{}", it.port))
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
    fn start(host: &str, master: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port().port();
        let config = folder.path().join("sentinel.conf");
        let pairs = arguments.chunks(2).filter_map(|pair| {
            let name = pair[0].strip_prefix("--tls-")?;
            Some((name, pair[1]))
        });
        let mut ports = format!("port {port}\n");
        let mut tls = Vec::new();
        if has_tls(arguments) {
            ports = format!("port 0\ntls-port {port}\n");
            tls.push("--tls".to_owned());
        }
        for (name, value) in pairs {
            writeln!(ports, "tls-{name} {value}").expect("a String takes everything");
            if name == "ca-cert-file" {
                tls.extend(["--cacert".to_owned(), value.to_owned()]);
            }
        }
        let text = format!(
            "{ports}bind 127.0.0.1\nsentinel monitor {SERVICE} {host} {master} 2\n\
             sentinel down-after-milliseconds {SERVICE} 60000\n\
             sentinel failover-timeout {SERVICE} 60000\n"
        );
        fs::write(&config, text).expect("a file");
        let process = Command::new(program())
            .current_dir(folder.path())
            .arg(&config)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let sentinel = Self {
            folder,
            port,
            tls,
            process,
        };
        poll(AGREED, "the sentinel answers", || {
            sentinel.cli(&["PING"]) == "PONG"
        });
        sentinel
    }

    fn cli(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .current_dir(self.folder.path())
            .args(["-p", &self.port.to_string()])
            .args(&self.tls)
            .args(command)
            .output()
            .expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim_end().into()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
