//! One running total of a client (bytes uploaded, or downloaded): the sessions that are known of
//! it, and what a report adds to them.
//!
//! A *session* is a stretch of time in which the total only grew. It is kept as a window: the
//! total at its beginning (`low`) and the highest total reported within it (`high`). What is
//! credited for a session is `high - low`, so its reports may come in any order and any number of
//! times. Windows do not overlap in time, and `low` was reported before `high`; the client moved
//! at least `high - low` bytes in between, so no order of reports credits a byte twice.

/// More than this in one step is never believed (rule A7): 2^50 bytes.
pub const STEP_MAX: u64 = 1 << 50;

/// Seconds of reporting less than before, after which the client is taken at its word (rule A3).
pub const DIP_SECONDS: i64 = 60;

/// Seconds by which a report may be older than everything known of its client and still count.
/// Records are kept as long; of an older report nobody can tell whether it was settled before.
pub const LATE_MAX: i64 = 24 * 3600;

/// Seconds by which the times that one node tells may be off.
const SKEW: i64 = 5;

/// Who passed a report on: a hash of the node's name plus the number of its start. Reports of one
/// node arrive in the order in which they were made, also those of one second; of two nodes nobody
/// can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source(pub u16);

impl Source {
    /// Of several nodes, or of a version that did not note it.
    pub const UNKNOWN: Self = Self(u16::MAX);

    /// Starts of a node by which a source is still known as a later one of the same node.
    const STARTS: u16 = 32;

    pub fn new(hash_of_node: u64, start: u64) -> Self {
        let modulus = u64::from(u16::MAX);
        Self(((hash_of_node % modulus + start % modulus) % modulus) as u16)
    }

    /// Seconds by which a report from here may seem older than one of `other` and yet be later; none
    /// if it can't be told which was first.
    fn slack_after(self, other: Self) -> Option<i64> {
        if self == Self::UNKNOWN || other == Self::UNKNOWN {
            return None;
        }
        let modulus = u32::from(u16::MAX);
        let starts = (u32::from(self.0) + modulus - u32::from(other.0)) % modulus;
        match starts {
            0 => Some(SKEW),
            // A later start, whose clock may have been read at another part of a second.
            _ if starts <= u32::from(Self::STARTS) => Some(1),
            _ => None,
        }
    }
}

/// A total at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Bytes, as the client counts them.
    pub total: u64,
    /// Unix time in seconds at which it was reported.
    pub at: i64,
}

/// What a client reported of one total: a single announce, or several of one session in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub from: Point,
    pub to: Point,
    /// The first of them was `event=started`: the total may have begun again.
    pub started: bool,
}

/// A stretch of time in which a total only grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The total at the beginning, in bytes; reported at `began`.
    pub low: u64,
    /// The highest total reported, in bytes.
    pub high: u64,
    /// Unix times, in seconds: the first report known, and the last that raised `high` in order.
    pub began: i64,
    pub last: i64,
    /// Nothing is known of the time before it, so an older report may belong to it.
    pub is_first: bool,
}

/// Reports below the current session that no `started` explains (rule A3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dip {
    /// Unix time of the first of them, in seconds.
    pub since: i64,
    /// The highest of them, in bytes.
    pub total: u64,
    /// Unix time of the highest, in seconds.
    pub at: i64,
}

/// Everything that is kept of one total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    pub current: Option<Session>,
    /// The session before it: reports of it may still arrive.
    pub previous: Option<Session>,
    pub dip: Option<Dip>,
    /// Who passed on the last report of the current session.
    pub by: Source,
}

/// What a report added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Bytes to credit, before multipliers.
    pub bytes: u64,
    /// A total grew faster than any line; that step was not credited (rule A7).
    pub implausible: bool,
}

// === impl Stretch ===

impl Stretch {
    /// A single report.
    pub fn at(point: Point, started: bool) -> Self {
        Self {
            from: point,
            to: point,
            started,
        }
    }

