//! Periodic work: sweeping swarms, pruning records, a line of statistics.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::base::memory::{self, GiveBackTimer};
use crate::cache::Cache;
use crate::node::{Node, every};
use crate::telemetry::notify;
use crate::tracker::Tracker;

/// How often some shards are swept.
const SWEEP_TICK: Duration = Duration::from_millis(50);

/// All shards are swept in an eighth of the peer TTL, within these bounds.
const ROUND_MIN: Duration = Duration::from_secs(1);
const ROUND_MAX: Duration = Duration::from_secs(60);

const PRUNE_PERIOD: Duration = Duration::from_secs(60);

/// Records deleted in one transaction.
const PRUNE_AT_ONCE: u32 = 2000;

/// How often a part of the cache's peers is looked through for old ones, and how long the lease for
/// that holds without being renewed.
const CACHE_PERIOD: Duration = Duration::from_secs(2);
const CACHE_LEASE: Duration = Duration::from_secs(5);

/// How often to check whether it is time to give memory back.
const MEMORY_PERIOD: Duration = Duration::from_secs(1);

/// Sweeps the shards in turn; runs until cancelled.
pub(super) async fn sweep(node: Node) {
    let mut next = 0;
    let mut ticks = tokio::time::interval(SWEEP_TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = node.clock.now();
        for _ in 0..shards_at_once(node.tracker.peer_ttl()) {
            node.tracker.sweep(next, now);
            next = (next + 1) % Tracker::SHARDS;
        }
    }
}

/// Shards to sweep in one tick, for peers that live for `peer_ttl` seconds.
fn shards_at_once(peer_ttl: u32) -> usize {
    let round = Duration::from_secs(u64::from(peer_ttl) / 8).clamp(ROUND_MIN, ROUND_MAX);
    let ticks = (round.as_millis() / SWEEP_TICK.as_millis()).max(1) as usize;
    Tracker::SHARDS.div_ceil(ticks)
}

/// Gives back memory that the start or a rush needed, of the thread that reads, writes and journals; runs until
/// cancelled.
pub(super) async fn give_memory_back(node: Node) {
    let mut memory_timer = GiveBackTimer::start(node.clock.now().mono);
    every(MEMORY_PERIOD, || {
        if memory_timer.tick(node.clock.now().mono) {
            memory::give_back_of_c();
        }
        std::future::ready(())
    })
    .await;
}

/// Deletes obsolete peer records, a few at a time; runs until cancelled.
pub(super) async fn prune(node: Node) {
    every(PRUNE_PERIOD, || async {
        let Some(before) = node.clocks.removable_before(node.tracker.record_ttl()) else {
            return;
        };
        loop {
            match node.storage.prune(before, PRUNE_AT_ONCE).await {
                Ok(gone) if gone >= u64::from(PRUNE_AT_ONCE) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(%error, "old peer records were not deleted; trying again later");
                    return;
                }
            }
        }
    })
    .await;
}

/// Removes peers from the cache that have long been silent, some at a time; runs until cancelled.
pub(super) async fn prune_cache(node: Node, cache: Arc<dyn Cache>) {
    let mut cursor = 0;
    loop {
        tokio::time::sleep(CACHE_PERIOD).await;
        let members_before = node.clocks.removable_before(node.tracker.record_ttl());
        let guests_before = node.clocks.removable_before(node.tracker.peer_ttl());
        let (Some(guests_before), members_before) =
            (guests_before, members_before.unwrap_or(i64::MIN))
        else {
            // This node can't tell now which peers are old, but another node may.
            continue;
        };
        let is_ours = cache.lease("sweep", &node.name, CACHE_LEASE).await;
        if !is_ours.unwrap_or(false) {
            continue;
        }
        match cache.prune(cursor, members_before, guests_before).await {
            Ok(next) => cursor = next.unwrap_or(0),
            Err(error) => tracing::debug!(%error, "old peers were not removed from the cache"),
        }
    }
}

/// What the counters stood at when the last line was written.
#[derive(Clone, Copy, Default)]
struct Totals {
    announces: u64,
    scrapes: u64,
    refusals: u64,
}

/// Writes a line of statistics every `period`, none while it is zero; runs until cancelled. `serving` is
/// what the service manager shows.
pub(super) async fn statistics(node: Node, mut period: watch::Receiver<Duration>, serving: String) {
    let mut before = Totals::default();
    loop {
        let current = *period.borrow_and_update();
        let lines = async {
            if current.is_zero() {
                return std::future::pending().await;
            }
            let mut ticks = tokio::time::interval(current);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                before = write_line(&node, before, current, &serving);
            }
        };
        tokio::select! {
            () = lines => {}
            changed = period.changed() => if changed.is_err() {
                std::future::pending::<()>().await; // the node is about to end
            },
        }
    }
}

fn write_line(node: &Node, before: Totals, period: Duration, serving: &str) -> Totals {
    let metrics = &node.metrics;
    let after = Totals {
        announces: metrics.announces.get(),
        scrapes: metrics.scrapes.get(),
        refusals: metrics.refusals.get(),
    };
    let (swarms, seeders, leechers) = node.tracker.totals();
    let per_second = (after.announces - before.announces) as f64 / period.as_secs_f64();
    let per_second = (per_second * 10.0).round() / 10.0;
    let peers = seeders + leechers;
    notify::status(&format!(
        "{serving}: {per_second} announces/s, {swarms} swarms, {peers} peers"
    ));
    tracing::info!(
        announces = after.announces - before.announces,
        announces_per_second = per_second,
        scrapes = after.scrapes - before.scrapes,
        refusals = after.refusals - before.refusals,
        swarms,
        seeders,
        leechers,
        snatches = metrics.snatches.get(),
        expired = metrics.expired.get(),
        pending = node.tracker.outbox().pending(),
        batches = metrics.batches.get(),
        batch_failures = metrics.batch_failures.get(),
        backlog = node.journal.backlog(),
        batches_spilled = metrics.batches_spilled.get(),
        cache_failures = metrics.cache_failures.get(),
        outbox_full = metrics.outbox_full.get(),
        ack_timeouts = metrics.ack_timeouts.get(),
        torrents_full = metrics.torrents_full.get(),
        peers_per_ip = metrics.peers_per_ip.get(),
        implausible = metrics.implausible.get(),
        connections = metrics.connections.get(),
        blocked = metrics.blocked.get(),
        udp_connects = metrics.udp_connects.get(),
        udp_connects_limited = metrics.udp_connects_limited.get(),
        udp_bad_ids = metrics.udp_bad_ids.get(),
        udp_errors_limited = metrics.udp_errors_limited.get(),
        udp_dropped = metrics.udp_dropped.get(),
        udp_unsent = metrics.udp_unsent.get(),
        "statistics"
    );
    after
}
