//! Checks the cache: that it takes commands, has the registry that nodes start from, and has safe
//! settings.

use std::time::Duration;

use anyhow::Result;

use super::report::CheckReport;
use crate::base::clock::{self, APART_MAX, Clock};
use crate::cache::{Cache, CacheError, Mirrored, owner, time_of};
use crate::change::journals::node_of;
use crate::config::{Config, Drivers};
use crate::manage::open;
use crate::storage::{Feed, FeedPosition, Storage, StorageError};

/// Seconds by which clocks may differ: of two nodes' records of a peer, the later one counts.
const SKEW: i64 = 5;

/// Nodes send a heartbeat every second.
const HEARTBEAT_WATCH: Duration = Duration::from_secs(3);

/// The registry in the cache.
enum State {
    Loaded,
    /// Partly there.
    Incomplete {
        found: &'static str,
        hint: &'static str,
    },
    /// Of another database; the text says which, and whether it is in use.
    Foreign(String),
}

pub(super) async fn check(
    config: &Config,
    drivers: &Drivers,
    report: &mut CheckReport<'_>,
) -> Result<()> {
    let cache = match open::cache(config, drivers) {
        Ok(Some(cache)) => cache,
        Ok(None) => return report.ok("cache", &config.cache.driver),
        Err(error) => {
            let hint = "look at cache.driver and cache.url";
            return report.problem("cache", &error.root_cause().to_string(), hint);
        }
    };
    let url = config.cache.url.to_string();
    if let Err(error) = cache.ping().await {
        let problem = error.to_string();
        report.problem("cache", &problem, ping_hint(&error, &problem))?;
        // A server that responds can be checked further.
        return match error {
            CacheError::Broken(_) => settings(&*cache, report).await,
            CacheError::Away(_) | CacheError::Restarted(_) | CacheError::Moving => Ok(()),
        };
    }
    match look(config, drivers, &*cache).await {
        Ok(State::Loaded) => report.ok("cache", &url)?,
        Ok(State::Incomplete { found, hint }) => {
            report.problem("cache", &format!("{url}: {found}"), hint)?;
        }
        Ok(State::Foreign(found)) => {
            report.problem("cache", &format!("{url}: {found}"), owner::ADVICE)?;
        }
        Err(error) => {
            let hint = "look at the server's own log";
            report.problem("cache", &error.to_string(), hint)?;
        }
    }
    settings(&*cache, report).await?;
    clock(&*cache, report).await?;
    node_clocks(&*cache, report).await
}

/// The hint for a failed ping.
fn ping_hint(error: &CacheError, problem: &str) -> &'static str {
    match error {
        CacheError::Broken(_) if problem.contains("password") => {
            "the server was reached: give the right user and password in cache.url"
        }
        CacheError::Broken(_) => {
            "the server was reached: see docs/redis.md for what Mika needs there"
        }
        // A state that the server reported: loading, full, or a replica.
        CacheError::Away(_) if problem.contains(": it ") && !problem.contains("not answer") => {
            "the server was reached: look at its own log"
        }
        CacheError::Away(_) | CacheError::Restarted(_) | CacheError::Moving => {
            "start it, or correct the address in cache.url"
        }
    }
}

async fn settings(cache: &dyn Cache, report: &mut CheckReport<'_>) -> Result<()> {
    let Ok(findings) = cache.check().await else {
        return Ok(()); // reported already, or gone a moment ago
    };
    for finding in &findings {
        if finding.is_note {
            report.note("cache settings", &finding.problem, &finding.hint)?;
        } else {
            report.problem("cache settings", &finding.problem, &finding.hint)?;
        }
    }
    if findings.iter().all(|finding| finding.is_note) {
        report.ok("cache settings", "as Mika needs them")?;
    }
    Ok(())
}

/// Checks what a starting node would load. Problems of storage are reported by its own check.
async fn look(config: &Config, drivers: &Drivers, cache: &dyn Cache) -> Result<State, CacheError> {
    let storage = open::database_exists(config).then(|| open::bare_storage(config, drivers));
    let storage = storage.and_then(Result::ok);
    if let Some(storage) = &storage
        && let Ok(database) = storage.identity().await
        && let Some(found) = owner::explain(cache, &database).await?
    {
        return Ok(State::Foreign(found));
    }
    let Some(mirrored) = cache.mirrored().await? else {
        return Ok(State::Incomplete {
            found: "it was not loaded completely since the server was started or emptied",
            hint: "mika-manage warmup",
        });
    };
    if cache.evicted().await? > mirrored.evicted {
        return Ok(State::Incomplete {
            found: "the server threw keys away to make room since it was loaded",
            hint: "set maxmemory-policy noeviction, then: mika-manage warmup",
        });
    }
    let Some(storage) = storage else {
        return Ok(State::Loaded);
    };
    let state = compare(&mirrored, &*storage).await;
    Ok(state.unwrap_or(State::Loaded))
}

