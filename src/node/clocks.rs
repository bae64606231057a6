//! Which clock this node goes by. Its host's is compared with those of the cache, of the database and
//! of the other nodes; one that is wrong by more than [`APART_MAX`] is warned of, and not gone by.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cache::{Cache, time_of};
use crate::change::CLOCK_SKEW;
use crate::change::journals::node_of;
use crate::clock::{APART_MAX, Clock, Now, Seconds};
use crate::metrics::Metrics;
use crate::node::{Node, every};
use crate::storage::{Storage, StorageError};

/// How often clocks are compared.
const PERIOD: Duration = Duration::from_secs(5);

/// How long an answer may take: what it says is no older then.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to do about a clock that is wrong.
const NTP: &str = "let all hosts set their clocks by NTP (chrony, systemd-timesyncd)";

/// What a host's own clock is called.
const OWN: &str = "this host";

/// What the time of a node is called that differs from its host's clock.
const RUNNING: &str = "this node";

/// The clock of a node, and how far it can be believed.
pub(super) struct Clocks {
    clock: Clock,
    /// The name of this node.
    node: String,
    state: Mutex<State>,
}

struct State {
    /// Unix time less monotonic time, as it was last looked at.
    offset: i64,
    /// Since when this node's time has made no leap.
    steady_since: Seconds,
    /// Neither the host's clock nor the time that this node goes by differs from the others'.
    is_right: bool,
    /// The host's clock was behind the newest record at the start, so nobody knows how old records are.
    was_set_back: bool,
    /// Clocks that were warned of.
    wrong: Vec<String>,
    /// The last sign of life of each node.
    signs: HashMap<String, String>,
}

/// What clocks say at about the same moment (Unix times).
struct Readings {
    /// The time that this node goes by.
    running: i64,
    own: i64,
    cache: Option<i64>,
    storage: Option<i64>,
    nodes: Vec<(String, i64)>,
}

// === impl Clocks ===

impl Clocks {
    pub fn new(clock: Clock, node: &str) -> Self {
        let now = clock.now();
        Self {
            clock,
            node: node.to_owned(),
            state: Mutex::new(State {
                offset: offset_of(now),
                steady_since: Seconds(0),
                is_right: true,
                was_set_back: false,
                wrong: Vec::new(),
                signs: HashMap::new(),
            }),
        }
    }

    /// Sets the clock before anything has noted a time; `peer_ttl` in seconds. A node that shares with
    /// nobody goes on from its newest record, if that is later: so no time comes twice.
    pub async fn begin(
        &self,
        storage: &dyn Storage,
        cache: Option<&dyn Cache>,
        metrics: &Metrics,
        peer_ttl: u32,
    ) -> Result<(), StorageError> {
        let mut readings = self.read(storage, cache).await;
        if readings.others().next().is_some() {
            self.clock.guard();
            self.clock.begin_at(readings.best());
        }
        if cache.is_none()
            && let Some(newest) = storage.newest_announce().await?
        {
            self.begin_after(newest, peer_ttl);
            readings.running = self.clock.now().unix;
        }
        if readings.others().next().is_some() {
            self.judge(&readings, metrics);
        }
        self.state.lock().offset = offset_of(self.clock.now());
        Ok(())
    }

    fn begin_after(&self, newest: i64, peer_ttl: u32) {
        let now = self.clock.now();
        let behind = newest - now.unix;
        let mut state = self.state.lock();
        if behind > 0 {
            self.clock.begin_at(newest);
        }
        // Of a node that was stopped a moment ago, it may be a second.
        if behind > CLOCK_SKEW {
            state.was_set_back = true;
            tracing::warn!(
                seconds = behind,
                "the clock of this host is behind the newest record: going on from that"
            );
        }
        // A clock that leapt ahead looks as a long rest does.
        if behind.abs() > i64::from(peer_ttl) {
            state.steady_since = now.mono;
        }
    }

    /// Whether the ages of records that were there at the start are not known.
    pub fn was_set_back(&self) -> bool {
        self.state.lock().was_set_back
    }

