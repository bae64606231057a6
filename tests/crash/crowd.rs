//! Clients of several nodes. Each client writes down what it is owed and what happened to it. Most
//! stay with a node until it can't be reached, and then go on at another; some move without a
//! reason; some announce to two nodes, to one by IPv4 and to the other by IPv6. They stop, crash, and
//! come back with the totals that they had or with lower ones.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::client::{Client, is_steady};
use crate::harness::http::Connection;
use crate::harness::load::{TORRENTS, USERS_PER_THREAD};
use crate::harness::{net, now};
use crate::stage::{APART, Over, Phase, Stage};
use crate::story::Announce;

/// Clients that one user has on one torrent at once.
const CLIENTS_MAX: usize = 3;

/// How long a thread leaves a node alone that did not answer in time, so that its clients at other nodes go on.
const AVOIDANCE: Duration = Duration::from_secs(2);

/// A thread with users of its own.
struct Crowd<'a> {
    stage: &'a Stage,
    rng: Rng,
    users: std::ops::Range<usize>,
    clients: Vec<Client>,
    /// Those that never come back.
    gone: Vec<Client>,
    /// One for each way.
    connections: Vec<Option<Connection>>,
    /// Until when a way is left alone.
    avoided: Vec<Option<Instant>>,
}

/// What came of a request on one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Failed,
    /// There was no answer in time; the node may read the request later.
    Hung,
}

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

// === impl Crowd ===

impl<'a> Crowd<'a> {
    fn new(stage: &'a Stage, seed: u64, number: usize) -> Self {
        Self {
            stage,
            rng: Rng::with_seed(seed.wrapping_add(1 + number as u64)),
            users: number * USERS_PER_THREAD..(number + 1) * USERS_PER_THREAD,
            clients: Vec::new(),
            gone: Vec::new(),
            connections: stage.ways.iter().map(|_| None).collect(),
            avoided: vec![None; stage.ways.len()],
        }
    }

    /// Announces until the faults are over, and then stops every session.
    fn run(mut self) -> Vec<Client> {
        if let Some(namespace) = &self.stage.habits.namespace {
            net::enter(namespace);
        }
        while self.stage.phase() == Phase::Announce {
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
            thread::sleep(self.stage.habits.rest);
        }
        self.stage.holding.fetch_add(1, Ordering::Relaxed);
        while self.stage.phase() == Phase::Hold {
            thread::sleep(Duration::from_millis(20));
        }
        self.end();
        self.gone
    }

    /// Another program, unless its user has enough of them on that torrent.
    fn newcomer(&mut self) {
        let user = self.rng.usize(self.users.clone());
        let torrent = self.rng.usize(..TORRENTS);
        let is_other = |it: &&Client| it.user == user && it.torrent == torrent;
        let limit = if self.stage.habits.has_steady && is_steady(user) {
            1
        } else {
            CLIENTS_MAX
        };
        if self.clients.iter().filter(is_other).count() < limit {
            let client = Client::new(user, torrent, self.stage, &mut self.rng);
            self.clients.push(client);
        }
    }

    /// What a client does next; false if it left permanently.
    fn turn(&mut self, client: &mut Client) -> bool {
        if client.pending.is_some() {
            return self.attempt(client);
        }
        let Some(session) = &client.session else {
            if client.may_start(self.stage) {
                client.prepare("started", false);
                self.attempt(client);
            }
            return true;
        };
        if !client.may_go_on(self.stage) {
            return true;
        }
        let is_old = session.began.elapsed() > APART;
        match self.rng.u8(..100) {
            0..4 if is_old => return self.stop(client),
            // It crashes without a word.
            4 => client.leave(&mut self.rng),
            5..7 => client.move_on(self.stage),
            _ => self.go_on(client),
        }
        true
    }

    fn go_on(&mut self, client: &mut Client) {
        let was_leecher = client.left > 0;
        client.exchange(&mut self.rng, client.left);
        if was_leecher && client.left == 0 {
            client.completed = Some(false);
            client.prepare("completed", true);
        } else {
            client.prepare("", true);
        }
        self.attempt(client);
    }

    fn stop(&mut self, client: &mut Client) -> bool {
        // The last byte comes with `completed`, so not now.
        client.exchange(&mut self.rng, client.left.saturating_sub(1));
        client.prepare("stopped", false);
        self.attempt(client)
    }

    /// Stops all clients. Those that have crashed come back for that, or they would stay peers.
    fn end(&mut self) {
        let mut clients = std::mem::take(&mut self.clients);
        clients.retain(|client| !client.story.is_empty());
        for client in &mut clients {
            self.finish(client);
            if client.session.is_none() {
                while !client.may_start(self.stage) && self.stage.phase() != Phase::Abandon {
                    thread::sleep(Duration::from_millis(20));
                }
                client.prepare("started", false);
                self.finish(client);
            }
        }
        let began = clients
            .iter()
            .filter_map(|it| Some(it.session.as_ref()?.began));
        if let Some(last) = began.max() {
            thread::sleep((last + APART).saturating_duration_since(now()));
        }
        // The clients of a user and torrent one after the other.
        while !clients.is_empty() {
            let mut stopped: Vec<Client> = Vec::new();
            for mut client in std::mem::take(&mut clients) {
                let is_same = |it: &Client| (it.user, it.torrent) == (client.user, client.torrent);
                if stopped.iter().any(is_same) {
                    clients.push(client);
                    continue;
                }
                client.has_ended_calmly = true;
                self.stop(&mut client);
                self.finish(&mut client);
                stopped.push(client);
            }
            self.gone.extend(stopped);
            thread::sleep(self.stage.habits.learning);
        }
    }

