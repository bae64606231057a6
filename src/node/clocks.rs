//! Which clock this node goes by. Its host's is compared with those of the cache, of the database and
//! of the other nodes, and not followed if it is wrong by more than [`NEAR`]. A clock that is wrong by
//! more than [`APART_MAX`] is logged.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::clock::{self, APART_MAX, Clock, Now, STEP, Seconds};
use crate::cache::{Cache, CacheError, time_of};
use crate::change::CLOCK_SKEW;
use crate::change::journals::node_of;
use crate::node::{Node, every};
use crate::storage::{Storage, StorageError};
use crate::telemetry::metrics::Metrics;

/// Seconds after which clocks are compared again; when the host's clock was set, this happens at once.
const PERIOD: u32 = 5;

/// How often the host's clock is read.
const LOOK: Duration = Duration::from_secs(1);

/// How long a server may take to answer. Its time is taken to be from the middle of that wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Seconds by which this host's clock may differ from most others and still be followed, if servers
/// answer at once: times are whole seconds, so they can't be compared more exactly.
const NEAR: i64 = 1;

/// What to do about a clock that is wrong.
const NTP: &str = "let all hosts set their clocks by NTP (chrony, systemd-timesyncd)";

/// What a host's own clock is called.
const OWN: &str = "this host";

/// What the time that this node goes by is called; it may differ from its host's clock.
const RUNNING: &str = "this node";

/// The clock of a node, and how far it can be believed.
pub(super) struct Clocks {
    clock: Clock,
    /// The name of this node.
    node: String,
    state: Mutex<State>,
}

struct State {
    /// Unix time less monotonic time, as it was last read.
    offset: i64,
    /// Since when this node's time has made no leap.
    steady_since: Seconds,
    /// Neither the host's clock nor the time that this node goes by differs from the others' by more than
    /// [`APART_MAX`].
    is_right: bool,
    /// The host's clock was behind the newest record at the start, so the age of records is not known.
    was_set_back: bool,
    /// No other node shares storage, as far as is known.
    is_alone: bool,
    /// Clocks whose warning was logged.
    wrong: Vec<String>,
    /// The last heartbeat of each node.
    signs: HashMap<String, String>,
    /// When clocks were compared last, and how far the host's was ahead of this node's time then.
    compared_at: Seconds,
    lead: i64,
}

/// Looks for a gap in the last announces of departed peers, of at least a quarter of the time for which
/// records are kept: the clock may have leapt ahead there, so that older records are younger than they
/// seem.
struct Gap {
    /// Seconds.
    quarter: i64,
    /// Unix times: there is no gap from `from` on, and what is before `since` does not matter.
    from: i64,
    since: i64,
    is_found: bool,
}

