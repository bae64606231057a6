//! Health checks: whether storage and the cache can be reached, and whether certificates are about to
//! expire.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::cache::{self, Cache, CacheError};
use crate::node::{Node, every};
use crate::storage::{Finding, Severity};
use crate::telemetry::certificate::EXPIRY_NOTICE_DAYS;
use crate::telemetry::metrics::{Availability, ProbeSource};

/// How often storage and the cache are probed, and how long an answer may take.
const PROBE_PERIOD: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the dates of certificates are checked: a reload may bring others.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(10);

/// How often triggers and tables are checked.
const DATABASE_PERIOD: Duration = Duration::from_secs(30);

const DAY: i64 = 86_400;

/// Probes storage periodically, so that an outage is noticed even while there is nothing to save; runs
/// until cancelled.
pub(super) async fn storage(node: Node) {
    // The start has just read from it.
    node.metrics.storage.succeeded(ProbeSource::Probe);
    every(PROBE_PERIOD, || async {
        let asked = node.journal.ask_storage();
        probe(&node.metrics.storage, asked, PROBE_TIMEOUT).await;
    })
    .await;
}

/// Probes the cache periodically; runs until cancelled. A part of it that is away counts as an outage, and may have lost
/// batches.
pub(super) async fn cache(node: Node, cache: Arc<dyn Cache>) {
    node.metrics.cache.succeeded(ProbeSource::Probe);
    let was_whole = AtomicBool::new(true);
    every(PROBE_PERIOD, || async {
        let asked = async {
            let generation = cache.ping().await?;
            node.journal.on_cache_restarted(generation);
            cache
                .away_part()
                .map_or(Ok(()), |problem| Err(CacheError::Away(problem)))
        };
        probe(&node.metrics.cache, asked, PROBE_TIMEOUT).await;
        let is_whole = cache.away_part().is_none();
        if was_whole.swap(is_whole, Ordering::Relaxed) && !is_whole {
            node.journal.on_cache_disconnected();
        }
    })
    .await;
}

async fn probe<T, E: Display>(
    reach: &Availability,
    answer: impl Future<Output = Result<T, E>>,
    timeout: Duration,
) -> Option<T> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(answer)) => {
            reach.succeeded(ProbeSource::Probe);
            return Some(answer);
        }
        Ok(Err(error)) => reach.failed(ProbeSource::Probe, &error.to_string()),
        Err(_) => reach.failed(ProbeSource::Probe, "it does not answer"),
    }
    None
}

/// Checks once whether the database keeps what it confirms, and every half a minute whether its
/// triggers and tables are complete: tools that change tables while the node runs may lose triggers. Each
/// problem is logged once, and so is the moment when all are over.
pub(super) async fn database(node: Node) {
    // Whether it can be reached is watched elsewhere.
    for Finding { problem, hint, .. } in node.storage.durability().await.unwrap_or_default() {
        tracing::warn!(hint, "the database may lose credit: {problem}");
    }
    let known = Mutex::new(Vec::new());
    every(DATABASE_PERIOD, || async {
        let findings = match node.storage.inspect().await {
            Ok(findings) => findings,
            // Whether it can be reached is watched elsewhere.
            Err(error) => {
                tracing::debug!(%error, "the database could not be inspected; trying again later");
                return;
            }
        };
        let findings: Vec<Finding> = findings
            .into_iter()
            .filter(|finding| finding.severity > Severity::Note)
            .collect();
        let problems = &node.metrics.storage_problems;
        problems.store(findings.len() as u64, Ordering::Relaxed);
        let before = std::mem::replace(&mut *known.lock(), findings.clone());
        for Finding { problem, hint, .. } in findings.iter().filter(|new| !before.contains(new)) {
            tracing::error!(hint, "the database is not as Mika needs it: {problem}");
        }
        if !before.is_empty() && findings.is_empty() {
            tracing::info!("the database is as it should be again");
        }
    })
    .await;
}

/// Checks at the start and every half a minute whether the cache keeps what it is given. Each problem is
/// logged once, and so is the moment when all are over.
pub(super) async fn cache_settings(cache: Arc<dyn Cache>) {
    let known = Mutex::new(Vec::new());
    every(DATABASE_PERIOD, || async {
        // Whether it can be reached is watched elsewhere.
        let Ok(findings) = cache.inspect().await else {
            return;
        };
        let before = std::mem::replace(&mut *known.lock(), findings.clone());
        for finding in findings.iter().filter(|new| !before.contains(new)) {
            let cache::CacheFinding { problem, hint, .. } = finding;
            if finding.is_note {
                tracing::warn!(hint, "the cache: {problem}");
            } else {
                tracing::warn!(hint, "the cache is not set up as Mika needs it: {problem}");
            }
        }
        let has_problem =
            |findings: &[cache::CacheFinding]| findings.iter().any(|finding| !finding.is_note);
        if has_problem(&before) && !has_problem(&findings) {
            tracing::info!("the cache is set up as it should be again");
        }
    })
    .await;
}

/// Warns of certificates that will soon expire, once a day for each listener; runs until cancelled.
pub(super) async fn certificates(node: Node) {
    let mut warned = HashMap::new();
    let mut ticks = tokio::time::interval(CERTIFICATE_PERIOD);
    loop {
        ticks.tick().await;
        let now = node.clock.now().unix;
        for (listener, expires_at) in node.metrics.certificates.all() {
            if is_due(now, expires_at, warned.get(listener).copied()) {
                warned.insert(listener, now);
                warn(listener, (expires_at - now).div_euclid(DAY));
            }
        }
    }
}

/// Whether to warn of a certificate, if that was last done at `warned`.
fn is_due(now: i64, expires_at: i64, warned: Option<i64>) -> bool {
    expires_at - now < EXPIRY_NOTICE_DAYS * DAY && warned.is_none_or(|at| now - at >= DAY)
}

fn warn(listener: &str, days: i64) {
    if days < 0 {
        tracing::warn!(
            "{listener}.tls: the certificate has expired; put a new one there and send SIGUSR2"
        );
    } else {
        tracing::warn!(
            days,
            "{listener}.tls: the certificate expires soon; put a new one there and send SIGUSR2"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_in_its_last_fortnight_once_a_day() {
        let expires_at = 100 * DAY;
        assert!(!is_due(85 * DAY, expires_at, None));
        assert!(is_due(86 * DAY + 1, expires_at, None));
        assert!(!is_due(87 * DAY, expires_at, Some(86 * DAY + 1)));
        assert!(is_due(87 * DAY + 1, expires_at, Some(86 * DAY + 1)));
        assert!(is_due(200 * DAY, expires_at, Some(99 * DAY)));
    }

    #[tokio::test]
    async fn what_does_not_answer_is_down() {
        let reach = Availability::default();
        let timeout = Duration::from_millis(10);
        let silent = std::future::pending::<Result<(), String>>();
        assert_eq!(probe(&reach, silent, timeout).await, None);
        assert_eq!(reach.problem().as_deref(), Some("it does not answer"));
        let answer = probe(&reach, async { Ok::<_, String>(7) }, PROBE_TIMEOUT).await;
        assert_eq!((answer, reach.is_up()), (Some(7), Some(true)));
        let refused = probe(&reach, async { Err::<(), _>("locked") }, PROBE_TIMEOUT).await;
        assert_eq!((refused, reach.is_up()), (None, Some(false)));
    }
}
