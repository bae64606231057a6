//! Signs of life, of this node and of others; and what is done when the cache comes back empty.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::{Pid, test_kill_process};
use tokio::sync::Notify;

use crate::cache::{Cache, Stats};
use crate::journal::Replay;
use crate::node::Node;
use crate::node::shared::peers;

/// How often a node says that it runs.
const BEAT_PERIOD: Duration = Duration::from_secs(1);

/// Seconds without the cache after which peers are compared.
const LONG_SECONDS: u32 = 60;

/// How often is looked for nodes that died.
const REPLAY_PERIOD: Duration = Duration::from_secs(5);

/// How often counters are told.
const STATS_PERIOD: Duration = Duration::from_secs(10);

/// How long a namesake on another host is watched for signs of life.
const NAMESAKE_WATCH: Duration = Duration::from_secs(3);

/// Refuses to start under the name of a node that runs: both would number batches alike.
pub(in crate::node) async fn refuse_namesake(cache: &dyn Cache, name: &str) -> Result<()> {
    let Some(sign) = sign_of(cache, name).await? else {
        return Ok(());
    };
    let mut words = sign.split(' ');
    let (host, pid) = (words.next(), words.next().and_then(|pid| pid.parse().ok()));
    if host == Some(host_name().as_str()) {
        let is_alive = pid
            .filter(|&pid| pid != own_pid())
            .and_then(Pid::from_raw)
            .is_some_and(|pid| test_kill_process(pid).is_ok());
        if !is_alive {
            return Ok(());
        }
    }
    tokio::time::sleep(NAMESAKE_WATCH).await;
    if sign_of(cache, name)
        .await?
        .is_some_and(|later| later != sign)
    {
        bail!(
            "another mika runs as node {name:?} ({}): give each a name of its own in node",
            host.unwrap_or("its host is unknown")
        );
    }
    Ok(())
}

async fn sign_of(cache: &dyn Cache, name: &str) -> Result<Option<String>> {
    let nodes = cache.nodes().await?;
    let found = nodes.into_iter().find(|(node, _)| node == name);
    Ok(found.map(|(_, sign)| sign))
}

fn host_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().replace(' ', "-")
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Shows that this node runs, for ever. Notices when the cache was restarted, or was away for so
/// long that nodes may have aged peers which others still hear: `stale` is told then.
pub(super) async fn beat(node: Node, cache: Arc<dyn Cache>, stale: Arc<Notify>) {
    let who = format!("{} {}", host_name(), own_pid());
    let mut count = 0_u64;
    let mut heard = node.clock.now().mono;
    let mut generation = node.journal.generation();
    generation.mark_unchanged();
    loop {
        match cache.ping().await {
            Ok(seen) => {
                node.journal.restarted(seen);
                let now = node.clock.now().mono;
                let was_away = now.since(std::mem::replace(&mut heard, now)) > LONG_SECONDS;
                if was_away || generation.has_changed().unwrap_or(false) {
                    generation.mark_unchanged();
                    stale.notify_one();
                }
            }
            Err(error) => tracing::debug!(%error, "the cache does not answer"),
        }
        count += 1;
        let sign = format!("{who} {} {count}", node.clock.now().unix);
        // Without it, others take this node for dead: harmless, and it ends with the next.
        if let Err(error) = cache.beat(&node.name, &sign).await {
            tracing::debug!(%error, "the cache was not told that this node runs");
        }
        tokio::time::sleep(BEAT_PERIOD).await;
    }
}

/// Brings to storage what nodes left that died, for ever.
pub(super) async fn replay(node: Node, cache: Arc<dyn Cache>) {
    let mut replay = Replay::new(cache, Arc::clone(&node.storage), node.name.clone());
    loop {
        if let Err(error) = replay.look(node.clock.now().mono).await {
            tracing::debug!(%error, "the journals of other nodes can't be looked after");
        }
        tokio::time::sleep(REPLAY_PERIOD).await;
    }
}

/// Adds what was counted to the counters in the cache, for ever.
pub(super) async fn tell_stats(node: Node, cache: Arc<dyn Cache>) {
    let (mut announces, mut scrapes) = (0, 0);
    loop {
        tokio::time::sleep(STATS_PERIOD).await;
        let (_, seeders, leechers) = node.tracker.totals();
        let now = (node.metrics.announces.get(), node.metrics.scrapes.get());
        let stats = Stats {
            announces: now.0 - announces,
            scrapes: now.1 - scrapes,
            seeders,
            leechers,
        };
        // What was not told goes with the next.
        if cache.add_stats(stats).await.is_ok() {
            (announces, scrapes) = now;
        }
    }
}

/// Brings the peers of this node and of the cache together whenever one may have missed what the
/// other knows, for ever.
pub(super) async fn refill(node: Node, cache: Arc<dyn Cache>, stale: Arc<Notify>) {
    loop {
        stale.notified().await;
        tracing::info!("the cache is back; giving it the peers that it may lack");
        while let Err(error) = peers::upload(&node, &*cache).await {
            tracing::debug!(%error, "the cache was not given its peers");
            tokio::time::sleep(BEAT_PERIOD).await;
        }
        tracing::info!("the cache has all peers of this node");
    }
}
