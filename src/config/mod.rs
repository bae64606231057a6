//! The configuration: every section with its default, checked once at start and at a reload.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

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
    /// The name under which this process numbers its batches; by default the host's.
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
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// With it, `listen` serves HTTPS.
    pub tls: Option<TlsFiles>,
    /// Connections open at once, over all workers; more wait in the kernel.
    pub max_connections: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Udp {
    pub listen: Vec<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Api {
    pub listen: Vec<SocketAddr>,
    pub username: String,
    pub password: Secret,
    pub tls: TlsFiles,
}

/// PEM files of a TLS listener.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct TlsFiles {
    pub key: PathBuf,
    /// The certificate, and after it those that it is signed by.
    pub cert: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
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
    /// Swarms of unregistered torrents held at once (public mode).
    pub max_torrents: u32,
    /// Refuse clients whose peer id begins with no prefix of the whitelist.
    pub whitelist: bool,
    /// Believe `ip=`, `ipv4=` and `ipv6=` of an announce.
    pub trust_client_ip: bool,
    /// Private mode: clients of one user in one swarm at once (rule A6).
    pub max_peers_per_user: u32,
    /// Private mode: never hand a user their own other peers (rule W8).
    pub hide_own_peers: bool,
    /// Credit above this rate in bytes a second is not believed (rule A7).
    pub max_rate: u64,
    #[serde(with = "humantime_serde")]
    pub hnr_threshold: Duration,
    pub hnr_min_bytes: u64,
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
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Journal {
    #[serde(with = "humantime_serde")]
    pub flush_interval: Duration,
    /// How long a reply waits at most until what it acknowledges is durable.
    #[serde(with = "humantime_serde")]
    pub ack_timeout: Duration,
    /// Changes held in memory while storage is away.
    pub max_pending: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
    /// How often a line of statistics is written; `0s` for never.
    #[serde(with = "humantime_serde")]
    pub stats_interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}
