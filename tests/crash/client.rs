//! A client of the crowd, and what it is owed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;

use crate::harness::http::escape;
use crate::harness::load::{USERS_PER_THREAD, info_hash, passkey};
use crate::harness::now;
use crate::stage::{APART, Stage};
use crate::story::Announce;

const TORRENT_LEN: u64 = 40 << 20;

/// What a client moves between two announces at most.
const STEP_MAX: u64 = 8 << 20;

/// A client that was silent for longer may have expired (`tracker.peer_ttl` of the nodes, less the time that answers
/// take): the seconds before its next announce may not count as seed time.
const SILENT_MAX: Duration = Duration::from_secs(50);

/// Announces of a client that are kept for its story; then the older half is dropped.
const STORY_MAX: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Announces to one node, by that way.
    One(usize),
    /// The same, and never moves to another.
    Steady(usize),
    /// Announces to two nodes, by these ways.
    Both([usize; 2]),
}

/// The bounds of what storage must have: what was acknowledged, and what was reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub low: u64,
    pub high: u64,
}

/// What a client moved since it was started.
pub struct Session {
    pub began: Instant,
    /// Totals, up and down: of the start, and as acknowledged last.
    base: [u64; 2],
    sure: [u64; 2],
}

/// An announce that is repeated until it is answered.
#[derive(Clone, Copy)]
pub struct Pending {
    pub event: &'static str,
    /// The client may report more next time, or crash: then there is no answer.
    pub goes_on: bool,
    pub since: Instant,
    /// The same as Unix time.
    pub since_unix: i64,
}

/// One program of one user on one torrent.
pub struct Client {
    pub user: usize,
    pub torrent: usize,
    pub peer_id: [u8; 20],
    port: u16,
    habit: Habit,
    pub totals: [u64; 2],
    pub left: u64,
    /// None while it is away.
    pub session: Option<Session>,
    pub pending: Option<Pending>,
    /// When it first tried to start the latest session, and the ways by which that was answered.
    started_at: Instant,
    pub has_start: Vec<bool>,
    /// When a node last took a request and did not answer in time: it may read it later.
    pub hung: Option<Instant>,
    /// The same of a `started`.
    pub hung_start: Option<Instant>,
    /// When it comes back.
    pub back_at: Instant,
    /// What it must be credited, before multipliers.
    pub owed: [Range; 2],
    /// Whether it said that it completed, and got an answer.
    pub completed: Option<bool>,
    /// Since when it has been seeding (Unix time), when that was first answered, and the stretches in which it did before.
    seeding_since: Option<i64>,
    seeding_known: Option<i64>,
    pub seeded: Vec<(i64, i64)>,
    /// The stretches for which that is certain, and its last answer as a seeder, also as Unix time.
    pub surely_seeded: Vec<(i64, i64)>,
    heard: Option<(Instant, i64)>,
    /// When it was away as a seeder: a node that learns late of its stop, or in one family only, takes
    /// it for a peer until it starts again.
    pub away: Vec<(i64, i64)>,
    /// Its last `stopped` was sent when all worked and all other clients of its user were at rest.
    pub has_ended_calmly: bool,
    pub story: Vec<Announce>,
}

#[allow(clippy::disallowed_methods)] // the nodes' own clocks
fn unix() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a time after 1970").as_secs() as i64
}

// === impl Client ===

impl Client {
    /// A program that may have exchanged something before it met this tracker: that is its base
    /// (rule A1).
    pub fn new(user: usize, torrent: usize, stage: &Stage, rng: &mut Rng) -> Self {
        let before = |rng: &mut Rng| if rng.bool() { rng.u64(..1 << 42) } else { 0 };
        let mut peer_id = *b"-MK0001-............";
        rng.fill(&mut peer_id[8..]);
        let way = rng.usize(..stage.nodes);
        let habit = if stage.habits.has_steady && is_steady(user) {
            Habit::Steady(way)
        } else if rng.u8(..4) == 0 {
            Habit::Both(*rng.choice(&stage.both).expect("a pair of ways"))
        } else {
            Habit::One(way)
        };
        Self {
            user,
            torrent,
            peer_id,
            port: rng.u16(1024..),
            habit,
            totals: [before(rng), before(rng)],
            left: if rng.u8(..3) == 0 { 0 } else { TORRENT_LEN },
            session: None,
            pending: None,
            started_at: now(),
            has_start: vec![false; stage.ways.len()],
            hung: None,
            hung_start: None,
            back_at: now(),
            owed: [Range::default(); 2],
            completed: None,
            seeding_since: None,
            seeding_known: None,
            seeded: Vec::new(),
            surely_seeded: Vec::new(),
            heard: None,
            away: Vec::new(),
            has_ended_calmly: false,
            story: Vec::new(),
        }
    }

    /// Whether it announces to two nodes. Then each node sees only one family of it, and may learn
    /// late that it left in the other.
    pub fn is_at_both(&self) -> bool {
        matches!(self.habit, Habit::Both(_))
    }

    /// Whether it is the only client of its user and torrent, at one node only.
    pub fn is_steady(&self) -> bool {
        matches!(self.habit, Habit::Steady(_))
    }

    /// The ways by which it announces now.
    pub fn ways(&self, event: &str, stage: &Stage) -> Vec<usize> {
        match self.habit {
            Habit::One(way) | Habit::Steady(way) => vec![way],
            Habit::Both(ways) => {
                let is_open = |way: &usize| event == "started" || self.may_go(*way, stage);
                ways.into_iter().filter(is_open).collect()
            }
        }
    }