    /// This stretch and a later one as one; none unless the later one goes on where this ends.
    pub fn then(&self, later: &Self) -> Option<Self> {
        let goes_on = !later.started && later.from.total <= self.to.total;
        (goes_on && later.to.total >= self.to.total && later.to.at >= self.to.at).then_some(Self {
            to: later.to,
            ..*self
        })
    }
}

// === impl Sessions ===

impl Sessions {
    /// What is known of a client whose last total alone was kept.
    pub fn known(total: u64, at: i64) -> Self {
        Self {
            current: Some(Session {
                is_first: false,
                ..Session::begin(Point { total, at })
            }),
            ..Self::default()
        }
    }

    /// Takes a report into account; `max_rate` is in bytes a second (rule A7).
    pub fn settle(&mut self, stretch: &Stretch, by: Source, max_rate: u64) -> Settled {
        if stretch.from.at - stretch.to.at > SKEW {
            // The time of the base is not known.
            let from = Point {
                at: stretch.to.at,
                ..stretch.from
            };
            return self.settle(&Stretch { from, ..*stretch }, by, u64::MAX);
        }
        let is_one = stretch.to == stretch.from;
        let first = if stretch.started || is_one {
            let from = self.in_order(stretch.from, by);
            self.settle_from(from, stretch.started, by, max_rate)
        } else if self.has(stretch.from) {
            Settled::default()
        } else {
            self.settle_from(stretch.from, false, by, max_rate)
        };
        if is_one {
            return first;
        }
        let to = self.after_base(self.in_order(stretch.to, by), stretch.from);
        let rest = self.settle_from(to, false, by, max_rate);
        Settled {
            bytes: first.bytes.saturating_add(rest.bytes),
            implausible: first.implausible || rest.implausible,
        }
    }

    /// A report of the node that told last: it was made after what that node told before, even if
    /// its seconds, or a clock that was set, say otherwise.
    fn in_order(&self, point: Point, by: Source) -> Point {
        let last = self.current.map_or(point.at, |current| current.last);
        let slack = by.slack_after(self.by).unwrap_or(0);
        let is_about_then = point.at < last && last - point.at <= slack;
        let at = if is_about_then { last } else { point.at };
        Point { at, ..point }
    }

    /// Whether the current session has the base of a report; a base's time is known to some
    /// seconds only, after a restart of its node.
    fn has(&self, base: Point) -> bool {
        self.current.is_some_and(|current| {
            let range = current.low..=current.high;
            range.contains(&base.total) && base.at >= current.began - SKEW
        })
    }

    /// A report whose base is of the current session was made in it, though the clock of another node
    /// may say that it was made before it began.
    fn after_base(&self, point: Point, base: Point) -> Point {
        let Some(current) = self.current else {
            return point;
        };
        let is_just_before = |at: i64| at < current.began && current.began - at <= 1;
        let is_of_current = (current.low..=current.high).contains(&base.total)
            && (base.at >= current.began || is_just_before(base.at));
        let may_be_of_previous = self.previous.is_some_and(|previous| {
            (previous.low..=previous.high).contains(&base.total) && base.at >= previous.began
        });
        if is_just_before(point.at) && is_of_current && !may_be_of_previous {
            return Point {
                at: current.began,
                ..point
            };
        }
        point
    }

    fn settle_from(&mut self, point: Point, started: bool, by: Source, max_rate: u64) -> Settled {
        let is_in_order = by == self.by || by.slack_after(self.by).is_some();
        let may_be_settled = self.is_ambiguous(point) || (started && self.is_repeated_start(point));
        if !is_in_order && may_be_settled {
            return Settled::default();
        }
        let end = |sessions: &Self| sessions.current.map(|current| (current.high, current.last));
        let before = end(self);
        let settled = self.settle_point(point, started, max_rate);
        let now = end(self);
        if now != before {
            // Above the report, it is that of a dip, which any node may have told.
            let is_of_dip = now.is_some_and(|(high, _)| high > point.total);
            self.by = if is_of_dip { Source::UNKNOWN } else { by };
        }
        settled
    }

