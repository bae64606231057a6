//! Heartbeats, of this node and of others; and what is done when the cache comes back empty.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::{Pid, test_kill_process};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::base::clock::Seconds;
use crate::cache::{
    self, Cache, CacheError, Generation, NodeReport, NodeStats, Notice, STOPPED, owner,
};
use crate::change::journals::{is_later, node_of};
use crate::change::packed;
use crate::journal::{Replay, credit_rules};
use crate::node::Node;
use crate::node::shared::peers;
use crate::tracker::Mode;

/// How often a node sends a heartbeat.
const BEAT_PERIOD: Duration = Duration::from_secs(1);

/// Seconds without the cache after which the peers of node and cache are synchronized again.
const LONG_OUTAGE: u32 = 60;

/// How often the journals of dead nodes are looked for.
const REPLAY_PERIOD: Duration = Duration::from_secs(5);

/// How often counters are added to the cache.
const STATS_PERIOD: Duration = Duration::from_secs(10);

/// How long a node of the same name on another host is watched for heartbeats.
const NAMESAKE_WATCH: Duration = Duration::from_secs(3);

/// The process that a node is, as in its heartbeats: host, boot, pid namespace and pid.
#[derive(Clone, Debug)]
pub struct NodeProcess(Arc<str>);

/// Refuses to start under the name of a running node, which would have to stop otherwise.
pub(in crate::node) async fn refuse_namesake(
    cache: &dyn Cache,
    name: &str,
    own: &NodeProcess,
) -> Result<()> {
    if let Some(host) = running(cache, |journal| node_of(journal) == name, own).await? {
        bail!(
            "another mika runs as node {name:?} on {host}: give each a name of its own (node, in its config)"
        );
    }
    Ok(())
}

/// Sends the first heartbeat, and tells the other nodes of it, so that they follow this one at once; and so that of two nodes of one name that
/// start together, the earlier one notices.
pub(in crate::node) async fn first_beat(cache: &dyn Cache, node: &Node) -> Result<(), CacheError> {
    cache.beat(node.journal.name(), &sign(node, 0, 0)).await?;
    cache.publish(&[Notice::Node]).await
}

/// Records that the process with that journal was shut down cleanly, so a start under its name
/// need not wait for heartbeats. If the cache belongs to another database by now, it forgets the journal.
pub(in crate::node) async fn take_leave(
    cache: &dyn Cache,
    database: &str,
    journal: &str,
) -> Result<(), CacheError> {
    let owner = cache.database().await?;
    if owner.is_some_and(|owner| owner != database) {
        return cache.forget_journal(journal).await;
    }
    cache.beat(journal, STOPPED).await
}

/// The host on which the process with that journal runs; none if it sends no heartbeats.
pub(in crate::node) async fn host_of(
    cache: &dyn Cache,
    journal: &str,
    own: &NodeProcess,
) -> Result<Option<String>> {
    running(cache, |name| name == journal, own).await
}

/// The host of a process that sends heartbeats and whose journal fulfils `is_meant`.
async fn running(
    cache: &dyn Cache,
    is_meant: impl Fn(&str) -> bool,
    own: &NodeProcess,
) -> Result<Option<String>> {
    let mut signs = cache.nodes().await?;
    signs.retain(|(journal, sign)| is_meant(journal) && !own.knows_dead(sign));
    if signs.is_empty() {
        return Ok(None);
    }
    tokio::time::sleep(NAMESAKE_WATCH).await;
    let later = cache.nodes().await?;
    let is_running = |(journal, sign): &&(String, String)| {
        later
            .iter()
            .any(|(name, later)| name == journal && later != sign)
    };
    let found = signs.iter().find(is_running);
    Ok(found.map(|(_, sign)| cache::host_of(sign).to_owned()))
}