    /// Whether it may go on by a way.
    fn may_go(&self, way: usize, stage: &Stage) -> bool {
        self.has_start[way] || stage.is_settled_since(self.started_at)
    }

    /// Whether it may go on: a node that has not read its `started` yet must not read it after what comes next.
    pub fn may_go_on(&self, stage: &Stage) -> bool {
        self.hung_start.is_none_or(|at| stage.is_settled_since(at))
    }

    /// Whether it may start a session.
    pub fn may_start(&self, stage: &Stage) -> bool {
        self.back_at <= now() && self.hung.is_none_or(|at| stage.is_settled_since(at))
    }

    /// Takes the next node from now on, if it is one that moves.
    pub fn move_on(&mut self, stage: &Stage) {
        let is_free = match self.session {
            None => self.hung_start.is_none(),
            Some(_) => stage.is_settled_since(self.started_at),
        };
        if let Habit::One(way) = &mut self.habit
            && is_free
        {
            *way = (*way + 1) % stage.nodes;
        }
    }

    /// Moves some bytes.
    pub fn exchange(&mut self, rng: &mut Rng, most_down: u64) {
        let down = rng.u64(..STEP_MAX).min(most_down);
        self.totals[0] += rng.u64(..STEP_MAX);
        self.totals[1] += down;
        self.left -= down;
    }

    /// Begins an announce.
    pub fn prepare(&mut self, event: &'static str, goes_on: bool) {
        if event == "started" {
            self.started_at = now();
            self.has_start.fill(false);
            self.hung = None;
            self.hung_start = None;
        }
        self.pending = Some(Pending {
            event,
            goes_on,
            since: now(),
            since_unix: unix(),
        });
    }

    /// It may be taken for a seeder from this announce on.
    pub fn note_seeding(&mut self, event: &str) {
        if self.left > 0 || event == "stopped" || self.seeding_since.is_some() {
            return;
        }
        let now = unix();
        self.seeding_since = Some(now);
        if let Some((_, stopped)) = self.seeded.last() {
            self.away.push((*stopped, now));
        }
    }

    /// A node took a request and did not answer in time.
    pub fn note_hung(&mut self, event: &str) {
        self.hung = Some(now());
        if event == "started" {
            self.hung_start = self.hung;
        }
    }

    pub fn note_story(&mut self, announce: Announce) {
        if self.story.len() >= STORY_MAX {
            self.story.drain(..STORY_MAX / 2);
        }
        self.story.push(announce);
    }

    /// Records what an answer acknowledges: one to an event waits until the report is durable.
    pub fn acknowledge(&mut self, answered: &Pending, rng: &mut Rng) {
        self.pending = None;
        if self.left == 0 {
            self.has_seeded(answered);
        }
        match answered.event {
            "started" => {
                self.session = Some(Session {
                    began: now(),
                    base: self.totals,
                    sure: self.totals,
                });
            }
            "stopped" => self.has_stopped(rng),
            event => {
                if event == "completed" {
                    self.completed = Some(true);
                }
                if let Some(session) = &mut self.session
                    && !event.is_empty()
                    && session.began.elapsed() > APART
                {
                    session.sure = self.totals;
                }
            }
        }
    }

    /// An announce as a seeder was answered, maybe its last one.
    fn has_seeded(&mut self, answered: &Pending) {
        let last = self.heard.replace((now(), unix()));
        let expired = last.filter(|(at, _)| at.elapsed() > SILENT_MAX);
        let ends = expired.map(|(_, last)| last);
        let ends = ends.or((answered.event == "stopped").then_some(answered.since_unix));
        if let Some(ends) = ends
            && let Some(known) = self.seeding_known.take()
        {
            self.surely_seeded.push((known, ends));
        }
        if answered.event != "stopped" {
            self.seeding_known.get_or_insert_with(unix);
        }
    }

    fn has_stopped(&mut self, rng: &mut Rng) {
        if let Some(since) = self.seeding_since.take() {
            self.seeded.push((since, unix()));
        }
        if let Some(session) = &mut self.session {
            session.sure = self.totals;
        }
        self.leave(rng);
    }

    /// Ends the session. Some programs go on counting where they stopped, others begin lower.
    pub fn leave(&mut self, rng: &mut Rng) {
        self.pending = None;
        let Some(session) = self.session.take() else {
            return;
        };
        let ends = session.base.iter().zip(session.sure).zip(self.totals);
        for (owed, ((base, sure), total)) in self.owed.iter_mut().zip(ends) {
            owed.low += sure - base;
            owed.high += total - base;
        }
        self.back_at = now();
        let is_sure = session.sure == self.totals;
        match rng.u8(..4) {
            // What was not acknowledged is no base to go on from.
            0 if is_sure => return,
            1 => self.totals = self.totals.map(|total| rng.u64(..=total)),
            _ => self.totals = [0; 2],
        }
        self.back_at += APART;
    }

    pub fn request(&self, event: &str) -> Vec<u8> {
        format!(
            "GET /{}/announce?info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&event={event}&compact=1&numwant=20 HTTP/1.1\r\nHost: tracker\r\n\r\n",
            passkey(self.user),
            escape(&info_hash(self.torrent)),
            escape(&self.peer_id),
            self.port,
            self.totals[0],
            self.totals[1],
            self.left,
        )
        .into_bytes()
    }
}

/// Whether it is a user whose clients never move, where there are such.
pub fn is_steady(user: usize) -> bool {
    user.is_multiple_of(USERS_PER_THREAD)
}
