//! Networks of a test's own: hosts in network namespaces, joined by a bridge.
//!
//! Everything is in namespaces whose names begin with `mika-`, so nothing touches the
//! network of the machine, and all of it is removed with the [`Network`].

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

/// A bridge, and the hosts connected to it: 10.77.0.0/24 and fd00:77::/64.
pub struct Network {
    /// Namespace of the bridge, and what the names of all others begin with.
    name: String,
    namespaces: Vec<String>,
}

/// A machine on a [`Network`], with an address of each family and a default route.
#[derive(Clone, Debug)]
pub struct Host {
    pub namespace: String,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// Where its programs keep their files, if not in the system's folder for temporary ones.
    pub disk: Option<PathBuf>,
}

/// A hardware address that no host has: what is sent there is lost.
const NOBODY: &str = "02:00:00:00:00:01";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// A command that runs in a namespace. `ip` replaces itself by the program, whose pid is then the child's.
pub fn command_in(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

/// Moves the calling thread into a namespace: what it connects to from now on is there.
pub fn enter(namespace: &str) {
    let path = Path::new("/run/netns").join(namespace);
    let file = File::open(path).expect("the namespace is there");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("tests with namespaces run as root");
}

/// Runs `work` in a namespace. In a thread of its own, because entering one is for good.
pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace);
            work()
        });
        thread.join().expect("a thread in the namespace")
    })
}

// === impl Network ===

impl Network {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mika-{}-{number}", process::id());
        if let Err(error) = ip(&format!("netns add {name}")) {
            panic!("tests with real clients need network namespaces, so run them as root: {error}");
        }
        let network = Self {
            namespaces: vec![name.clone()],
            name,
        };
        network.run("-n {} link set lo up");
        network.run("-n {} link add bridge type bridge");
        network.run("-n {} link set bridge up");
        network.run("-n {} addr add 10.77.0.1/24 dev bridge");
        network.run("-n {} addr add fd00:77::1/64 dev bridge nodad");
        network
    }

    /// Connects another host.
    pub fn host(&mut self) -> Host {
        let number = u8::try_from(self.namespaces.len() + 1).expect("at most 254 hosts");
        let host = Host {
            namespace: format!("{}-{number}", self.name),
            v4: Ipv4Addr::new(10, 77, 0, number),
            v6: Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, number.into()),
            disk: None,
        };
        let Host {
            namespace, v4, v6, ..
        } = &host;
        self.run(&format!("netns add {namespace}"));
        self.namespaces.push(namespace.clone());
        self.run(&format!(
            "-n {{}} link add port{number} type veth peer name eth0 netns {namespace}"
        ));
        self.run(&format!("-n {{}} link set port{number} master bridge up"));
        self.run(&format!("-n {namespace} link set lo up"));
        self.run(&format!("-n {namespace} link set eth0 up"));
        self.run(&format!("-n {namespace} addr add {v4}/24 dev eth0"));
        self.run(&format!("-n {namespace} addr add {v6}/64 dev eth0 nodad"));
        self.run(&format!("-n {namespace} route add default via 10.77.0.1"));
        self.run(&format!("-n {namespace} route add default via fd00:77::1"));
        host
    }

    /// Runs `ip` with these arguments, where `{}` stands for the namespace of the bridge.
    fn run(&self, arguments: &str) {
        if let Err(error) = ip(&arguments.replace("{}", &self.name)) {
            panic!("{error}");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            // Processes still in there were started by this test.
            for pid in ip(&format!("netns pids {namespace}"))
                .unwrap_or_default()
                .lines()
            {
                if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}

fn ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("ip {arguments}: {}", stderr.trim()))
    }
}

// === impl Host ===

impl Host {
    /// Takes IPv6 away from the host, as `net.ipv6.conf.all.disable_ipv6=1` does.
    pub fn disable_ipv6(&self) {
        let status = command_in(&self.namespace, "sysctl")
            .args(["-qw", "net.ipv6.conf.all.disable_ipv6=1"])
            .status()
            .expect("sysctl starts");
        assert!(status.success(), "sysctl ended with {status}");
    }

    /// Loses all that is sent to `address`, as a dropped route does, or no more.
    pub fn blackhole(&self, address: IpAddr, is_on: bool) {
        let verb = if is_on { "add" } else { "del" };
        let namespace = &self.namespace;
        if let Err(error) = ip(&format!("-n {namespace} route {verb} blackhole {address}")) {
            panic!("{error}");
        }
    }

    /// Loses all that is sent to another host, in silence and in this direction only, or no more.
    pub fn lose(&self, to: &Self, is_on: bool) {
        for address in [IpAddr::from(to.v4), IpAddr::from(to.v6)] {
            let namespace = &self.namespace;
            let change = if is_on {
                format!("replace {address} lladdr {NOBODY} nud permanent dev eth0")
            } else {
                format!("del {address} dev eth0")
            };
            if let Err(error) = ip(&format!("-n {namespace} neigh {change}")) {
                panic!("{error}");
            }
        }
    }

    /// A folder for a program of this host.
    pub fn folder(&self) -> TempDir {
        let folder = match &self.disk {
            Some(disk) => tempfile::Builder::new().prefix("files-").tempdir_in(disk),
            None => tempfile::tempdir(),
        };
        folder.expect("a temporary folder")
    }

    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}