/// A server did not answer with its time.
#[derive(Debug, thiserror::Error)]
#[error("the time of {0}")]
pub(super) struct SilentServer(&'static str);

/// A server's answer to what time it is.
enum Answer {
    /// A Unix time, the moment at which it was that time, and by how much that may be wrong.
    Time(i64, Instant, Duration),
    NoClock,
    Silence,
}

/// What clocks show at about the same moment (Unix times).
struct ClockReadings {
    /// The time that this node goes by.
    running: i64,
    /// The node has gone by that time before, so it counts as one more clock.
    has_begun: bool,
    own: i64,
    cache: Option<i64>,
    storage: Option<i64>,
    nodes: Vec<(String, i64)>,
    /// A server that did not answer.
    silent: Option<&'static str>,
    /// Seconds by which the servers' times may be wrong, because they took so long to answer.
    error: i64,
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
                is_alone: false,
                wrong: Vec::new(),
                signs: HashMap::new(),
                compared_at: now.mono,
                lead: 0,
            }),
        }
    }

    /// Sets the clock before anything has noted a time.
    ///
    /// # Errors
    /// A server does not answer with its time: the host's clock alone might be wrong.
    pub async fn begin(
        &self,
        storage: &dyn Storage,
        cache: Option<&dyn Cache>,
        metrics: &Metrics,
    ) -> Result<(), SilentServer> {
        let readings = self.read(storage, cache, false).await;
        if let Some(server) = readings.silent {
            return Err(SilentServer(server));
        }
        // A database without a clock is a file of this host.
        self.state.lock().is_alone = cache.is_none() || readings.storage.is_none();
        if readings.others().next().is_some() {
            self.clock.guard();
            self.clock.begin_at(readings.best());
            self.judge(&readings, metrics);
        }
        self.state.lock().offset = offset_of(self.clock.now());
        Ok(())
    }

    /// Lets a node that is alone continue from its newest record, if that is later than the clock, so
    /// that no time comes twice. To be called before anything notes a time, once storage has what earlier
    /// starts left. Peers live for `peer_ttl` seconds, and their records are kept for `record_ttl`.
    pub async fn continue_from_newest(
        &self,
        storage: &dyn Storage,
        peer_ttl: u32,
        record_ttl: u32,
    ) -> Result<(), StorageError> {
        let is_alone = self.state.lock().is_alone;
        if is_alone && let Some(newest) = storage.newest_announce().await? {
            let mut gap = Gap::before(newest, record_ttl.into());
            while let Some(before) = gap.next() {
                gap.take(storage.last_gone(before).await?);
            }
            self.begin_after(newest, peer_ttl);
            let mut state = self.state.lock();
            state.offset = offset_of(self.clock.now());
            if gap.is_found {
                state.steady_since = self.clock.now().mono;
            }
        }
        Ok(())
    }

    fn begin_after(&self, newest: i64, peer_ttl: u32) {
        let now = self.clock.now();
        let behind = newest - now.unix;
        let mut state = self.state.lock();
        if behind > 0 {
            self.clock.begin_at(newest);
        }
        // It may be a second if the node was stopped a moment ago.
        if behind > CLOCK_SKEW {
            state.was_set_back = true;
            tracing::warn!(
                seconds = behind,
                "the clock of this host is behind the newest record: going on from that"
            );
        }
        // A clock that leapt ahead looks like a long downtime.
        if behind.abs() > i64::from(peer_ttl) {
            state.steady_since = now.mono;
        }
    }

    /// Whether the ages of records that were there at the start are unknown.
    pub fn was_set_back(&self) -> bool {
        self.state.lock().was_set_back
    }

    /// Records that are kept for `kept_for` seconds may be removed if their last announce was before this
    /// Unix time. None while that is not known: while the host's clock or this node's time is wrong, and
    /// for `kept_for` seconds after this node's time leapt, by when all peers that are still there have
    /// announced.
    pub fn removable_before(&self, kept_for: u32) -> Option<i64> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if offset_of(now) - state.offset > APART_MAX {
            state.steady_since = now.mono;
        }
        state.offset = offset_of(now);
        let is_steady = now.mono.since(state.steady_since) >= kept_for;
        (state.is_right && is_steady).then(|| now.unix.saturating_sub(kept_for.into()))
    }

    /// Whether clocks are to be compared now.
    fn is_due(&self) -> bool {
        let (now, lead) = (self.clock.now(), self.lead());
        let state = self.state.lock();
        now.mono.since(state.compared_at) >= PERIOD || (lead - state.lead).abs() > STEP
    }

    /// Seconds by which the host's clock is ahead of this node's time.
    fn lead(&self) -> i64 {
        self.clock.wall() - self.clock.now().unix
    }

    async fn read(
        &self,
        storage: &dyn Storage,
        cache: Option<&dyn Cache>,
        has_begun: bool,
    ) -> ClockReadings {
        let in_cache = async {
            let Some(cache) = cache else {
                return (Answer::NoClock, Vec::new());
            };
            let time = Answer::of(async {
                match cache.time().await {
                    Err(CacheError::Broken(_)) => Ok(None),
                    time => time,
                }
            });
            let time = time.await;
            let nodes = tokio::time::timeout(ANSWER_TIMEOUT, cache.nodes()).await;
            let nodes = nodes.ok().and_then(Result::ok);
            (time, nodes.unwrap_or_default())
        };
        let in_storage = Answer::of(async {
            match storage.time().await {
                Err(StorageError::Away(problem)) => Err(StorageError::Away(problem)),
                time => Ok(time.ok().flatten()),
            }
        });
        let ((cache, nodes), storage) = tokio::join!(in_cache, in_storage);
        let silent = match (&cache, &storage) {
            (Answer::Silence, _) => Some("the cache"),
            (_, Answer::Silence) => Some("the database"),
            _ => None,
        };
        let mut state = self.state.lock();
        let (now, lead) = (self.clock.now(), self.lead());
        (state.compared_at, state.lead) = (now.mono, lead);
        ClockReadings {
            running: now.unix,
            has_begun,
            own: now.unix + lead,
            cache: cache.by_now(),
            storage: storage.by_now(),
            nodes: running(&self.node, nodes, &mut state.signs),
            silent,
            error: cache.error().max(storage.error()),
        }
    }

    /// Logs which clocks are wrong, once, and sets this node's if need be.
    fn judge(&self, readings: &ClockReadings, metrics: &Metrics) {
        let agreed = readings.agreed();
        let skews = readings.all().map(|(name, time)| (name, time - agreed));
        let skews: Vec<(String, i64)> = skews.collect();
        let shown = skews.iter();
        let shown = shown.map(|(name, skew)| (name.clone(), skew.unsigned_abs()));
        *metrics.clocks.lock() = shown.collect();
        // Only ever forward: a time that comes twice would do more harm than one that is ahead.
        let best = readings.best();
        if best - self.clock.now().unix > NEAR + readings.error {
            self.clock.set(best);
        }
        let is_far = |skew: i64| skew.abs() > APART_MAX;
        let mut state = self.state.lock();
        let time = self.clock.now().unix;
        state.is_right = !is_far(readings.own - agreed) && !is_far(time - agreed);
        // This node's time is ahead if it was started while most clocks were.
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

/// Compares clocks, where there are others than the host's; runs until cancelled.
pub(super) async fn watch(node: Node, cache: Option<Arc<dyn Cache>>) {
    every(LOOK, || async {
        if !node.clocks.is_due() {
            return;
        }
        let clocks = &node.clocks;
        let readings = clocks.read(&*node.storage, cache.as_deref(), true).await;
        // While no server answers, what was found before stands.
        if readings.others().next().is_some() {
            clocks.judge(&readings, &node.metrics);
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

/// The times of the nodes other than `own` that have sent a heartbeat since the last look. `signs` has
/// the heartbeats of that look, and then those of this one.
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

// === impl Gap ===

impl Gap {
    /// To be looked for in the `record_ttl` seconds before `newest`.
    fn before(newest: i64, record_ttl: i64) -> Self {
        Self {
            quarter: record_ttl / 4,
            from: newest,
            since: newest - record_ttl,
            is_found: false,
        }
    }

    /// The time before which to ask for the newest announce; none once the search is over.
    fn next(&self) -> Option<i64> {
        let is_open = !self.is_found && self.from > self.since;
        is_open.then(|| self.from - self.quarter)
    }

    fn take(&mut self, newest: Option<i64>) {
        // Without older records, there is nothing to remove.
        let at = newest.unwrap_or(self.since);
        self.is_found = newest.is_some_and(|at| at < self.from - 2 * self.quarter);
        self.from = at;
    }
}

// === impl Answer ===

impl Answer {
    /// Waits for a server's time, which is none if it has no clock.
    async fn of<E>(time: impl Future<Output = Result<Option<i64>, E>>) -> Self {
        let began = clock::timer();
        match tokio::time::timeout(ANSWER_TIMEOUT, time).await {
            Ok(Ok(Some(time))) => {
                let half = began.elapsed() / 2;
                Self::Time(time, began + half, half)
            }
            Ok(Ok(None)) => Self::NoClock,
            Ok(Err(_)) | Err(_) => Self::Silence,
        }
    }

    /// What the clock shows by now.
    fn by_now(&self) -> Option<i64> {
        match self {
            // It is in whole seconds, and taken to have been in the middle of one.
            Self::Time(time, at, _) => Some(time + (at.elapsed().as_millis() as i64 + 500) / 1000),
            Self::NoClock | Self::Silence => None,
        }
    }

    /// Seconds by which that may be wrong.
    fn error(&self) -> i64 {
        match self {
            Self::Time(_, _, error) => (error.as_millis() as i64 + 500) / 1000,
            Self::NoClock | Self::Silence => 0,
        }
    }
}

// === impl ClockReadings ===

impl ClockReadings {
    fn others(&self) -> impl Iterator<Item = (String, i64)> + '_ {
        let cache = self.cache.map(|time| ("the cache".to_owned(), time));
        let storage = self.storage.map(|time| ("the database".to_owned(), time));
        let servers = cache.into_iter().chain(storage);
        servers.chain(self.nodes.iter().cloned())
    }

    fn all(&self) -> impl Iterator<Item = (String, i64)> + '_ {
        std::iter::once((OWN.to_owned(), self.own)).chain(self.others())
    }

    /// The time that most clocks agree on: their median, where the time that this node has gone by counts
    /// as one more clock. Of two in the middle, the one nearer to the cache's time is taken, because all
    /// nodes share that; without a cache, the one nearer to this node's time.
    fn agreed(&self) -> i64 {
        let running = self.has_begun.then_some(self.running);
        let mut times: Vec<i64> = self.all().map(|(_, time)| time).chain(running).collect();
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
        if (self.own - agreed).abs() > NEAR + self.error {
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

    fn readings(
        own: i64,
        cache: Option<i64>,
        storage: Option<i64>,
        nodes: &[i64],
    ) -> ClockReadings {
        ClockReadings {
            running: own,
            has_begun: false,
            own,
            cache,
            storage,
            nodes: nodes.iter().map(|time| ("node b".into(), *time)).collect(),
            silent: None,
            error: 0,
        }
    }

    #[test]
    fn a_server_that_answers_late_may_be_wrong_by_half_of_that() {
        for (error, best) in [(0, NOW), (2, NOW - 3)] {
            let slow = ClockReadings {
                error,
                ..readings(NOW - 3, Some(NOW), Some(NOW), &[])
            };
            assert_eq!(slow.best(), best, "{error}");
        }
    }

    #[test]
    fn most_clocks_are_right() {
        let (now, ahead, behind) = (NOW, NOW + 172_800, NOW - 3600);
        for (own, cache, storage, nodes, best) in [
            (now + 1, Some(now), Some(now), &[][..], now + 1),
            (now + 2, Some(now), Some(now), &[], now),
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
    fn a_running_node_follows_no_clock_that_leaps_alone() {
        let (now, ahead, behind) = (NOW, NOW + 172_800, NOW - 60);
        for (own, cache, storage, nodes, best) in [
            (ahead, None, Some(now), &[][..], now),
            (behind, None, Some(now), &[], now),
            (now, None, Some(ahead), &[], now),
            (ahead, Some(now), None, &[], now),
            (now, Some(ahead), None, &[], now),
            (now, Some(behind), None, &[], now),
            (now, Some(ahead), Some(now), &[behind], now),
            (now + 1, Some(now), Some(now), &[], now + 1),
            (now - 2, Some(now), Some(now), &[], now),
            (ahead, Some(ahead), Some(ahead), &[], ahead),
        ] {
            let readings = ClockReadings {
                running: now,
                has_begun: true,
                ..readings(own, cache, storage, nodes)
            };
            assert_eq!(
                readings.best(),
                best,
                "{own} {cache:?} {storage:?} {nodes:?}"
            );
        }
    }

    #[test]
    fn a_time_that_leapt_ahead_lets_nothing_go_for_as_long_as_it_is_kept() {
        let clocks = Clocks::new(Clock::start(), "a");
        let now = clocks.clock.now().unix;
        assert!(
            clocks
                .removable_before(100)
                .is_some_and(|before| before <= now - 100 + 2)
        );
        clocks.clock.set(now + 172_800);
        assert_eq!(clocks.removable_before(100), None);
        assert!(clocks.removable_before(0).is_some());
    }

    #[test]
    fn a_clock_that_was_set_back_goes_on_from_the_newest_record() {
        let begun = |newest: i64| {
            let clocks = Clocks::new(Clock::start(), "a");
            let now = clocks.clock.now().unix;
            clocks.begin_after(now + newest, 3900);
            clocks.state.lock().offset = offset_of(clocks.clock.now());
            let after = clocks.clock.now().unix - now;
            (
                after,
                clocks.was_set_back(),
                clocks.removable_before(1000).is_some(),
            )
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
    fn a_leap_of_an_earlier_run_is_seen_in_the_records() {
        let every = |step: i64, most: i64| (0..most).map(|count| NOW - count * step).collect();
        let leapt = |by: i64, times: Vec<i64>| -> Vec<i64> {
            let before = times.into_iter().map(|at| at - by);
            before.chain([NOW - 20, NOW - 7]).collect()
        };
        let times: [(Vec<i64>, bool); 8] = [
            (vec![], false),
            (vec![NOW - 20, NOW - 7], false),
            (every(600, 1000), false),
            (every(20_000, 10), false),
            (every(46_000, 10), true),
            (leapt(200_000, every(600, 1000)), true),
            (leapt(60_000, every(600, 1000)), true),
            (leapt(20_000, every(600, 1000)), false),
        ];
        for (times, expected) in times {
            let mut gap = Gap::before(NOW, 90_000);
            while let Some(before) = gap.next() {
                gap.take(times.iter().copied().filter(|at| *at < before).max());
            }
            assert_eq!(gap.is_found, expected, "{:?}", times.last());
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
