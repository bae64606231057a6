//! The figures of a running daemon, as `GET /api/stats` has them.
//!
//! What a newer daemon adds is passed over, and what an older one lacks is 0.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Figures since the start, and of the moment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stats {
    pub version: String,
    pub mode: String,
    pub node: String,
    /// Seconds.
    pub uptime: u64,
    pub announces: ByProtocol,
    pub scrapes: ByProtocol,
    pub udp_connects: u64,
    /// By reason.
    pub refusals: BTreeMap<String, u64>,
    pub swarms: u64,
    pub peers: Families,
    pub snatches: u64,
    pub expired: u64,
    pub registry: Registry,
    pub journal: Journal,
    pub storage: Server,
    /// None where the node stands alone.
    pub cache: Option<Server>,
    pub connections: Connections,
    /// Bytes resident.
    pub memory: u64,
    /// The most used first.
    pub clients: Vec<Client>,
    /// The largest first.
    pub busiest: Vec<Torrent>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ByProtocol {
    pub http: u64,
    pub https: u64,
    pub udp: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Families {
    pub ipv4: Roles,
    pub ipv6: Roles,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Roles {
    pub seeders: u64,
    pub leechers: u64,
    pub paused: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Registry {
    pub users: u64,
    pub torrents: u64,
    pub clients: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Journal {
    /// Changes that are in no batch yet.
    pub pending: u64,
    /// Changes that storage does not have yet.
    pub backlog: u64,
    /// Of the oldest of them, in seconds.
    pub age: f64,
    pub batches: u64,
    pub batch_failures: u64,
    pub spilled: u64,
}

/// A database or cache.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Server {
    pub driver: String,
    pub up: bool,
    pub problem: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Connections {
    pub open: u64,
    pub accepted: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Client {
    #[serde(rename = "client")]
    pub name: String,
    pub version: Option<String>,
    pub started: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Torrent {
    pub info_hash: String,
    pub name: Option<String>,
    pub seeders: u64,
    pub leechers: u64,
}

/// How well something does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Good,
    Late,
    Bad,
}

/// One line about what the daemon depends on.
#[derive(Debug, PartialEq, Eq)]
pub struct Health {
    pub level: Level,
    pub name: String,
    pub text: String,
}

/// A journal whose oldest change is older than this (seconds) is late.
const JOURNAL_LATE: f64 = 30.0;

// === impl Stats ===

impl Stats {
    /// Storage, cache and journal, in that order.
    pub fn health(&self) -> Vec<Health> {
        let alone = || Health {
            level: Level::Good,
            name: "cache".into(),
            text: "none: this node stands alone".into(),
        };
        let journal = if self.journal.age > JOURNAL_LATE {
            let age = super::print::duration(self.journal.age as u64);
            (Level::Late, format!("{age} behind; no credit is lost"))
        } else {
            (Level::Good, "keeps up".into())
        };
        vec![
            self.storage.health("storage"),
            self.cache
                .as_ref()
                .map_or_else(alone, |cache| cache.health("cache")),
            Health {
                level: journal.0,
                name: "journal".into(),
                text: journal.1,
            },
        ]
    }

    /// Refusals by reason, the most frequent first.
    pub fn reasons(&self) -> Vec<(&str, u64)> {
        let mut reasons: Vec<(&str, u64)> = self
            .refusals
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| (reason.as_str(), *count))
            .collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons
    }

    pub fn refused(&self) -> u64 {
        self.refusals.values().sum()
    }
}

// === impl ByProtocol ===

impl ByProtocol {
    pub fn total(&self) -> u64 {
        self.http + self.https + self.udp
    }
}

// === impl Families ===

impl Families {
    /// Of both families.
    pub fn total(&self) -> Roles {
        Roles {
            seeders: self.ipv4.seeders + self.ipv6.seeders,
            leechers: self.ipv4.leechers + self.ipv6.leechers,
            paused: self.ipv4.paused + self.ipv6.paused,
        }
    }
}

// === impl Roles ===

impl Roles {
    pub fn total(&self) -> u64 {
        self.seeders + self.leechers + self.paused
    }
}

// === impl Server ===

impl Server {
    fn health(&self, what: &str) -> Health {
        let away = || self.problem.clone().unwrap_or_else(|| "away".into());
        Health {
            level: if self.up { Level::Good } else { Level::Bad },
            name: format!("{what} ({})", self.driver),
            text: if self.up { "up".into() } else { away() },
        }
    }
}

// === impl Client ===

impl Client {
    /// Name and version; of clients that are many or unknown, both are the same word.
    pub fn label(&self) -> String {
        match &self.version {
            Some(version) if !version.is_empty() && *version != self.name => {
                format!("{} {version}", self.name)
            }
            _ => self.name.clone(),
        }
    }
}

// === impl Torrent ===

impl Torrent {
    /// The name, or the info hash of a torrent that has none.
    pub fn label(&self) -> &str {
        match &self.name {
            Some(name) if !name.is_empty() => name,
            _ => &self.info_hash,
        }
    }
}
