//! HTTP: one worker's listeners and connections (rules H1 to H8, R1, R2).
//!
//! A connection is read, answered and written to in one go, with buffers that belong to the
//! worker: `head` finds the request in what was read, `service` answers it, `reply` writes the
//! answer, and `exchange` keeps the order of all that for one connection.

mod accept;
mod connection;
mod exchange;
pub mod head;
mod listener;
mod reply;
mod service;
mod source;
#[cfg(test)]
mod tests;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use self::exchange::INPUT_BYTES;
use self::listener::Listener;
use self::service::Clerk;
pub use self::source::Warned;
use crate::base::clock::Clock;
use crate::net::places::{Places, WorkerPlaces};
use crate::net::tls::Certificate;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::pulse::Pulse;
use crate::tracker::Tracker;
use crate::wire::forwarded::ForwardedHeader;

/// How long a stop waits for requests in flight.
const DRAIN: Duration = Duration::from_secs(10);

/// A network may have one in so many of the places, once half of them are taken.
pub const SHARES: usize = 8;

/// The settings that a reload may change.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    pub trusted_proxies: Vec<IpNet>,
    /// The header by which they name the client.
    pub forwarded_header: ForwardedHeader,
    /// So that what is wrong with it is said once, and again after a reload.
    pub warned: Arc<Warned>,
    /// How long a reply waits at most until what it acknowledges is durable.
    pub ack_timeout: Duration,
    /// Connections that all workers hold at once.
    pub max_connections: usize,
}

/// What all workers share.
#[derive(Clone)]
pub struct HttpService {
    pub tracker: Arc<Tracker>,
    pub settings: Arc<ArcSwap<HttpSettings>>,
    /// With it, connections speak TLS.
    pub certificate: Option<Certificate>,
    /// Room for connections, one for all workers.
    pub places: Arc<Places>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

/// One thread's share of the work.
struct Worker {
    service: HttpService,
    /// Locked by this thread alone, for one turn at a time.
    desk: Mutex<Desk>,
    places: WorkerPlaces,
    stopping: AtomicBool,
}

/// What turns use one after another, so that each needs no memory of its own.
struct Desk {
    /// What was read.
    input: Box<[u8]>,
    /// The replies to it.
    out: Vec<u8>,
    clerk: Clerk,
}

/// Serves the listeners of the worker of that number on this thread until `stop` turns true, and then finishes what is in flight.
/// The thread beats `pulse` every second, unless something keeps it from turning.
///
/// # Errors
/// A listener can't be used with this thread's runtime.
pub async fn serve(
    number: usize,
    listeners: Vec<TcpListener>,
    service: HttpService,
    pulse: Pulse,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let worker = Arc::new(Worker {
        places: service.places.of_worker(number),
        desk: Mutex::new(Desk {
            input: vec![0; INPUT_BYTES].into(),
            out: Vec::new(),
            clerk: Clerk::new(service.clone()),
        }),
        service,
        stopping: AtomicBool::new(false),
    });
    let mut accepting = Vec::new();
    for listener in listeners {
        let accept = Arc::clone(&worker).accept(Listener::new(listener)?);
        accepting.push(tokio::spawn(accept));
    }
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    // Time in which this process was stopped or starved is no client's delay.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() {
        tokio::select! {
            _ = seconds.tick() => {
                pulse.beat();
                worker.places.tick();
                let most = worker.service.settings.load().max_connections;
                worker.service.places.resize(most);
            }
            _ = stop.changed() => break,
        }
    }
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    worker.drain().await;
    Ok(())
}

// === impl Worker ===

impl Worker {
    /// Whether each reply is the last one of its connection.
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Lets requests in flight end, and connections without one go.
    async fn drain(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let drained = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while !self.places.is_empty() {
                self.places.end_idle();
                ticks.tick().await;
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("some requests were cut off: they took too long to end");
        }
    }
}
