//! `mika-manage stats`: figures and health of the running daemon.

use anyhow::Result;

use super::ExitStatus;
use super::daemon::{Daemon, DaemonAddress};
use super::health;
use super::print::{Printer, duration, size};
use crate::config::Config;
use crate::view::{Connections, ProtocolCounts, RoleCounts, TrackerStats};

/// Refusals, clients and torrents shown to people; JSON has all.
const SHOWN: usize = 5;

pub async fn run(
    address: &DaemonAddress,
    config: &Config,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let (stats, document) = Daemon::find(address, config)?.stats().await?;
    printer.record(&document, &fields(&stats))?;
    Ok(ExitStatus::Success)
}

fn fields(stats: &TrackerStats) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("node", format!("{} ({})", stats.node, stats.mode)),
        ("version", stats.version.clone()),
        ("uptime", duration(stats.uptime)),
        ("announces", by_protocol(&stats.announces)),
        ("scrapes", by_protocol(&stats.scrapes)),
        ("UDP connects", stats.udp_connects.to_string()),
        ("refusals", stats.refused().to_string()),
    ];
    for (reason, count) in stats.reasons().iter().take(SHOWN) {
        fields.push(("", format!("{count} {}", reason.replace('_', " "))));
    }
    fields.extend([
        ("peers", roles(&stats.peers.total())),
        ("", format!("IPv4: {}", roles(&stats.peers.ipv4))),
        ("", format!("IPv6: {}", roles(&stats.peers.ipv6))),
        ("swarms", stats.swarms.to_string()),
        ("snatches", stats.snatches.to_string()),
        ("expired", stats.expired.to_string()),
        ("registry", registry(stats)),
        ("journal", journal(stats)),
    ]);
    for (line, name) in health::lines(stats).iter().zip(["health", "", ""]) {
        fields.push((name, format!("{}: {}", line.name, line.text)));
    }
    let Connections { open, accepted } = stats.connections;
    fields.push(("connections", format!("{open} open, {accepted} accepted")));
    fields.push(("memory", size(stats.memory)));
    for (index, client) in stats.clients.iter().take(SHOWN).enumerate() {
        let name = if index == 0 { "clients" } else { "" };
        fields.push((name, format!("{} {}", client.started, client.label())));
    }
    for (index, swarm) in stats.busiest.iter().take(SHOWN).enumerate() {
        let name = if index == 0 { "busiest" } else { "" };
        let (seeders, leechers) = (swarm.seeders, swarm.leechers);
        let text = format!("{seeders} seeders, {leechers} leechers: {}", swarm.label());
        fields.push((name, text));
    }
    fields
}

fn by_protocol(counts: &ProtocolCounts) -> String {
    let ProtocolCounts { http, https, udp } = counts;
    format!("{} (HTTP {http}, HTTPS {https}, UDP {udp})", counts.total())
}

fn roles(roles: &RoleCounts) -> String {
    let (total, paused) = (roles.total(), roles.paused);
    let (seeders, leechers) = (roles.seeders, roles.leechers);
    format!("{total} ({seeders} seeders, {leechers} leechers, {paused} paused)")
}

fn registry(stats: &TrackerStats) -> String {
    let registry = &stats.registry;
    format!(
        "{} users, {} torrents, {} clients",
        registry.users, registry.torrents, registry.clients
    )
}

fn journal(stats: &TrackerStats) -> String {
    let journal = &stats.journal;
    format!(
        "{} changes pending, {} not in storage, the oldest {} s; {} batches, {} failures, {} spilled",
        journal.pending,
        journal.backlog,
        journal.age,
        journal.batches,
        journal.batch_failures,
        journal.spilled
    )
}