    /// Repeats what is to be answered until it is.
    fn finish(&mut self, client: &mut Client) {
        while client.pending.is_some() && self.stage.phase() != Phase::Abandon {
            self.attempt(client);
            thread::sleep(Duration::from_millis(self.rng.u64(1..20)));
        }
    }

    /// Announces what is pending, once; false if the client left permanently.
    fn attempt(&mut self, client: &mut Client) -> bool {
        let Some(pending) = client.pending else {
            return true;
        };
        let event = pending.event;
        if self.is_avoided(client, event) {
            client.move_on(self.stage);
            return true;
        }
        client.note_seeding(event);
        let outcomes = self.try_announce(client, event);
        if outcomes.contains(&Outcome::Hung) {
            client.note_hung(event);
        }
        let is_answered = |it: &Outcome| *it == Outcome::Answered;
        // A peer of two families stays until it has stopped in both.
        let is_done = if event == "stopped" {
            outcomes.iter().all(is_answered)
        } else {
            outcomes.iter().any(is_answered)
        };
        if is_done {
            client.acknowledge(&pending, &mut self.rng);
            return event != "stopped" || client.is_steady() || self.rng.u8(..4) > 0;
        }
        assert!(
            pending.since.elapsed() < self.stage.habits.deadline,
            "no answer to {event} of\n{}",
            self.stage.story_of(client)
        );
        client.move_on(self.stage);
        if pending.goes_on {
            match self.rng.u8(..8) {
                0 => client.leave(&mut self.rng),
                1..3 => client.exchange(&mut self.rng, client.left.saturating_sub(1)),
                _ => {}
            }
        }
        true
    }

    fn is_avoided(&self, client: &Client, event: &str) -> bool {
        let ways = client.ways(event, self.stage);
        let is_avoided = |way: usize| self.avoided[way].is_some_and(|until| until > now());
        ways.into_iter().any(is_avoided)
    }

    /// Announces by all ways that the client takes, at the same time.
    fn try_announce(&mut self, client: &mut Client, event: &'static str) -> Vec<Outcome> {
        let request = client.request(event);
        let ways = client.ways(event, self.stage);
        let sent: Vec<_> = ways.iter().map(|&way| self.send(way, &request)).collect();
        let at = self.stage.start.elapsed();
        let outcomes = ways.iter().zip(sent).map(|(&way, connection)| {
            let outcome = connection.map_or(Outcome::Failed, |it| self.receive(way, it, client));
            client.has_start[way] |= outcome == Outcome::Answered && event == "started";
            let counter = match outcome {
                Outcome::Answered => &self.stage.answered,
                _ => &self.stage.unanswered,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            outcome
        });
        let outcomes: Vec<_> = outcomes.collect();
        let answers = ways.into_iter().zip(&outcomes);
        client.note_story(Announce {
            at,
            event,
            totals: client.totals,
            left: client.left,
            answers: answers
                .map(|(way, it)| (way, *it == Outcome::Answered))
                .collect(),
        });
        outcomes
    }

    fn send(&mut self, way: usize, request: &[u8]) -> Option<Connection> {
        let mut connection = match self.connections[way].take() {
            Some(connection) => connection,
            None => self.open(way)?,
        };
        connection.send(request).ok()?;
        Some(connection)
    }

    /// A connection on which nothing arrives once the client has closed it.
    fn open(&mut self, way: usize) -> Option<Connection> {
        let patience = self.stage.habits.patience;
        match Connection::open_within(self.stage.ways[way].address, patience) {
            Ok(connection) => {
                connection.wait_up_to(patience).ok()?;
                connection.forget_when_closed().ok()?;
                Some(connection)
            }
            Err(error) => {
                if error.kind() == ErrorKind::TimedOut {
                    self.avoided[way] = Some(now() + AVOIDANCE);
                }
                None
            }
        }
    }

    fn receive(&mut self, way: usize, mut connection: Connection, client: &Client) -> Outcome {
        match connection.receive() {
            Ok(reply) => {
                self.connections[way] = Some(connection);
                assert_eq!(
                    (reply.status, reply.failure()),
                    (200, None),
                    "{}",
                    self.stage.story_of(client)
                );
                Outcome::Answered
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.avoided[way] = Some(now() + AVOIDANCE);
                Outcome::Hung
            }
            Err(_) => Outcome::Failed,
        }
    }
}
