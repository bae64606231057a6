//! Connection permits of a listener, and which connection is evicted for a new one.
//!
//! The limit is shared by all workers of a listener, each of which keeps a [`table`] of its own
//! connections. A connection with a request in flight keeps its permit; others lose theirs as soon
//! as it is needed:
//!
//! 1. Once half of the permits are taken, a network (a /24 of IPv4, a /48 of IPv6) above its share
//!    loses one connection for each that it opens.
//! 2. When all are taken, the largest network above its share loses one, whichever network connects.
//! 3. When none is above its share, the connection that has been idle longest is evicted, whichever
//!    worker serves it; when none is idle, the one that has been longest in a handshake, in a
//!    request's head, or in a reply that its client does not read.
//!
//! Connections of a network above its share may lose even a request in flight if there is no other
//! candidate. Otherwise a new connection waits. That happens only with as many requests in flight as there
//! are permits, and they end by themselves.

mod networks;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use strum::VariantArray;
use tokio::task::AbortHandle;

use self::networks::Networks;
use self::table::{ConnectionTable, Evicted, EvictionScope, Released};
use crate::base::clock::Stopwatch;
use crate::telemetry::metrics::{Eviction, Evictions};

/// Idle timeout in seconds of a kept-alive connection while at most half of the permits are taken
/// (rule H5).
const IDLE_SECONDS: u32 = 30;

/// Idle timeout when all permits are taken. In between it falls with the number of free permits.
const IDLE_SECONDS_MIN: u32 = 3;

/// Seconds that a client has to complete a request, or its TLS handshake (rule H8).
const REQUEST_SECONDS: u32 = 10;

/// Seconds that a reply may wait; longer than any `ack_timeout`.
const WAIT_SECONDS: u32 = 90;

/// Seconds that a client has to read its replies.
const SEND_SECONDS: u32 = 30;

/// Seconds that a client has to close its side after the last reply.
const LEAVE_SECONDS: u32 = 5;

/// How often a new connection retries while every other has a request in flight.
const RETRY: Duration = Duration::from_millis(10);

/// The most evictions for one new connection. Two, so that the excess shrinks after the limit was
/// lowered.
const EVICTIONS_MAX: usize = 2;

/// The smallest share of a network, however few permits there are.
const SHARE_MIN: usize = 2;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for the next request.
    Idle,
    /// In the middle of a handshake or a request.
    Request,
    /// Sending replies to a client that reads slowly.
    Sending,
    /// The last reply was sent; what the client still sends is discarded.
    Leaving,
    /// A request is in flight: its reply is being made, or waits until what it acknowledges is
    /// durable.
    Waiting,
}

/// Phases that end by an action of the client.
const SLOW: [Phase; 3] = [Phase::Request, Phase::Sending, Phase::Leaving];

/// All permits of a listener, shared by its workers.
pub struct Permits {
    max: AtomicUsize,
    taken: AtomicUsize,
    /// A network's share is the permits divided by this.
    shares: usize,
    networks: Networks,
    /// One for each worker, so that its lock is hardly ever contended.
    tables: Box<[Mutex<ConnectionTable>]>,
    evicted: Arc<Evictions>,
    started: Stopwatch,
}

/// The permits, and one worker's own connections.
#[derive(Clone)]
pub struct WorkerPermits {
    permits: Arc<Permits>,
    worker: usize,
}

/// One connection's permit, released when it is dropped or the connection is evicted.
pub struct Permit {
    worker: WorkerPermits,
    slot: u32,
}

// === impl Permits ===

