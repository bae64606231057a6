//! Clients of two nodes. Each client writes down what it is owed and what happened to it. Most
//! stay with a node until it can't be reached, and then go on at the other; some move without a
//! reason; some announce to both nodes, to one by IPv4 and to the other by IPv6. They stop, crash, and
//! come back with the totals that they had or with lower ones.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use parking_lot::Mutex;

use crate::harness::http::{Connection, escape};
use crate::harness::load::{ANSWER_DEADLINE, TORRENTS, USERS_PER_THREAD, info_hash, passkey};
use crate::harness::now;
use crate::story::{self, Announce};

/// Clients that one user has on one torrent at once.
const CLIENTS_MAX: usize = 3;

const TORRENT_LEN: u64 = 40 << 20;

/// What a client moves between two announces at most.
const STEP_MAX: u64 = 8 << 20;

/// How long a thread rests after each announce.
const REST: Duration = Duration::from_millis(4);

/// How long a session lasts at least, how long after its start a client waits before it goes to a
/// node that does not have that start, and how long it stays away before it begins again with lower
/// totals: within one second, the order of two nodes is unknown (docs/architecture.md,
/// "How credit is settled").
const APART: Duration = Duration::from_secs(3);

/// Ways to the nodes: the first by IPv4, the second by IPv4, the second by IPv6.
pub const WAYS: usize = 3;

/// What the threads share.
pub struct Stage {
    ways: [SocketAddr; WAYS],
    start: Instant,
    is_over: AtomicBool,
    pub answered: AtomicU64,
    pub unanswered: AtomicU64,
    /// What was done to the servers, and when.
    kills: Mutex<Vec<(Duration, String)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Announces to one node, by that way.
    One(usize),
    /// Announces to both, by the first way and the last.
    Both,
}

/// The bounds of what storage must have: what was acknowledged, and what was reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub low: u64,
    pub high: u64,
}

/// What a client moved since it was started.
struct Session {
    began: Instant,
    /// Totals, up and down: of the start, and as acknowledged last.
    base: [u64; 2],
    sure: [u64; 2],
}

/// One program of one user on one torrent.
pub struct Client {
    pub user: usize,
    pub torrent: usize,
    pub peer_id: [u8; 20],
    port: u16,
    habit: Habit,
    totals: [u64; 2],
    left: u64,
    /// None while it is away.
    session: Option<Session>,
    /// When it first tried to start the latest session, and the ways by which that was answered.
    started_at: Instant,
    has_start: [bool; WAYS],
    /// When it comes back.
    back_at: Instant,
    /// What it must be credited, before multipliers.
    pub owed: [Range; 2],
    /// Whether it said that it completed, and got an answer.
    pub completed: Option<bool>,
    /// Since when it has been seeding (Unix time), and the stretches in which it did before.
    seeding_since: Option<i64>,
    pub seeded: Vec<(i64, i64)>,
    /// When it was away as a seeder: a node that learns late of its stop, or in one family only, takes
    /// it for a peer until it starts again.
    pub away: Vec<(i64, i64)>,
    story: Vec<Announce>,
}

/// A thread with users of its own.
struct Crowd<'a> {
    stage: &'a Stage,
    rng: Rng,
    users: std::ops::Range<usize>,
    clients: Vec<Client>,
    /// Those that never come back.
    gone: Vec<Client>,
    connections: [Option<Connection>; WAYS],
}

/// Ends the threads when the kills are over, even if a panic ended them.
struct Over<'a>(&'a Stage);

/// Runs `act` while `threads` threads announce; returns all clients that there were.
pub fn run(stage: &Stage, threads: usize, seed: u64, act: impl FnOnce()) -> Vec<Client> {
    thread::scope(|scope| {
        let over = Over(stage);
        let crowds = (0..threads).map(|number| {
            let crowd = Crowd::new(stage, seed, number);
            scope.spawn(move || crowd.run())
        });
        let crowds: Vec<_> = crowds.collect();
        act();
        drop(over);
        let clients = crowds
            .into_iter()
            .map(|crowd| crowd.join().expect("a thread of the crowd"));
        clients.flatten().collect()
    })
}

#[allow(clippy::disallowed_methods)] // the nodes' own clocks
fn unix() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a time after 1970").as_secs() as i64
}

// === impl Stage ===

impl Stage {
    pub fn new(ways: [SocketAddr; WAYS]) -> Self {
        Self {
            ways,
            start: now(),
            is_over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            kills: Mutex::default(),
        }
    }

    /// What happened to a client, and to the servers meanwhile.
    pub fn story_of(&self, client: &Client) -> String {
        story::print(&client.story, &self.kills.lock())
    }

