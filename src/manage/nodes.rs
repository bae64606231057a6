//! Nodes that are gone: what cache and storage remember of them, and forgetting it.
//!
//! A name on the cache's list of nodes says whose journal to follow, and to apply if its node dies. Once
//! storage has that journal, the name can go: a node that comes back puts itself on the list again.
//!
//! The number in `mika_journal` keeps a batch from being applied twice, so it may only go where nothing
//! holds a batch of that node any more. The journal in the cache can be looked at. The node's own spill
//! file can't: it is on that node's disk. So numbers are never forgotten unless somebody asks for it by
//! name, who knows that the disk is gone.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::UsageError;
use super::open::Site;
use super::print::Printer;
use crate::cache::Cache;
use crate::storage::Storage;

/// How long a node is watched for signs of life, of which there is one a second.
const WATCH: Duration = Duration::from_secs(4);

/// Nodes on the cache's list that give no sign of life, and whose journal storage has.
pub(super) async fn gone(cache: &dyn Cache, storage: &dyn Storage) -> Result<Vec<String>> {
    let mut gone = Vec::new();
    for node in silent(cache).await? {
        if holds(cache, storage, &node).await?.is_none() {
            gone.push(node);
        }
    }
    Ok(gone)
}

/// Forgets a node for good: its name, its journal in the cache, which must be empty, and the number of
/// its last batch.
pub(super) async fn forget(node: &str, site: &Site, printer: &mut Printer) -> Result<()> {
    ensure!(
        node != site.config.node,
        UsageError(format!("--forget {node}: this is the node of this config"))
    );
    let journals = site.storage.journals().await?;
    let found = journals.into_iter().find(|(name, _)| name == node);
    let Some((_, applied)) = found else {
        bail!("storage knows no node {node}");
    };
    if let Some(cache) = site.own_cache().await? {
        let is_listed = |nodes: &[(String, String)]| nodes.iter().any(|(name, _)| name == node);
        let is_silent =
            || async { Ok::<_, anyhow::Error>(silent(cache).await?.iter().any(|it| it == node)) };
        if is_listed(&cache.nodes().await?) && !is_silent().await? {
            bail!("node {node} runs: nothing was forgotten");
        }
        if let Some(what) = holds(cache, &*site.storage, node).await? {
            bail!("{what}: nothing was forgotten; a node that shares the cache applies it");
        }
        // First: a number without a journal does no harm, a journal without its number would.
        cache.forget_journal(node).await?;
    }
    ensure!(
        site.storage.forget_journal(node, applied).await?,
        "node {node} has applied another batch meanwhile: nothing was forgotten"
    );
    printer.message(format_args!(
        "forgot node {node}, whose last batch was {applied}"
    ));
    Ok(())
}

/// Nodes on the list that give no sign of life.
async fn silent(cache: &dyn Cache) -> Result<Vec<String>> {
    let before = cache.nodes().await?;
    if before.is_empty() {
        return Ok(Vec::new());
    }
    tokio::time::sleep(WATCH).await;
    let now = cache.nodes().await?;
    let is_silent = |it: &(String, String)| now.contains(it);
    let silent = before.into_iter().filter(is_silent);
    Ok(silent.map(|(node, _)| node).collect())
}

/// What the cache holds of a node's journal that storage may not have; none if nothing.
async fn holds(cache: &dyn Cache, storage: &dyn Storage, node: &str) -> Result<Option<String>> {
    let applied = storage.applied(node).await?;
    let last = cache.last_kept(node).await?;
    let is_kept = !cache.kept(node, 0, 1).await?.is_empty();
    Ok((is_kept || last > applied).then(|| {
        format!("the cache has batches of node {node} up to {last}, and storage up to {applied}")
    }))
}
