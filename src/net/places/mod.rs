//! The connections that a listener may hold at once, and which of them gives way to a newcomer.
//!
//! The limit is one for all workers of a listener, each of which keeps a [`table`] of its own
//! connections. Whoever has a request in flight stays; others lose their place as soon as it is
//! needed:
//!
//! 1. Once half of the places are taken, a network (a /24 of IPv4, a /48 of IPv6) that has more
//!    than its share gives up a connection of its own for each that it opens.
//! 2. When all are taken, the largest network above its share gives one up, whoever comes.
//! 3. When none is above its share, the connection that has been idle longest goes, whichever
//!    worker serves it; when none is idle, the one that has been longest in the middle of a
//!    handshake or of a request's head, or that does not read its reply.
//!
//! Connections of a network that is above its share may lose even a request in flight if nothing
//! else is left. Otherwise a newcomer waits, which needs as many requests in flight as there are
//! places, and they end by themselves.

mod networks;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use self::networks::Networks;
use self::table::{Evicted, Scope, Table};
use crate::base::clock::Stopwatch;
use crate::telemetry::metrics::{Eviction, Evictions};

/// Seconds that a kept-alive connection may wait for its next request while at most half of the
/// places are taken (rule H5).
const IDLE_SECONDS: u32 = 30;

/// The same when all places are taken. Between the two it falls with the number of free places.
const IDLE_SECONDS_MIN: u32 = 3;

/// Seconds that a client may take to complete a request, or its TLS handshake (rule H8).
const REQUEST_SECONDS: u32 = 10;

/// Seconds that a reply may wait; longer than any `ack_timeout`.
const WAIT_SECONDS: u32 = 90;

/// Seconds that a client may take to read the replies to what it asked.
const SEND_SECONDS: u32 = 30;

/// Seconds in which a client is to notice that its connection ends.
const LEAVE_SECONDS: u32 = 5;

/// How often a newcomer tries again while every connection has a request in flight.
const RETRY: Duration = Duration::from_millis(10);

/// Evictions for one newcomer at most: two where the limit was lowered below what is open.
const EVICTIONS_MAX: usize = 2;

/// The least share of a network, however few places there are.
const SHARE_MIN: usize = 2;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for the next request.
    Idle,
    /// In the middle of a handshake or a request.
    Request,
    /// Replies are sent to a client that reads slowly.
    Sending,
    /// The last reply was sent, and what the client still sends is thrown away.
    Leaving,
    /// A request is in flight: its reply is being made, or waits until what it acknowledges is
    /// durable.
    Waiting,
}

/// Those whose clients have to do something.
const SLOW: [Phase; 3] = [Phase::Request, Phase::Sending, Phase::Leaving];

/// All places of a listener, shared by its workers.
pub struct Places {
    most: AtomicUsize,
    taken: AtomicUsize,
    /// A network may have one in so many of the places.
    shares: usize,
    networks: Networks,
    /// One for each worker, which hardly ever has to wait for another to lock its own.
    tables: Box<[Mutex<Table>]>,
    evicted: Arc<Evictions>,
    started: Stopwatch,
}

/// The places as one worker sees them.
#[derive(Clone)]
pub struct WorkerPlaces {
    places: Arc<Places>,
    worker: usize,
}

/// A connection's place, until it is dropped or has to give way.
pub struct Place {
    places: Arc<Places>,
    worker: usize,
    slot: u32,
}

// === impl Phase ===

impl Phase {
    const ALL: [Self; 5] = [
        Self::Idle,
        Self::Request,
        Self::Sending,
        Self::Leaving,
        Self::Waiting,
    ];
}

// === impl Places ===

impl Places {
    /// `most` places for so many workers. A network may have one in `shares` of them once half are
    /// taken. Whoever has to give way is counted in `evicted`.
    pub fn new(workers: usize, most: usize, shares: usize, evicted: Arc<Evictions>) -> Arc<Self> {
        Arc::new(Self {
            most: AtomicUsize::new(most),
            taken: AtomicUsize::new(0),
            shares,
            networks: Networks::default(),
            tables: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            evicted,
            started: Stopwatch::start(),
        })
    }

    /// The places for the worker of that number, counted from 0.
    pub fn of_worker(self: &Arc<Self>, worker: usize) -> WorkerPlaces {
        WorkerPlaces {
            places: Arc::clone(self),
            worker: worker % self.tables.len(),
        }
    }

    /// How many there may be from now on. Below what is taken, each newcomer costs two others
    /// their place.
    pub fn resize(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// What one network may have once half of the places are taken.
    fn share(&self) -> usize {
        (self.most() / self.shares).max(SHARE_MIN)
    }

    /// Seconds that a connection may be idle, as things are.
    fn idle_seconds(&self) -> u32 {
        let (most, taken) = (self.most(), self.taken());
        let half = most / 2;
        if taken <= half {
            return IDLE_SECONDS;
        }
        let free = most.saturating_sub(taken) as u64;
        let span = u64::from(IDLE_SECONDS - IDLE_SECONDS_MIN);
        let more = span * free / (most - half).max(1) as u64;
        IDLE_SECONDS_MIN + u32::try_from(more).unwrap_or(0)
    }

    /// Counts a newcomer in, whose place others may have to give up; false if nobody can.
    fn admit(&self, network: Option<u32>) -> bool {
        let share = self.share();
        let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        let is_above = network.is_some_and(|it| self.networks.add(it, share));
        let most = self.most();
        let mut evicted = 0;
        if let Some(network) = network.filter(|_| is_above && taken > most / 2)
            && self.evict_gently(Scope::Network(network), Eviction::NetworkShare)
        {
            evicted = 1;
        }
        while evicted < EVICTIONS_MAX && self.taken() > most {
            if !self.evict_any(Eviction::Full) && !self.evict_in_flight() {
                break;
            }
            evicted += 1;
        }
        if evicted > 0 || self.taken() <= most {
            return true;
        }
        self.forget(network);
        false
    }

    fn forget(&self, network: Option<u32>) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(network) = network {
            self.networks.remove(network);
        }
    }

