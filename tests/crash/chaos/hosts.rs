//! The hosts of the trial, each in a network namespace with a disk of its own, and what runs on them.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::harness::cluster::{Cluster, MASTERS};
use crate::harness::database::{DATABASE, Database, SiteDatabase};
use crate::harness::disk::Disks;
use crate::harness::http::Connection;
use crate::harness::net::{self, Host, Network};
use crate::harness::redis::{AOF, Redis};
use crate::harness::sentinel::{SENTINELS, SERVICE, Sentinel, Watched};
use crate::harness::site::fill;
use crate::harness::{Mika, now, poll};

pub const NODES: usize = 3;

const NODE_NAMES: [&str; NODES] = ["node-a", "node-b", "node-c"];

/// The port of the nodes.
const PORT: u16 = 6881;

/// After how long other servers take one of the cache for dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(4);

/// How long all may take until everything works again: seconds, but on a machine with too much to do.
pub const WELL: Duration = Duration::from_secs(240);

/// How long a node may take to answer when it is asked whether it works.
const ANSWERS: Duration = Duration::from_secs(2);

/// Megabytes of the disks of nodes, servers of the cache, and the database.
const DISKS: [u32; 3] = [64, 192, 640];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    One,
    /// One that keeps nothing on its disk.
    Forgetful,
    Sentinel,
    Cluster,
}

pub enum Cache {
    One(Redis),
    Sentinel(Watched),
    Cluster(Cluster),
}

/// A part of the trial, with its number among those of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Node(usize),
    Cache(usize),
    Sentinel(usize),
    Database,
    /// Where the clients live.
    Clients,
}

/// All that runs. Parts are dropped in this order: programs, then their networks and disks.
pub struct Trial {
    pub nodes: Vec<Mika>,
    pub cache: Cache,
    pub database: SiteDatabase,
    hosts: Vec<(Part, Host)>,
    _network: Network,
    pub disks: Disks,
}

/// What a node says with its heartbeat.
#[derive(Clone, Debug, Default)]
struct Beat {
    journal: String,
    start: u64,
    count: u64,
    last: u64,
    sent: u64,
    applied: u64,
}

// === impl CacheKind ===

impl CacheKind {
    pub fn parse(name: &str) -> Self {
        match name {
            "one" => Self::One,
            "forgetful" => Self::Forgetful,
            "sentinel" => Self::Sentinel,
            "cluster" => Self::Cluster,
            _ => panic!("a cache is one, forgetful, sentinel or cluster, not {name}"),
        }
    }

    pub fn servers(self) -> usize {
        match self {
            Self::One | Self::Forgetful => 1,
            Self::Sentinel => 2,
            Self::Cluster => 2 * MASTERS,
        }
    }

    pub fn has_replicas(self) -> bool {
        self.servers() > 1
    }

    pub fn sentinels(self) -> usize {
        match self {
            Self::Sentinel => SENTINELS,
            _ => 0,
        }
    }

    /// All parts of a trial.
    pub fn parts(self) -> Vec<Part> {
        let nodes = (0..NODES).map(Part::Node);
        let servers = (0..self.servers()).map(Part::Cache);
        let sentinels = (0..self.sentinels()).map(Part::Sentinel);
        let others = [Part::Database, Part::Clients];
        nodes
            .chain(servers)
            .chain(sentinels)
            .chain(others)
            .collect()
    }
}

// === impl Part ===

impl Part {
    pub fn name(self) -> String {
        match self {
            Self::Node(number) => NODE_NAMES[number].into(),
            Self::Cache(number) => format!("cache-{}", number + 1),
            Self::Sentinel(number) => format!("sentinel-{}", number + 1),
            Self::Database => "database".into(),
            Self::Clients => "clients".into(),
        }
    }
}

// === impl Cache ===