fn is_running(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// The journal of a later start of this node, if its process may still run.
async fn successor(
    cache: &dyn Cache,
    own: &str,
    process: &NodeProcess,
) -> Result<Option<String>, CacheError> {
    let nodes = cache.nodes().await?;
    let is_successor =
        |(journal, sign): &(String, String)| is_later(journal, own) && !process.knows_dead(sign);
    let found = nodes.into_iter().find(is_successor);
    Ok(found.map(|(journal, _)| journal))
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Sends heartbeats until a later start takes over the name of this node. Notifies `stale` when the cache was
/// restarted or emptied, or was unreachable for so long that nodes may have expired peers that still announce
/// to other nodes. `had_peers`: whether the cache had all peers at the start; if not, it gets them anyway.
pub(super) async fn beat(
    node: Node,
    cache: Arc<dyn Cache>,
    stale: Arc<Notify>,
    peers: Arc<AtomicU64>,
    mut had_peers: bool,
) {
    let own = node.journal.name().to_owned();
    let mut count = 0_u64;
    let mut answered = node.clock.now().mono;
    let mut generation = node.journal.generation();
    generation.mark_unchanged();
    loop {
        match look(&*cache).await {
            Ok((seen, has_peers)) => {
                node.journal.on_cache_restarted(seen);
                let now = node.clock.now().mono;
                let was_away = now.since(std::mem::replace(&mut answered, now)) > LONG_OUTAGE;
                // Even without a restart, the mark that the cache has all peers may have been deleted.
                let was_cut = std::mem::replace(&mut had_peers, has_peers) && !has_peers;
                if was_away || was_cut || generation.has_changed().unwrap_or(false) {
                    generation.mark_unchanged();
                    stale.notify_one();
                }
            }
            Err(error) => tracing::debug!(%error, "the cache does not answer"),
        }
        if let Some(owner) = other_owner(&*cache, &node.database).await {
            tracing::error!(
                owner,
                own = node.database,
                "the cache belongs to another database now; stopping: {}",
                owner::ADVICE
            );
            return;
        }
        if let Ok(Some(journal)) = successor(&*cache, &own, &node.process).await {
            tracing::error!(
                journal,
                node = node.name,
                "a later start has the name of this node; stopping, and saving what is left in this \
                 process's own journal"
            );
            return;
        }
        count += 1;
        // If it is lost, others take this node for dead until the next one, which is harmless.
        if let Err(error) = cache
            .beat(&own, &sign(&node, count, peers.load(Ordering::Relaxed)))
            .await
        {
            tracing::debug!(%error, "the heartbeat of this node did not reach the cache");
        }
        tokio::time::sleep(BEAT_PERIOD).await;
    }
}

/// A node's heartbeat of that number, with the time of the host's clock, and what it reports.
fn sign(node: &Node, count: u64, peers: u64) -> String {
    let progress = node.journal.progress();
    let now = node.clock.now();
    let report = NodeReport {
        version: Some(env!("CARGO_PKG_VERSION").into()),
        now: Some(now.unix),
        uptime: Some(now.mono.since(Seconds::START).into()),
        last: Some(progress.last),
        sent: Some(progress.sent),
        applied: Some(progress.applied),
        behind: Some(node.metrics.journals_behind.load(Ordering::Relaxed)),
        peers: Some(peers),
        packed: Some(packed::VERSION.into()),
    };
    format!("{} {count} {} {report}", node.process.0, node.clock.wall())
}

/// The other database that the cache belongs to; none if it is this node's. A cache that was
/// emptied is claimed again.
async fn other_owner(cache: &dyn Cache, database: &str) -> Option<String> {
    let owner = match cache.database().await {
        Ok(None) => cache.set_database(database, None).await,
        Ok(Some(owner)) => Ok(owner),
        Err(error) => Err(error),
    };
    // A cache that is away is reported elsewhere.
    owner.ok().filter(|owner| owner != database)
}

/// The generation of the cache, and whether it has all peers.
async fn look(cache: &dyn Cache) -> Result<(Generation, bool), CacheError> {
    Ok((cache.ping().await?, cache.has_all_peers().await?))
}

/// Applies to storage what dead nodes left behind; runs until cancelled.
pub(super) async fn replay(node: Node, cache: Arc<dyn Cache>) {
    let mut replay = Replay::new(
        cache,
        Arc::clone(&node.storage),
        node.journal.name().to_owned(),
        node.journal.keep(),
    );
    loop {
        let rules = credit_rules(&node.tracker);
        match replay.look(node.clock.now(), &rules).await {
            Ok(swarms) => node.tracker.recount_later(&swarms),
            Err(error) => {
                tracing::debug!(%error, "the journals of dead nodes can't be replayed now");
            }
        }
        tokio::time::sleep(REPLAY_PERIOD).await;
    }
}

/// Adds what was counted to the counters in the cache, and the number of peers to the heartbeat; runs until
/// cancelled.
pub(super) async fn publish_stats(node: Node, cache: Arc<dyn Cache>, peers: Arc<AtomicU64>) {
    let (mut announces, mut scrapes) = (0, 0);
    let (_, seeders, leechers) = node.tracker.totals();
    peers.store(seeders + leechers, Ordering::Relaxed);
    loop {
        tokio::time::sleep(STATS_PERIOD).await;
        let (_, seeders, leechers) = node.tracker.totals();
        peers.store(seeders + leechers, Ordering::Relaxed);
        let now = (node.metrics.announces.get(), node.metrics.scrapes.get());
        let stats = NodeStats {
            announces: now.0 - announces,
            scrapes: now.1 - scrapes,
            seeders,
            leechers,
        };
        // What could not be added is included next time.
        if cache.add_stats(stats).await.is_ok() {
            (announces, scrapes) = now;
        }
    }
}

/// Synchronizes the peers of this node and of the cache whenever one of them may lack what the other
/// has; runs until cancelled. First gives the cache those that a start has read from storage, with the batches that
/// storage had, if it is `lacking` them: clients are answered meanwhile.
pub(super) async fn refill(
    node: Node,
    cache: Arc<dyn Cache>,
    stale: Arc<Notify>,
    lacking: Option<HashMap<String, u64>>,
) {
    if let Some(applied) = lacking {
        tracing::info!("giving the cache the peers that were loaded from storage");
        while let Err(error) = give_loaded(&node, &*cache, &applied).await {
            tracing::debug!(%error, "the cache was not given its peers");
            tokio::time::sleep(BEAT_PERIOD).await;
        }
        tracing::info!("the cache has the peers that were loaded from storage");
    }
    loop {
        stale.notified().await;
        tracing::info!("giving the cache the peers and the sets of users that it may lack");
        give_until_taken(&node, &*cache).await;
        // A restart of the cache is noticed in several ways at about the same time: notifications in
        // quick succession cause one more round.
        while was_notified(&stale).await {
            give_until_taken(&node, &*cache).await;
        }
        tracing::info!("the cache has all peers of this node");
    }
}

async fn give_until_taken(node: &Node, cache: &dyn Cache) {
    while let Err(error) = give_all(node, cache).await {
        tracing::debug!(%error, "the cache was not given its peers");
        tokio::time::sleep(BEAT_PERIOD).await;
    }
}

/// Waits until no notification has come for [`BEAT_PERIOD`]; returns whether any came.
async fn was_notified(stale: &Notify) -> bool {
    let mut is_any = false;
    while timeout(BEAT_PERIOD, stale.notified()).await.is_ok() {
        is_any = true;
    }
    is_any
}

async fn give_loaded(
    node: &Node,
    cache: &dyn Cache,
    applied: &HashMap<String, u64>,
) -> Result<(), CacheError> {
    let generation = peers::upload(node, cache).await?;
    catch_up(node, cache, applied).await?;
    // Last: the next start reads the peers in the cache if it has the mark and all batches.
    cache.set_has_all_peers(generation).await
}

/// Moves journals of the cache up to the batches of which it has the peers, and notifies the other nodes if it lacked any.
async fn catch_up(
    node: &Node,
    cache: &dyn Cache,
    applied: &HashMap<String, u64>,
) -> Result<(), CacheError> {
    if peers::catch_up(cache, applied).await? {
        let own = node.journal.name().to_owned();
        cache.publish(&[Notice::PeersBy(own)]).await?;
    }
    Ok(())
}

async fn give_all(node: &Node, cache: &dyn Cache) -> Result<(), CacheError> {
    // Before the peers are read: what is in later batches may not be among them, and has to reach other nodes by the
    // journal.
    let applied = node.journal.progress().applied;
    let generation = peers::upload(node, cache).await?;
    cache.set_has_all_peers(generation).await?;
    if node.tracker.mode() == Mode::Private {
        // Others may have brought swarms that this node does not know.
        peers::load(node, cache).await?;
    }
    // The numbers in the journals tell the next start whether the cache is behind storage. Other nodes do this
    // for their own journals: raising a number here would shut out what they are about to send again.
    let applied = applied.min(node.journal.progress().applied);
    let own = HashMap::from([(node.journal.name().to_owned(), applied)]);
    catch_up(node, cache, &own).await
}

impl NodeProcess {
    /// The process that this runs in.
    pub fn current() -> Self {
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy().replace(' ', "-");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let (boot, namespace) = (boot.trim(), namespace.display());
        Self(format!("{host} {boot} {namespace} {}", own_pid()).into())
    }

    /// A process on a host of that name, which the current process can't see.
    #[cfg(feature = "contract")]
    pub fn elsewhere(host: &str, pid: u32) -> Self {
        Self(format!("{host} boot-of-{host} pid:[1] {pid}").into())
    }

    /// Whether the process of a heartbeat is known to be gone, which is so only if this one could see it.
    fn knows_dead(&self, sign: &str) -> bool {
        if sign == STOPPED {
            return true;
        }
        let mut words = sign.split(' ').zip(self.0.split(' '));
        let is_in_sight = words.by_ref().take(3).all(|(theirs, own)| theirs == own);
        let pid = words.next().and_then(|(pid, _)| pid.parse().ok());
        let is_alive = |pid| pid != own_pid() && is_running(pid);
        is_in_sight && pid.is_some_and(|pid| !is_alive(pid))
    }
}