    /// Whether a report of another node is of the same second as one that is settled, so that
    /// it can't be told which was first: it may be a repetition of what that node passed on.
    fn is_ambiguous(&self, point: Point) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let is_at_end = point.at == current.last && point.total < current.high;
        let is_at_begin =
            point.at == current.began && point.total > current.low && self.previous.is_some();
        // What stays lower afterwards is believed as any lower total is.
        is_at_end || is_at_begin
    }

    /// Whether a `started` of another node may be one that is settled: a client of two families, or one
    /// that got no answer, tells both nodes, whose clocks differ a little.
    fn is_repeated_start(&self, point: Point) -> bool {
        self.current.is_some_and(|current| {
            let is_its_begin =
                point.total == current.low && (point.at - current.began).abs() <= SKEW;
            // It went on counting where it was, and has moved something since.
            let is_within =
                (current.low..current.high).contains(&point.total) && point.at - current.last <= 1;
            is_its_begin || is_within
        })
    }

    fn settle_point(&mut self, point: Point, started: bool, max_rate: u64) -> Settled {
        let Some(current) = self.current.as_mut() else {
            self.current = Some(Session::begin(point));
            return Settled::default();
        };
        if point.at < current.began {
            return self.settle_older(point, started, max_rate);
        }
        if point.total >= current.high {
            if point.at >= current.last {
                self.dip = None;
            }
            return current.rise(point, max_rate);
        }
        // In the middle of the session: what came before and after it is settled already.
        if point.at < current.last {
            return Settled::default();
        }
        self.settle_lower(point, started, max_rate)
    }

    /// A report below the current session, made after its last one (rule A3).
    fn settle_lower(&mut self, point: Point, started: bool, max_rate: u64) -> Settled {
        if !started {
            match &mut self.dip {
                Some(dip) if point.at - dip.since >= DIP_SECONDS => {}
                Some(dip) => {
                    dip.since = dip.since.min(point.at);
                    (dip.total, dip.at) = (dip.total, dip.at).max((point.total, point.at));
                    return Settled::default();
                }
                None => {
                    self.dip = Some(Dip {
                        since: point.at,
                        total: point.total,
                        at: point.at,
                    });
                    return Settled::default();
                }
            }
        }
        let dip = self.dip.take();
        self.previous = self.current;
        let current = self.current.insert(Session {
            is_first: false,
            ..Session::begin(point)
        });
        // Reports that arrived before the one that began their session.
        match dip {
            Some(dip) if started && dip.since > point.at && dip.total > point.total => {
                let total = Point {
                    total: dip.total,
                    at: dip.at,
                };
                current.rise(total, max_rate)
            }
            _ => Settled::default(),
        }
    }

    /// A report made before the current session began.
    fn settle_older(&mut self, point: Point, started: bool, max_rate: u64) -> Settled {
        let Some(current) = self.current.as_mut() else {
            return Settled::default();
        };
        let Some(previous) = self.previous.as_mut() else {
            if !current.is_first || current.began - point.at > LATE_MAX {
                return Settled::default();
            }
            if point.total <= current.low {
                return current.extend_back(point, max_rate);
            }
            current.is_first = false;
            self.previous = Some(Session::begin(point));
            return Settled::default();
        };
        if started && point.at > previous.last && point.total <= current.low {
            return current.extend_back(point, max_rate);
        }
        // Of one second, it can't be told which session it belongs to.
        if point.at == previous.began && point.total > previous.low {
            return Settled::default();
        }
        if point.at >= previous.began {
            return if point.total > previous.high {
                previous.rise(point, max_rate)
            } else {
                Settled::default()
            };
        }
        let is_in_time = current.began - point.at <= LATE_MAX;
        if previous.is_first && is_in_time && point.total <= previous.low {
            return previous.extend_back(point, max_rate);
        }
        Settled::default()
    }
}

// === impl Session ===

