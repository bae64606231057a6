//! The masters of a Redis Cluster, and which slots they serve.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value, cmd};

use super::connection::{Connection, RunKind};
use super::fault::RedisFault;
use super::link::RedisLink;
use super::place::{Address, RedisHosts};
use super::reply;
use super::session::RedisSession;
use super::slots::{MASTERS_MAX, SlotMap, SlotRange, ranges};
use super::view::{Server, View};
use crate::cache::CacheError;

/// How long one server may take to say which slots are where.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// What a server knows of its cluster.
struct Topology {
    /// Grows with each failover and each slot that moves.
    epoch: u64,
    ranges: Vec<SlotRange>,
}

/// Asks servers of the cluster for its masters, and connects to those that are not connected in `known`. Masters that do
/// not answer are part of the view, unless all of them are away.
pub(super) async fn find(
    link: &RedisLink,
    hosts: &RedisHosts,
    known: Option<&View>,
) -> Result<View, RedisFault> {
    let topology = topology(link, hosts, known).await?;
    let Some((slots, masters)) = SlotMap::of(&topology.ranges) else {
        let problem = format!("the cluster has more than {MASTERS_MAX} masters");
        return Err(RedisFault::broken(&link.server, &problem));
    };
    let servers = masters
        .into_iter()
        .map(|address| server(link, hosts, known, address));
    let mut faults = Vec::new();
    let mut found = Vec::new();
    for result in join_all(servers).await {
        match result {
            Ok(server) => found.push(server),
            Err((server, fault)) => {
                found.push(server);
                faults.push(fault);
            }
        }
    }
    let view = View::of_cluster(found, slots);
    match faults.into_iter().next() {
        Some(fault) if !view.has_connection() => Err(fault),
        None if !view.has_connection() => {
            let problem = "no master of the cluster serves any slot";
            Err(RedisFault::away(&link.server, problem))
        }
        _ => Ok(view),
    }
}

/// Fails if slots have moved since the session began, or are moving: a scan of all keys may have missed some.
pub(super) async fn check_scan(
    link: &RedisLink,
    session: &RedisSession<'_>,
) -> Result<(), CacheError> {
    if session.view.slots.is_none() {
        return Ok(());
    }
    let known = link.view().unwrap_or_else(|| Arc::clone(&session.view));
    let view = link.refresh(&known).await?;
    if session.view.version_after(&view) != session.view.version {
        return Err(CacheError::Moving);
    }
    for index in 0..view.servers.len() {
        let nodes = session
            .one_at(index, cmd("CLUSTER").arg("NODES").take())
            .await?;
        if has_open_slots(&reply::text(nodes).unwrap_or_default()) {
            return Err(CacheError::Moving);
        }
    }
    Ok(())
}

/// Commands that only a cluster needs, in a form without effect, with their names for permissions.
pub(super) fn probes() -> Vec<(&'static str, Cmd)> {
    let of_cluster = |word: &str| cmd("CLUSTER").arg(word).take();
    vec![
        ("cluster|info", of_cluster("INFO")),
        ("cluster|slots", of_cluster("SLOTS")),
        ("cluster|nodes", of_cluster("NODES")),
        ("asking", cmd("ASKING")),
    ]
}

/// Whether the server that wrote this reply to `CLUSTER NODES` exports or imports a slot.
fn has_open_slots(nodes: &str) -> bool {
    let own = nodes.lines().find(|line| line.contains("myself"));
    own.is_some_and(|line| line.split(' ').skip(8).any(|slot| slot.starts_with('[')))
}

/// One master, with the connection that is there or a new one.
async fn server(
    link: &RedisLink,
    hosts: &RedisHosts,
    known: Option<&View>,
    address: Address,
) -> Result<Server, (Server, RedisFault)> {
    let before = known.and_then(|view| view.servers.get(view.index_of(&address)?));
    if let Some(server) = before.filter(|server| server.connection.is_some()) {
        return Ok(server.clone());
    }
    let name = link.name_of(&address);
    match connect(link, hosts, &address, RunKind::Mastership).await {
        Ok(connection) => Ok(Server::connected(Arc::new(connection))),
        Err(fault) => {
            let run = before.and_then(|server| server.run.clone());
            let away = Server::away(name, address, run, fault.error.to_string());
            Err((away, fault))
        }
    }
}

