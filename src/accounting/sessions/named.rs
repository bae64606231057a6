//! Reports that name their session by the `started` that began it, whichever node received that. So storage
//! can tell sessions apart even before that `started` arrives, and even if clocks differ.

use std::iter;

use super::{LATE_MAX, Point, ReportSource, SKEW, Session, Sessions, Settled, Stretch};

/// The maximal difference in seconds between two nodes' times of one `started`.
const CLOCKS_APART: i64 = 2;

/// Which of the sessions that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Current,
    Previous,
    /// Of the earlier ones, newest first.
    Earlier(usize),
}

// === impl Sessions ===

impl Sessions {
    /// Takes a report of the session that `start` began into account; `max_rate` is in bytes a second (rule A7).
    pub fn settle_in(
        &mut self,
        start: Point,
        stretch: &Stretch,
        by: ReportSource,
        max_rate: u64,
    ) -> Settled {
        let awaited = self.goes_on_from;
        let (place, begun) = match self.place_of(start, stretch, by) {
            Some(place) => (Some(place), Settled::default()),
            None => self.begin_at(start, stretch, by, max_rate),
        };
        let begun = match place {
            Some(Place::Current) => begun.and(self.go_on(start, stretch, awaited, max_rate)),
            _ => begun,
        };
        let next = place.and_then(|place| self.next_of(place));
        let rest = match (place, next) {
            (Some(Place::Current), _) => self.settle_current(start, stretch, by, max_rate),
            // The `started` of a session that ended: nothing is new.
            (Some(_), _) if stretch.to == start => Settled::default(),
            (Some(place), Some(next)) if next.is_after(stretch.to) => {
                self.settle_ended(place, next, stretch.to, max_rate)
            }
            // The node does not know the session that followed, or there is no room for this one.
            _ => self.settle(stretch, by, max_rate),
        };
        begun.and(rest)
    }

    /// The session that `start` began, if it is known: the nearest one, because two nodes may have
    /// different times for one `started`. A session without a name gets this one.
    fn place_of(&mut self, start: Point, stretch: &Stretch, by: ReportSource) -> Option<Place> {
        // From one source, a second `started` begins another session, however soon it comes.
        let is_next = stretch.to == start && self.is_in_order(by);
        let has_grown = self
            .current
            .is_some_and(|current| current.high > start.total);
        if is_next && stretch.started && has_grown {
            return None;
        }
        let off_max = if is_next { 0 } else { CLOCKS_APART };
        let earlier = (0..).map(Place::Earlier).zip(self.earlier.iter());
        let latest = [
            (Place::Current, &self.current),
            (Place::Previous, &self.previous),
        ];
        let latest = latest
            .into_iter()
            .filter_map(|(place, it)| Some((place, it.as_ref()?)));
        let (place, _) = latest
            .chain(earlier)
            .filter(|(_, session)| session.low == start.total)
            .map(|(place, session)| (place, session.off_name(start.at)))
            .filter(|(_, off)| *off <= off_max)
            .min_by_key(|(_, off)| *off)?;
        if let Some(session) = self.session_mut(place) {
            // As long as nothing has been moved, reports name the latest `started`.
            let is_later = session.high == session.low && session.start < Some(start.at);
            if session.start.is_none() || is_later {
                session.start = Some(start.at);
            }
        }
        Some(place)
    }

    /// Makes room for an unknown session; no place if it lies within another one, or before all of them.
    fn begin_at(
        &mut self,
        start: Point,
        stretch: &Stretch,
        by: ReportSource,
        max_rate: u64,
    ) -> (Option<Place>, Settled) {
        let Some(current) = self.current else {
            self.current = Some(Session::named(start));
            self.by = by;
            return (Some(Place::Current), Settled::default());
        };
        // A `started` that arrives in order comes after everything known. Otherwise, reports after it may be known.
        let is_next = stretch.to == start && self.is_in_order(by);
        let at = if is_next {
            self.in_order(start, by).at
        } else {
            start.at
        };
        let is_after = current.ended_before(Point { at, ..start });
        if is_after || (at >= current.last && is_next) {
            let (previous, earlier) = (self.previous, self.earlier);
            let settled = self.begin(Point { at, ..start }, true, max_rate);
            let is_of_dip = self.name_current(start);
            if current.start.is_some() && current.low == start.total && current.high == start.total
            {
                // A client that got no answer repeats its `started`: nothing was credited, so nothing is lost.
                // If the first one went to another node, reports may name either.
                let is_of_other = !self.is_in_order(by);
                let is_same = is_of_other && at - current.began <= SKEW;
                (self.previous, self.earlier) = (previous, earlier);
                self.current = self.current.map(|session| Session {
                    is_first: current.is_first,
                    began: if is_same {
                        current.began
                    } else {
                        session.began
                    },
                    ..session
                });
            }
            self.by = if is_of_dip { ReportSource::UNKNOWN } else { by };
            return (Some(Place::Current), settled);
        }
        if start.at > current.began {
            return (None, Settled::default());
        }
        self.begin_before(start, stretch, max_rate)
    }