impl Session {
    /// A session of which one report is known: its base (rule A1).
    pub(super) fn begin(point: Point) -> Self {
        Self {
            low: point.total,
            high: point.total,
            began: point.at,
            last: point.at,
            is_first: true,
        }
    }

    /// A report at or above the highest one so far.
    fn rise(&mut self, point: Point, max_rate: u64) -> Settled {
        let step = point.total - self.high;
        let seconds = point.at - self.last;
        self.high = point.total;
        self.last = self.last.max(point.at);
        // A report made before the last one: how long its bytes took is not known.
        if seconds < 0 {
            return Settled::of(step, STEP_MAX);
        }
        Settled::of(step, limit(seconds, max_rate))
    }

    /// A report from before everything known of the session, and not above it.
    fn extend_back(&mut self, point: Point, max_rate: u64) -> Settled {
        let step = self.low - point.total;
        let seconds = self.began - point.at;
        self.low = point.total;
        self.began = point.at;
        Settled::of(step, limit(seconds, max_rate))
    }
}

/// Bytes that a line may carry in so many seconds (rule A7); `max_rate` is in bytes a second. A
/// base whose time lies in the future sets no limit: a clock was set, so nobody knows how old it is.
pub fn limit(seconds: i64, max_rate: u64) -> u64 {
    if seconds < -SKEW {
        return STEP_MAX;
    }
    let seconds = u64::try_from(seconds).unwrap_or(0).max(1);
    max_rate.saturating_mul(seconds).min(STEP_MAX)
}

// === impl Settled ===