impl Permits {
    /// `max` permits for `workers` workers. Once half are taken, a network's share is one in `shares`.
    /// Evictions are counted in `evicted`.
    pub fn new(workers: usize, max: usize, shares: usize, evicted: Arc<Evictions>) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicUsize::new(max),
            taken: AtomicUsize::new(0),
            shares,
            networks: Networks::default(),
            tables: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            evicted,
            started: Stopwatch::start(),
        })
    }

    /// The permits for worker number `worker`, counted from 0.
    pub fn of_worker(self: &Arc<Self>, worker: usize) -> WorkerPermits {
        WorkerPermits {
            permits: Arc::clone(self),
            worker: worker % self.tables.len(),
        }
    }

    /// Changes the number of permits. While more than that are taken, each new connection evicts two
    /// others.
    pub fn resize(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// The number of permits.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// How many permits are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Permits that one network may have once half of them are taken.
    fn share(&self) -> usize {
        (self.max() / self.shares).max(SHARE_MIN)
    }

    /// The idle timeout in seconds at the present load.
    fn idle_seconds(&self) -> u32 {
        let (max, taken) = (self.max(), self.taken());
        let half = max / 2;
        if taken <= half {
            return IDLE_SECONDS;
        }
        let free = max.saturating_sub(taken) as u64;
        let span = u64::from(IDLE_SECONDS - IDLE_SECONDS_MIN);
        let more = span * free / (max - half).max(1) as u64;
        IDLE_SECONDS_MIN + u32::try_from(more).unwrap_or(0)
    }

    /// Counts a new connection, and evicts others for it if need be; false if none can be evicted.
    fn admit(&self, network: Option<u32>) -> bool {
        let share = self.share();
        let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        let is_above = network.is_some_and(|network| self.networks.add(network, share));
        let max = self.max();
        let mut evicted = 0;
        if let Some(network) = network.filter(|_| is_above && taken > max / 2)
            && self.evict_gently(EvictionScope::Network(network), Eviction::NetworkShare)
        {
            evicted = 1;
        }
        while evicted < EVICTIONS_MAX && self.taken() > max {
            if !self.evict_any(Eviction::Full) && !self.evict_in_flight() {
                break;
            }
            evicted += 1;
        }
        if evicted > 0 || self.taken() <= max {
            return true;
        }
        self.release(network);
        false
    }

    fn release(&self, network: Option<u32>) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(network) = network {
            self.networks.remove(network);
        }
    }

    /// Evicts a connection of the largest network above its share, or else of any.
    fn evict_any(&self, reason: Eviction) -> bool {
        for network in self.networks.above(self.share()) {
            let scope = EvictionScope::Network(network);
            if self.evict_gently(scope, Eviction::NetworkShare) {
                return true;
            }
        }
        self.evict_gently(EvictionScope::All, reason)
    }

    /// Evicts the connection that has been idle longest; without one, the slowest.
    fn evict_gently(&self, scope: EvictionScope, reason: Eviction) -> bool {
        self.evict(scope, &[Phase::Idle], reason) || self.evict(scope, &SLOW, reason)
    }

    /// Evicts a connection with a request in flight, of a network above its share.
    fn evict_in_flight(&self) -> bool {
        let above = self.networks.above(self.share());
        above.into_iter().any(|network| {
            let scope = EvictionScope::Network(network);
            self.evict(scope, &[Phase::Waiting], Eviction::NetworkShare)
        })
    }

    /// Evicts the connection that has been in one of the phases longest, whichever worker serves it.
    fn evict(&self, scope: EvictionScope, phases: &[Phase], reason: Eviction) -> bool {
        let evicted = if let [table] = &*self.tables {
            table.lock().evict(scope, phases)
        } else {
            self.tables
                .iter()
                .filter_map(|table| {
                    let since = table.lock().oldest(scope, phases)?;
                    Some((since, table))
                })
                .min_by_key(|&(since, _)| since)
                // It may have received a request since; then the next one is evicted.
                .and_then(|(_, table)| table.lock().evict(scope, phases))
        };
        let Some(evicted) = evicted else { return false };
        self.end(evicted);
        self.evicted.of(reason).increment();
        true
    }

    /// Ends the task of a connection that was removed from its table.
    fn end(&self, Evicted { task, network }: Evicted) {
        self.release(network);
        task.abort();
    }

    fn now(&self) -> u64 {
        self.started.elapsed()
    }
}

// === impl WorkerPermits ===

impl WorkerPermits {
    pub fn permits(&self) -> &Permits {
        &self.permits
    }

    /// A permit for a connection from `client`, for which another may be evicted; none while every
    /// connection has a request in flight. Without a `client` it counts for no network.
    pub fn try_acquire(&self, client: Option<IpAddr>) -> Option<Permit> {
        let network = client.map(|ip| self.permits.networks.key(ip));
        if !self.permits.admit(network) {
            return None;
        }
        Some(Permit {
            worker: self.clone(),
            slot: self.table().lock().insert(network),
        })
    }

    /// Like [`Self::try_acquire`], but waits while every connection has a request in flight.
    pub async fn acquire(&self, client: Option<IpAddr>) -> Permit {
        loop {
            if let Some(permit) = self.try_acquire(client) {
                return permit;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Makes the connection in that slot evictable by aborting `task`, which has to own its
    /// [`Permit`]. `phase` is what the connection does now: it may be evicted before its task runs for
    /// the first time.
    pub fn served_by(&self, slot: u32, task: AbortHandle, phase: Phase) {
        let now = self.permits.now();
        self.table().lock().attach(slot, task, phase, now);
    }

    /// Evicts a connection because the process has no file for another; false if none can be.
    pub fn evict_for_file(&self) -> bool {
        self.permits.evict_any(Eviction::Files)
    }

    /// Advances the table by a second, and ends this worker's connections that are past their timeout.
    pub fn tick(&self) {
        let idle = self.permits.idle_seconds();
        let limit = |phase| match phase {
            Phase::Idle => idle,
            Phase::Request => REQUEST_SECONDS,
            Phase::Sending => SEND_SECONDS,
            Phase::Leaving => LEAVE_SECONDS,
            Phase::Waiting => WAIT_SECONDS,
        };
        let overdue = self.table().lock().tick(limit);
        for (evicted, phase, age) in overdue {
            self.permits.end(evicted);
            if phase == Phase::Idle && age <= IDLE_SECONDS {
                self.permits.evicted.of(Eviction::ShortIdle).increment();
            }
        }
    }

    /// Closes this worker's idle connections.
    pub fn close_idle(&self) {
        loop {
            let evicted = self
                .table()
                .lock()
                .evict(EvictionScope::All, &[Phase::Idle]);
            match evicted {
                Some(evicted) => self.permits.end(evicted),
                None => return,
            }
        }
    }

    /// Whether this worker has no connection.
    pub fn is_empty(&self) -> bool {
        self.table().lock().is_empty()
    }

    fn table(&self) -> &Mutex<ConnectionTable> {
        &self.permits.tables[self.worker]
    }
}

// === impl Permit ===

impl Permit {
    /// The connection's slot in its worker's table.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Puts the connection into that phase, and restarts its timeout.
    pub fn begin(&self, phase: Phase) {
        let now = self.worker.permits.now();
        self.worker.table().lock().begin(self.slot, phase, now);
    }

    /// Puts the connection into that phase, unless it is in it already: then its timeout goes on.
    pub fn ensure(&self, phase: Phase) {
        let mut table = self.worker.table().lock();
        if table.phase(self.slot) != phase {
            table.begin(self.slot, phase, self.worker.permits.now());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let released = self.worker.table().lock().remove(self.slot);
        // An eviction has released the permit already.
        if let Some(Released { network }) = released {
            self.worker.permits.release(network);
        }
    }
}
