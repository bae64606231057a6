//! One running total of a client (bytes uploaded, or downloaded): its known sessions,
//! and what a report adds to them.
//!
//! A *session* is a period in which the total only grew. It is kept as a window: the
//! total at its beginning (`low`) and the highest total reported within it (`high`). What is
//! credited for a session is `high - low`, so its reports may come in any order and any number of
//! times. Windows do not overlap in time, and `low` was reported before `high`; the client moved
//! at least `high - low` bytes in between, so no order of reports credits a byte twice.

mod earlier;
mod named;
#[cfg(test)]
mod tests;

pub use earlier::EarlierSessions;

/// More than this in one step is never believed (rule A7): 2^50 bytes.
pub const STEP_MAX: u64 = 1 << 50;

/// Seconds of lower reports after which a new session is assumed (rule A3).
pub const DIP_SECONDS: i64 = 60;

/// Seconds by which a report may be older than everything known of its client and still count.
/// Records are kept for this time; whether an older report was settled before is unknown.
pub const LATE_MAX: i64 = 24 * 3600;

/// Seconds by which a node's times may be off.
const SKEW: i64 = 5;

/// The node that passed a report on: a hash of its name plus the number of its start. Reports of one
/// node arrive in the order in which they were made, even within one second; between two nodes the order is
/// unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportSource(pub u16);

impl ReportSource {
    /// Several nodes, or a version that did not note it.
    pub const UNKNOWN: Self = Self(u16::MAX);

    /// The largest number of starts between two sources that are still recognized as the same node.
    const STARTS: u16 = 32;

    pub fn new(hash_of_node: u64, start: u64) -> Self {
        let modulus = u64::from(u16::MAX);
        Self(((hash_of_node % modulus + start % modulus) % modulus) as u16)
    }

