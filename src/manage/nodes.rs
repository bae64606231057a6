//! `mika-manage nodes`: the nodes that share a cache; and journals of nodes that are gone, in cache and storage,
//! and their removal.
//!
//! All nodes follow the journals on the cache's list, and apply one whose process died. Once storage has
//! all of it and its node has started again, running nodes remove it. The spill file of a node that stays
//! away may still turn up: its number in storage is removed only on request, by an operator who knows
//! that the disk is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::open::Site;
use super::print::{Column, Printer, Row, count, duration, left, right};
use super::{ExitStatus, UsageError};
use crate::base::clock;
use crate::cache::{Cache, NodeReport, STOPPED, host_of, sent_at, time_of};
use crate::change::journals::{node_of, sort_by_start};
use crate::storage::Storage;

/// How long nodes are watched for heartbeats, which come every second.
const WATCH: Duration = Duration::from_secs(4);

/// Seconds without a heartbeat until a node that did not shut down may be forgotten: it may be paused, or cut off.
const GONE_AFTER: u64 = 60;

/// How often they are looked at: the clock of a node is compared when its heartbeat comes.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub struct Nodes {
    #[command(subcommand)]
    command: Option<NodesCommand>,
}

#[derive(Debug, Subcommand)]
enum NodesCommand {
    /// List all nodes, as without a subcommand
    List,
    /// Forget the journals of a node that is gone, and whose spill file is gone too
    Forget { node: String },
}

/// A node, by the last start of it that the cache or storage knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct NodeRow {
    node: String,
    /// `running`; `silent`: killed, paused or cut off from the cache; `stopped`: shut down in order; `gone`: only
    /// storage knows it.
    state: &'static str,
    /// Seconds since its last heartbeat, if it is silent.
    silent_for: Option<u64>,
    host: Option<String>,
    version: Option<String>,
    /// Seconds since its start.
    uptime: Option<u64>,
    /// Batches of other nodes that it has not followed yet.
    lag: Option<u64>,
    /// Batches of the node that storage does not have, also those of earlier starts.
    backlog: u64,
    peers: Option<u64>,
    /// Seconds by which its host's clock is ahead of the cache's.
    clock: Option<i64>,
}

/// A heartbeat that came while they were watched.
struct Beat {
    sign: String,
    clock: Option<i64>,
}

impl Row for NodeRow {
    const COLUMNS: &'static [Column<Self>] = &[
        left("NODE", |row| row.node.clone()),
        left("STATE", |row| match row.silent_for {
            Some(seconds) => format!("{} for {}", row.state, duration(seconds)),
            None => row.state.into(),
        }),
        left("HOST", |row| row.host.clone().unwrap_or_default()),
        left("VERSION", |row| row.version.clone().unwrap_or_default()),
        right("UPTIME", |row| row.uptime.map(duration).unwrap_or_default()),
        right("LAG", |row| row.lag.map(count).unwrap_or_default()),
        right("BACKLOG", |row| count(row.backlog)),
        right("PEERS", |row| row.peers.map(count).unwrap_or_default()),
        right("CLOCK", |row| {
            row.clock.map(|it| format!("{it:+} s")).unwrap_or_default()
        }),
    ];
}

pub(super) async fn run(
    arguments: Nodes,
    site: &Site,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    match arguments.command {
        None | Some(NodesCommand::List) => list(site, printer).await?,
        Some(NodesCommand::Forget { node }) => forget(&node, site, printer).await?,
    }
    Ok(ExitStatus::Success)
}

async fn list(site: &Site, printer: &mut Printer) -> Result<()> {
    let Some(cache) = site.own_cache().await? else {
        bail!("this config has no cache, so its node stands alone; see: mika-manage stats");
    };
    let before = cache.nodes().await?;
    let beats = watch(cache, &before).await?;
    let applied = site.storage.journals().await?.into_iter().collect();
    let mut kept = BTreeMap::new();
    for (journal, _) in &before {
        kept.insert(journal.clone(), cache.last_kept(journal).await?);
    }
    let time = time_for(cache).await?;
    let rows = rows(before, &beats, &applied, &kept, time);
    Ok(printer.table(&rows)?)
}

