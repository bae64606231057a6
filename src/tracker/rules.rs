//! The settings that the decision goes by: the section `tracker` of the config.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use smart_default::SmartDefault;

use crate::base::addr::PublicAddresses;
use crate::base::clock::Seconds;
use crate::base::{networks, seconds};
use crate::swarm::LIFE_MAX;
use crate::tracker::credit::HnrRules;
use crate::tracker::private::RecordLimits;

/// Whether anybody may take part, or registered users only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Anybody, and any torrent unless `tracker.auto_register` is off.
    #[default]
    Public,
    /// Users by passkey, and registered torrents.
    Private,
}

/// Times in seconds, sizes in bytes. The defaults are for [`Mode::Public`]; the config knows what differs
/// in private mode.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, SmartDefault)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own in the config
pub struct Rules {
    #[serde(with = "seconds")]
    #[default(1800)]
    pub announce_interval: u32,
    /// Advice to clients: an announce that comes earlier is answered like any other (rule R7).
    #[serde(with = "seconds")]
    #[default(900)]
    pub min_announce_interval: u32,
    /// A peer that did not announce for this long has left (rule W10). In public mode at most
    /// [`LIFE_MAX`].
    #[serde(with = "seconds")]
    #[default(3900)]
    pub peer_ttl: u32,
    /// How long the account of a peer that left is kept, so that it can resume (rule A2).
    #[serde(with = "seconds")]
    #[default(86_400)]
    pub tombstone_ttl: u32,
    /// Peers in a reply to a client that does not say how many it wants.
    #[default(50)]
    pub numwant: u32,
    #[default(200)]
    pub max_numwant: u32,
    /// Public mode: serve torrents that are not registered.
    #[default(true)]
    pub auto_register: bool,
    /// Public mode: swarms held at once, and torrents that clients may register.
    #[serde(deserialize_with = "up_to_32_bits")]
    #[default(4_000_000)]
    pub max_torrents: usize,
    /// Public mode: a torrent that clients registered and that was unused for this long is removed;
    /// 0 to remove it only when its room is needed.
    #[serde(with = "seconds")]
    pub forget_torrents_after: u32,
    /// Ports that no client may listen on.
    pub blocked_ports: Vec<u16>,
    /// Networks whose announces are refused.
    #[serde(deserialize_with = "networks::deserialize")]
    pub blocked_networks: Vec<IpNet>,
    /// Refuse clients whose peer id begins with no prefix of the whitelist.
    pub whitelist: bool,
    /// Believe `ip=`, `ipv4=` and `ipv6=` of an announce.
    pub trust_client_ip: bool,
    /// By which addresses the internet reaches peers of the tracker's own networks (rule W8).
    pub public_addresses: PublicAddresses,
    /// Public mode: peers of one address, or of one IPv6 network of 64 bits, in one swarm; 0 for
    /// no limit. Addresses that the internet can't reach have none: they stand for many hosts.
    #[default(100)]
    pub max_peers_per_ip: u32,
    /// Private mode: clients of one user in one swarm (rule A6).
    #[default(5)]
    pub max_peers_per_user: u32,
    /// Private mode: records of one user over all torrents (rule A6). The default is for two clients
    /// that seed 10,000 torrents each, or one that is started twice at once.
    #[default(20_000)]
    pub max_records_per_user: u32,
    /// Private mode: records that one user may begin at once, and in each second after that.
    #[default(10_000)]
    pub new_records_burst: u32,
    #[default(5)]
    pub new_records_rate: u32,
    /// Private mode: never hand a user their own other clients (rule W8). Off by default: two clients of
    /// one user should find each other, and `max_peers_per_user` bounds them.
    pub hide_own_peers: bool,
    /// Bytes a second; a total that grows faster is not believed (rule A7).
    #[default(2_500_000_000)]
    pub max_rate: u64,
    #[serde(with = "seconds")]
    #[default(14 * 86_400)]
    pub hnr_threshold: u32,
    #[default(50 << 20)]
    pub hnr_min_bytes: u64,
}

fn up_to_32_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    u32::deserialize(deserializer).map(|number| number as usize)
}

impl Rules {
    /// The rules, limited to what that mode can keep.
    pub(super) fn within(mut self, mode: Mode) -> Self {
        if mode == Mode::Public {
            self.peer_ttl = self.peer_ttl.min(LIFE_MAX);
        }
        self
    }

    pub(super) fn user_records(&self) -> RecordLimits {
        RecordLimits {
            max: self.max_records_per_user,
            burst: self.new_records_burst,
            rate: self.new_records_rate,
        }
    }

    pub fn hnr(&self) -> HnrRules {
        HnrRules {
            threshold: self.hnr_threshold.max(1),
            min_bytes: self.hnr_min_bytes,
        }
    }

    /// Peers last seen before this moment have expired (rule W10).
    pub fn alive_since(&self, now: Seconds) -> Seconds {
        Seconds(now.0.saturating_sub(self.peer_ttl))
    }

    /// The number of the current period of `peer_ttl` seconds; shares of networks are counted per period.
    pub(super) fn life(&self, now: Seconds) -> u32 {
        now.0 / self.peer_ttl.max(1)
    }

    /// Whether announces from that address are refused.
    pub fn blocks_address(&self, ip: IpAddr) -> bool {
        self.blocked_networks.iter().any(|net| net.contains(&ip))
    }

    /// Seconds for which the record of a peer is of use: while it lives, and as a tombstone.
    pub fn record_ttl(&self) -> u32 {
        self.peer_ttl.saturating_add(self.tombstone_ttl)
    }

    /// The announce interval ±5 %, so that clients that came together don't stay together (rule R5).
    pub fn jittered_interval(&self, rng: &mut fastrand::Rng) -> u32 {
        let spread = self.announce_interval / 20;
        let interval = self.announce_interval - spread + rng.u32(..=2 * spread);
        interval.max(self.min_announce_interval)
    }
}
