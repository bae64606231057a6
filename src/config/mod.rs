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
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::base::networks;
use crate::base::secret::Secret;
use crate::telemetry::log::LogSettings;

pub use changes::{Change, changes};
pub use files::{Exposed, exposed};
pub use load::{ConfigError, Loaded, Source, load};

// Settings that their own modules define.
pub use crate::api::{Scope, Token};
pub use crate::tracker::{Mode, Rules};

/// The whole of `config.json`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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
    /// Proxies that are believed when they name the client.
    #[serde(deserialize_with = "networks::deserialize")]
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
pub struct UdpSection {
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
pub struct ApiSection {
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
    /// Statements that stand in for those of the schema, by name.
    pub statements: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct JournalSection {
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

// === impl ApiSection ===

impl ApiSection {
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
            http: HttpSection::default(),
            udp: UdpSection::default(),
            api: ApiSection::default(),
            tracker: Rules::default(),
            cache: CacheSection::default(),
            storage: StorageSection::default(),
            journal: JournalSection::default(),
            log: LogSettings::default(),
        }
    }
}

impl Default for HttpSection {
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