    /// The Unix time before which records may go that are kept for so many seconds after their last
    /// announce. None while that can't be told: while a clock is wrong, and after this node's
    /// time made a leap until all who are still there have announced.
    pub fn before(&self, kept_for: u32) -> Option<i64> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if offset_of(now) - state.offset > APART_MAX {
            state.steady_since = now.mono;
        }
        state.offset = offset_of(now);
        let is_steady = now.mono.since(state.steady_since) >= kept_for;
        (state.is_right && is_steady).then(|| now.unix.saturating_sub(kept_for.into()))
    }

    async fn read(&self, storage: &dyn Storage, cache: Option<&dyn Cache>) -> Readings {
        let in_cache = async {
            let Some(cache) = cache else {
                return (None, Vec::new());
            };
            let time = within(cache.time()).await;
            let nodes = within(cache.nodes()).await.unwrap_or_default();
            (time, nodes)
        };
        let ((cache, nodes), storage) = tokio::join!(in_cache, within(storage.time()));
        let mut state = self.state.lock();
        Readings {
            running: self.clock.now().unix,
            own: self.clock.wall(),
            cache,
            storage: storage.flatten(),
            nodes: running(&self.node, nodes, &mut state.signs),
        }
    }

    /// Says which clocks are wrong, once, and sets this node's if need be.
    fn judge(&self, readings: &Readings, metrics: &Metrics) {
        let agreed = readings.agreed();
        let skews = readings.all().map(|(name, time)| (name, time - agreed));
        let skews: Vec<(String, i64)> = skews.collect();
        let shown = skews
            .iter()
            .map(|(name, skew)| (name.clone(), skew.unsigned_abs()));
        metrics.clocks.set(shown.collect());
        // Only ever ahead: a time that comes twice would do more harm than a late one.
        if agreed - self.clock.now().unix > APART_MAX {
            self.clock.set(readings.best());
        }
        let is_far = |skew: i64| skew.abs() > APART_MAX;
        let mut state = self.state.lock();
        let time = self.clock.now().unix;
        state.is_right = !is_far(readings.own - agreed) && !is_far(time - agreed);
        // It was started while most clocks were ahead.
        let running = (RUNNING.to_owned(), time - agreed);
        let all = skews.into_iter().chain([running]);
        let wrong: Vec<(String, i64)> = all.filter(|(_, skew)| is_far(*skew)).collect();
        for (name, skew) in wrong.iter().filter(|(name, _)| !state.wrong.contains(name)) {
            warn(name, *skew);
        }
        if wrong.is_empty() && !state.wrong.is_empty() {
            tracing::info!("all clocks agree again");
        }
        state.wrong = wrong.into_iter().map(|(name, _)| name).collect();
    }
}

/// Compares clocks for as long as the node runs; where there is no other clock, there is nothing to do.
pub(super) async fn watch(node: Node, cache: Option<Arc<dyn Cache>>) {
    every(PERIOD, || async {
        let readings = node.clocks.read(&*node.storage, cache.as_deref()).await;
        // While nobody answers, what was found before stands.
        if readings.others().next().is_some() {
            node.clocks.judge(&readings, &node.metrics);
        }
    })
    .await;
}

fn warn(name: &str, skew: i64) {
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    let how = format!("{} seconds {direction} most others", skew.unsigned_abs());
    if name == RUNNING {
        tracing::warn!(
            hint = "start it again",
            "the time that this node goes by is {how}: it removes no old records"
        );
    } else if name == OWN {
        tracing::warn!(
            hint = NTP,
            "the clock of this host is {how}: this node goes by theirs, and removes no old records"
        );
    } else {
        tracing::warn!(hint = NTP, "the clock of {name} is {how}");
    }
}

async fn within<T, E>(asked: impl Future<Output = Result<T, E>>) -> Option<T> {
    tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()
}

/// The times of the nodes beside `own` that have said that they run since the last look, of which
/// `signs` are what they said then.
fn running(
    own: &str,
    nodes: Vec<(String, String)>,
    signs: &mut HashMap<String, String>,
) -> Vec<(String, i64)> {
    let mut times = Vec::new();
    let known = std::mem::take(signs);
    for (journal, sign) in nodes {
        let name = node_of(&journal);
        let is_new = known.get(&journal).is_some_and(|known| *known != sign);
        if let Some(time) = time_of(&sign).filter(|_| is_new && name != own) {
            times.push((format!("node {name}"), time));
        }
        signs.insert(journal, sign);
    }
    times
}

fn offset_of(now: Now) -> i64 {
    now.unix - i64::from(now.mono.0)
}

// === impl Readings ===

