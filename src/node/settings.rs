//! From the config to the settings of the modules, which know no config.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::addr::{PublicAddress, PublicAddresses, canonical_network};
use crate::config::{self, Config, Exposed, Loaded};
use crate::journal;
use crate::listen::http::HttpSettings;
use crate::listen::udp::UdpSettings;
use crate::net::host::files::{self, FileLimit};
use crate::registry::Registry;
use crate::storage::Place;
use crate::tracker::{HnrRules, Mode, RecordLimits, Rules};
use crate::wire::forwarded::ForwardedHeader;

fn networks(named: &[IpNet]) -> Vec<IpNet> {
    named.iter().copied().map(canonical_network).collect()
}

pub(super) fn mode(config: &Config) -> Mode {
    match config.mode {
        config::Mode::Public => Mode::Public,
        config::Mode::Private => Mode::Private,
    }
}

pub(super) fn rules(config: &Config) -> Rules {
    let tracker = &config.tracker;
    Rules {
        announce_interval: seconds(tracker.announce_interval),
        min_announce_interval: seconds(tracker.min_announce_interval),
        peer_ttl: seconds(tracker.peer_ttl),
        tombstone_ttl: seconds(tracker.tombstone_ttl),
        numwant: tracker.numwant,
        max_numwant: tracker.max_numwant,
        auto_register: tracker.auto_register,
        max_torrents: tracker.max_torrents as usize,
        forget_torrents_after: u32::try_from(tracker.forget_torrents_after.as_secs())
            .unwrap_or(u32::MAX),
        blocked_ports: tracker.blocked_ports.clone(),
        blocked_networks: networks(&tracker.blocked_networks),
        whitelist: tracker.whitelist,
        trust_client_ip: tracker.trust_client_ip,
        public_addresses: public_addresses(&tracker.public_addresses),
        max_peers_per_ip: tracker.max_peers_per_ip,
        max_peers_per_user: tracker.max_peers_per_user,
        user_records: RecordLimits {
            max: tracker.max_records_per_user,
            burst: tracker.new_records_burst,
            rate: tracker.new_records_rate,
        },
        hide_own_peers: tracker.hide_own_peers,
        max_rate: tracker.max_rate,
        hnr: HnrRules {
            threshold: seconds(tracker.hnr_threshold),
            min_bytes: tracker.hnr_min_bytes,
        },
    }
}

fn public_addresses(configured: &[config::PublicAddress]) -> PublicAddresses {
    let addresses = configured.iter().map(|entry| match entry {
        config::PublicAddress::OfAll(address) => PublicAddress {
            network: None,
            address: *address,
        },
        config::PublicAddress::OfNetwork(it) => PublicAddress {
            network: Some(it.network),
            address: it.address,
        },
    });
    PublicAddresses::new(addresses.collect())
}

pub(super) fn journal(config: &Config) -> journal::Settings {
    journal::Settings {
        node: config.node.clone(),
        flush_interval: config.journal.flush_interval,
        spill: config.journal.spill.clone(),
        memory_max: config.journal.max_pending as usize,
        keep: seconds(config.journal.keep),
    }
}

/// Where storage is, and which schema its tables have.
pub(super) fn place(config: &Config) -> Place {
    let storage = &config.storage;
    Place::of(&storage.url, &storage.schema, &storage.statements)
}

pub(super) fn udp(config: &Config) -> UdpSettings {
    UdpSettings {
        id_lifetime: seconds(config.udp.id_lifetime),
        connect_limit: config.udp.connect_limit,
        error_limit: config.udp.error_limit,
        ack_timeout: config.journal.ack_timeout,
    }
}

pub(super) fn http(config: &Config) -> HttpSettings {
    HttpSettings {
        trusted_proxies: networks(&config.http.trusted_proxies),
        forwarded_header: ForwardedHeader::named(&config.http.forwarded_header),
        warned: Arc::default(),
        ack_timeout: config.journal.ack_timeout,
        max_connections: FileLimit::read().room_for(config.http.max_connections),
    }
}

/// Logs what the config sets without effect, and which of its files others can read.
pub(super) fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for Exposed { problem, hint } in config::exposed(loaded) {
        tracing::warn!(hint, "{problem}");
    }
}

/// A whitelist without an entry refuses everybody, which is seldom meant.
pub(super) fn warn_of_empty_whitelist(config: &Config, registry: &Registry) {
    if config.tracker.whitelist && registry.whitelist().is_empty() {
        tracing::warn!(
            "tracker.whitelist is on and the whitelist is empty: every client is refused; \
             add one with: mika-manage whitelist add PREFIX CLIENT"
        );
    }
}

/// Asks the system for as many files as the connections need. With fewer, fewer connections are
/// held: without a file for the next, a newcomer would wait although others are idle.
pub(super) fn raise_file_limit(connections: u32) {
    let (limit, wanted) = (files::raise(connections), files::needed(connections));
    if limit.current.is_some_and(|current| current < wanted) {
        tracing::warn!(
            limit = limit.current,
            wanted,
            connections = limit.room_for(connections),
            "the limit of open files is too low for http.max_connections, so fewer connections are \
             held: raise it (ulimit -n, LimitNOFILE)"
        );
    }
}

/// Whole seconds, at least one.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_nobodys_config_are_the_default_rules() {
        assert_eq!(rules(&Config::default()), Rules::default());
    }
}