    /// Seconds by which a report of this source may seem older than one of `other` and yet be later; none
    /// if the order is unknown.
    fn slack_after(self, other: Self) -> Option<i64> {
        if self == Self::UNKNOWN || other == Self::UNKNOWN {
            return None;
        }
        let modulus = u32::from(u16::MAX);
        let starts = (u32::from(self.0) + modulus - u32::from(other.0)) % modulus;
        match starts {
            0 => Some(SKEW),
            // A later start, whose clock may be off by a part of a second.
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

/// Reports of one total: a single announce, or several consecutive ones of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub from: Point,
    pub to: Point,
    /// The first of them was `event=started`: the total may have begun again.
    pub started: bool,
}

/// A period in which a total only grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The total at the beginning, in bytes; reported at `began`.
    pub low: u64,
    /// The highest total reported, in bytes.
    pub high: u64,
    /// Unix times, in seconds: of the first report known, and of the latest that was at or above `high`.
    pub began: i64,
    pub last: i64,
    /// Nothing before it is known, so an older report may belong to it.
    pub is_first: bool,
    /// Unix time in seconds of the `started` that began it, as its reports name it; none while no
    /// report has named it. `began` may be some seconds later.
    pub start: Option<i64>,
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
    /// The session before it, of which reports may still arrive.
    pub previous: Option<Session>,
    pub earlier: EarlierSessions,
    pub dip: Option<Dip>,
    /// The total from which the client went on into the current session, while the known reports of the session
    /// before it do not reach that: once they do, the bytes up to the current `low` count (rule A2). If the client
    /// went on again meanwhile, it belongs to an earlier pair of sessions.
    pub goes_on_from: Option<u64>,
    /// The source of the current session's last report.
    pub by: ReportSource,
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

    /// Joins this stretch and a later one; none unless the later one continues it.
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
    /// A client of which only the last total was kept.
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
    pub fn settle(&mut self, stretch: &Stretch, by: ReportSource, max_rate: u64) -> Settled {
        if stretch.from.at - stretch.to.at > SKEW {
            // The time of the base is unknown.
            let from = Point {
                at: stretch.to.at,
                ..stretch.from
            };
            return self.settle(&Stretch { from, ..*stretch }, by, u64::MAX);
        }
        let is_one = stretch.to == stretch.from;
        let first = if stretch.started || is_one {
            let from = self.in_order(stretch.from, by);
            self.settle_unless_repeated(from, stretch.started, by, max_rate)
        } else if self.has(stretch.from) {
            Settled::default()
        } else {
            self.settle_unless_repeated(stretch.from, false, by, max_rate)
        };
        let rest = if is_one {
            Settled::default()
        } else {
            let to = self.after_base(self.in_order(stretch.to, by), stretch.from);
            self.settle_unless_repeated(to, false, by, max_rate)
        };
        first.and(rest).and(self.connect(max_rate))
    }

    /// Whether a report of this source was made after the last one of the current session; else the order is unknown.
    fn is_in_order(&self, by: ReportSource) -> bool {
        by.slack_after(self.by).is_some()
    }

    /// Adjusts a report from the same source as the last one: it was made after that one, even if
    /// its time, for example after the clock was set, says otherwise.
    fn in_order(&self, point: Point, by: ReportSource) -> Point {
        let last = self.current.map_or(point.at, |current| current.last);
        let slack = by.slack_after(self.by).unwrap_or(0);
        let is_within_slack = point.at < last && last - point.at <= slack;
        let at = if is_within_slack { last } else { point.at };
        Point { at, ..point }
    }

    /// Whether the base of a report belongs to the current session and need not be settled by itself. After a restart
    /// of the node, a base's time is accurate to some seconds only.
    fn has(&self, base: Point) -> bool {
        self.current.is_some_and(|current| {
            let is_within = base.total <= current.high && base.at >= current.began - SKEW;
            let is_above = base.total > current.high && base.at >= current.began - 1;
            base.total >= current.low && (is_within || is_above)
        })
    }

    /// Adjusts a report whose base is in the current session: it belongs to that session, even if
    /// another node's clock dates it before the session's beginning.
    fn after_base(&self, point: Point, base: Point) -> Point {
        let Some(current) = self.current else {
            return point;
        };
        let is_just_before = |at: i64| at < current.began && current.began - at <= 1;
        let is_of_current =
            base.total >= current.low && (base.at >= current.began || is_just_before(base.at));
        // Even if it was of the session before, no report of this session counts its bytes again.
        if is_just_before(point.at) && is_of_current {
            return Point {
                at: current.began,
                ..point
            };
        }
        point
    }

    fn settle_unless_repeated(
        &mut self,
        point: Point,
        started: bool,
        by: ReportSource,
        max_rate: u64,
    ) -> Settled {
        let is_in_order = by == self.by || self.is_in_order(by);
        let may_be_settled = self.is_ambiguous(point) || (started && self.is_repeated_start(point));
        if !is_in_order && may_be_settled {
            return Settled::default();
        }
        self.settle_and_note_source(point, started, by, max_rate)
    }

    /// Settles a point, and notes the source of the current session's last report.
    fn settle_and_note_source(
        &mut self,
        point: Point,
        started: bool,
        by: ReportSource,
        max_rate: u64,
    ) -> Settled {
        let end = |sessions: &Self| sessions.current.map(|current| (current.high, current.last));
        let before = end(self);
        let is_in_order = self.is_in_order(by);
        let settled = self.settle_point(point, started, is_in_order, max_rate);
        let now = end(self);
        if now != before {
            // An end above this report comes from a dip, which any node may have passed on.
            let is_of_dip = now.is_some_and(|(high, _)| high > point.total);
            self.by = if is_of_dip { ReportSource::UNKNOWN } else { by };
        }
        settled
    }

    /// Whether a report of another node is of the same second as a settled one, so that
    /// their order is unknown: it may be a duplicate.
    fn is_ambiguous(&self, point: Point) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let is_at_end = point.at == current.last && point.total < current.high;
        let is_at_begin =
            point.at == current.began && point.total > current.low && self.previous.is_some();
        // If the total stays lower, later reports show it (rule A3).
        is_at_end || is_at_begin
    }

    /// Whether a `started` of another node may be a settled one: a client of two families, or one
    /// that got no answer, announces it to both nodes, whose clocks differ a little.
    fn is_repeated_start(&self, point: Point) -> bool {
        self.current.is_some_and(|current| {
            let is_its_begin =
                point.total == current.low && (point.at - current.began).abs() <= SKEW;
            // The client went on counting where it was, and has moved something since.
            let is_within =
                (current.low..current.high).contains(&point.total) && point.at - current.last <= 1;
            is_its_begin || is_within
        })
    }

