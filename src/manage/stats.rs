//! `mika-manage stats`: what the running daemon has done, and how it is.

use anyhow::Result;

use super::ExitStatus;
use super::daemon::{Daemon, Place};
use super::print::{Printer, duration, size};
use super::report::{ByProtocol, Roles, Stats};
use crate::config::Config;

/// Refusals, clients and torrents that people are shown; programs get all.
const SHOWN: usize = 5;

pub async fn run(place: &Place, config: &Config, printer: &mut Printer) -> Result<ExitStatus> {
    let (stats, document) = Daemon::find(place, config)?.stats().await?;
    printer.record(&document, &fields(&stats))?;
    Ok(ExitStatus::Success)
}

fn fields(stats: &Stats) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("node", format!("{} ({})", stats.node, stats.mode)),
        ("version", stats.version.clone()),
        ("uptime", duration(stats.uptime)),
        ("announces", by_protocol(&stats.announces)),
        ("scrapes", by_protocol(&stats.scrapes)),
        ("UDP connects", stats.udp_connects.to_string()),
        ("refusals", stats.refused().to_string()),
    ];
    let reasons = stats.reasons();
    let reasons = reasons.iter().take(SHOWN);
    fields.extend(
        reasons.map(|(reason, count)| ("", format!("{count} {}", reason.replace('_', " ")))),
    );
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
    let health = stats.health().into_iter();
    fields.extend(
        health
            .zip(["health", "", ""])
            .map(|(it, name)| (name, format!("{}: {}", it.name, it.text))),
    );
    fields.extend([
        (
            "connections",
            format!(
                "{} open, {} accepted",
                stats.connections.open, stats.connections.accepted
            ),
        ),
        ("memory", size(stats.memory)),
    ]);
    let first = |name: &'static str| std::iter::once(name).chain(std::iter::repeat(""));
    let clients = stats.clients.iter().take(SHOWN);
    fields.extend(
        first("clients")
            .zip(clients)
            .map(|(name, it)| (name, format!("{} {}", it.started, it.label()))),
    );
    let torrents = stats.busiest.iter().take(SHOWN);
    fields.extend(first("busiest").zip(torrents).map(|(name, it)| {
        (
            name,
            format!(
                "{} seeders, {} leechers: {}",
                it.seeders,
                it.leechers,
                it.label()
            ),
        )
    }));
    fields
}

fn by_protocol(counts: &ByProtocol) -> String {
    let ByProtocol { http, https, udp } = counts;
    format!("{} (HTTP {http}, HTTPS {https}, UDP {udp})", counts.total())
}

fn roles(roles: &Roles) -> String {
    let Roles {
        seeders,
        leechers,
        paused,
    } = roles;
    format!(
        "{} ({seeders} seeders, {leechers} leechers, {paused} paused)",
        roles.total()
    )
}

fn registry(stats: &Stats) -> String {
    let registry = &stats.registry;
    format!(
        "{} users, {} torrents, {} clients",
        registry.users, registry.torrents, registry.clients
    )
}

fn journal(stats: &Stats) -> String {
    let journal = &stats.journal;
    format!(
        "{} changes pending, {} not in storage, the oldest {} s; {} batches, {} failures, {} spilled",
        journal.pending,
        journal.backlog,
        (journal.age * 10.0).round() / 10.0,
        journal.batches,
        journal.batch_failures,
        journal.spilled
    )
}