    /// A session that began before the current one.
    fn begin_before(
        &mut self,
        start: Point,
        stretch: &Stretch,
        max_rate: u64,
    ) -> (Option<Place>, Settled) {
        let nothing = (None, Settled::default());
        let Some(current) = self.current.as_mut() else {
            return nothing;
        };
        let is_in_time = current.began - start.at <= LATE_MAX;
        let is_next_to_current = match &self.previous {
            Some(previous) => previous.ended_before(start),
            None => current.is_first && is_in_time,
        };
        if is_next_to_current {
            if current.may_have_begun(start) {
                return (Some(Place::Current), current.extend_to(start, max_rate));
            }
            let is_empty = stretch.to == start;
            if start.at >= current.began || (is_empty && self.previous.is_some()) {
                return nothing;
            }
            current.is_first = false;
            // If something before it was known, nothing is known to be the first from now on.
            let is_first = self.previous.is_none();
            let session = Session {
                is_first,
                ..Session::named(start)
            };
            if let Some(previous) = self.previous.replace(session) {
                self.earlier.push(previous, current.began);
            }
            return (Some(Place::Previous), Settled::default());
        }
        match &mut self.previous {
            Some(previous)
                if previous.is_first
                    && is_in_time
                    && start.at <= previous.began
                    && previous.may_have_begun(start) =>
            {
                (Some(Place::Previous), previous.extend_to(start, max_rate))
            }
            Some(previous) if is_in_time && stretch.to != start => {
                let place = self.earlier.place_of(*previous, start, stretch.to.at);
                (place.map(Place::Earlier), Settled::default())
            }
            _ => nothing,
        }
    }

    /// The session that followed a known one.
    fn next_of(&self, place: Place) -> Option<Session> {
        match place {
            Place::Current => None,
            Place::Previous => self.current,
            Place::Earlier(0) => self.previous,
            Place::Earlier(place) => self.earlier.get(place - 1),
        }
    }

    /// A report of the current session, whatever the clock of its node says.
    fn settle_current(
        &mut self,
        start: Point,
        stretch: &Stretch,
        by: ReportSource,
        max_rate: u64,
    ) -> Settled {
        let Some(current) = self.current else {
            return Settled::default();
        };
        let to = Point {
            at: self.in_order(stretch.to, by).at.max(current.began),
            ..stretch.to
        };
        let is_in_order = self.is_in_order(by);
        let is_late = to.total < current.high && to.at == current.last && !is_in_order;
        if is_late || stretch.to == start {
            return Settled::default();
        }
        // The time of a base in the future is unknown.
        let has_time = stretch.from.at - stretch.to.at <= SKEW;
        let max_rate = if has_time { max_rate } else { u64::MAX };
        self.settle_and_note_source(to, false, by, max_rate)
    }

    /// A report of a session that ended, made before the `next` one began.
    fn settle_ended(
        &mut self,
        place: Place,
        next: Session,
        report: Point,
        max_rate: u64,
    ) -> Settled {
        if next.may_have(report) {
            return Settled::default();
        }
        let session = self.session_mut(place);
        let settled = session.map_or_else(Settled::default, |it| it.rise_late(report, max_rate));
        settled.and(self.connect(max_rate))
    }

    fn session_mut(&mut self, place: Place) -> Option<&mut Session> {
        match place {
            Place::Current => self.current.as_mut(),
            Place::Previous => self.previous.as_mut(),
            Place::Earlier(place) => self.earlier.get_mut(place),
        }
    }

