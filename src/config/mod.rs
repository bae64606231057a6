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

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct HttpSection {
    /// Addresses to serve; an empty list turns HTTP off.
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
    pub max_connections: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct UdpSection {
    /// Addresses to serve; an empty list turns UDP off.
    pub listen: Vec<SocketAddr>,
    /// The least time for which a connection id is accepted (rule U3).
    #[serde(with = "humantime_serde")]
    pub id_lifetime: Duration,
    /// The file with the secret for connection ids, shared by all processes of a host.
    pub secret: PathBuf,
    /// Connects of one network (a /24 or /48) answered in a second; 0 for no limit.
    pub connect_limit: u32,
    /// Errors sent to one network in a second; 0 for no limit.
    pub error_limit: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct ApiSection {
    /// Addresses to serve; an empty list turns the API off.
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
    pub is_default: bool,
}

/// PEM files of a TLS listener.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TlsFiles {
    pub key: PathBuf,
    /// The certificate chain.
    pub cert: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct CacheSection {
    pub driver: String,
    pub url: Secret,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct StorageSection {
    pub driver: String,
    pub url: Secret,
    pub schema: String,
    /// Statements that replace those of the schema, by name.
    pub statements: BTreeMap<String, String>,
    /// How often edits are looked for where the database does not tell of them.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct JournalSection {
    #[serde(with = "humantime_serde")]
    pub flush_interval: Duration,
    /// The longest time that a reply waits for what it acknowledges to become durable.
    #[serde(with = "humantime_serde")]
    pub ack_timeout: Duration,
    /// Changes held in memory while cache and storage are away; with a cache, changes beyond it are only
    /// in the spill file.
    pub max_pending: u32,
    /// The file for batches that the cache can't take; used only with a cache.
    pub spill: PathBuf,
    /// How long batches are kept after storage has them, in case storage is restored to an older state.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
}

// === impl ApiSection ===

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

// === defaults ===

impl Default for HttpSection {
    fn default() -> Self {
        Self {
            listen: everywhere(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            forwarded_header: String::new(),
            tls: None,
            max_connections: 16_384,
        }
    }
}

impl Default for UdpSection {
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

impl Default for ApiSection {
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

impl Default for CacheSection {
    fn default() -> Self {
        Self {
            driver: "memory".into(),
            url: Secret::default(),
        }
    }
}

impl Default for StorageSection {
    fn default() -> Self {
        Self {
            driver: "sqlite".into(),
            url: Secret::new("sqlite://mika.db"),
            schema: "mika".into(),
            statements: BTreeMap::new(),
            poll_interval: Duration::from_millis(500),
        }
    }
}

impl Default for JournalSection {
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