/// Waits for the next heartbeat of each node, or until it should have come.
async fn watch(cache: &dyn Cache, before: &[(String, String)]) -> Result<BTreeMap<String, Beat>> {
    let is_awaited = |sign: &String| sign != STOPPED;
    let awaited = before.iter().filter(|(_, sign)| is_awaited(sign)).count();
    let mut beats = BTreeMap::new();
    let begun = clock::timer();
    while beats.len() < awaited && begun.elapsed() < WATCH {
        tokio::time::sleep(LOOK).await;
        let now = cache.nodes().await?;
        let time = time_for(cache).await?;
        for (journal, sign) in now {
            let is_new = before
                .iter()
                .any(|(known, last)| *known == journal && *last != sign);
            if is_new && is_awaited(&sign) {
                let clock = time_of(&sign).map(|theirs| theirs.saturating_sub(time));
                beats.entry(journal).or_insert(Beat { sign, clock });
            }
        }
    }
    Ok(beats)
}

/// A row for each node, by name: `listed` are the journals of the cache's list with their last heartbeats,
/// `applied` and `kept` the numbers of the last batches that storage and the cache have, and `time` is the cache's.
fn rows(
    mut listed: Vec<(String, String)>,
    beats: &BTreeMap<String, Beat>,
    applied: &BTreeMap<String, u64>,
    kept: &BTreeMap<String, u64>,
    time: i64,
) -> Vec<NodeRow> {
    sort_by_start(&mut listed);
    let mut nodes: BTreeMap<&str, NodeRow> = BTreeMap::new();
    for journal in applied.keys() {
        let node = node_of(journal);
        nodes.insert(node, NodeRow::of(node, "gone"));
    }
    for (journal, last) in &listed {
        let node = node_of(journal);
        let (state, sign, clock) = match beats.get(journal) {
            Some(beat) => ("running", &beat.sign, beat.clock),
            None if last == STOPPED => ("stopped", last, None),
            None => ("silent", last, None),
        };
        let report = NodeReport::of(sign);
        let in_storage = applied.get(journal).copied().unwrap_or(0);
        let in_cache = kept.get(journal).copied().unwrap_or(0);
        let backlog = match state {
            "running" => report.backlog(),
            _ => None,
        };
        let backlog = backlog.unwrap_or_else(|| in_cache.saturating_sub(in_storage));
        let earlier = nodes.get(node).map_or(0, |row| row.backlog);
        // The last start of a node comes last.
        let row = NodeRow {
            silent_for: silence(sign, time).filter(|_| state == "silent"),
            host: (*sign != STOPPED).then(|| host_of(sign).to_owned()),
            version: report.version,
            uptime: report.uptime.filter(|_| state == "running"),
            lag: report.behind.filter(|_| state == "running"),
            backlog: earlier + backlog,
            peers: report.peers.filter(|_| state == "running"),
            clock,
            ..NodeRow::of(node, state)
        };
        nodes.insert(node, row);
    }
    nodes.into_values().collect()
}

/// The cache's time (Unix time), or this host's where the cache has none.
async fn time_for(cache: &dyn Cache) -> Result<i64> {
    Ok(cache.time().await?.unwrap_or_else(clock::wall))
}

/// Seconds since a heartbeat, at this time of the cache; none if its node has shut down.
fn silence(sign: &str, time: i64) -> Option<u64> {
    Some(time.saturating_sub(sent_at(sign)?).try_into().unwrap_or(0))
}

/// Journals on the cache's list that storage has, and whose process sends no heartbeat.
pub(super) async fn gone(cache: &dyn Cache, storage: &dyn Storage) -> Result<Vec<String>> {
    let mut gone = Vec::new();
    for journal in silent(cache).await? {
        if holds(cache, storage, &journal).await?.is_none() {
            gone.push(journal);
        }
    }
    Ok(gone)
}

/// Removes a journal: its number, its name, and its stream in the cache, which must be empty.
async fn forget_journal(cache: &dyn Cache, storage: &dyn Storage, journal: &str) -> Result<()> {
    let applied = storage.last_applied(journal).await?;
    // Storage first: a starting node compares it with the cache.
    storage.forget_journal(journal, applied).await?;
    Ok(cache.forget_journal(journal).await?)
}