impl Settled {
    /// A step of so many bytes, which counts unless no line is that fast (rule A7).
    pub fn of(step: u64, limit: u64) -> Self {
        if step > limit {
            return Self {
                bytes: 0,
                implausible: true,
            };
        }
        Self {
            bytes: step,
            implausible: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_RATE: u64 = 2_500_000_000;

    fn point(at: i64, total: u64) -> Point {
        Point { total, at }
    }

    /// Reports as (time, started, total); returns what is credited for all of them.
    fn credited(reports: &[(i64, bool, u64)]) -> u64 {
        let mut sessions = Sessions::default();
        reports
            .iter()
            .map(|&(at, started, total)| {
                let stretch = Stretch::at(point(at, total), started);
                sessions.settle(&stretch, Source::UNKNOWN, MAX_RATE).bytes
            })
            .sum()
    }

    #[test]
    fn starts_of_a_node_follow_each_other() {
        for hash in [0, 7, u64::from(u16::MAX) - 1, u64::MAX] {
            let (first, second) = (Source::new(hash, 65_534), Source::new(hash, 65_535));
            assert_eq!(first.slack_after(first), Some(SKEW));
            assert_eq!(second.slack_after(first), Some(1));
            assert_eq!(first.slack_after(second), None);
            assert_eq!(Source::new(hash, 65_534 + 33).slack_after(first), None);
        }
        assert_eq!(Source::UNKNOWN.slack_after(Source::UNKNOWN), None);
    }

    #[test]
    fn a_client_may_begin_again_at_the_next_start_in_the_same_second() {
        let (first, second) = (Source::new(40, 3), Source::new(40, 4));
        let credited = |sources: [Source; 4]| -> u64 {
            let mut sessions = Sessions::default();
            let reports = [
                (10, true, 0),
                (20, false, 100),
                (20, true, 0),
                (30, false, 7),
            ];
            let settled = reports
                .iter()
                .zip(sources)
                .map(|(&(at, started, total), by)| {
                    let stretch = Stretch::at(point(at, total), started);
                    sessions.settle(&stretch, by, MAX_RATE).bytes
                });
            settled.sum()
        };
        assert_eq!(credited([first, first, second, second]), 107);
        let other = Source::new(99, 1);
        assert_eq!(
            credited([first, first, other, other]),
            100,
            "of two nodes, it can't be told"
        );
    }

    /// Settles reports: by whom, when, whether it is a start and which total, and the credit that it has to give.
    fn expect(sessions: &mut Sessions, reports: &[(Source, (i64, bool, u64), u64)]) {
        for &(by, (at, started, total), credited) in reports {
            let stretch = Stretch::at(point(at, total), started);
            let bytes = sessions.settle(&stretch, by, MAX_RATE).bytes;
            assert_eq!(bytes, credited, "{total} at {at}");
        }
    }

    #[test]
    fn a_start_that_two_nodes_pass_on_begins_one_session() {
        let (first, second) = (Source::new(40, 3), Source::new(99, 1));
        let mut sessions = Sessions::known(700, 5);
        // The clock of the second is a second ahead, and the client moves something at once.
        let reports = [
            (first, (10, true, 0), 0),
            (first, (10, false, 100), 100),
            (second, (11, true, 0), 0),
            (second, (11, false, 100), 0),
            (second, (12, false, 150), 50),
            (first, (11, false, 150), 0),
        ];
        expect(&mut sessions, &reports);
    }

    #[test]
    fn a_client_that_goes_on_counting_is_credited_once_by_two_nodes() {
        let (first, second) = (Source::new(40, 3), Source::new(99, 1));
        let mut sessions = Sessions::default();
        let reports = [
            (first, (10, true, 0), 0),
            (first, (20, false, 100), 100),
            (first, (30, true, 100), 0),
            (first, (30, false, 150), 50),
            // Its clock is a second ahead, and it never heard of the client.
            (second, (31, true, 100), 0),
            (second, (31, false, 150), 0),
            (second, (40, false, 170), 20),
        ];
        expect(&mut sessions, &reports);
    }

    #[test]
    fn the_base_of_a_report_says_which_session_it_is_of() {
        let mut sessions = Sessions::default();
        let (first, second) = (Source::new(40, 3), Source::new(99, 1));
        for (at, total, credited) in [(20, 0, 0), (20, 100, 100)] {
            let stretch = Stretch::at(point(at, total), total == 0);
            assert_eq!(sessions.settle(&stretch, first, MAX_RATE).bytes, credited);
        }
        let stretch = Stretch {
            from: point(19, 100),
            to: point(19, 150),
            started: false,
        };
        let credited = sessions.settle(&stretch, second, MAX_RATE).bytes;
        assert_eq!(credited, 50, "the other node's clock is behind");
        assert_eq!(sessions.settle(&stretch, second, MAX_RATE).bytes, 0);
    }

    #[test]
    fn a_base_of_the_future_sets_no_limit() {
        let far = MAX_RATE * 1000;
        for (base_at, credited) in [(3, 0), (100, far)] {
            let mut sessions = Sessions::known(5, 0);
            let stretch = Stretch {
                from: point(base_at, 5),
                to: point(2, 5 + far),
                started: false,
            };
            let settled = sessions.settle(&stretch, Source::UNKNOWN, MAX_RATE);
            assert_eq!(settled.bytes, credited, "{base_at}");
        }
    }

    #[test]
    fn a_client_in_order_gains_what_it_moved() {
        assert_eq!(credited(&[(0, true, 0), (10, false, 100)]), 100);
        assert_eq!(credited(&[(0, false, 500), (10, false, 600)]), 100, "A1");
        assert_eq!(
            credited(&[
                (0, true, 0),
                (10, false, 100),
                (20, true, 0),
                (30, false, 7)
            ]),
            107
        );
        assert_eq!(
            credited(&[(0, true, 0), (10, false, 100), (20, true, 120)]),
            120,
            "a `started` that goes on from the old totals (rule A2)"
        );
    }

    #[test]
    fn a_lower_total_is_believed_after_a_minute() {
        let lower = [(0, true, 0), (10, false, 100), (20, false, 40)];
        let after = |at, total| {
            let mut all = lower.to_vec();
            all.push((at, false, total));
            all.push((at + 10, false, total + 5));
            credited(&all)
        };
        assert_eq!(after(79, 41), 100);
        assert_eq!(after(80, 41), 105);
        assert_eq!(after(79, 100), 105, "the dip is over");
    }

    #[test]
    fn reports_count_once_in_any_order_and_number() {
        let reports = [
            (0, true, 0),
            (10, false, 100),
            (20, false, 250),
            (30, false, 300),
        ];
        let mut order = [0, 1, 2, 3];
        let mut permutations = 0;
        permute(&mut order, 0, &mut |order| {
            let mut all: Vec<_> = order.iter().map(|&place| reports[place]).collect();
            all.extend_from_within(..);
            assert_eq!(credited(&all), 300, "{order:?}");
            permutations += 1;
        });
        assert_eq!(permutations, 24);
    }

    fn permute(order: &mut [usize; 4], fixed: usize, visit: &mut dyn FnMut(&[usize; 4])) {
        if fixed == order.len() {
            visit(order);
            return;
        }
        for place in fixed..order.len() {
            order.swap(fixed, place);
            permute(order, fixed + 1, visit);
            order.swap(fixed, place);
        }
    }

    #[test]
    fn a_start_that_arrives_after_its_session_begins_it() {
        let late = [
            (0, true, 0),
            (10, false, 100),
            (22, false, 20),
            (20, true, 0),
        ];
        assert_eq!(credited(&late), 120);
        let unknown = [(30, false, 50), (0, false, 100), (20, true, 0)];
        assert_eq!(credited(&unknown), 50);
    }

    #[test]
    fn reports_before_their_start_count_when_they_were_made() {
        let late = [
            (0, true, 0),
            (61, false, 900),
            (160, false, 500),
            (139, false, 300),
            (114, false, 200),
            (75, true, 0),
            // It went on from where it was.
            (127, true, 200),
            (160, false, 500),
        ];
        assert_eq!(credited(&late), 1400);
    }

    #[test]
    fn what_a_client_showed_another_node_before_is_credited_when_it_arrives() {
        // One node had 0 to 300 in its spill file while the client went on at another, from 500.
        let late = [
            (100, false, 500),
            (110, false, 600),
            (0, true, 0),
            (50, false, 300),
        ];
        assert_eq!(credited(&late), 600);
    }

    #[test]
    fn what_is_older_than_records_are_kept_is_not_credited() {
        let at = LATE_MAX + 10;
        assert_eq!(credited(&[(at, false, 500), (0, true, 0)]), 0);
        assert_eq!(credited(&[(at, false, 500), (10, true, 0)]), 500);
    }

    #[test]
    fn a_step_beyond_any_line_moves_the_base_and_credits_nothing() {
        let far = MAX_RATE * 11;
        assert_eq!(
            credited(&[(0, true, 0), (10, false, far), (20, false, far + 5)]),
            5
        );
    }

    /// A client that restarts at random; its reports arrive in random order, some twice, some never.
    #[test]
    fn no_order_of_reports_credits_more_than_was_moved() {
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut reports = Vec::new();
            let (mut at, mut total, mut moved) = (0, random.u64(..1000), 0);
            let mut started = random.bool();
            for _ in 0..random.usize(1..12) {
                reports.push((at, started, total));
                at += random.i64(1..40);
                started = random.u8(..4) == 0;
                if started {
                    // A client that goes on from its old totals, or from none.
                    total = if random.bool() { total } else { 0 };
                } else {
                    let step = random.u64(..1000);
                    total += step;
                    moved += step;
                }
            }
            let in_order = credited(&reports);
            assert!(in_order <= moved, "seed {seed}: {in_order} of {moved}");
            let mut arrivals = reports.clone();
            arrivals.retain(|_| random.u8(..8) > 0);
            arrivals.extend(reports.iter().filter(|_| random.u8(..4) == 0).copied());
            random.shuffle(&mut arrivals);
            let shuffled = credited(&arrivals);
            assert!(
                shuffled <= moved,
                "seed {seed}: {shuffled} of {moved}: {arrivals:?}"
            );
        }
    }

    #[test]
    fn a_report_right_after_a_start_counts_once_though_clocks_differ_by_a_second() {
        let (first, second) = (Source::new(40, 3), Source::new(99, 1));
        let mut sessions = Sessions::default();
        let mut settle = |from: (i64, u64), to: (i64, u64), started, by| {
            let stretch = Stretch {
                from: point(from.0, from.1),
                to: point(to.0, to.1),
                started,
            };
            sessions.settle(&stretch, by, MAX_RATE).bytes
        };
        assert_eq!(settle((87, 0), (87, 0), true, first), 0);
        assert_eq!(settle((87, 0), (94, 700), false, first), 700);
        // It goes on from there, by the first node's clock a second later than by the other's.
        assert_eq!(settle((98, 700), (98, 700), true, first), 0);
        assert_eq!(settle((98, 700), (98, 1000), false, first), 300);
        assert_eq!(settle((97, 700), (97, 700), true, second), 0);
        assert_eq!(settle((97, 700), (97, 1000), false, second), 0);
        assert_eq!(settle((97, 1000), (105, 1100), false, second), 100);
    }

    /// What is credited of the reports of two nodes, each of which passes its own on in order, and late.
    fn credited_late(passed_on: &[Vec<Stretch>; 2], random: &mut fastrand::Rng) -> u64 {
        let (mut sessions, mut gained) = (Sessions::default(), 0);
        let mut next = [0, 0];
        while next[0] < passed_on[0].len() || next[1] < passed_on[1].len() {
            let node = usize::from(random.bool());
            if let Some(stretch) = passed_on[node].get(next[node]) {
                next[node] += 1;
                let by = Source::new(1000 * node as u64, 1);
                gained += sessions.settle(stretch, by, MAX_RATE).bytes;
            }
        }
        gained
    }

    /// A client that goes on from its totals at each start, at two nodes whose clocks differ by a
    /// second; what each passes on arrives in order, and late.
    #[test]
    fn nodes_whose_clocks_differ_credit_no_more_than_was_moved() {
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let skew = random.i64(-1..=1);
            let (mut at, mut total, mut started, mut began) = (100, 0, true, 100);
            let mut passed_on = [Vec::new(), Vec::new()];
            let mut bases: [Option<Point>; 2] = [None, None];
            for _ in 0..random.usize(1..12) {
                for (node, reports) in passed_on.iter_mut().enumerate() {
                    let to = point(at + skew * node as i64, total);
                    let from = bases[node].replace(to).filter(|_| !started).unwrap_or(to);
                    reports.push(Stretch { from, to, started });
                }
                at += if random.bool() { 0 } else { random.i64(0..9) };
                // Within five seconds it may be the same start.
                started = random.u8(..4) == 0 && at > began + 7;
                if started {
                    began = at;
                } else {
                    total += random.u64(..1000);
                }
            }
            let gained = credited_late(&passed_on, &mut random);
            assert!(
                gained <= total,
                "seed {seed}: {gained} of {total}: {passed_on:?}"
            );
        }
    }

    /// A client that shows all of it to two nodes, several times in a second and starting over
    /// now and then; what each node passes on arrives in order, and late.
    #[test]
    fn two_nodes_credit_no_more_than_was_moved() {
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut at, mut total, mut moved) = (0, 0, 0);
            let mut passed_on = [Vec::new(), Vec::new()];
            let mut started = true;
            for _ in 0..random.usize(1..12) {
                for node in &mut passed_on {
                    if random.u8(..6) > 0 {
                        node.push(Stretch::at(point(at, total), started));
                    }
                }
                at += random.i64(0..3);
                started = random.u8(..4) == 0;
                if started {
                    total = 0;
                } else {
                    let step = random.u64(..1000);
                    (total, moved) = (total + step, moved + step);
                }
            }
            let gained = credited_late(&passed_on, &mut random);
            assert!(
                gained <= moved,
                "seed {seed}: {gained} of {moved}: {passed_on:?}"
            );
        }
    }
}