async fn connect(
    link: &RedisLink,
    hosts: &RedisHosts,
    address: &Address,
    kind: RunKind,
) -> Result<Connection, RedisFault> {
    let name = link.name_of(address);
    let info = hosts
        .connect_to(address)
        .map_err(|error| RedisFault::of_link(&name, &error))?;
    link.connect(info, name, Some(address.clone()), kind).await
}

/// The newest of what servers know: of those that are connected, or else of all whose address is known.
async fn topology(
    link: &RedisLink,
    hosts: &RedisHosts,
    known: Option<&View>,
) -> Result<Topology, RedisFault> {
    let servers = known.map_or(&[][..], |view| &view.servers);
    let connected = servers.iter().filter_map(|it| it.connection.as_ref());
    let asked = join_all(connected.map(|connection| ask(connection))).await;
    if let Ok(newest) = newest(asked) {
        return Ok(newest);
    }
    let mut addresses: Vec<Address> = servers.iter().filter_map(|it| it.address.clone()).collect();
    addresses.extend(hosts.addresses.iter().cloned());
    addresses.sort();
    addresses.dedup();
    let asked = addresses.iter().map(|address| async move {
        // A replica knows the slots, too.
        ask(&connect(link, hosts, address, RunKind::Process).await?).await
    });
    newest(join_all(asked).await)
}

/// The answer with the highest epoch; without any, a fault that retrying does not help, or the first.
fn newest(answers: Vec<Result<Topology, RedisFault>>) -> Result<Topology, RedisFault> {
    let (mut found, mut fault): (Option<Topology>, Option<RedisFault>) = (None, None);
    for answer in answers {
        match answer {
            Ok(topology) => {
                let is_newer = found.as_ref().is_none_or(|it| it.epoch < topology.epoch);
                found = if is_newer { Some(topology) } else { found };
            }
            Err(new) => {
                let is_worse = fault
                    .as_ref()
                    .is_none_or(|it| it.is_absent && !new.is_absent);
                fault = if is_worse { Some(new) } else { fault };
            }
        }
    }
    let none = || RedisFault::away("the cluster", "no server of it is known");
    found.ok_or_else(|| fault.unwrap_or_else(none))
}

async fn ask(connection: &Connection) -> Result<Topology, RedisFault> {
    let mut part = Pipeline::new();
    part.add_command(cmd("CLUSTER").arg("INFO").take());
    part.add_command(cmd("CLUSTER").arg("SLOTS").take());
    let replies = connection.send(&part, ASK_TIMEOUT).await?;
    connection.check(&part, &replies, |_| false)?;
    let host = connection
        .address
        .as_ref()
        .map_or("", |it| it.host.as_str());
    read(replies, host).ok_or_else(|| {
        RedisFault::broken(
            &connection.server,
            "an unexpected reply to CLUSTER SLOTS: is it Redis?",
        )
    })
}

fn read(replies: Vec<Value>, asked: &str) -> Option<Topology> {
    let mut replies = replies.into_iter();
    let info = reply::text(replies.next()?)?;
    let mut lines = info.lines();
    let epoch = lines.find_map(|line| line.strip_prefix("cluster_current_epoch:"));
    Some(Topology {
        epoch: epoch.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        ranges: ranges(replies.next()?, asked)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_moves_is_noticed() {
        let other = "b2 10.0.0.2:7000@17000 master - 0 1 2 connected 100-200 [7->-a1]\n";
        let own = "a1 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-99";
        assert!(!has_open_slots(&format!("{other}{own}\n")));
        for open in ["[7->-b2]", "[7-<-b2]"] {
            assert!(has_open_slots(&format!("{other}{own} {open}\n")), "{open}");
        }
        assert!(!has_open_slots(""));
    }
}
