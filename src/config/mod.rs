//! The configuration: every section with its default, checked once at start and at a reload.
//!
//! [`load`] turns what was typed into what is true: it finds the file, refuses what it can't
//! understand, fills in the defaults, takes secrets from the environment and checks the values.
//! What comes out needs no further check, except whether the named drivers exist.

mod changes;
mod check;
mod files;
mod load;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::base::secret::Secret;

pub use changes::{Change, changes};
pub use files::{Exposed, exposed};
pub use load::{ConfigError, Loaded, Source, load};

/// A network, or an address that stands for the network of one host.
struct Network(IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let network = match text.parse::<IpAddr>() {
            Ok(address) => Ok(IpNet::from(address)),
            Err(_) => text.parse().map_err(D::Error::custom),
        };
        network.map(Self)
    }
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let networks = Vec::<Network>::deserialize(deserializer)?;
    Ok(networks.into_iter().map(|it| it.0).collect())
}

/// Who may take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Anybody, and any torrent unless `tracker.auto_register` is off.
    Public,
    /// Users by passkey, and registered torrents.
    Private,
}

/// The whole of `config.json`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    pub mode: Mode,
    /// The name under which this process numbers its batches; empty for the host's.
    pub node: String,
    pub http: Http,
    pub udp: Udp,
    pub api: Api,
    pub tracker: Tracker,
    pub cache: Cache,
    pub storage: Storage,
    pub journal: Journal,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Http {
    /// Addresses to serve; an empty list turns HTTP off.
    pub listen: Vec<SocketAddr>,
    /// Proxies that are believed when they name the client.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// The header by which they do; empty for `X-Forwarded-For` or `Forwarded`, whichever is there.
    pub forwarded_header: String,
    /// With it, `listen` serves HTTPS.
    pub tls: Option<TlsFiles>,
    /// Connections open at once, over all workers; idle ones give way to more.
    pub max_connections: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Udp {
    /// Addresses to serve; an empty list turns UDP off.
    pub listen: Vec<SocketAddr>,
    /// How long a connection id is accepted at least (rule U3).
    #[serde(with = "humantime_serde")]
    pub id_lifetime: Duration,
    /// The file with the secret behind connection ids: one for all processes of a host.
    pub secret: PathBuf,
    /// Answers a second to the connects of one network (a /24 or /48); 0 for any number.
    pub connect_limit: u32,
    /// Errors a second that one network is sent; 0 for any number.
    pub error_limit: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Api {
    /// Addresses to serve; an empty list turns the API off.
    pub listen: Vec<SocketAddr>,
    /// Empty for any name.
    pub username: String,
    /// Empty for none: then only tokens open the API, and without any it is open to this host.
    pub password: Secret,
    pub tokens: Vec<Token>,
    /// Host names that it is reached by, beside those of its certificate, each with or without a port.
    pub hosts: Vec<String>,
    pub tls: TlsFiles,
    /// Nobody asked for it by name: without the files of `tls` there is none.
    #[serde(skip)]
    pub is_default: bool,
}

/// What a program sends to the API in place of name and password.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What the log calls whoever has it.
    pub name: String,
    pub token: Secret,
    pub scope: Scope,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The figures alone.
    Metrics,
    /// Everything but changes and passkeys.
    Read,
    Write,
}

/// PEM files of a TLS listener.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TlsFiles {
    pub key: PathBuf,
    /// The certificate, and after it those that it is signed by.
    pub cert: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own in the file
pub struct Tracker {
    #[serde(with = "humantime_serde")]
    pub announce_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub min_announce_interval: Duration,
    /// A peer that did not announce for so long has left.
    #[serde(with = "humantime_serde")]
    pub peer_ttl: Duration,
    /// How long the totals of a peer that left are remembered, so that it can resume (rule A2).
    #[serde(with = "humantime_serde")]
    pub tombstone_ttl: Duration,
    /// Peers in a reply to a client that does not say how many it wants.
    pub numwant: u32,
    pub max_numwant: u32,
    /// Public mode: serve torrents that nobody registered.
    pub auto_register: bool,
    /// Public mode: swarms held at once, and torrents that clients may register.
    pub max_torrents: u32,
    /// Public mode: torrents that clients registered, and that nobody used for so long, are removed;
    /// 0 to remove them only when their room is needed.
    #[serde(with = "humantime_serde")]
    pub forget_torrents_after: Duration,
    /// Ports that no client may say it listens on.
    pub blocked_ports: Vec<u16>,
    /// Networks whose announces are refused.
    #[serde(deserialize_with = "networks")]
    pub blocked_networks: Vec<IpNet>,
    /// Refuse clients whose peer id begins with no prefix of the whitelist.
    pub whitelist: bool,
    /// Believe `ip=`, `ipv4=` and `ipv6=` of an announce.
    pub trust_client_ip: bool,
    /// By which addresses the internet reaches peers of the tracker's own networks.
    pub public_addresses: Vec<PublicAddress>,
    /// Public mode: peers of one address in one swarm at once; 0 for no limit.
    pub max_peers_per_ip: u32,
    /// Private mode: clients of one user in one swarm at once (rule A6).
    pub max_peers_per_user: u32,
    /// Private mode: records of one user over all torrents (rule A6).
    pub max_records_per_user: u32,
    /// Private mode: records that one user may begin at once, and in each second after that.
    pub new_records_burst: u32,
    pub new_records_rate: u32,
    /// Private mode: never hand a user their own other peers (rule W8).
    pub hide_own_peers: bool,
    /// Credit above this rate in bytes a second is not believed (rule A7).
    pub max_rate: u64,
    #[serde(with = "humantime_serde")]
    pub hnr_threshold: Duration,
    pub hnr_min_bytes: u64,
}

/// A public address of the tracker's own networks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum PublicAddress {
    /// That of everybody whose address the internet can't reach, in the address's family.
    OfAll(IpAddr),
    OfNetwork(NetworkAddress),
}

