//! What a node says of itself every second, in one line of words.
//!
//! ```text
//! HOST BOOT PID-NAMESPACE PID COUNT TIME NAME=VALUE NAME=VALUE …
//! ```
//!
//! Nodes and tools of different versions read each other's lines. So the first six words stay what they are, a
//! reader skips names that it does not know, and does without those that are missing.

use std::fmt::{self, Display, Formatter};

/// The heartbeat of a node that has shut down cleanly: what storage lacks of its journal is in its spill
/// file.
pub const STOPPED: &str = "stopped";

/// What a node reports beside the process that it is and the time. Nodes of earlier versions report nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    pub version: Option<String>,
    /// The time that the node goes by (Unix time): right also where the clock of its host is not.
    pub now: Option<i64>,
    /// Seconds since the start.
    pub uptime: Option<u64>,
    /// The last batch of its journal, and the last one that the cache and storage have.
    pub last: Option<u64>,
    pub sent: Option<u64>,
    pub applied: Option<u64>,
    /// Batches of other nodes that it has not followed yet.
    pub behind: Option<u64>,
    /// Peers in its memory.
    pub peers: Option<u64>,
    /// The latest packed form of public peers that it reads ([`packed`](crate::change::packed)).
    pub packed: Option<u64>,
}

/// The time in a heartbeat by the clock of the node's host (Unix time); none if it has none.
pub fn time_of(sign: &str) -> Option<i64> {
    sign.split(' ').nth(5)?.parse().ok()
}

/// When a heartbeat was sent (Unix time), by the time that its node goes by, or else by its host's clock.
pub fn sent_at(sign: &str) -> Option<i64> {
    NodeReport::of(sign).now.or_else(|| time_of(sign))
}

/// The host in a heartbeat.
pub fn host_of(sign: &str) -> &str {
    sign.split(' ').next().unwrap_or_default()
}

impl NodeReport {
    /// The report in a heartbeat.
    pub fn of(sign: &str) -> Self {
        let mut report = Self::default();
        let words = sign.split(' ').skip(6);
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let number = || value.parse().ok();
            match name {
                "version" => report.version = Some(value.to_owned()),
                "now" => report.now = value.parse().ok(),
                "up" => report.uptime = number(),
                "last" => report.last = number(),
                "sent" => report.sent = number(),
                "applied" => report.applied = number(),
                "behind" => report.behind = number(),
                "peers" => report.peers = number(),
                "packed" => report.packed = number(),
                _ => {}
            }
        }
        report
    }

    /// Batches that storage does not have yet.
    pub fn backlog(&self) -> Option<u64> {
        Some(self.last?.saturating_sub(self.applied?))
    }
}

/// As words for a heartbeat.
impl Display for NodeReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(version) = &self.version {
            write!(f, "version={version}")?;
            separator = " ";
        }
        if let Some(now) = self.now {
            write!(f, "{separator}now={now}")?;
            separator = " ";
        }
        for (name, value) in [
            ("up", self.uptime),
            ("last", self.last),
            ("sent", self.sent),
            ("applied", self.applied),
            ("behind", self.behind),
            ("peers", self.peers),
            ("packed", self.packed),
        ] {
            if let Some(value) = value {
                write!(f, "{separator}{name}={value}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the version before this one writes it.
    const EARLIER: &str = "host boot pid:[4026531836] 4711 12 1800000000";

    fn report() -> NodeReport {
        NodeReport {
            version: Some("0.2.0".into()),
            now: Some(1_800_000_007),
            uptime: Some(3600),
            last: Some(70),
            sent: Some(69),
            applied: Some(65),
            behind: Some(0),
            peers: Some(123_456),
            packed: Some(1),
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let sign = format!("{EARLIER} {}", report());
        assert_eq!(NodeReport::of(&sign), report());
        assert_eq!(sent_at(&sign), Some(1_800_000_007));
        assert_eq!(report().backlog(), Some(5));
        let some = NodeReport {
            uptime: Some(1),
            ..NodeReport::default()
        };
        assert_eq!(some.to_string(), "up=1");
        assert_eq!(some.backlog(), None);
    }

    #[test]
    fn heartbeats_of_an_earlier_version_are_read() {
        for sign in [EARLIER, STOPPED, ""] {
            assert_eq!(NodeReport::of(sign), NodeReport::default(), "{sign}");
        }
        assert_eq!(
            (time_of(EARLIER), host_of(EARLIER)),
            (Some(1_800_000_000), "host")
        );
        assert_eq!(sent_at(EARLIER), Some(1_800_000_000));
        assert_eq!((time_of(STOPPED), sent_at(STOPPED)), (None, None));
    }

    /// The words by which an earlier version reads host, process and time are where they were.
    #[test]
    fn an_earlier_version_finds_what_it_knows() {
        let sign = format!("{EARLIER} {}", report());
        let words: Vec<&str> = sign.split(' ').take(6).collect();
        assert_eq!(words.join(" "), EARLIER);
        assert_eq!(
            (time_of(&sign), host_of(&sign)),
            (Some(1_800_000_000), "host")
        );
    }

    #[test]
    fn what_a_later_version_adds_is_skipped() {
        let sign = format!("{EARLIER} mood=good {} peers6=1 x = =", report());
        assert_eq!(NodeReport::of(&sign), report());
        let garbled = NodeReport::of(&format!("{EARLIER} up=-1 peers=many version="));
        assert_eq!((garbled.uptime, garbled.peers), (None, None));
        assert_eq!(garbled.version.as_deref(), Some(""));
    }
}
