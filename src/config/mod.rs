//! The configuration: every section with its default, checked once at start and at a reload.
//!
//! [`load`] finds the file, refuses unknown keys and wrong types, fills in the defaults, takes secrets
//! from the environment and checks the values. The result needs no further check, except that the
//! named drivers exist.

mod changes;
mod check;
mod drivers;
mod files;
mod load;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use crate::base::networks;
use crate::base::secret::Secret;
use crate::telemetry::log::LogSettings;

pub use changes::{SettingChange, changes};
pub use drivers::{Drivers, UnknownDriver};
pub use files::{Exposed, exposed};
pub use load::{ConfigError, ConfigSource, Loaded, load};

// Settings that their own modules define.
pub use crate::api::{AccessScope, Token};
pub use crate::tracker::{Mode, Rules};

/// The whole of `config.json`. By default a public tracker that needs no other server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    pub mode: Mode,
    /// The name under which this process numbers its batches; empty for the host's.
    pub node: String,
    pub http: HttpSection,
    pub udp: UdpSection,
    pub api: ApiSection,
    pub tracker: Rules,
    pub cache: CacheSection,
    pub storage: StorageSection,
    pub journal: JournalSection,
    pub log: LogSettings,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, SmartDefault)]
#[serde(default)]
pub struct HttpSection {
    /// Addresses to serve; an empty list turns HTTP off.
    #[default(everywhere())]
    pub listen: Vec<SocketAddr>,
    /// Proxies trusted to name the client.
    #[serde(deserialize_with = "networks::deserialize")]
    pub trusted_proxies: Vec<IpNet>,
    /// Connections of trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
    /// The header with the client's address; empty for `X-Forwarded-For` or `Forwarded`.
    pub forwarded_header: String,
    /// If set, `listen` serves HTTPS.
    pub tls: Option<TlsFiles>,
    /// Connections open at once, over all workers; new ones evict idle ones.
    #[default(16_384)]
    pub max_connections: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, SmartDefault)]
#[serde(default)]
pub struct UdpSection {
    /// Addresses to serve; an empty list turns UDP off.
    #[default(everywhere())]
    pub listen: Vec<SocketAddr>,
    /// The least time for which a connection id is accepted (rule U3).
    #[serde(with = "humantime_serde")]
    #[default(minutes(2))]
    pub id_lifetime: Duration,
    /// The file with the secret for connection ids, shared by all processes of a host.
    #[default("mika.secret")]
    pub secret: PathBuf,
    /// Connects of one network (a /24 or /48) answered in a second; 0 for no limit.
    #[default(1000)]
    pub connect_limit: u32,
    /// Errors sent to one network in a second; 0 for no limit.
    #[default(100)]
    pub error_limit: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, SmartDefault)]
#[serde(default)]
pub struct ApiSection {
    /// Addresses to serve; an empty list turns the API off.
    #[default([(Ipv4Addr::LOCALHOST, 34001).into()].into())]
    pub listen: Vec<SocketAddr>,
    /// Empty for any name.
    pub username: String,
    /// Empty for none: then only tokens are accepted; without tokens too, the API is open to this host.
    pub password: Secret,
    pub tokens: Vec<Token>,
    /// Host names of the API besides those of its certificate, each with or without a port.
    pub hosts: Vec<String>,
    pub tls: TlsFiles,
    /// `listen` is not in the file: the API then runs only if the files of `tls` exist.
    #[serde(skip)]
    #[default(true)]
    pub is_default: bool,
}

/// PEM files of a TLS listener.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, SmartDefault)]
#[serde(default)]
pub struct TlsFiles {
    #[default("key_priv")]
    pub key: PathBuf,
    /// The certificate chain.
    #[default("key_ca")]
    pub cert: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, SmartDefault)]
#[serde(default)]
pub struct CacheSection {
    #[default("memory")]
    pub driver: String,
    pub url: Secret,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, SmartDefault)]
#[serde(default)]
pub struct StorageSection {
    #[default("sqlite")]
    pub driver: String,
    #[default(Secret::new("sqlite://mika.db"))]
    pub url: Secret,
    #[default("mika")]
    pub schema: String,
    /// Statements that replace those of the schema, by name.
    pub statements: BTreeMap<String, String>,
    /// How often edits are looked for where the database does not tell of them.
    #[serde(with = "humantime_serde")]
    #[default(Duration::from_millis(500))]
    pub poll_interval: Duration,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, SmartDefault)]
#[serde(default)]
pub struct JournalSection {
    #[serde(with = "humantime_serde")]
    #[default(Duration::from_secs(1))]
    pub flush_interval: Duration,
    /// The longest time that a reply waits for what it acknowledges to become durable.
    #[serde(with = "humantime_serde")]
    #[default(Duration::from_secs(2))]
    pub ack_timeout: Duration,
    /// Changes held in memory while cache and storage are away; with a cache, changes beyond it are only
    /// in the spill file.
    #[default(1 << 18)]
    pub max_pending: u32,
    /// The file for batches that the cache can't take; used only with a cache.
    #[default("mika.spill")]
    pub spill: PathBuf,
    /// How long batches are kept after storage has them, in case storage is restored to an older state.
    #[serde(with = "humantime_serde")]
    #[default(Duration::from_secs(60))]
    pub keep: Duration,
}

impl ApiSection {
    /// Whether other hosts can reach it.
    pub fn is_reachable(&self) -> bool {
        self.listen
            .iter()
            .any(|address| !address.ip().is_loopback())
    }

    /// Whether it needs no login.
    pub fn is_open(&self) -> bool {
        self.password.is_empty() && self.tokens.is_empty()
    }
}

/// All addresses of the host, at the default port.
fn everywhere() -> Vec<SocketAddr> {
    vec![
        (Ipv4Addr::UNSPECIFIED, 34000).into(),
        (Ipv6Addr::UNSPECIFIED, 34000).into(),
    ]
}

/// The host's name if it is a valid node name; else `mika`.
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