impl Cache {
    fn start(kind: CacheKind, hosts: &[(Part, Host)]) -> Self {
        let host = |part: Part| host_of(hosts, part).clone();
        let mut arguments = vec!["--auto-aof-rewrite-min-size", "8mb"];
        if kind != CacheKind::Forgetful {
            arguments.extend(AOF);
        }
        match kind {
            CacheKind::One | CacheKind::Forgetful => {
                Self::One(Redis::start_in_with(&host(Part::Cache(0)), &arguments))
            }
            CacheKind::Sentinel => {
                let servers = [0, 1].map(|number| host(Part::Cache(number)));
                let sentinels = [0, 1, 2].map(|number| host(Part::Sentinel(number)));
                Self::Sentinel(Watched::start_in(
                    &servers, &sentinels, DEAD_AFTER, &arguments,
                ))
            }
            CacheKind::Cluster => {
                let hosts = (0..kind.servers()).map(|number| host(Part::Cache(number)));
                let hosts: Vec<Host> = hosts.collect();
                Self::Cluster(Cluster::start_in(&hosts, DEAD_AFTER, &arguments))
            }
        }
    }

    fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Sentinel(watched) => watched.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    pub fn server(&mut self, number: usize) -> &mut Redis {
        match self {
            Self::One(server) => server,
            Self::Sentinel(watched) => &mut watched.servers[number],
            Self::Cluster(cluster) => &mut cluster.servers[number],
        }
    }

    /// A sentinel of a cache that has some.
    pub fn sentinel(&mut self, number: usize) -> &mut Sentinel {
        match self {
            Self::Sentinel(watched) => &mut watched.sentinels[number],
            _ => unreachable!("no sentinels"),
        }
    }

    fn servers(&self) -> &[Redis] {
        match self {
            Self::One(server) => std::slice::from_ref(server),
            Self::Sentinel(watched) => &watched.servers,
            Self::Cluster(cluster) => &cluster.servers,
        }
    }

    /// The masters by their numbers.
    pub fn masters(&self) -> Vec<usize> {
        let servers = self.servers().iter().enumerate();
        let masters = servers.filter(|(_, it)| it.is_master());
        masters.map(|(number, _)| number).collect()
    }

    /// What `redis-cli` prints for a command about a key.
    pub fn cli(&self, key: &str, command: &[&str]) -> String {
        if let Self::Cluster(cluster) = self {
            return cluster.cli(key, command);
        }
        let masters = self.masters();
        let master = masters.first().copied().unwrap_or(0);
        self.servers()[master].cli(command)
    }

    /// The keys on all masters.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let of_server = |number: usize| self.servers()[number].cli(&["KEYS", pattern]);
        let found = self.masters().into_iter().map(of_server);
        let lines = found.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|line| !line.is_empty()).collect()
    }

    /// Why it does not work as a whole, if so.
    fn complaint(&self) -> Option<String> {
        if let Some(number) = self
            .servers()
            .iter()
            .position(|it| it.cli(&["PING"]) != "PONG")
        {
            return Some(format!("{} does not answer", Part::Cache(number).name()));
        }
        let masters = self.masters();
        let is_linked = |server: &Redis| {
            let info = server.cli(&["INFO", "replication"]);
            info.contains("role:master") || info.contains("master_link_status:up")
        };
        if let Some(number) = self.servers().iter().position(|it| !is_linked(it)) {
            return Some(format!("{} has no master", Part::Cache(number).name()));
        }
        match self {
            Self::One(_) => None,
            Self::Sentinel(watched) => {
                let [master] = masters[..] else {
                    return Some(format!("masters are {masters:?}"));
                };
                let address = watched.servers[master].address().ip().to_string();
                let knows = |it: &Sentinel| {
                    it.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE])
                        .lines()
                        .next()
                        == Some(address.as_str())
                };
                let wrong = watched.sentinels.iter().position(|it| !knows(it))?;
                Some(format!(
                    "{} has another master",
                    Part::Sentinel(wrong).name()
                ))
            }
            Self::Cluster(cluster) => {
                if masters.len() != MASTERS {
                    return Some(format!("masters are {masters:?}"));
                }
                let is_ok = |it: &Redis| {
                    let info = it.cli(&["CLUSTER", "INFO"]);
                    let nodes = it.cli(&["CLUSTER", "NODES"]);
                    info.contains("cluster_state:ok") && !nodes.contains("fail")
                };
                let wrong = cluster.servers.iter().position(|it| !is_ok(it))?;
                Some(format!("{} sees a failure", Part::Cache(wrong).name()))
            }
        }
    }
}

