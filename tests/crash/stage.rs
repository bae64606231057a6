//! What the threads of a crowd share: the ways to the nodes, what happened, and what they are to do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::Client;
use crate::harness::load::ANSWER_DEADLINE;
use crate::harness::now;
use crate::story;

/// How long a session lasts at least, how long after its start a client waits before it goes to a
/// node that does not have that start, and how long it stays away before it begins again with lower
/// totals: within one second, the order of two nodes is unknown (docs/architecture.md,
/// "How credit is settled").
pub const APART: Duration = Duration::from_secs(3);

/// A way to a node.
#[derive(Clone, Debug)]
pub struct Way {
    /// The node, and the family if it is not IPv4.
    pub name: String,
    pub address: SocketAddr,
}

/// How a crowd announces.
#[derive(Clone, Debug)]
pub struct Habits {
    /// The network namespace that clients live in, if not the machine's own.
    pub namespace: Option<String>,
    /// How long a client waits for an answer, and how long an announce may stay without one in all.
    pub patience: Duration,
    pub deadline: Duration,
    /// How long nodes may take to learn from each other that a client stopped.
    pub learning: Duration,
    /// How long a thread rests after each announce.
    pub rest: Duration,
    /// The first user of each thread has one client for each torrent, which never moves to another node.
    pub has_steady: bool,
}

/// What the threads share.
pub struct Stage {
    /// By IPv4 to each node, and then the others.
    pub ways: Vec<Way>,
    pub nodes: usize,
    /// By which two ways a client of two families may announce, to two nodes.
    pub both: Vec<[usize; 2]>,
    pub habits: Habits,
    pub start: Instant,
    phase: AtomicU8,
    /// Threads that do nothing, because the phase is [`Phase::Hold`].
    pub holding: AtomicUsize,
    pub answered: AtomicU64,
    pub unanswered: AtomicU64,
    calm: Mutex<Calm>,
    /// What was done to the servers, and when.
    events: Mutex<Vec<(Duration, String)>>,
}

/// What the threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Announce,
    /// Nothing; their clients stay peers.
    Hold,
    /// Every session is stopped.
    End,
    /// The test has failed: nothing more.
    Abandon,
}

/// Ends the threads when the faults are over, even if a panic ended them.
pub struct Over<'a>(pub &'a Stage);

/// When everything worked.
#[derive(Clone, Copy)]
struct Calm {
    /// Since when it does now.
    since: Option<Instant>,
    /// The last moment before that by which it had worked for [`APART`].
    settled: Option<Instant>,
}

// === impl Habits ===

impl Default for Habits {
    fn default() -> Self {
        Self {
            namespace: None,
            patience: Duration::from_secs(20),
            deadline: ANSWER_DEADLINE,
            learning: Duration::from_millis(500),
            rest: Duration::from_millis(4),
            has_steady: false,
        }
    }
}

// === impl Stage ===

impl Stage {
    /// `ways` begins with one way by IPv4 to each of `nodes`.
    pub fn new(ways: Vec<Way>, nodes: usize, both: Vec<[usize; 2]>, habits: Habits) -> Self {
        let start = now();
        Self {
            ways,
            nodes,
            both,
            habits,
            start,
            phase: AtomicU8::new(Phase::Announce as u8),
            holding: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            calm: Mutex::new(Calm {
                since: Some(start),
                settled: None,
            }),
            events: Mutex::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Announce,
            1 => Phase::Hold,
            2 => Phase::End,
            _ => Phase::Abandon,
        }
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What happened to a client, and to the servers meanwhile.
    pub fn story_of(&self, client: &Client) -> String {
        story::print(&client.story, &self.ways, &self.events.lock())
    }

    /// Records what is done to the servers.
    pub fn note(&self, what: String) {
        self.events.lock().push((self.start.elapsed(), what));
    }

    /// From now on nodes may be late: they may read what a client has sent, or learn what it told another node, at any
    /// time until all is well again.
    pub fn trouble_begins(&self) {
        let mut calm = self.calm.lock();
        if let Some(since) = calm.since.take()
            && since.elapsed() >= APART
        {
            calm.settled = Some(now());
        }
    }

    /// All is well again.
    pub fn trouble_ends(&self) {
        self.calm.lock().since = Some(now());
    }

    /// Whether all nodes have read and passed on what a client had sent by then: everything worked for [`APART`] since.
    pub fn is_settled_since(&self, then: Instant) -> bool {
        let calm = *self.calm.lock();
        let is_settled = calm.since.is_some_and(|since| since.elapsed() >= APART);
        let settled = if is_settled {
            Some(now())
        } else {
            calm.settled
        };
        settled.is_some_and(|settled| settled >= then + APART)
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let phase = if thread::panicking() {
            Phase::Abandon
        } else {
            Phase::End
        };
        self.0.set_phase(phase);
    }
}
