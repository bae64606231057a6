//! A Redis Cluster of a test's own: three masters and a replica of each.

use std::time::Duration;

use super::net::Host;
use super::redis::Redis;
use super::{free_port, poll};

pub const MASTERS: usize = 3;

/// How long the servers may take to agree. They take two seconds or three.
const AGREED: Duration = Duration::from_secs(60);

/// Milliseconds without an answer until the others take a server for dead: longer than a test, so that none is on a slow
/// machine. [`Cluster::fail_over`] does not wait for that.
const NODE_TIMEOUT: &str = "60000";

/// The port of a server's own for the other servers, where it has an address for itself.
const BUS_PORT: &str = "16379";

/// The servers: masters first, then the replica of each in the same order.
pub struct Cluster {
    pub servers: Vec<Redis>,
}

// === impl Cluster ===

impl Cluster {
    /// All slots served, all replicas connected.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments for each server.
    pub fn start_with(arguments: &[&str]) -> Self {
        let servers = (0..2 * MASTERS).map(|_| Self::server(arguments));
        let cluster = Self {
            servers: servers.collect(),
        };
        cluster.join();
        cluster
    }

    /// A cluster with a host for each server, which takes a server for dead after `node_timeout`.
    pub fn start_in(hosts: &[Host], node_timeout: Duration, arguments: &[&str]) -> Self {
        assert_eq!(hosts.len(), 2 * MASTERS);
        let timeout = node_timeout.as_millis().to_string();
        let settings = Self::settings(BUS_PORT, &timeout);
        let all: Vec<&str> = settings
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        let servers = hosts.iter().map(|host| Redis::start_in_with(host, &all));
        let cluster = Self {
            servers: servers.collect(),
        };
        cluster.join();
        cluster
    }

    /// A server that belongs to no cluster yet.
    pub fn server(arguments: &[&str]) -> Redis {
        // The default, the port plus 10000, may be taken.
        let bus = free_port().port().to_string();
        let settings = Self::settings(&bus, NODE_TIMEOUT);
        let all: Vec<&str> = settings
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        Redis::start_with(&all)
    }

    fn settings<'a>(bus: &'a str, node_timeout: &'a str) -> Vec<&'a str> {
        let mut all = vec!["--cluster-enabled", "yes", "--cluster-port", bus];
        all.extend(["--cluster-node-timeout", node_timeout]);
        all.extend(["--cluster-require-full-coverage", "no"]);
        all.extend(["--cluster-replica-validity-factor", "0"]);
        all
    }