async fn compare(mirrored: &Mirrored, storage: &dyn Storage) -> Result<State, StorageError> {
    if storage.identity().await? != mirrored.storage {
        return Ok(State::Incomplete {
            found: "it was loaded from another database",
            hint: "make sure that all nodes that use it have the same storage.url, then: mika-manage warmup",
        });
    }
    Ok(
        match storage.feed(FeedPosition(mirrored.position), 1).await? {
            Feed::Changes(..) => State::Loaded,
            Feed::Lost => State::Incomplete {
                found: "more changed since it was loaded than the feed of changes keeps",
                hint: "mika-manage warmup",
            },
        },
    )
}

async fn clock(cache: &dyn Cache, report: &mut CheckReport<'_>) -> Result<()> {
    let before = Clock::start().now().unix;
    match cache.time().await {
        Ok(Some(theirs)) => report_clock("cache clock", before, theirs, report),
        // Without a clock of its own; or reported above, if anything is wrong with the server.
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Compares the clocks of running nodes with this host's.
async fn node_clocks(cache: &dyn Cache, report: &mut CheckReport<'_>) -> Result<()> {
    let read = async || cache.nodes().await.unwrap_or_default();
    let first = read().await;
    let skew = |heartbeat: &str| Some(time_of(heartbeat)? - clock::wall());
    let is_far = |(_, heartbeat): &(String, String)| {
        skew(heartbeat).is_some_and(|skew| skew.abs() > APART_MAX)
    };
    if !first.iter().any(is_far) {
        return Ok(());
    }
    // A time far from now may be the last heartbeat of a node that is gone.
    tokio::time::sleep(HEARTBEAT_WATCH).await;
    for node in read().await {
        let is_alive = first
            .iter()
            .any(|before| before.0 == node.0 && before.1 != node.1);
        if let Some(skew) = skew(&node.1).filter(|_| is_alive && is_far(&node)) {
            let what = format!("clock of node {}", node_of(&node.0));
            report_skew(&what, skew, report)?;
        }
    }
    Ok(())
}

/// Compares storage's clock with this host's.
pub(super) async fn storage_clock(
    storage: &dyn Storage,
    report: &mut CheckReport<'_>,
) -> Result<()> {
    let before = Clock::start().now().unix;
    match storage.time().await {
        Ok(Some(theirs)) => report_clock("storage clock", before, theirs, report),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Compares a clock that was read after `before` with this host's.
fn report_clock(what: &str, before: i64, theirs: i64, report: &mut CheckReport<'_>) -> Result<()> {
    let after = Clock::start().now().unix;
    let skew = skew(before, theirs, after);
    if skew == 0 {
        return report.ok(what, "agrees with this host's");
    }
    report_skew(what, skew, report)
}

fn report_skew(what: &str, skew: i64, report: &mut CheckReport<'_>) -> Result<()> {
    let (seconds, direction) = (skew.abs(), if skew > 0 { "ahead of" } else { "behind" });
    report.problem(
        what,
        &format!("{seconds} seconds {direction} this host's"),
        "let both hosts set their clocks by NTP (chrony, systemd-timesyncd)",
    )
}

/// Seconds by which a clock is ahead of this host's, which read `before` and `after`; 0 if harmless.
fn skew(before: i64, theirs: i64, after: i64) -> i64 {
    if theirs > after + SKEW {
        theirs - after
    } else if theirs < before - SKEW {
        theirs - before
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_says_whether_the_server_was_reached() {
        let hint = |error: CacheError| ping_hint(&error, &error.to_string());
        for (error, expected) in [
            (
                CacheError::Broken("Redis at x: it refuses the user or the password".into()),
                "right user and password",
            ),
            (
                CacheError::Broken("Redis at x: it is part of a Redis Cluster".into()),
                "docs/redis.md",
            ),
            (
                CacheError::Away("Redis at x: it loads its data".into()),
                "its own log",
            ),
            (
                CacheError::Away("Redis at x: Connection refused (os error 111)".into()),
                "start it",
            ),
            (
                CacheError::Away("Redis at x: it does not answer".into()),
                "start it",
            ),
        ] {
            let problem = error.to_string();
            assert!(hint(error).contains(expected), "{problem}");
        }
    }

    #[test]
    fn a_clock_may_differ_by_the_duration_of_the_query_and_a_little() {
        for (theirs, expected) in [
            (100, 0),
            (95, 0),
            (94, -6),
            (107, 0),
            (108, 6),
            (4000, 3898),
        ] {
            assert_eq!(skew(100, theirs, 102), expected, "{theirs}");
        }
    }
}