/// Removes all journals of a node.
pub(super) async fn forget(node: &str, site: &Site, printer: &mut Printer) -> Result<()> {
    ensure!(
        node != site.config.node,
        UsageError(format!("{node} is the node of this config"))
    );
    let is_of_node = |journal: &str| node_of(journal) == node;
    let mut journals = site.storage.journals().await?;
    journals.retain(|(journal, _)| is_of_node(journal));
    if journals.is_empty() {
        bail!("storage knows no node {node}");
    }
    let Some(cache) = site.own_cache().await? else {
        for (journal, applied) in &journals {
            site.storage.forget_journal(journal, *applied).await?;
        }
        forgotten(node, journals.len(), printer);
        return Ok(());
    };
    let silent = silent(cache).await?;
    let listed = cache.nodes().await?;
    if listed
        .iter()
        .any(|(journal, _)| is_of_node(journal) && !silent.contains(journal))
    {
        bail!("node {node} runs: nothing was forgotten");
    }
    let time = time_for(cache).await?;
    let of_node = listed.iter().filter(|(journal, _)| is_of_node(journal));
    if let Some(seconds) = of_node.filter_map(|(_, sign)| silence(sign, time)).min()
        && seconds < GONE_AFTER
    {
        bail!(
            "node {node} did not shut down, and has been silent for {} only: it may be paused or cut off from the \
             cache; nothing was forgotten. Once it is gone, try again a minute after its last heartbeat",
            duration(seconds)
        );
    }
    for (journal, _) in &journals {
        if let Some(what) = holds(cache, &*site.storage, journal).await? {
            bail!("{what}; nothing was forgotten");
        }
    }
    for (journal, _) in &journals {
        forget_journal(cache, &*site.storage, journal).await?;
    }
    forgotten(node, journals.len(), printer);
    Ok(())
}

fn forgotten(node: &str, journals: usize, printer: &mut Printer) {
    let journals = match journals {
        1 => "its journal".to_owned(),
        count => format!("its {count} journals"),
    };
    printer.message(format_args!("forgot node {node} and {journals}"));
}

/// Journals on the list whose process sends no heartbeat.
async fn silent(cache: &dyn Cache) -> Result<Vec<String>> {
    let before = cache.nodes().await?;
    if before.is_empty() {
        return Ok(Vec::new());
    }
    tokio::time::sleep(WATCH).await;
    let now = cache.nodes().await?;
    let silent = before.into_iter().filter(|node| now.contains(node));
    Ok(silent.map(|(node, _)| node).collect())
}

/// Why a journal can't be forgotten yet: the cache has batches of it.
async fn holds(cache: &dyn Cache, storage: &dyn Storage, journal: &str) -> Result<Option<String>> {
    let applied = storage.last_applied(journal).await?;
    let last = cache.last_kept(journal).await?;
    if last > applied {
        return Ok(Some(format!(
            "the cache has batches of {journal} up to {last}, and storage up to {applied}: a node that shares the cache \
             applies them"
        )));
    }
    let is_kept = !cache.kept(journal, 0, 1, Duration::ZERO).await?.is_empty();
    Ok(is_kept.then(|| {
        format!(
            "storage has all of {journal}, and the cache keeps batches of it for journal.keep, for a database that \
             comes back older: try again after that"
        )
    }))
}

impl NodeRow {
    fn of(node: &str, state: &'static str) -> Self {
        Self {
            node: node.to_owned(),
            state,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &[(&str, u64)]) -> BTreeMap<String, u64> {
        let named = |(journal, number): &(&str, u64)| ((*journal).to_owned(), *number);
        numbers.iter().map(named).collect()
    }

    #[test]
    fn each_node_has_a_row_by_its_last_start() {
        let earlier = "h1 boot ns 7 1 100";
        let sign = |count| {
            format!("h1 boot ns 8 {count} 100 version=1.2 up=60 last=9 applied=7 behind=3 peers=5")
        };
        let listed = vec![
            ("a#10.0".to_owned(), sign(1)),
            ("a#9.0".to_owned(), earlier.to_owned()),
            ("b#1.0".to_owned(), STOPPED.to_owned()),
            ("c#1.0".to_owned(), "h3 boot ns 9 1 100".to_owned()),
        ];
        let beat = Beat {
            sign: sign(2),
            clock: Some(-1),
        };
        let beats = [("a#10.0".to_owned(), beat)].into();
        let applied = numbers(&[("a#9.0", 4), ("a#10.0", 6), ("c#1.0", 1), ("d#1.0", 5)]);
        let kept = numbers(&[("a#9.0", 6), ("a#10.0", 9), ("c#1.0", 1)]);
        let rows = rows(listed, &beats, &applied, &kept, 160);
        let expected = [
            NodeRow {
                host: Some("h1".into()),
                version: Some("1.2".into()),
                uptime: Some(60),
                lag: Some(3),
                backlog: 2 + 2,
                peers: Some(5),
                clock: Some(-1),
                ..NodeRow::of("a", "running")
            },
            NodeRow::of("b", "stopped"),
            NodeRow {
                silent_for: Some(60),
                host: Some("h3".into()),
                ..NodeRow::of("c", "silent")
            },
            NodeRow::of("d", "gone"),
        ];
        assert_eq!(rows, expected);
    }
}