    fn settle_point(
        &mut self,
        point: Point,
        started: bool,
        is_in_order: bool,
        max_rate: u64,
    ) -> Settled {
        let Some(current) = self.current.as_mut() else {
            self.current = Some(Session::begin(point));
            return Settled::default();
        };
        // In the second in which it began, a lower total is of the session before, unless it was made later.
        let is_lower = point.at == current.began && point.total < current.low;
        let is_just_before = is_lower && !started && !is_in_order;
        if point.at < current.began || is_just_before {
            return self.settle_older(point, started, max_rate);
        }
        if point.total >= current.high {
            // A dip that began after that report goes on.
            self.dip = self.dip.filter(|dip| dip.since > point.at);
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
                    // A late report shows that it had lasted long enough by its highest total.
                    let (total, at) = (dip.total, dip.at);
                    if at - dip.since >= DIP_SECONDS {
                        return self.begin(Point { total, at }, false, max_rate);
                    }
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
        self.begin(point, started, max_rate)
    }

    /// Begins a session after everything that is known.
    fn begin(&mut self, point: Point, started: bool, max_rate: u64) -> Settled {
        let dip = self.dip.take();
        self.goes_on_from = None;
        if let Some(previous) = self.previous {
            self.earlier.push(previous, point.at);
        }
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
            if current.start.is_none() && point.total <= current.low {
                return current.extend_back(point, max_rate);
            }
            current.is_first = false;
            self.previous = Some(Session::begin(point));
            return Settled::default();
        };
        let may_be_later = current.start.is_none() && point.total <= current.low;
        if started && point.at > previous.last && may_be_later {
            return current.extend_back(point, max_rate);
        }
        // In the same second, its session is unknown.
        if point.at == previous.began && point.total > previous.low {
            return Settled::default();
        }
        if point.at >= previous.began {
            return if point.total > previous.high && !current.may_have(point) {
                previous.rise(point, max_rate)
            } else {
                Settled::default()
            };
        }
        let is_in_time = current.began - point.at <= LATE_MAX;
        let may_be_earlier = previous.is_first && previous.start.is_none();
        if may_be_earlier && is_in_time && point.total <= previous.low {
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
            start: None,
        }
    }

    /// Whether a report from before this session may be one of it, which counts it: two nodes' times of one report
    /// may differ.
    fn may_have(&self, report: Point) -> bool {
        report.at >= self.began - 1 && report.total > self.low
    }

    /// A report at or above the highest one so far.
    fn rise(&mut self, point: Point, max_rate: u64) -> Settled {
        let step = point.total - self.high;
        let seconds = point.at - self.last;
        self.high = point.total;
        self.last = self.last.max(point.at);
        // A report made before the last one: the duration of its bytes is unknown.
        if seconds < 0 {
            return Settled::of(step, STEP_MAX);
        }
        Settled::of(step, limit(seconds, max_rate))
    }

    /// A report from before everything known of the session, and not above `low`.
    fn extend_back(&mut self, point: Point, max_rate: u64) -> Settled {
        let step = self.low - point.total;
        let seconds = self.began - point.at;
        self.low = point.total;
        self.began = point.at;
        Settled::of(step, limit(seconds, max_rate))
    }
}

/// Bytes that a line may carry in that time (rule A7); `max_rate` is in bytes a second. A
/// base with a time in the future sets no limit: a clock was set, so its age is unknown.
pub fn limit(seconds: i64, max_rate: u64) -> u64 {
    if seconds < -SKEW {
        return STEP_MAX;
    }
    let seconds = u64::try_from(seconds).unwrap_or(0).max(1);
    max_rate.saturating_mul(seconds).min(STEP_MAX)
}

// === impl Settled ===

impl Settled {
    /// Both steps of one report.
    fn and(self, next: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(next.bytes),
            implausible: self.implausible || next.implausible,
        }
    }

    /// A step of `step` bytes, which counts unless it is above the `limit` of any line (rule A7).
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
