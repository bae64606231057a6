//! The master that sentinels name.

use std::time::Duration;

use futures_util::future::join_all;
use redis::cmd;
use tokio::time::timeout;

use super::connection::{Connection, RunKind};
use super::fault::RedisFault;
use super::link::RedisLink;
use super::place::{Address, SentinelPlace};
use super::reply;
use crate::cache::CacheFinding;

/// How long one sentinel may take to answer, the connection included.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// What a sentinel knows of the master.
pub(super) struct WatchedMaster {
    pub(super) master: Address,
    /// Grows with each failover.
    pub(super) epoch: u64,
    pub(super) replicas: u64,
    /// The other sentinels of that master that it knows.
    pub(super) others: u64,
    pub(super) quorum: u64,
    pub(super) flags: String,
}

/// Asks all sentinels, and connects to the master that was elected last.
pub(super) async fn find(
    link: &RedisLink,
    place: &SentinelPlace,
) -> Result<Connection, RedisFault> {
    let mut newest: Option<WatchedMaster> = None;
    let mut fault = None;
    for (_, answer) in ask_all(link, place).await {
        match answer {
            Ok(watched) if newest.as_ref().is_none_or(|it| it.epoch < watched.epoch) => {
                newest = Some(watched);
            }
            Ok(_) => {}
            Err(new) => fault = fault.or(Some(new)),
        }
    }
    let Some(newest) = newest else {
        let none = || RedisFault::away(&link.server, "no sentinel is known");
        return Err(fault.unwrap_or_else(none));
    };
    let name = link.name_of(&newest.master);
    let info = place
        .connect_to(&newest.master)
        .map_err(|error| RedisFault::of_link(&name, &error))?;
    let address = Some(newest.master);
    link.connect(info, name, address, RunKind::Mastership).await
}

/// What each sentinel knows.
pub(super) async fn ask_all(
    link: &RedisLink,
    place: &SentinelPlace,
) -> Vec<(Address, Result<WatchedMaster, RedisFault>)> {
    let asked = place.sentinels.addresses.iter().map(|address| async move {
        let name = format!("{}, sentinel {address}", link.server);
        let answer = match timeout(ASK_TIMEOUT, ask(link, place, address, &name)).await {
            Ok(answer) => answer,
            Err(_) => Err(RedisFault::lost(&name, "it does not answer")),
        };
        (address.clone(), answer)
    });
    join_all(asked).await
}

async fn ask(
    link: &RedisLink,
    place: &SentinelPlace,
    address: &Address,
    name: &str,
) -> Result<WatchedMaster, RedisFault> {
    let info = place.sentinels.connect_to(address);
    let info = info.map_err(|error| RedisFault::of_link(name, &error))?;
    let connection = Connection::open_any(&*link.dial, info, name.into()).await?;
    let ask = cmd("SENTINEL").arg("MASTER").arg(&place.service).take();
    let answer = connection.one(ask, ASK_TIMEOUT).await?;
    let fields = reply::pairs(answer).unwrap_or_default();
    let text = |name: &str| {
        let (_, value) = fields.iter().find(|(field, _)| field == name)?;
        reply::text(value.clone())
    };
    let number = |name: &str| text(name).and_then(|text| text.parse().ok());
    let host = text("ip").filter(|host| !host.is_empty());
    let port = number("port").and_then(|port: u64| u16::try_from(port).ok());
    let (Some(host), Some(port)) = (host, port) else {
        let problem = "an unexpected reply to SENTINEL MASTER: is it a sentinel?";
        return Err(RedisFault::broken(name, problem));
    };
    Ok(WatchedMaster {
        master: Address { host, port },
        epoch: number("config-epoch").unwrap_or(0),
        replicas: number("num-slaves").unwrap_or(0),
        others: number("num-other-sentinels").unwrap_or(0),
        quorum: number("quorum").unwrap_or(0),
        flags: text("flags").unwrap_or_default(),
    })
}

/// Looks for what would keep the sentinels from replacing the master.
pub(super) async fn check(link: &RedisLink, place: &SentinelPlace) -> Vec<CacheFinding> {
    let mut findings = Vec::new();
    let mut known: Option<WatchedMaster> = None;
    for (address, answer) in ask_all(link, place).await {
        match answer {
            Ok(watched) => known = known.or(Some(watched)),
            Err(fault) => findings.push(CacheFinding::note(
                format!("sentinel {address} is of no use: {}", fault.error),
                "start it, or take it out of cache.url",
            )),
        }
    }
    findings.extend(known.iter().flat_map(judge));
    findings
}

fn judge(watched: &WatchedMaster) -> Vec<CacheFinding> {
    let mut findings = Vec::new();
    let sentinels = watched.others + 1;
    if sentinels < 3 {
        findings.push(CacheFinding::note(
            format!("{sentinels} sentinels watch the master: without one of them, none can be elected to replace it"),
            "run at least three",
        ));
    }
    if watched.quorum > sentinels {
        findings.push(CacheFinding::problem(
            format!(
                "the quorum is {} of {sentinels} sentinels: they will never replace the master",
                watched.quorum
            ),
            "lower it with SENTINEL SET",
        ));
    }
    if watched.replicas == 0 {
        findings.push(CacheFinding::note(
            "the master has no replica: nothing can replace it".into(),
            "start a server with replicaof",
        ));
    }
    if watched.flags.contains("down") {
        findings.push(CacheFinding::problem(
            format!(
                "sentinels take the master for dead: its flags are {}",
                watched.flags
            ),
            "see the log of the sentinels",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prevents_a_failover_is_found() {
        let watched = |others, quorum, replicas, flags: &str| WatchedMaster {
            master: Address {
                host: "a".into(),
                port: 1,
            },
            epoch: 0,
            replicas,
            others,
            quorum,
            flags: flags.into(),
        };
        assert_eq!(judge(&watched(2, 2, 1, "master")), []);
        for (found, word) in [
            (judge(&watched(1, 1, 1, "master")), "2 sentinels"),
            (judge(&watched(2, 4, 1, "master")), "quorum"),
            (judge(&watched(2, 2, 0, "master")), "no replica"),
            (judge(&watched(2, 2, 1, "master,o_down")), "o_down"),
        ] {
            assert!(
                matches!(&found[..], [one] if one.problem.contains(word)),
                "{found:?}"
            );
        }
    }
}
