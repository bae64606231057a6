//! A load of announces: threads of clients that record the credit they expect.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use parking_lot::Mutex;

use super::http::{Connection, Reply, escape};
use super::{net, now, poll};

pub const TORRENTS: usize = 4;
pub const USERS_PER_THREAD: usize = 5;

/// Clients that one user has on one torrent at most; the tracker's own limit is higher.
const CLIENTS_MAX: usize = 3;

/// The torrent with multipliers of its own: uploads count twice, downloads do not.
const FREELEECH: usize = 0;

const TORRENT_LEN: u64 = 40 << 20;

/// What a client moves between two announces at most: far below what no line carries (rule A7).
const STEP_MAX: u64 = 8 << 20;

/// How long an announce may stay without an answer, over however many kills.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Replies to a peer's announces wait for the journal in its first seconds.
const YOUNG: Duration = Duration::from_secs(7);

/// What the threads share.
pub struct Stage {
    tracker: SocketAddr,
    /// The network namespace that clients live in, if not the machine's own.
    namespace: Option<String>,
    /// How long a thread rests after each announce.
    rest: Duration,
    /// How long each reply took.
    waits: Mutex<Vec<Duration>>,
    pub answered: AtomicU64,
    /// Of these, the ones that no reply waited for: a kill may undo them.
    at_once: AtomicU64,
    unanswered: AtomicU64,
    /// No more kills: the sessions stop.
    over: AtomicBool,
}

/// What the database must have for one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub uploaded: u64,
    pub downloaded: u64,
    pub snatched: BTreeSet<usize>,
}

/// One program of one user on one torrent.
struct Client {
    user: usize,
    torrent: usize,
    peer_id: [u8; 20],
    port: u16,
    uploaded: u64,
    downloaded: u64,
    left: u64,
    state: State,
    first_seen: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Running,
    Stopped,
}

/// A thread with users of its own: other clients don't change their credit.
struct Load<'a> {
    stage: &'a Stage,
    rng: Rng,
    users: std::ops::Range<usize>,
    clients: Vec<Client>,
    ledgers: Vec<Ledger>,
    connection: Option<Connection>,
}

/// Ends the threads when the test is over, also by a panic.
struct Over<'a>(&'a Stage);

pub fn passkey(user: usize) -> String {
    format!("passkey-{user:08}")
}

pub fn info_hash(torrent: usize) -> [u8; 20] {
    [torrent as u8 + 1; 20]
}

pub fn multipliers(torrent: usize) -> (u32, u32) {
    if torrent == FREELEECH { (2, 0) } else { (1, 1) }
}

pub fn report(stage: &Stage, expected: &[Ledger]) {
    let total = |of: fn(&Ledger) -> u64| expected.iter().map(of).sum::<u64>();
    eprintln!(
        "{} announces answered, {} of them at once, {} repeated; credit {} up, {} down; {} snatches",
        stage.answered.load(Ordering::Relaxed),
        stage.at_once.load(Ordering::Relaxed),
        stage.unanswered.load(Ordering::Relaxed),
        total(|ledger| ledger.uploaded),
        total(|ledger| ledger.downloaded),
        total(|ledger| ledger.snatched.len() as u64),
    );
}

/// Runs `act` while `threads` threads announce; returns what every user is owed after it.
pub fn run(stage: &Stage, threads: usize, seed: u64, act: impl FnOnce()) -> Vec<Ledger> {
    thread::scope(|scope| {
        let over = Over(stage);
        let loads = (0..threads).map(|number| {
            let load = Load::new(stage, seed, number);
            scope.spawn(move || load.run())
        });
        let loads: Vec<_> = loads.collect();
        act();
        drop(over);
        let ledgers = loads
            .into_iter()
            .map(|load| load.join().expect("a thread of the load"));
        ledgers.flatten().collect()
    })
}

// === impl Stage ===

impl Stage {
    pub fn new(tracker: SocketAddr) -> Self {
        Self {
            tracker,
            namespace: None,
            rest: Duration::ZERO,
            waits: Mutex::default(),
            answered: AtomicU64::new(0),
            at_once: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// The same with clients that live in a network namespace.
    pub fn within(self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..self
        }
    }

    /// The same with a rest for each thread after each announce.
    pub fn resting(self, rest: Duration) -> Self {
        Self { rest, ..self }
    }

    /// Announces that got no whole reply.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// How long each reply took since the last call, the quickest first.
    pub fn waits(&self) -> Vec<Duration> {
        let mut waits = std::mem::take(&mut *self.waits.lock());
        waits.sort_unstable();
        waits
    }

    /// Waits until one more announce is answered.
    pub fn is_answered(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        poll(ANSWER_DEADLINE, "announces are answered", || {
            self.answered.load(Ordering::Relaxed) > before
        });
    }
}

// === impl Over ===

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

// === impl Load ===

impl<'a> Load<'a> {
    fn new(stage: &'a Stage, seed: u64, number: usize) -> Self {
        Self {
            stage,
            rng: Rng::with_seed(seed.wrapping_add(1 + number as u64)),
            users: number * USERS_PER_THREAD..(number + 1) * USERS_PER_THREAD,
            clients: Vec::new(),
            ledgers: vec![Ledger::default(); USERS_PER_THREAD],
            connection: None,
        }
    }

