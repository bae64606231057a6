//! The cache: whether it takes commands, and has the registry that a node starts from.

use anyhow::Result;

use super::report::Report;
use crate::config::Config;
use crate::manage::open;

/// Whether the cache takes commands, and has the registry that a node starts from.
pub(super) async fn check(config: &Config, report: &mut Report<'_>) -> Result<()> {
    let cache = match open::cache(config) {
        Ok(Some(cache)) => cache,
        Ok(None) => return report.ok("cache", &config.cache.driver),
        Err(error) => {
            let hint = "look at cache.driver and cache.url";
            return report.problem("cache", &error.root_cause().to_string(), hint);
        }
    };
    let state = match cache.ping().await {
        Ok(_) => cache.mirrored().await,
        Err(error) => Err(error),
    };
    match state {
        Ok(Some(_)) => report.ok("cache", &config.cache.url.to_string()),
        Ok(None) => report.problem(
            "cache",
            &format!("{}: it was never loaded completely", config.cache.url),
            "mika-manage warmup",
        ),
        Err(error) => {
            let hint = "look at cache.url, and whether the server is up";
            report.problem("cache", &error.to_string(), hint)
        }
    }
}