    fn join(&self) {
        for (index, server) in self.servers.iter().enumerate() {
            let epoch = (index + 1).to_string();
            assert_eq!(server.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]), "OK");
        }
        for (index, master) in self.servers[..MASTERS].iter().enumerate() {
            let first = (index * 16384 / MASTERS).to_string();
            let last = ((index + 1) * 16384 / MASTERS - 1).to_string();
            assert_eq!(
                master.cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]),
                "OK"
            );
        }
        for server in &self.servers[1..] {
            self.meet(server);
        }
        poll(AGREED, "all servers know each other", || {
            let count = |server: &Redis| server.cli(&["CLUSTER", "NODES"]).lines().count();
            let all = self.servers.len();
            self.servers
                .iter()
                .all(|server| count(server) == all && is_ok(server))
        });
        for index in 0..MASTERS {
            let id = self.servers[index].cli(&["CLUSTER", "MYID"]);
            assert_eq!(
                self.servers[MASTERS + index].cli(&["CLUSTER", "REPLICATE", &id]),
                "OK"
            );
        }
        poll(AGREED, "the replicas are connected", || {
            let has_link = |it: &Redis| {
                it.cli(&["INFO", "replication"])
                    .contains("master_link_status:up")
            };
            self.servers[MASTERS..].iter().all(has_link)
        });
    }

    /// Adds a server, which has no slots yet.
    pub fn meet(&self, server: &Redis) {
        let first = &self.servers[0];
        let (host, port) = (
            first.address().ip().to_string(),
            first.address().port().to_string(),
        );
        let bus = first.cli(&["CONFIG", "GET", "cluster-port"]);
        let bus = bus.lines().last().expect("a port").to_owned();
        assert_eq!(server.cli(&["CLUSTER", "MEET", &host, &port, &bus]), "OK");
    }

    /// Waits until all servers know that many.
    pub fn agrees_on(&self, servers: usize) {
        poll(AGREED, "all servers know each other", || {
            let nodes = |it: &Redis| it.cli(&["CLUSTER", "NODES"]);
            let is_done =
                |nodes: String| nodes.lines().count() == servers && !nodes.contains("handshake");
            self.servers.iter().all(|server| is_done(nodes(server)))
        });
    }

    /// Two servers of it, which is enough to find the others.
    pub fn url(&self) -> String {
        let address = |index: usize| self.servers[index].address();
        let scheme = self.servers[0].scheme();
        format!("{scheme}+cluster://{},{}", address(0), address(MASTERS))
    }

    /// The server that serves a slot now.
    pub fn index_of(&self, slot: u16) -> usize {
        let serves = |server: &Redis| {
            let nodes = server.cli(&["CLUSTER", "NODES"]);
            let own = nodes.lines().find(|line| line.contains("myself,master"))?;
            let has = own.split(' ').skip(8).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last) = (first.parse().unwrap_or(u16::MAX), last.parse().unwrap_or(0));
                (first..=last).contains(&slot)
            });
            has.then_some(())
        };
        let found = (0..self.servers.len())
            .filter(|index| self.servers[*index].runs())
            .find(|index| serves(&self.servers[*index]).is_some());
        found.expect("a master of the slot")
    }

    pub fn slot_of(&self, key: &str) -> u16 {
        let server = self
            .servers
            .iter()
            .find(|server| server.runs())
            .expect("one runs");
        server
            .cli(&["CLUSTER", "KEYSLOT", key])
            .parse()
            .expect("a slot")
    }

    /// The server that has a key.
    pub fn master_of(&self, key: &str) -> usize {
        self.index_of(self.slot_of(key))
    }

    /// What `redis-cli` prints for a command, from the server that has its key.
    pub fn cli(&self, key: &str, command: &[&str]) -> String {
        self.servers[self.master_of(key)].cli(command)
    }

    /// The keys on all masters, sorted.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for server in self.servers.iter().filter(|server| server.is_master()) {
            let found = server.cli(&["KEYS", pattern]);
            keys.extend(
                found
                    .lines()
                    .filter(|line| !line.is_empty())
                    .map(Into::into),
            );
        }
        keys.sort();
        keys
    }

    /// Empties all masters.
    pub fn flush(&self) {
        for server in self.servers.iter().filter(|server| server.is_master()) {
            assert_eq!(server.cli(&["FLUSHALL"]), "OK");
        }
    }

    /// Begins to move a slot from one master to another: keys that are not there any more are to be asked for.
    pub fn open_slot(slot: u16, from: &Redis, to: &Redis) {
        let slot = slot.to_string();
        let set = |at: &Redis, state, of: &Redis| {
            let id = of.cli(&["CLUSTER", "MYID"]);
            assert_eq!(at.cli(&["CLUSTER", "SETSLOT", &slot, state, &id]), "OK");
        };
        set(to, "IMPORTING", from);
        set(from, "MIGRATING", to);
    }

    /// Moves up to that many keys of an open slot; how many there were.
    pub fn move_keys(slot: u16, from: &Redis, to: &Redis, count: u32) -> usize {
        let keys = from.cli(&[
            "CLUSTER",
            "GETKEYSINSLOT",
            &slot.to_string(),
            &count.to_string(),
        ]);
        let keys: Vec<&str> = keys.lines().filter(|line| !line.is_empty()).collect();
        if keys.is_empty() {
            return 0;
        }
        let (host, port) = (
            to.address().ip().to_string(),
            to.address().port().to_string(),
        );
        let mut command = vec!["MIGRATE", &host, &port, "", "0", "5000", "KEYS"];
        command.extend(&keys);
        let moved = from.cli(&command);
        assert!(matches!(moved.as_str(), "OK" | "NOKEY"), "{moved}");
        keys.len()
    }

    /// Ends what [`Self::open_slot`] began.
    pub fn close_slot(slot: u16, from: &Redis, to: &Redis) {
        while Self::move_keys(slot, from, to, 100) > 0 {}
        let (slot, id) = (slot.to_string(), to.cli(&["CLUSTER", "MYID"]));
        for server in [to, from] {
            assert_eq!(
                server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]),
                "OK"
            );
        }
    }

    /// Cuts a master off from its replica: what is written from now on is lost with it.
    pub fn cut_replica(&self, master: usize) {
        self.servers[master].cut_replica();
    }

    /// Kills a master and has its replica serve the slots; returns the index of that one.
    pub fn fail_over(&mut self, master: usize) -> usize {
        self.servers[master].kill9();
        let replica = MASTERS + master;
        let takeover = self.servers[replica].cli(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
        assert_eq!(takeover, "OK");
        poll(AGREED, "the replica has taken over", || {
            self.servers[replica].is_master()
        });
        poll(AGREED, "the others know", || {
            let id = self.servers[replica].cli(&["CLUSTER", "MYID"]);
            let mut others = self.servers.iter().filter(|server| server.runs());
            others.all(|server| {
                let nodes = server.cli(&["CLUSTER", "NODES"]);
                let line = nodes.lines().find(|line| line.starts_with(&id));
                // Its slots follow eight words.
                line.is_some_and(|line| line.split(' ').count() > 8)
            })
        });
        replica
    }
}

fn is_ok(server: &Redis) -> bool {
    server
        .cli(&["CLUSTER", "INFO"])
        .contains("cluster_state:ok")
}
