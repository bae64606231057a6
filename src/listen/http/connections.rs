//! The connections of one worker: how many there may be, and how long each may idle or dawdle.
//!
//! A look at all of them once a second takes the place of a timer for each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

/// Seconds that a kept-alive connection may wait for its next request (rule H5).
const IDLE_SECONDS: u32 = 30;

/// Seconds that a client may take to complete a request, or its TLS handshake (rule H8).
const REQUEST_SECONDS: u32 = 10;

/// Seconds that a reply may wait; longer than any `ack_timeout`.
const WAIT_SECONDS: u32 = 90;

/// Seconds that a client may take to read the replies to what it asked.
const SEND_SECONDS: u32 = 30;

/// Seconds in which a client is to notice that its connection ends.
const LEAVE_SECONDS: u32 = 5;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Waiting for the next request.
    Idle,
    /// In the middle of a handshake or a request.
    Request,
    /// A reply waits until what it acknowledges is durable.
    Waiting,
    /// Replies are sent to a client that reads slowly.
    Sending,
    /// The last reply was sent, and what the client still sends is thrown away.
    Leaving,
}

/// What a connection is doing and since when; shared by its task and the watch.
pub(super) struct Activity {
    phase: AtomicU8,
    since: AtomicU32,
    clock: Arc<AtomicU32>,
}

/// All connections of one worker.
pub(super) struct Connections {
    places: Mutex<Places>,
    /// Seconds, counted by [`Connections::watch`].
    clock: Arc<AtomicU32>,
}

#[derive(Default)]
struct Places {
    open: Vec<Option<Open>>,
    free: Vec<usize>,
}

/// The task that serves a connection, and what the connection is doing.
type Open = (AbortHandle, Arc<Activity>);

/// A place among the connections; given back when dropped.
pub(super) struct Place {
    connections: Arc<Connections>,
    number: usize,
}

// === impl Activity ===

impl Activity {
    /// The connection goes over to that phase, whose time begins.
    pub fn begin(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        let now = self.clock.load(Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
    }

    /// The connection goes over to that phase, unless it is in it already.
    pub fn go_on(&self, phase: Phase) {
        if self.phase() != phase {
            self.begin(phase);
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Request,
            2 => Phase::Waiting,
            3 => Phase::Sending,
            _ => Phase::Leaving,
        }
    }

    fn is_overdue(&self) -> bool {
        let limit = match self.phase() {
            Phase::Idle => IDLE_SECONDS,
            Phase::Request => REQUEST_SECONDS,
            Phase::Waiting => WAIT_SECONDS,
            Phase::Sending => SEND_SECONDS,
            Phase::Leaving => LEAVE_SECONDS,
        };
        let now = self.clock.load(Ordering::Relaxed);
        // One more, because the first second may have begun just before the next tick.
        now - self.since.load(Ordering::Relaxed) > limit
    }
}

// === impl Place ===

impl Place {
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.connections.places.lock();
        places.open[self.number] = None;
        places.free.push(self.number);
    }
}

// === impl Connections ===

impl Connections {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            places: Mutex::default(),
            clock: Arc::default(),
        })
    }

    /// The state of a new connection.
    pub fn activity(&self) -> Arc<Activity> {
        let activity = Activity {
            phase: AtomicU8::new(Phase::Request as u8),
            since: AtomicU32::new(self.clock.load(Ordering::Relaxed)),
            clock: Arc::clone(&self.clock),
        };
        Arc::new(activity)
    }

    /// Keeps watch over a connection until its place is dropped.
    pub fn enter(self: &Arc<Self>) -> Place {
        let mut places = self.places.lock();
        let number = places.free.pop().unwrap_or_else(|| {
            places.open.push(None);
            places.open.len() - 1
        });
        Place {
            connections: Arc::clone(self),
            number,
        }
    }

    /// Tells which task serves the connection of that place.
    pub fn served_by(&self, place: usize, task: AbortHandle, activity: Arc<Activity>) {
        // A task that is through already has given its place back.
        if !task.is_finished() {
            self.places.lock().open[place] = Some((task, activity));
        }
    }

    /// Lets a second pass, and ends the connections that take too long.
    pub fn watch(&self) {
        self.clock.fetch_add(1, Ordering::Relaxed);
        self.end(Activity::is_overdue);
    }

    /// Ends the connections that wait for nothing but the next request.
    pub fn end_idle(&self) {
        self.end(|activity| activity.phase() == Phase::Idle);
    }

    pub fn is_empty(&self) -> bool {
        self.places.lock().open.iter().all(Option::is_none)
    }

    fn end(&self, which: impl Fn(&Activity) -> bool) {
        let overdue: Vec<AbortHandle> = {
            let places = self.places.lock();
            let open = places.open.iter().flatten();
            let overdue = open.filter(|(_, activity)| which(activity));
            overdue.map(|(task, _)| task.clone()).collect()
        };
        // Unlocked, because a task that ends gives its place back.
        overdue.iter().for_each(AbortHandle::abort);
    }
}