    /// A `started` with which the total did not go down, as far as its node knows: the growth since the
    /// last report counts (rule A2). `awaited` is [`Sessions::goes_on_from`] from before this session began.
    fn go_on(
        &mut self,
        start: Point,
        stretch: &Stretch,
        awaited: Option<u64>,
        max_rate: u64,
    ) -> Settled {
        if stretch.to != start || stretch.started {
            return Settled::default();
        }
        let from = Point {
            at: stretch.from.at.min(start.at),
            ..stretch.from
        };
        // Without growth it may be the same `started`, already known to the node through another one.
        let has_grown = from.total < start.total;
        if has_grown && let Some(current) = &mut self.current {
            // Earlier reports may still be on their way.
            let is_known = self.previous.is_some();
            let previous = self.previous.get_or_insert(Session::begin(from));
            current.is_first &= is_known;
            if from.total > previous.high {
                self.goes_on_from = Some(from.total);
                return Settled::default();
            }
            // A session that began after the base was reported lies between, and the total grew over it, too.
            let is_between = previous.began > from.at;
            if from.total < previous.low && !is_between {
                return Settled::default();
            }
        }
        let settled = self.raise_previous(start, max_rate);
        if self.previous.is_some_and(|it| it.high == start.total) {
            // Two sessions in a row went on, so the older one may still wait for the one before it.
            self.goes_on_from = awaited;
        }
        settled
    }

    /// Once the session before has reached the total that a later one goes on from, counts the bytes up to where the
    /// later one began. Sessions in between went on, too: each ends where the next one began.
    pub(super) fn connect(&mut self, max_rate: u64) -> Settled {
        let mut settled = Settled::default();
        let (Some(from), Some(mut next)) = (self.goes_on_from, self.current) else {
            return settled;
        };
        let places = iter::once(Place::Previous).chain((0..).map(Place::Earlier));
        for place in places {
            let Some(session) = self.session_mut(place) else {
                return settled;
            };
            if session.high < from {
                return settled;
            }
            let is_found = session.low <= from || session.high > next.low;
            settled = settled.and(session.rise_to_next(&next, max_rate));
            next = *session;
            if is_found {
                break;
            }
        }
        self.goes_on_from = None;
        settled
    }

    fn raise_previous(&mut self, start: Point, max_rate: u64) -> Settled {
        let next = Session::begin(start);
        let previous = self.previous.as_mut();
        previous.map_or_else(Settled::default, |it| it.rise_to_next(&next, max_rate))
    }

    /// Names the session that has just begun; returns whether a report after its `started` was known already.
    fn name_current(&mut self, start: Point) -> bool {
        self.current.as_mut().is_some_and(|current| {
            current.start = Some(start.at);
            current.high > start.total
        })
    }
}

// === impl Session ===

impl Session {
    /// A session whose `started` is known.
    pub(super) fn named(start: Point) -> Self {
        Self {
            start: Some(start.at),
            ..Self::begin(start)
        }
    }

    /// Seconds between a `started` and the nearest one that this session had: a client may send it
    /// several times while its session is empty.
    fn off_name(&self, at: i64) -> i64 {
        let name = self.start.unwrap_or(self.began);
        let first = self.began.min(name);
        (first - at).max(at - name).max(0)
    }

    /// Whether all reports that this session has were made before a `started`. In about the same second, a higher
    /// total may be a report of the session that begins, through another node.
    pub(super) fn ended_before(&self, start: Point) -> bool {
        start.at - self.last > i64::from(self.high > start.total)
    }

    /// Whether a report that names the session before was made before this one began. In about the same second, one
    /// that is not above `low` was.
    fn is_after(&self, report: Point) -> bool {
        report.at < self.began || (report.at <= self.began + 1 && report.total <= self.low)
    }

    /// Whether a `started` earlier than all that is known of this session may have begun it.
    fn may_have_begun(&self, start: Point) -> bool {
        self.start.is_none() && start.total <= self.low
    }

    /// A report of this session, after which another one began.
    fn rise_late(&mut self, point: Point, max_rate: u64) -> Settled {
        // Well before it began: a report of another session that began at the same total.
        if point.at < self.began - 1 || point.total <= self.high {
            return Settled::default();
        }
        let at = point.at.max(self.began);
        self.rise(Point { at, ..point }, max_rate)
    }

    /// Counts the bytes up to the beginning of the `next` session, which went on from this one.
    fn rise_to_next(&mut self, next: &Session, max_rate: u64) -> Settled {
        // Reports made before then that arrive later are already included.
        if self.high >= next.low {
            return Settled::default();
        }
        let start = Point {
            total: next.low,
            at: next.began,
        };
        self.rise(start, max_rate)
    }

    fn extend_to(&mut self, start: Point, max_rate: u64) -> Settled {
        self.start = Some(start.at);
        self.extend_back(start, max_rate)
    }
}