    /// Evicts a connection of the largest network above its share, else of anybody.
    fn evict_any(&self, reason: Eviction) -> bool {
        let above = self.networks.above(self.share());
        let of_network = |&it: &u32| self.evict_gently(Scope::Network(it), Eviction::NetworkShare);
        above.iter().any(of_network) || self.evict_gently(Scope::All, reason)
    }

    /// Evicts the connection that has been idle longest; without one, the slowest.
    fn evict_gently(&self, scope: Scope, reason: Eviction) -> bool {
        self.evict(scope, &[Phase::Idle], reason) || self.evict(scope, &SLOW, reason)
    }

    /// Evicts a connection with a request in flight, of a network above its share.
    fn evict_in_flight(&self) -> bool {
        let above = self.networks.above(self.share());
        above.into_iter().any(|network| {
            let scope = Scope::Network(network);
            self.evict(scope, &[Phase::Waiting], Eviction::NetworkShare)
        })
    }

    /// Evicts whoever has been in one of the phases longest, whichever worker serves it.
    fn evict(&self, scope: Scope, phases: &[Phase], reason: Eviction) -> bool {
        let evicted = if let [table] = &*self.tables {
            table.lock().evict(scope, phases)
        } else {
            let oldest = self.tables.iter().filter_map(|table| {
                let since = table.lock().oldest(scope, phases)?;
                Some((since, table))
            });
            let oldest = oldest.min_by_key(|&(since, _)| since);
            // It may have got a request meanwhile; then the next one goes.
            oldest.and_then(|(_, table)| table.lock().evict(scope, phases))
        };
        let Some(evicted) = evicted else { return false };
        self.end(evicted);
        self.evicted.of(reason).one();
        true
    }

    /// Ends the task of a connection that is out of the tables.
    fn end(&self, Evicted { task, network }: Evicted) {
        self.forget(network);
        task.abort();
    }

    fn now(&self) -> u64 {
        self.started.elapsed()
    }
}

// === impl WorkerPlaces ===

impl WorkerPlaces {
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// A place for a connection from `client`, which others may have to give up; none while every
    /// connection has a request in flight. Without a `client` it counts for no network.
    pub fn try_take(&self, client: Option<IpAddr>) -> Option<Place> {
        let network = client.map(|ip| self.places.networks.key(ip));
        if !self.places.admit(network) {
            return None;
        }
        Some(Place {
            places: Arc::clone(&self.places),
            worker: self.worker,
            slot: self.table().lock().enter(network),
        })
    }

    /// The same; waits while every connection has a request in flight.
    pub async fn take(&self, client: Option<IpAddr>) -> Place {
        loop {
            if let Some(place) = self.try_take(client) {
                return place;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// From now on the connection in that slot may have to give way: `task`, which has to own its
    /// [`Place`], is aborted then. `phase` is what the connection does now: others may need places
    /// before its task runs for the first time.
    pub fn served_by(&self, slot: u32, task: AbortHandle, phase: Phase) {
        let now = self.places.now();
        self.table().lock().serve(slot, task, phase, now);
    }

    /// Ends a connection because the process has no file for another; false if none can go.
    pub fn free_a_file(&self) -> bool {
        self.places.evict_any(Eviction::Files)
    }

    /// Lets a second pass, and ends this worker's connections that take too long.
    pub fn tick(&self) {
        let idle = self.places.idle_seconds();
        let limit = |phase| match phase {
            Phase::Idle => idle,
            Phase::Request => REQUEST_SECONDS,
            Phase::Sending => SEND_SECONDS,
            Phase::Leaving => LEAVE_SECONDS,
            Phase::Waiting => WAIT_SECONDS,
        };
        let overdue = self.table().lock().tick(limit);
        for (evicted, phase, age) in overdue {
            self.places.end(evicted);
            if phase == Phase::Idle && age <= IDLE_SECONDS {
                self.places.evicted.of(Eviction::ShortIdle).one();
            }
        }
    }

    /// Ends this worker's connections that wait for nothing but the next request.
    pub fn end_idle(&self) {
        loop {
            let evicted = self.table().lock().evict(Scope::All, &[Phase::Idle]);
            match evicted {
                Some(evicted) => self.places.end(evicted),
                None => return,
            }
        }
    }

    /// Whether this worker serves no connection any more.
    pub fn is_empty(&self) -> bool {
        self.table().lock().is_empty()
    }

    fn table(&self) -> &Mutex<Table> {
        &self.places.tables[self.worker]
    }
}

// === impl Place ===

impl Place {
    /// Its number in the worker's table.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The connection goes over to that phase, whose time begins.
    pub fn begin(&self, phase: Phase) {
        let now = self.places.now();
        self.table().lock().begin(self.slot, phase, now);
    }

    /// The connection goes over to that phase, unless it is in it already.
    pub fn go_on(&self, phase: Phase) {
        let mut table = self.table().lock();
        if table.phase(self.slot) != phase {
            table.begin(self.slot, phase, self.places.now());
        }
    }

    fn table(&self) -> &Mutex<Table> {
        &self.places.tables[self.worker]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.table().lock().leave(self.slot);
        // Whoever was evicted has lost the place already.
        if let Some(left) = left {
            self.places.forget(left.network);
        }
    }
}
