//! Checks the host: address families, open files and ports.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Result;

use super::report::CheckReport;
use crate::config::Config;
use crate::net::host::families::{counterpart, family, has_family};
use crate::net::host::files;
use crate::net::host::ports::OutgoingPorts;

/// The lists of addresses in the config, by their keys.
type Lists<'a> = [(&'static str, &'a [SocketAddr]); 3];

pub(super) fn check(config: &Config, report: &mut CheckReport<'_>) -> Result<()> {
    let lists: Lists = [
        ("http.listen", &config.http.listen),
        ("udp.listen", &config.udp.listen),
        ("api.listen", &config.api.listen),
    ];
    for (key, addresses) in lists {
        check_families(key, addresses, report)?;
    }
    check_files(config.http.max_connections, files::limit().maximum, report)?;
    check_ports(&lists, OutgoingPorts::read().as_ref(), report)
}

/// Checks that this host has the families of all addresses, or can do without.
fn check_families(key: &str, addresses: &[SocketAddr], report: &mut CheckReport<'_>) -> Result<()> {
    for &address in addresses {
        let any = match address {
            SocketAddr::V4(_) => [0; 4].into(),
            SocketAddr::V6(_) => [0_u16; 8].into(),
        };
        // Loopback may lack a family that other addresses have, and the other way round.
        let asked = if address.ip().is_loopback() {
            address.ip()
        } else {
            any
        };
        if has_family(asked) {
            continue;
        }
        let missing = format!("{address}: this host has no {}", family(address.ip()));
        let hint = format!("take {address} out of {key}");
        match counterpart(address, addresses) {
            Some(other) => {
                let found = format!("{missing}, so clients find {other} only");
                report.note(key, &found, &hint)?;
            }
            None => report.problem(key, &missing, &hint)?,
        }
    }
    Ok(())
}

/// Checks that a process started like this one may open enough files.
fn check_files(connections: u32, limit: Option<u64>, report: &mut CheckReport<'_>) -> Result<()> {
    let needed = files::needed(connections);
    match limit {
        Some(maximum) if maximum < needed => report.problem(
            "files",
            &format!(
                "{maximum} files may be open, and http.max_connections ({connections}) needs {needed}"
            ),
            "raise the limit where the tracker is started (LimitNOFILE, ulimit -Hn), or lower \
             http.max_connections",
        ),
        Some(maximum) => report.ok("files", &format!("{maximum} may be open, {needed} are needed")),
        None => report.ok("files", "any number may be open"),
    }
}

/// Checks that no outgoing connection can take a port before the tracker starts.
fn check_ports(
    lists: &Lists,
    outgoing: Option<&OutgoingPorts>,
    report: &mut CheckReport<'_>,
) -> Result<()> {
    let Some(outgoing) = outgoing else {
        return Ok(());
    };
    let ports = lists.iter().flat_map(|(_, addresses)| *addresses);
    let ports: BTreeSet<u16> = ports.map(SocketAddr::port).collect();
    let open = ports.into_iter().filter(|&port| outgoing.may_take(port));
    let open: Vec<String> = open.map(|port| port.to_string()).collect();
    if open.is_empty() {
        return report.ok("ports", "no outgoing connection of this host takes them");
    }
    let open = open.join(",");
    report.note(
        "ports",
        &format!("outgoing connections of this host may take {open} while the tracker is stopped"),
        &format!(
            "add {open} to the sysctl net.ipv4.ip_local_reserved_ports (docs/operations.md, Reserved \
             ports)"
        ),
    )
}