impl Readings {
    fn others(&self) -> impl Iterator<Item = (String, i64)> + '_ {
        let cache = self.cache.map(|time| ("the cache".to_owned(), time));
        let storage = self.storage.map(|time| ("the database".to_owned(), time));
        let servers = cache.into_iter().chain(storage);
        servers.chain(self.nodes.iter().cloned())
    }

    fn all(&self) -> impl Iterator<Item = (String, i64)> + '_ {
        std::iter::once((OWN.to_owned(), self.own)).chain(self.others())
    }

    /// The time that most clocks agree on: the middle one. Of two, the one that is nearer to the cache's
    /// counts, because all nodes have that, and where there is none, to this node's.
    fn agreed(&self) -> i64 {
        let mut times: Vec<i64> = self.all().map(|(_, time)| time).collect();
        times.sort_unstable();
        let middle = times.len() / 2;
        let (lower, upper) = (times[(times.len() - 1) / 2], times[middle]);
        let anchor = self.cache.unwrap_or(self.running);
        if anchor.abs_diff(upper) < anchor.abs_diff(lower) {
            upper
        } else {
            lower
        }
    }

    /// The time to go by: this host's own, unless it is wrong.
    fn best(&self) -> i64 {
        let agreed = self.agreed();
        if (self.own - agreed).abs() > APART_MAX {
            agreed
        } else {
            self.own
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn readings(own: i64, cache: Option<i64>, storage: Option<i64>, nodes: &[i64]) -> Readings {
        Readings {
            running: own,
            own,
            cache,
            storage,
            nodes: nodes.iter().map(|time| ("node b".into(), *time)).collect(),
        }
    }

    #[test]
    fn most_clocks_are_right() {
        let (now, ahead, behind) = (NOW, NOW + 172_800, NOW - 3600);
        for (own, cache, storage, nodes, best) in [
            (now + 9, Some(now), Some(now), &[][..], now + 9),
            (ahead, Some(now), Some(now), &[], now),
            (behind, Some(now), Some(now), &[], now),
            (now, Some(ahead), Some(now), &[], now),
            (now, Some(now), Some(now), &[ahead], now),
            (ahead, Some(now), Some(now), &[now], now),
            (ahead, Some(now), None, &[], now),
            (behind, Some(now), None, &[], now),
            (behind, Some(now), Some(now), &[behind], now),
            (ahead, Some(now), Some(now), &[ahead], now),
            (ahead, None, Some(now), &[], ahead),
        ] {
            let readings = readings(own, cache, storage, nodes);
            assert_eq!(
                readings.best(),
                best,
                "{own} {cache:?} {storage:?} {nodes:?}"
            );
        }
    }

    #[test]
    fn a_running_node_is_right_rather_than_its_host_where_a_database_says_so() {
        let set_back = Readings {
            running: NOW,
            ..readings(NOW - 3600, None, Some(NOW), &[])
        };
        assert_eq!(set_back.best(), NOW);
    }

    #[test]
    fn a_time_that_leapt_ahead_lets_nothing_go_for_as_long_as_it_is_kept() {
        let clocks = Clocks::new(Clock::start(), "a");
        let now = clocks.clock.now().unix;
        assert!(
            clocks
                .before(100)
                .is_some_and(|before| before <= now - 100 + 2)
        );
        clocks.clock.set(now + 172_800);
        assert_eq!(clocks.before(100), None);
        assert!(clocks.before(0).is_some());
    }

    #[test]
    fn a_clock_that_was_set_back_goes_on_from_the_newest_record() {
        let begun = |newest: i64| {
            let clocks = Clocks::new(Clock::start(), "a");
            let now = clocks.clock.now().unix;
            clocks.begin_after(now + newest, 3900);
            clocks.state.lock().offset = offset_of(clocks.clock.now());
            let after = clocks.clock.now().unix - now;
            (after, clocks.was_set_back(), clocks.before(1000).is_some())
        };
        for (newest, ahead, was_set_back, may_prune) in [
            (3600, 3600, true, true),
            (172_800, 172_800, true, false),
            (-60, 0, false, true),
            (-172_800, 0, false, false),
        ] {
            let (after, set_back, prunes) = begun(newest);
            assert!((after - ahead).abs() <= 2, "{newest}: {after}");
            assert_eq!((set_back, prunes), (was_set_back, may_prune), "{newest}");
        }
    }

    #[test]
    fn only_nodes_that_run_have_a_time() {
        let mut signs = HashMap::new();
        let sign = |count: u64, time: i64| format!("host boot ns 7 {count} {time}");
        let look = |first: String, second: String, signs: &mut _| {
            let nodes = vec![("a#1.x".into(), first), ("b#1.x".into(), second)];
            running("c", nodes, signs)
        };
        assert_eq!(look(sign(1, NOW), sign(1, NOW), &mut signs), []);
        let times = look(sign(2, NOW + 5), sign(1, NOW), &mut signs);
        assert_eq!(times, [("node a".to_owned(), NOW + 5)]);
        let nodes = vec![("a#1.x".to_owned(), sign(3, NOW + 6))];
        assert_eq!(running("a", nodes, &mut signs), [], "itself");
    }
}