fn host_of(hosts: &[(Part, Host)], part: Part) -> &Host {
    let found = hosts.iter().find(|(it, _)| *it == part);
    &found.expect("each part has a host").1
}

// === impl Trial ===

impl Trial {
    /// Hosts, servers with users and torrents, and running nodes.
    pub fn start(kind: CacheKind, database: Database, users: usize) -> Self {
        let mut disks = Disks::new("mika-chaos");
        let mut network = Network::new();
        let hosts = kind.parts().into_iter().map(|part| {
            let mut host = network.host();
            let size = match part {
                Part::Node(_) | Part::Sentinel(_) | Part::Clients => DISKS[0],
                Part::Cache(_) => DISKS[1],
                Part::Database => DISKS[2],
            };
            host.disk = Some(disks.mount(&part.name(), size));
            (part, host)
        });
        let hosts: Vec<_> = hosts.collect();
        let database = SiteDatabase::start_in(database, host_of(&hosts, Part::Database));
        let cache = Cache::start(kind, &hosts);
        let nodes = (0..NODES).map(|number| {
            let host = host_of(&hosts, Part::Node(number));
            let mut node = Self::node(NODE_NAMES[number], host, &cache, &database);
            node.shift_clock(0);
            node
        });
        let mut trial = Self {
            nodes: nodes.collect(),
            cache,
            database,
            hosts,
            _network: network,
            disks,
        };
        trial.nodes[0].managed(&["migrate"]);
        fill(&trial.database, DATABASE, users);
        trial.nodes[0].managed(&["warmup"]);
        for node in &mut trial.nodes {
            node.run();
        }
        trial
    }

    fn node(name: &str, host: &Host, cache: &Cache, database: &SiteDatabase) -> Mika {
        let v4 = SocketAddr::from((host.v4, PORT));
        let config = json!({
            "mode": "private",
            "node": name,
            "http": { "listen": [v4, SocketAddr::from((host.v6, PORT))] },
            // A reply after the timeout is not an acknowledgement: clients don't wait for that long.
            "journal": { "flush_interval": "300ms", "ack_timeout": "30s", "keep": "10s" },
            "tracker": {
                "announce_interval": "50s",
                "min_announce_interval": "10s",
                "peer_ttl": "1m",
                // Peers whose stop reaches a node late count until they expire.
                "max_peers_per_user": 1000,
                "hnr_min_bytes": super::check::HNR_MIN_BYTES,
            },
            "cache": { "driver": "redis", "url": cache.url() },
            "storage": database.config(),
        });
        Mika::prepare_in(host, v4, &config)
    }

    pub fn host(&self, part: Part) -> &Host {
        host_of(&self.hosts, part)
    }

    /// The hosts of all other parts.
    pub fn others(&self, part: Part) -> impl Iterator<Item = &Host> {
        let others = self.hosts.iter().filter(move |(it, _)| *it != part);
        others.map(|(_, host)| host)
    }