    /// Announces until the kills are over, and then stops every session.
    fn run(mut self) -> Vec<Ledger> {
        if let Some(namespace) = &self.stage.namespace {
            net::enter(namespace);
        }
        while !self.stage.over.load(Ordering::Relaxed) {
            if self.clients.is_empty() || self.rng.u8(..10) == 0 {
                self.newcomer();
            }
            let place = self.rng.usize(..self.clients.len());
            let client = self.clients.swap_remove(place);
            self.step(client);
        }
        for client in std::mem::take(&mut self.clients) {
            if client.state == State::Running {
                self.stop(client);
            }
        }
        self.ledgers
    }

    /// Another program, unless its user has enough of them on that torrent.
    fn newcomer(&mut self) {
        let user = self.rng.usize(self.users.clone());
        let torrent = self.rng.usize(..TORRENTS);
        let others = self
            .clients
            .iter()
            .filter(|it| it.user == user && it.torrent == torrent);
        if others.count() < CLIENTS_MAX {
            let client = Client::new(user, torrent, &mut self.rng);
            self.clients.push(client);
        }
    }

    /// What a client does next. The rarer turns are those that begin or end something.
    fn step(&mut self, mut client: Client) {
        match client.state {
            State::New => self.start(&mut client),
            State::Stopped => {
                // Some programs go on counting where they stopped, others begin at 0.
                if self.rng.bool() {
                    (client.uploaded, client.downloaded) = (0, 0);
                }
                self.start(&mut client);
            }
            State::Running if self.rng.u8(..25) == 0 => {
                let client = self.stop(client);
                // One in three never comes back.
                if self.rng.u8(..3) > 0 {
                    self.clients.push(client);
                }
                return;
            }
            State::Running => self.go_on(&mut client),
        }
        self.clients.push(client);
    }

    /// The first announce of a session sets the base (rules A1, A3), so it is repeated unchanged.
    fn start(&mut self, client: &mut Client) {
        self.announce(client, "started", false);
        client.state = State::Running;
    }

    fn go_on(&mut self, client: &mut Client) {
        let was_leecher = client.left > 0;
        self.exchange(client, client.left);
        if was_leecher && client.left == 0 {
            self.announce(client, "completed", true);
            self.ledger(client.user).snatched.insert(client.torrent);
        } else {
            self.announce(client, "", true);
            if client.first_seen.elapsed() > YOUNG {
                self.stage.at_once.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn stop(&mut self, mut client: Client) -> Client {
        // The last byte is reported with `completed`, so not now.
        let most = client.left.saturating_sub(1);
        self.exchange(&mut client, most);
        self.announce(&mut client, "stopped", true);
        client.state = State::Stopped;
        client
    }

    /// Moves some bytes, and records their credit.
    fn exchange(&mut self, client: &mut Client, most_down: u64) {
        let up = self.rng.u64(..STEP_MAX);
        let down = self.rng.u64(..STEP_MAX).min(most_down);
        client.uploaded += up;
        client.downloaded += down;
        client.left -= down;
        let (multi_up, multi_down) = multipliers(client.torrent);
        let ledger = self.ledger(client.user);
        ledger.uploaded += up * u64::from(multi_up);
        ledger.downloaded += down * u64::from(multi_down);
    }

    fn ledger(&mut self, user: usize) -> &mut Ledger {
        &mut self.ledgers[user - self.users.start]
    }

    /// Announces until there is an answer. A client that `goes_on` meanwhile may report more next time.
    fn announce(&mut self, client: &mut Client, event: &str, goes_on: bool) {
        let start = now();
        loop {
            thread::sleep(self.stage.rest);
            let sent = now();
            if let Some(reply) = self.try_announce(&client.target(event)) {
                self.stage.waits.lock().push(sent.elapsed());
                let failure = reply.failure();
                assert_eq!(
                    (reply.status, failure),
                    (200, None),
                    "{}",
                    client.target(event)
                );
                self.stage.answered.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.stage.unanswered.fetch_add(1, Ordering::Relaxed);
            assert!(
                start.elapsed() < ANSWER_DEADLINE,
                "no answer to {}",
                client.target(event)
            );
            thread::sleep(Duration::from_millis(self.rng.u64(1..20)));
            if goes_on && self.rng.u8(..4) == 0 {
                self.exchange(client, client.left.saturating_sub(1));
            }
        }
    }

    /// None if the reply did not arrive whole.
    fn try_announce(&mut self, target: &str) -> Option<Reply> {
        let open = || Connection::open(self.stage.tracker).ok();
        let mut connection = self.connection.take().or_else(open)?;
        let reply = connection.get(target).ok()?;
        self.connection = Some(connection);
        Some(reply)
    }
}

// === impl Client ===

impl Client {
    /// A program that may have exchanged something before it met this tracker: that is its base (rule A1).
    fn new(user: usize, torrent: usize, rng: &mut Rng) -> Self {
        let before = |rng: &mut Rng| if rng.bool() { rng.u64(..1 << 42) } else { 0 };
        let mut peer_id = *b"-MK0001-............";
        rng.fill(&mut peer_id[8..]);
        Self {
            user,
            torrent,
            peer_id,
            port: rng.u16(1024..),
            uploaded: before(rng),
            downloaded: before(rng),
            left: if rng.u8(..3) == 0 { 0 } else { TORRENT_LEN },
            state: State::New,
            first_seen: now(),
        }
    }

    fn target(&self, event: &str) -> String {
        format!(
            "/{}/announce?info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&event={event}&compact=1&numwant=20",
            passkey(self.user),
            escape(&info_hash(self.torrent)),
            escape(&self.peer_id),
            self.port,
            self.uploaded,
            self.downloaded,
            self.left,
        )
    }
}
