//! The connections of one worker: how many there may be, and how long each may idle or dawdle.
//!
//! A look at all of them once a second takes the place of a timer for each request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::task::AbortHandle;

/// Seconds that a kept-alive connection may wait for its next request (rule H5).
const IDLE_SECONDS: u32 = 30;

/// Seconds that a client may take to complete a request head, or its TLS handshake (rule H8).
const HEAD_SECONDS: u32 = 10;

/// Seconds that a request may take with its body and its answer; longer than any `ack_timeout`.
const BUSY_SECONDS: u32 = 90;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for the next request.
    Idle,
    /// In the middle of a handshake or a request head.
    Head,
    /// A request is being answered.
    Busy,
}

/// What a connection is doing and since when; shared by its reader, its handler and the watch.
pub(super) struct Activity {
    phase: Cell<Phase>,
    since: Cell<u32>,
    clock: Rc<Cell<u32>>,
}

/// All connections of one worker.
pub(super) struct Connections {
    open: RefCell<Vec<Option<Open>>>,
    free: RefCell<Vec<usize>>,
    /// Seconds, counted by [`Connections::watch`].
    clock: Rc<Cell<u32>>,
}

/// The task that serves a connection, and what the connection is doing.
type Open = (AbortHandle, Rc<Activity>);

/// A place among the connections; given back when dropped.
pub(super) struct Place {
    connections: Rc<Connections>,
    number: usize,
}

// === impl Activity ===

impl Activity {
    pub fn set(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.get());
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    fn is_overdue(&self) -> bool {
        let limit = match self.phase.get() {
            Phase::Idle => IDLE_SECONDS,
            Phase::Head => HEAD_SECONDS,
            Phase::Busy => BUSY_SECONDS,
        };
        // One more, because the first second may have begun just before the next tick.
        self.clock.get() - self.since.get() > limit
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.borrow_mut()[self.number] = None;
        self.connections.free.borrow_mut().push(self.number);
    }
}

// === impl Connections ===

impl Connections {
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            open: RefCell::default(),
            free: RefCell::default(),
            clock: Rc::default(),
        })
    }

    /// The state of a new connection.
    pub fn activity(&self) -> Rc<Activity> {
        Rc::new(Activity {
            phase: Cell::new(Phase::Head),
            since: Cell::new(self.clock.get()),
            clock: Rc::clone(&self.clock),
        })
    }

    /// Keeps watch over a connection until its place is dropped.
    pub fn enter(self: &Rc<Self>) -> Place {
        let number = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut open = self.open.borrow_mut();
            open.push(None);
            open.len() - 1
        });
        Place {
            connections: Rc::clone(self),
            number,
        }
    }

    /// Tells which task serves the connection of that place.
    pub fn served_by(&self, place: usize, task: AbortHandle, activity: Rc<Activity>) {
        // A task that is through already has given its place back.
        if !task.is_finished() {
            self.open.borrow_mut()[place] = Some((task, activity));
        }
    }

    /// Lets a second pass, and ends the connections that take too long.
    pub fn watch(&self) {
        self.clock.set(self.clock.get() + 1);
        self.end(Activity::is_overdue);
    }

    /// Ends the connections that wait for nothing but the next request.
    pub fn end_idle(&self) {
        self.end(|activity| activity.phase() == Phase::Idle);
    }

    pub fn is_empty(&self) -> bool {
        self.open.borrow().iter().all(Option::is_none)
    }

    fn end(&self, which: impl Fn(&Activity) -> bool) {
        for (task, activity) in self.open.borrow().iter().flatten() {
            if which(activity) {
                // The task drops its place when the runtime comes to it, not here.
                task.abort();
            }
        }
    }
}

// === impl Place ===

impl Place {
    pub fn number(&self) -> usize {
        self.number
    }
}
