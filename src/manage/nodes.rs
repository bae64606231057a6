//! Journals of nodes that are gone, in cache and storage, and their removal.
//!
//! All nodes follow the journals on the cache's list, and apply one whose process died. Once storage has
//! all of it and its node has started again, running nodes remove it. The spill file of a node that stays
//! away may still turn up: its number in storage is removed only on request, by an operator who knows
//! that the disk is gone.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::UsageError;
use super::open::Site;
use super::print::Printer;
use crate::cache::Cache;
use crate::change::journals::node_of;
use crate::storage::Storage;

/// How long nodes are watched for heartbeats, which come every second.
const WATCH: Duration = Duration::from_secs(4);

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
        UsageError(format!("--forget {node}: this is the node of this config"))
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
    for (journal, _) in &journals {
        if let Some(what) = holds(cache, &*site.storage, journal).await? {
            bail!("{what}: nothing was forgotten; a node that shares the cache applies it");
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

/// The batches of a journal in the cache that storage may not have, for a message.
async fn holds(cache: &dyn Cache, storage: &dyn Storage, journal: &str) -> Result<Option<String>> {
    let applied = storage.last_applied(journal).await?;
    let last = cache.last_kept(journal).await?;
    let is_kept = !cache.kept(journal, 0, 1, Duration::ZERO).await?.is_empty();
    Ok((is_kept || last > applied).then(|| {
        format!("the cache has batches of {journal} up to {last}, and storage up to {applied}")
    }))
}
