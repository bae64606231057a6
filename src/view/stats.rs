//! The figures of a running tracker: the API writes them, `mika-manage` reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// What the tracker does. Totals count since it started.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = Stats)]
pub struct TrackerStats {
    pub version: String,
    #[schema(example = "private")]
    pub mode: String,
    /// The name of this node
    pub node: String,
    /// Seconds since the process started
    pub uptime: u64,
    /// Announces answered, by protocol
    #[schema(value_type = BTreeMap<String, u64>)]
    pub announces: ProtocolCounts,
    /// Scrapes answered, by protocol
    #[schema(value_type = BTreeMap<String, u64>)]
    pub scrapes: ProtocolCounts,
    pub udp_connects: u64,
    /// Announces and scrapes refused, by reason; reasons that never occurred are left out
    pub refusals: BTreeMap<String, u64>,
    pub swarms: u64,
    pub peers: PeersByFamily,
    /// Completed downloads
    pub snatches: u64,
    /// Peers that fell silent
    pub expired: u64,
    pub registry: RegistrySizes,
    pub journal: JournalState,
    pub storage: ServerState,
    /// None where nodes share nothing
    pub cache: Option<ServerState>,
    pub connections: Connections,
    /// Resident memory in bytes
    pub memory: u64,
    /// The clients that began the most sessions
    pub clients: Vec<ClientCount>,
    /// The largest swarms
    pub busiest: Vec<BusySwarm>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProtocolCounts {
    pub http: u64,
    pub https: u64,
    pub udp: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = Peers)]
pub struct PeersByFamily {
    pub ipv4: RoleCounts,
    pub ipv6: RoleCounts,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = ByRole)]
pub struct RoleCounts {
    pub seeders: u64,
    pub leechers: u64,
    pub paused: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RegistrySizes {
    pub users: u64,
    pub torrents: u64,
    /// Entries of the whitelist
    pub clients: u64,
}

/// What storage does not have yet, and what became of the rest.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct JournalState {
    /// Changes that are not durable yet
    pub pending: u64,
    /// Changes that storage does not have yet
    pub backlog: u64,
    /// Seconds since the oldest of them
    pub age: u64,
    /// Batches applied to storage
    pub batches: u64,
    /// Tries that failed
    pub batch_failures: u64,
    /// Batches written to the spill file
    pub spilled: u64,
}

/// A server that the node needs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = Side)]
pub struct ServerState {
    #[schema(example = "mysql")]
    pub driver: String,
    pub up: bool,
    /// What is wrong with it
    pub problem: Option<String>,
}

/// HTTP connections of clients.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    pub open: u64,
    pub accepted: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ClientCount {
    pub client: String,
    pub version: String,
    /// Sessions that it began
    pub started: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = Swarm)]
pub struct BusySwarm {
    pub info_hash: String,
    /// None for a torrent that nobody registered
    pub name: Option<String>,
    pub seeders: u32,
    pub leechers: u32,
}

impl TrackerStats {
    /// Reads the document of a daemon of any version: unknown keys are skipped, missing ones are 0.
    pub fn from_json(document: &Value) -> serde_json::Result<Self> {
        let mut complete = serde_json::to_value(Self::default())?;
        overlay(&mut complete, document);
        serde_json::from_value(complete)
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

/// Replaces the values of `base` by those that `given` has.
fn overlay(base: &mut Value, given: &Value) {
    match (base, given) {
        (Value::Object(base), Value::Object(given)) => {
            for (key, value) in given {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, given) => *base = given.clone(),
    }
}

impl ProtocolCounts {
    pub fn total(&self) -> u64 {
        self.http + self.https + self.udp
    }
}

impl PeersByFamily {
    /// The sum of both families.
    pub fn total(&self) -> RoleCounts {
        RoleCounts {
            seeders: self.ipv4.seeders + self.ipv6.seeders,
            leechers: self.ipv4.leechers + self.ipv6.leechers,
            paused: self.ipv4.paused + self.ipv6.paused,
        }
    }
}

impl RoleCounts {
    pub fn total(&self) -> u64 {
        self.seeders + self.leechers + self.paused
    }
}

impl ClientCount {
    /// Name and version. For unlisted and unknown clients both are the same word, shown once.
    pub fn label(&self) -> String {
        if self.version.is_empty() || self.version == self.client {
            self.client.clone()
        } else {
            format!("{} {}", self.client, self.version)
        }
    }
}

impl BusySwarm {
    /// The name of the torrent, or its info hash if it has none.
    pub fn label(&self) -> &str {
        match &self.name {
            Some(name) if !name.is_empty() => name,
            _ => &self.info_hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_daemon_of_another_version_is_read() {
        let stats = TrackerStats::from_json(&json!({
            "announces": { "udp": 7, "quic": 1 },
            "cache": { "driver": "redis", "up": true, "problem": null },
            "added_later": [],
        }))
        .unwrap();
        assert_eq!((stats.announces.total(), stats.uptime), (7, 0));
        assert!(stats.cache.is_some_and(|cache| cache.up));
    }
}
