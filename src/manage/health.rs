//! The health of a daemon's storage, cache and journal.

use crate::view::{ServerState, TrackerStats};

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Good,
    Late,
    Bad,
}

/// One line about a server or the journal.
#[derive(Debug, PartialEq, Eq)]
pub struct HealthLine {
    pub level: Level,
    pub name: String,
    pub text: String,
}

/// A journal whose oldest change is older than this (seconds) is late.
const JOURNAL_LATE: u64 = 30;

/// Storage, cache and journal, in that order.
pub fn lines(stats: &TrackerStats) -> [HealthLine; 3] {
    let cache = match &stats.cache {
        Some(cache) => server("cache", cache),
        None => HealthLine {
            level: Level::Good,
            name: "cache".into(),
            text: "none: this node stands alone".into(),
        },
    };
    let age = stats.journal.age;
    let (level, text) = if age > JOURNAL_LATE {
        let age = super::print::duration(age);
        (Level::Late, format!("{age} behind; no credit is lost"))
    } else {
        (Level::Good, "keeps up".into())
    };
    let journal = HealthLine {
        level,
        name: "journal".into(),
        text,
    };
    [server("storage", &stats.storage), cache, journal]
}

fn server(what: &str, server: &ServerState) -> HealthLine {
    let (level, text) = match (server.up, &server.problem) {
        (true, _) => (Level::Good, "up".into()),
        (false, Some(problem)) => (Level::Bad, problem.clone()),
        (false, None) => (Level::Bad, "away".into()),
    };
    HealthLine {
        level,
        name: format!("{what} ({})", server.driver),
        text,
    }
}