    /// Records what is done to the servers.
    pub fn note(&self, what: String) {
        self.kills.lock().push((self.start.elapsed(), what));
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

// === impl Crowd ===

impl<'a> Crowd<'a> {
    fn new(stage: &'a Stage, seed: u64, number: usize) -> Self {
        Self {
            stage,
            rng: Rng::with_seed(seed.wrapping_add(1 + number as u64)),
            users: number * USERS_PER_THREAD..(number + 1) * USERS_PER_THREAD,
            clients: Vec::new(),
            gone: Vec::new(),
            connections: [const { None }; WAYS],
        }
    }

    /// Announces until the kills are over, and then stops every session.
    fn run(mut self) -> Vec<Client> {
        while !self.stage.is_over.load(Ordering::Relaxed) {
            if self.clients.is_empty() || self.rng.u8(..10) == 0 {
                self.newcomer();
            }
            let place = self.rng.usize(..self.clients.len());
            let mut client = self.clients.swap_remove(place);
            if self.turn(&mut client) {
                self.clients.push(client);
            } else {
                self.gone.push(client);
            }
            thread::sleep(REST);
        }
        for mut client in std::mem::take(&mut self.clients) {
            self.end(&mut client);
            self.gone.push(client);
        }
        self.gone
    }

    /// Another program, unless its user has enough of them on that torrent.
    fn newcomer(&mut self) {
        let user = self.rng.usize(self.users.clone());
        let torrent = self.rng.usize(..TORRENTS);
        let is_other = |it: &&Client| it.user == user && it.torrent == torrent;
        if self.clients.iter().filter(is_other).count() < CLIENTS_MAX {
            let client = Client::new(user, torrent, &mut self.rng);
            self.clients.push(client);
        }
    }

    /// What a client does next; false if it left permanently.
    fn turn(&mut self, client: &mut Client) -> bool {
        let Some(session) = &client.session else {
            if client.back_at <= now() {
                self.start(client);
            }
            return true;
        };
        let is_old = session.began.elapsed() > APART;
        match self.rng.u8(..100) {
            0..4 if is_old => {
                self.stop(client);
                return self.rng.u8(..4) > 0;
            }
            // It crashes without a word.
            4 => client.leave(&mut self.rng),
            5..7 => client.move_on(),
            _ => self.go_on(client),
        }
        true
    }

    /// Stops a client that runs. One that has crashed comes back for that, or it would stay a peer.
    fn end(&mut self, client: &mut Client) {
        let until = match &client.session {
            Some(session) => session.began + APART,
            None if client.story.is_empty() => return,
            None => client.back_at,
        };
        thread::sleep(until.saturating_duration_since(now()));
        if client.session.is_none() {
            self.start(client);
            thread::sleep(APART);
        }
        self.stop(client);
    }

    /// The first announce of a session sets the base (rules A1, A3), so it is repeated unchanged.
    fn start(&mut self, client: &mut Client) {
        client.started_at = now();
        client.has_start = [false; WAYS];
        self.announce(client, "started", false);
        client.session = Some(Session {
            began: now(),
            base: client.totals,
            sure: client.totals,
        });
    }

    fn go_on(&mut self, client: &mut Client) {
        let was_leecher = client.left > 0;
        client.exchange(&mut self.rng, client.left);
        if was_leecher && client.left == 0 {
            client.completed = Some(false);
            client.completed = Some(self.announce(client, "completed", true));
        } else {
            self.announce(client, "", true);
        }
    }

    fn stop(&mut self, client: &mut Client) {
        // The last byte comes with `completed`, so not now.
        client.exchange(&mut self.rng, client.left.saturating_sub(1));
        self.announce(client, "stopped", false);
        if let Some(since) = client.seeding_since.take() {
            client.seeded.push((since, unix()));
        }
        if let Some(session) = &mut client.session {
            session.sure = client.totals;
        }
        client.leave(&mut self.rng);
    }

    /// Announces until there is an answer, and returns true. A client that `goes_on` meanwhile may
    /// report more next time, or crash: then there is no answer, and the result is false.
    fn announce(&mut self, client: &mut Client, event: &'static str, goes_on: bool) -> bool {
        let start = now();
        loop {
            client.note_seeding(event);
            let answers = self.try_announce(client, event);
            // A peer of two families stays until it has stopped in both.
            let is_answered = if event == "stopped" {
                !answers.contains(&false)
            } else {
                answers.contains(&true)
            };
            if is_answered {
                client.acknowledge(event);
                return true;
            }
            assert!(
                start.elapsed() < ANSWER_DEADLINE,
                "no answer to {event} of\n{}",
                self.stage.story_of(client)
            );
            client.move_on();
            thread::sleep(Duration::from_millis(self.rng.u64(1..20)));
            if goes_on {
                match self.rng.u8(..8) {
                    0 => {
                        client.leave(&mut self.rng);
                        return false;
                    }
                    1..3 => client.exchange(&mut self.rng, client.left.saturating_sub(1)),
                    _ => {}
                }
            }
        }
    }

    /// Announces by all ways that the client takes, at the same time; whether each was answered.
    fn try_announce(&mut self, client: &mut Client, event: &'static str) -> Vec<bool> {
        let request = client.request(event);
        let ways = client.ways(event);
        let sent: Vec<_> = ways
            .iter()
            .map(|&way| {
                let open = || Connection::open(self.stage.ways[way]).ok();
                let mut connection = self.connections[way].take().or_else(open)?;
                connection.send(&request).ok()?;
                Some(connection)
            })
            .collect();
        let at = self.stage.start.elapsed();
        let answers = ways.into_iter().zip(sent).map(|(way, connection)| {
            let is_answered = connection.is_some_and(|mut connection| {
                let Ok(reply) = connection.receive() else {
                    return false;
                };
                self.connections[way] = Some(connection);
                assert_eq!(
                    (reply.status, reply.failure()),
                    (200, None),
                    "{}",
                    self.stage.story_of(client)
                );
                true
            });
            client.has_start[way] |= is_answered && event == "started";
            let counter = if is_answered {
                &self.stage.answered
            } else {
                &self.stage.unanswered
            };
            counter.fetch_add(1, Ordering::Relaxed);
            (way, is_answered)
        });
        let answers: Vec<_> = answers.collect();
        let results = answers.iter().map(|&(_, it)| it).collect();
        client.story.push(Announce {
            at,
            event,
            totals: client.totals,
            left: client.left,
            answers,
        });
        results
    }
}

// === impl Client ===

impl Client {
    /// A program that may have exchanged something before it met this tracker: that is its base
    /// (rule A1).
    fn new(user: usize, torrent: usize, rng: &mut Rng) -> Self {
        let before = |rng: &mut Rng| if rng.bool() { rng.u64(..1 << 42) } else { 0 };
        let mut peer_id = *b"-MK0001-............";
        rng.fill(&mut peer_id[8..]);
        Self {
            user,
            torrent,
            peer_id,
            port: rng.u16(1024..),
            habit: match rng.u8(..4) {
                0 => Habit::Both,
                _ => Habit::One(rng.usize(..2)),
            },
            totals: [before(rng), before(rng)],
            left: if rng.u8(..3) == 0 { 0 } else { TORRENT_LEN },
            session: None,
            started_at: now(),
            has_start: [false; WAYS],
            back_at: now(),
            owed: [Range::default(); 2],
            completed: None,
            seeding_since: None,
            seeded: Vec::new(),
            away: Vec::new(),
            story: Vec::new(),
        }
    }

    /// Whether it announces to both nodes. Then each node sees only one family of it, and may learn
    /// late that it left in the other.
    pub fn is_at_both(&self) -> bool {
        self.habit == Habit::Both
    }

    /// The ways by which it announces now.
    fn ways(&self, event: &str) -> Vec<usize> {
        match self.habit {
            Habit::One(way) => vec![way],
            Habit::Both => {
                let is_open = |way: &usize| event == "started" || self.may_go(*way);
                [0, 2].into_iter().filter(is_open).collect()
            }
        }
    }

    /// Whether it may go on by a way.
    fn may_go(&self, way: usize) -> bool {
        self.has_start[way] || self.started_at.elapsed() > APART
    }

    /// Takes the other node from now on, unless it announces to both.
    fn move_on(&mut self) {
        if let Habit::One(way) = &mut self.habit
            && (self.session.is_none() || self.started_at.elapsed() > APART)
        {
            *way = 1 - *way;
        }
    }

    /// Moves some bytes.
    fn exchange(&mut self, rng: &mut Rng, most_down: u64) {
        let down = rng.u64(..STEP_MAX).min(most_down);
        self.totals[0] += rng.u64(..STEP_MAX);
        self.totals[1] += down;
        self.left -= down;
    }

    /// It may be taken for a seeder from this announce on.
    fn note_seeding(&mut self, event: &str) {
        if self.left > 0 || event == "stopped" || self.seeding_since.is_some() {
            return;
        }
        let now = unix();
        self.seeding_since = Some(now);
        if let Some((_, stopped)) = self.seeded.last() {
            self.away.push((*stopped, now));
        }
    }

    /// Records what an answer acknowledges: one to an event waits until the report is durable.
    fn acknowledge(&mut self, event: &str) {
        if let Some(session) = &mut self.session
            && !event.is_empty()
            && session.began.elapsed() > APART
        {
            session.sure = self.totals;
        }
    }

    /// Ends the session. Some programs go on counting where they stopped, others begin lower.
    fn leave(&mut self, rng: &mut Rng) {
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

    fn request(&self, event: &str) -> Vec<u8> {
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