    /// Starts what has ended by itself, but no node: a node must not.
    pub fn revive(&mut self) {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            assert!(!node.has_ended(), "{} has ended", NODE_NAMES[number]);
        }
        for number in 0..self.cache.servers().len() {
            let server = self.cache.server(number);
            if server.has_ended() {
                server.repair_log();
                server.restart();
            }
        }
        if let Cache::Sentinel(watched) = &mut self.cache {
            for sentinel in &mut watched.sentinels {
                if sentinel.has_ended() {
                    sentinel.restart();
                }
            }
        }
        self.database.revive();
    }

    /// Waits until everything works, and storage and cache have all that nodes had until now.
    pub fn is_well(&mut self) {
        let begun = now();
        self.revive();
        while let Some(complaint) = self.complaint() {
            assert!(begun.elapsed() < WELL, "not within {WELL:?}: {complaint}");
            thread::sleep(Duration::from_millis(50));
            self.revive();
        }
        self.has_caught_up();
    }

    fn complaint(&self) -> Option<String> {
        if let Err(error) = self.database.try_sql("SELECT 1") {
            return Some(format!("the database: {error}"));
        }
        self.cache.complaint().or_else(|| {
            let silent = (0..NODES).find(|&number| !self.answers(number))?;
            Some(format!("{} does not answer", NODE_NAMES[silent]))
        })
    }

    /// Whether a node answers the clients' host in both families.
    fn answers(&self, number: usize) -> bool {
        let node = self.host(Part::Node(number));
        let addresses = [
            SocketAddr::from((node.v4, PORT)),
            SocketAddr::from((node.v6, PORT)),
        ];
        self.on_clients_host(|| {
            addresses.into_iter().all(|address| {
                let connection = Connection::open_within(address, ANSWERS);
                connection.is_ok_and(|mut it| it.wait_up_to(ANSWERS).is_ok() && it.get("/").is_ok())
            })
        })
    }

    /// Does something on the clients' host.
    pub fn on_clients_host<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let namespace = &self.host(Part::Clients).namespace;
        // A thread of its own, because entering a namespace is for good.
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                net::enter(namespace);
                act()
            });
            thread.join().expect("a thread on the clients' host")
        })
    }

    fn has_caught_up(&self) {
        let mut first: Vec<Beat> = Vec::new();
        poll(WELL, "cache and storage have what the nodes had", || {
            let beats = self.beats();
            if beats.len() < NODES {
                return false;
            }
            if first.is_empty() {
                first = beats;
                return false;
            }
            let has = |then: &Beat| {
                let same = beats.iter().find(|it| it.journal == then.journal);
                same.is_some_and(|it| {
                    it.count > then.count && it.sent >= then.last && it.applied >= then.last
                })
            };
            first.iter().all(has)
        });
    }

    /// The last heartbeat of each node's last start.
    fn beats(&self) -> Vec<Beat> {
        let list = self.cache.cli("t:nodes", &["HGETALL", "t:nodes"]);
        let lines: Vec<&str> = list.lines().collect();
        let beats = lines
            .chunks_exact(2)
            .filter_map(|it| Beat::parse(it[0], it[1]));
        let beats: Vec<Beat> = beats.collect();
        let latest = NODE_NAMES.iter().filter_map(|name| {
            let is_its = |it: &&Beat| it.journal.split('#').next() == Some(name);
            beats.iter().filter(is_its).max_by_key(|it| it.start)
        });
        latest.cloned().collect()
    }

    /// The ways of clients to the nodes: by IPv4 to each, then by IPv6.
    pub fn ways(&self) -> Vec<crate::stage::Way> {
        let hosts = (0..NODES).map(|number| self.host(Part::Node(number)));
        let v4 = hosts.clone().map(|host| (host.v4.into(), ""));
        let v6 = hosts.map(|host| (host.v6.into(), "/v6"));
        let named = v4.chain(v6).zip(NODE_NAMES.iter().cycle());
        let ways = named.map(|((ip, family), name)| crate::stage::Way {
            name: format!("{name}{family}"),
            address: SocketAddr::new(ip, PORT),
        });
        ways.collect()
    }
}

// === impl Beat ===

impl Beat {
    /// None if the node has stopped.
    fn parse(journal: &str, sign: &str) -> Option<Self> {
        let words: Vec<&str> = sign.split(' ').collect();
        let number = |name: &str| {
            let words = words.iter().skip(6);
            let found = words
                .filter_map(|it| it.split_once('='))
                .find(|(it, _)| *it == name);
            found?.1.parse().ok()
        };
        let start = journal.split_once('#')?.1.split_once('.')?.0;
        Some(Self {
            journal: journal.into(),
            start: start.parse().ok()?,
            count: words.get(4)?.parse().ok()?,
            last: number("last")?,
            sent: number("sent")?,
            applied: number("applied")?,
        })
    }
}
