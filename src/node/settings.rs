//! Derives the settings of the modules from the config, which the modules don't know.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config, Exposed, Loaded};
use crate::journal;
use crate::listen::http::HttpSettings;
use crate::listen::udp::UdpSettings;
use crate::net::host::files;
use crate::registry::Registry;
use crate::wire::forwarded::ForwardedHeader;

pub(super) fn journal(config: &Config) -> journal::JournalSettings {
    journal::JournalSettings {
        node: config.node.clone(),
        flush_interval: config.journal.flush_interval,
        spill: config.journal.spill.clone(),
        memory_max: config.journal.max_pending as usize,
        keep: seconds(config.journal.keep),
    }
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
        trusted_proxies: config.http.trusted_proxies.clone(),
        proxy_protocol: config.http.proxy_protocol,
        forwarded_header: ForwardedHeader::named(&config.http.forwarded_header),
        warned: Arc::default(),
        ack_timeout: config.journal.ack_timeout,
        max_connections: files::room_for(config.http.max_connections, files::limit().current),
    }
}

/// Logs settings that have no effect, and files of the config that other users can read.
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

/// Raises the limit of open files to what the connections need. If it stays lower, fewer connections are
/// held, so that an idle one makes room for a new one, which would otherwise wait for a free file.
pub(super) fn raise_file_limit(connections: u32) {
    let (limit, wanted) = (files::raise(connections), files::needed(connections));
    if limit.current.is_some_and(|current| current < wanted) {
        tracing::warn!(
            limit = limit.current,
            wanted,
            connections = files::room_for(connections, limit.current),
            "the limit of open files is too low for http.max_connections, so fewer connections are \
             held: raise it (ulimit -n, LimitNOFILE)"
        );
    }
}

/// Whole seconds, at least one.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}
