//! Assigns a cache to a database. Its rows, peers, notices and journals belong to that; nodes of another
//! database must neither read them nor add to them.

use std::fmt;
use std::time::Duration;

use super::{Cache, CacheError, KeySet, Rows, STOPPED, Write, host_of};
use crate::change::journals::{is_later, node_of};

/// How long nodes are watched for heartbeats, which come once a second.
const WATCH: Duration = Duration::from_secs(3);

/// The remedy for a cache of another database.
pub const ADVICE: &str = "set the same storage.url in all nodes that share a cache, or another cache.url here, such \
    as one with another number at its end";

/// Why another database still needs a cache.
#[derive(Debug, PartialEq, Eq)]
enum InUse {
    /// One of its nodes is running.
    By { node: String, host: String },
    /// One of its nodes is gone, and left batches that may be nowhere else.
    Batches { node: String },
}

/// Assigns a cache to `database`, which is a storage's identity. Removes the data of another database first.
///
/// # Errors
/// [`CacheError::Broken`] if that other database still needs it: one of its nodes runs, or left batches.
pub async fn take(cache: &dyn Cache, database: &str) -> Result<(), CacheError> {
    let owner = cache.set_database(database, None).await?;
    if owner == database {
        return Ok(());
    }
    if let Some(in_use) = in_use(cache).await? {
        return Err(refusal(&owner, database, &in_use.to_string()));
    }
    tracing::warn!(
        former = owner,
        database,
        "the cache was that of another database, which no longer uses it: removing that database's data"
    );
    for (node, _) in cache.nodes().await? {
        cache.forget_journal(&node).await?;
    }
    clear(cache).await?;
    let now = cache.set_database(database, Some(&owner)).await?;
    if now == database {
        return Ok(());
    }
    Err(refusal(&now, database, "that database took it just now"))
}

/// Refuses the cache of another database, without checking whether that still needs it.
///
/// # Errors
/// [`CacheError::Broken`] if it is another database's.
pub async fn refuse_foreign(cache: &dyn Cache, database: &str) -> Result<(), CacheError> {
    match cache.database().await? {
        Some(owner) if owner != database => {
            Err(refusal(&owner, database, "nothing was changed there"))
        }
        _ => Ok(()),
    }
}

/// Why [`take`] would refuse, or what it would remove from the cache of another database; none if the cache
/// is this database's.
///
/// # Errors
/// Those of the calls to the cache.
pub async fn explain(cache: &dyn Cache, database: &str) -> Result<Option<String>, CacheError> {
    let owner = cache.database().await?;
    let Some(owner) = owner.filter(|owner| owner != database) else {
        return Ok(None);
    };
    let why = match in_use(cache).await? {
        Some(in_use) => in_use.to_string(),
        None => {
            "none of its nodes runs, so the next start or warmup removes its data from the cache"
                .into()
        }
    };
    Ok(Some(described(&owner, database, &why)))
}

/// Removes all copies of what storage has: registry and peers. Keeps journals.
///
/// # Errors
/// Those of the calls to the cache. It may be repeated.
pub async fn clear(cache: &dyn Cache) -> Result<(), CacheError> {
    // First, so that no node starts from a part of it.
    cache.forget_mirrored().await?;
    cache.forget_peers().await?;
    for which in [KeySet::Swarms, KeySet::Registry] {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let scan = cache.keys(which, at).await?;
            cache.remove(&scan.rows).await?;
            cursor = scan.next;
        }
    }
    cache.put(Rows::Whitelist(&[]), Write::Edit).await
}

/// A running node and its host, judged by heartbeats; none if all stay silent for some seconds.
///
/// # Errors
/// Those of the calls to the cache.
pub async fn running(cache: &dyn Cache) -> Result<Option<(String, String)>, CacheError> {
    let before = cache.nodes().await?;
    if before.iter().all(|(_, sign)| sign == STOPPED) {
        return Ok(None);
    }
    tokio::time::sleep(WATCH).await;
    let now = cache.nodes().await?;
    let is_new = |it: &&(String, String)| it.1 != STOPPED && !before.contains(it);
    Ok(now.iter().find(is_new).map(|(journal, sign)| {
        let host = host_of(sign);
        (node_of(journal).to_owned(), host.to_owned())
    }))
}

async fn in_use(cache: &dyn Cache) -> Result<Option<InUse>, CacheError> {
    if let Some((node, host)) = running(cache).await? {
        return Ok(Some(InUse::By { node, host }));
    }
    let now = cache.nodes().await?;
    // Before it serves, a start applies what earlier starts of its node left.
    let is_saved = |journal: &str| {
        now.iter()
            .filter(|(_, sign)| sign == STOPPED)
            .any(|(other, _)| other == journal || is_later(other, journal))
    };
    for (journal, _) in &now {
        match cache.kept(journal, 0, 1, Duration::ZERO).await {
            Ok(batches) if batches.is_empty() || is_saved(journal) => {}
            // Batches of a newer version can't be read, but count, too.
            Ok(_) | Err(CacheError::Broken(_)) => {
                let node = node_of(journal).to_owned();
                return Ok(Some(InUse::Batches { node }));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn refusal(owner: &str, database: &str, why: &str) -> CacheError {
    let problem = described(owner, database, why);
    CacheError::Broken(format!("{problem}: {ADVICE}"))
}

fn described(owner: &str, database: &str, why: &str) -> String {
    format!(
        "the cache belongs to another database (id {owner}; the one of storage.url has the id {database}): {why}"
    )
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By { node, host } => write!(f, "node {node:?} of it runs on {host}"),
            Self::Batches { node } => write!(
                f,
                "node {node:?} of it left batches that may be nowhere else: start that node once more to save \
                 them, or empty the cache (FLUSHDB) if they are of no use"
            ),
        }
    }
}