/// The public address of one network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAddress {
    pub network: IpNet,
    pub address: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Cache {
    pub driver: String,
    pub url: Secret,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Storage {
    pub driver: String,
    pub url: Secret,
    pub schema: String,
    /// Statements that stand in for those of the schema, by name.
    pub statements: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Journal {
    #[serde(with = "humantime_serde")]
    pub flush_interval: Duration,
    /// How long a reply waits at most until what it acknowledges is durable.
    #[serde(with = "humantime_serde")]
    pub ack_timeout: Duration,
    /// Changes held in memory while cache and storage are away; with a cache, those beyond it
    /// are in the spill file only.
    pub max_pending: u32,
    /// The file for batches that the cache can't take; used only where there is one.
    pub spill: PathBuf,
    /// For how long batches are kept after storage had them, in case it comes back older.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    /// The file that lines are added to; empty for stderr. Opened anew at a reload.
    pub file: PathBuf,
    /// How often a line of statistics is written; `0s` for never.
    #[serde(with = "humantime_serde")]
    pub stats_interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

// === impl Api ===

impl Api {
    /// Whether other hosts can reach it.
    pub fn is_reachable(&self) -> bool {
        self.listen
            .iter()
            .any(|address| !address.ip().is_loopback())
    }

    /// Whether it asks nobody who they are.
    pub fn is_open(&self) -> bool {
        self.password.is_empty() && self.tokens.is_empty()
    }
}

// === defaults ===

/// A public tracker that needs no other server.
impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Public,
            node: host_name(),
            http: Http::default(),
            udp: Udp::default(),
            api: Api::default(),
            tracker: Tracker::default(),
            cache: Cache::default(),
            storage: Storage::default(),
            journal: Journal::default(),
            log: Log::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: everywhere(),
            trusted_proxies: Vec::new(),
            forwarded_header: String::new(),
            tls: None,
            max_connections: 16_384,
        }
    }
}

impl Default for Udp {
    fn default() -> Self {
        Self {
            listen: everywhere(),
            id_lifetime: minutes(2),
            secret: "mika.secret".into(),
            connect_limit: 1000,
            error_limit: 100,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::LOCALHOST, 34001).into()],
            username: String::new(),
            password: Secret::default(),
            tokens: Vec::new(),
            hosts: Vec::new(),
            tls: TlsFiles::default(),
            is_default: true,
        }
    }
}

impl Default for TlsFiles {
    fn default() -> Self {
        Self {
            key: "key_priv".into(),
            cert: "key_ca".into(),
        }
    }
}

/// For [`Mode::Public`]; [`load`] knows what differs in private mode.
impl Default for Tracker {
    fn default() -> Self {
        Self {
            announce_interval: minutes(30),
            min_announce_interval: minutes(15),
            peer_ttl: minutes(65),
            tombstone_ttl: days(1),
            numwant: 50,
            max_numwant: 200,
            auto_register: true,
            max_torrents: 4_000_000,
            forget_torrents_after: Duration::ZERO,
            blocked_ports: Vec::new(),
            blocked_networks: Vec::new(),
            whitelist: false,
            trust_client_ip: false,
            public_addresses: Vec::new(),
            max_peers_per_ip: 100,
            max_peers_per_user: 5,
            // Two clients that seed 10,000 torrents each, or one that is started twice at once.
            max_records_per_user: 20_000,
            new_records_burst: 10_000,
            new_records_rate: 5,
            // Two clients of one user are to find each other; the cap above bounds them.
            hide_own_peers: false,
            max_rate: 2_500_000_000,
            hnr_threshold: days(14),
            hnr_min_bytes: 50 << 20,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            driver: "memory".into(),
            url: Secret::default(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            driver: "sqlite".into(),
            url: Secret::new("sqlite://mika.db"),
            schema: "mika".into(),
            statements: BTreeMap::new(),
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(1),
            ack_timeout: Duration::from_secs(2),
            keep: Duration::from_secs(60),
            max_pending: 1 << 18,
            spill: "mika.spill".into(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            file: PathBuf::new(),
            stats_interval: minutes(1),
        }
    }
}

/// All addresses of the host, at the port that clients are told by default.
fn everywhere() -> Vec<SocketAddr> {
    vec![
        (Ipv4Addr::UNSPECIFIED, 34000).into(),
        (Ipv6Addr::UNSPECIFIED, 34000).into(),
    ]
}

/// The host's name as far as it may be a node's; else `mika`.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    if check::is_node_name(&name) {
        name.into_owned()
    } else {
        "mika".into()
    }
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

const fn days(count: u64) -> Duration {
    minutes(count * 24 * 60)
}
