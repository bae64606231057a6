//! The worker threads: each with sockets of its own, stopped in order.

use std::convert::Infallible;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

use crate::base::limit::SourceLimit;
use crate::config::{self, Config};
use crate::listen::ListenState;
use crate::listen::http::{self, HandedConnection, HttpService, HttpSettings};
use crate::listen::udp::{self, ConnectionSecret, HeldReplies, Spool, UdpService, UdpSettings};
use crate::net::permits::Permits;
use crate::net::tls::Certificate;
use crate::node::sockets::Sockets;
use crate::node::watchdog::Watched;
use crate::node::{Node, Options, settings};
use crate::telemetry::pulse::Pulse;

/// How long each reply over TLS announces that its connection closes, before a hand-over closes the idle ones.
const CLOSING: Duration = Duration::from_secs(2);

/// The running worker threads.
pub(super) struct Workers {
    http: Vec<JoinHandle<()>>,
    udp: Vec<JoinHandle<()>>,
    watched: Vec<Watched>,
    http_state: watch::Sender<ListenState>,
    udp_state: watch::Sender<ListenState>,
    /// Ends when no UDP thread decides anything any more.
    deciding: mpsc::Receiver<Infallible>,
    /// What UDP threads have read and not answered, each at its number.
    spools: Arc<Mutex<Vec<Spool>>>,
    /// The connections that HTTP workers leave to the next process.
    handed: Arc<Mutex<Vec<HandedConnection>>>,
    has_tls: bool,
    failed: Arc<Notify>,
    settings: ListenerSettings,
    /// UDP replies that are held back.
    held: HeldReplies,
}

/// What came before the workers started: connections of the process before this one, and packets of each UDP
/// socket, if any.
#[derive(Default)]
pub(super) struct Early {
    pub connections: Vec<HandedConnection>,
    pub spools: Vec<Spool>,
}

/// The settings that a reload may change.
#[derive(Clone)]
pub(super) struct ListenerSettings {
    http: Arc<ArcSwap<HttpSettings>>,
    udp: Arc<ArcSwap<UdpSettings>>,
}

// === impl ListenerSettings ===

impl ListenerSettings {
    fn of(config: &Config) -> Self {
        Self {
            http: Arc::new(ArcSwap::from_pointee(settings::http(config))),
            udp: Arc::new(ArcSwap::from_pointee(settings::udp(config))),
        }
    }

    pub fn apply(&self, config: &Config) {
        self.http.store(Arc::new(settings::http(config)));
        self.udp.store(Arc::new(settings::udp(config)));
    }
}

// === impl Workers ===

impl Workers {
    pub fn start(
        options: &Options,
        sockets: Sockets,
        node: &Node,
        certificate: Option<Certificate>,
    ) -> Result<Self> {
        let config = &options.config.config;
        let settings = ListenerSettings::of(config);
        let handed = Arc::default();
        let has_tls = certificate.is_some();
        let http = HttpService {
            tracker: Arc::clone(&node.tracker),
            settings: Arc::clone(&settings.http),
            certificate,
            permits: permits(&settings, options.procs, node),
            clock: node.clock,
            metrics: Arc::clone(&node.metrics),
            handed: Arc::clone(&handed),
        };
        let held = HeldReplies::new(
            Arc::clone(&node.tracker),
            Arc::clone(&node.metrics),
            Arc::clone(&settings.udp),
            Handle::current(),
        );
        let (http_state, state) = watch::channel(ListenState::Open);
        let (decides, deciding) = mpsc::channel(1);
        let spools = (0..sockets.udp.len()).map(|_| Spool::default()).collect();
        let mut workers = Self {
            http: Vec::new(),
            udp: Vec::new(),
            watched: Vec::new(),
            http_state,
            udp_state: watch::channel(ListenState::Open).0,
            deciding,
            spools: Arc::new(Mutex::new(spools)),
            handed,
            has_tls,
            failed: Arc::default(),
            settings,
            held,
        };
        let mut connections = dealt(sockets.early.connections, options.procs);
        for (number, listeners) in sockets.http.into_iter().enumerate() {
            let (service, state) = (http.clone(), state.clone());
            let connections = connections.pop().unwrap_or_default();
            let thread = workers.spawn(format!("http-{number}"), move |pulse| {
                work(number, listeners, connections, service, pulse, state)
            })?;
            workers.http.push(thread);
        }
        if !sockets.udp.is_empty() {
            let service = workers.udp_service(&config.udp, node)?;
            workers.start_udp(&service, sockets.udp, sockets.early.spools, &decides)?;
        }
        Ok(workers)
    }

    fn start_udp(
        &mut self,
        service: &UdpService,
        sockets: Vec<UdpSocket>,
        spools: Vec<Spool>,
        decides: &mpsc::Sender<Infallible>,
    ) -> Result<()> {
        let mut early = spools.into_iter();
        for (number, socket) in sockets.into_iter().enumerate() {
            let early = early.next().unwrap_or_default();
            let (service, decides) = (service.clone(), decides.clone());
            let (state, spools) = (self.udp_state.subscribe(), Arc::clone(&self.spools));
            let kept = socket.try_clone()?;
            let thread = self.spawn(format!("udp-{number}"), move |pulse| {
                udp::serve(socket, early, service, pulse, state.clone())?;
                drop(decides);
                if *state.borrow() >= ListenState::HandingOver {
                    let mut spool = Spool::default();
                    spool.fill(&kept, || *state.borrow() < ListenState::HandedOver);
                    spools.lock()[number] = spool;
                }
                Ok(())
            })?;
            self.udp.push(thread);
        }
        Ok(())
    }

    fn udp_service(&self, config: &config::UdpSection, node: &Node) -> Result<UdpService> {
        let secret = match ConnectionSecret::load(&config.secret) {
            Ok(secret) => secret,
            Err(error) => {
                let path = config.secret.display();
                tracing::warn!(
                    %error,
                    "udp.secret: {path} can't be used; without it UDP clients have to connect again \
                     after a restart"
                );
                ConnectionSecret::random()?
            }
        };
        Ok(UdpService {
            tracker: Arc::clone(&node.tracker),
            settings: Arc::clone(&self.settings.udp),
            secret,
            clock: node.clock,
            metrics: Arc::clone(&node.metrics),
            connects: Arc::new(SourceLimit::default()),
            errors: Arc::new(SourceLimit::default()),
            held: self.held.clone(),
        })
    }

    fn spawn(
        &mut self,
        name: String,
        work: impl FnOnce(Pulse) -> Result<()> + Send + 'static,
    ) -> Result<JoinHandle<()>> {
        let alarm = Alarm {
            failed: Arc::clone(&self.failed),
            states: [self.http_state.subscribe(), self.udp_state.subscribe()],
        };
        let pulse = Pulse::default();
        self.watched.push(Watched::new(&name, &pulse));
        let thread = std::thread::Builder::new().name(name);
        let thread = thread.spawn(move || {
            let _alarm = alarm;
            if let Err(error) = work(pulse) {
                tracing::error!(error = format!("{error:#}"), "worker failed");
            }
        });
        thread.context("can't start a worker thread")
    }

    /// The threads, to be watched.
    pub fn watched(&mut self) -> Vec<Watched> {
        std::mem::take(&mut self.watched)
    }

    pub fn settings(&self) -> ListenerSettings {
        self.settings.clone()
    }

    /// Resolves when a worker has ended early.
    pub async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Drains and joins the workers.
    pub async fn stop(self) {
        self.http_state.send_replace(ListenState::Draining);
        self.udp_state.send_replace(ListenState::Draining);
        join(self.http).await;
        join(self.udp).await;
        self.held.emptied().await;
    }

    /// Answers what is in flight and decides nothing from then on. Packets are still read, until
    /// [`Self::finish`].
    pub async fn hand_over(&mut self) {
        if self.has_tls {
            self.http_state.send_replace(ListenState::Closing);
            tokio::time::sleep(CLOSING).await;
        }
        self.http_state.send_replace(ListenState::HandingOver);
        join(std::mem::take(&mut self.http)).await;
        self.udp_state.send_replace(ListenState::HandingOver);
        // None is ever sent: it ends when the last thread has dropped its sender.
        let _: Option<Infallible> = self.deciding.recv().await;
        self.held.emptied().await;
    }

    /// Ends the threads that are left. Returns the packets of each UDP socket, and the connections.
    pub async fn finish(self) -> (Vec<Spool>, Vec<HandedConnection>) {
        self.udp_state.send_replace(ListenState::HandedOver);
        join(self.udp).await;
        let spools = std::mem::take(&mut *self.spools.lock());
        let handed = std::mem::take(&mut *self.handed.lock());
        (spools, handed)
    }
}

async fn join(threads: Vec<JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            // A panic of a worker was logged, and there is nothing left of it.
            let _ = thread.join();
        }
    });
    let _ = joined.await;
}

/// Deals the connections out to so many workers.
fn dealt(connections: Vec<HandedConnection>, workers: usize) -> Vec<Vec<HandedConnection>> {
    let mut dealt: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
    for (number, connection) in connections.into_iter().enumerate() {
        dealt[number % workers].push(connection);
    }
    dealt
}

/// Notifies when a worker thread ends early, also by a panic.
struct Alarm {
    failed: Arc<Notify>,
    states: [watch::Receiver<ListenState>; 2],
}

// === impl Alarm ===

impl Drop for Alarm {
    fn drop(&mut self) {
        if self
            .states
            .iter()
            .all(|state| *state.borrow() == ListenState::Open)
        {
            self.failed.notify_one();
        }
    }
}

/// Room for the connections of all HTTP workers, which the metrics show.
fn permits(settings: &ListenerSettings, workers: usize, node: &Node) -> Arc<Permits> {
    let most = settings.http.load().max_connections;
    let evicted = Arc::clone(&node.metrics.connections_evicted);
    let permits = Permits::new(workers, most, http::SHARES, evicted);
    let (open, all) = (Arc::clone(&permits), Arc::clone(&permits));
    node.metrics
        .connections_open
        .add(move || open.taken() as u64);
    node.metrics.connections_max.add(move || all.max() as u64);
    permits
}

/// One worker: a runtime on this thread for its listeners.
fn work(
    number: usize,
    listeners: Vec<TcpListener>,
    connections: Vec<HandedConnection>,
    service: HttpService,
    pulse: Pulse,
    state: watch::Receiver<ListenState>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let serving = http::serve(number, listeners, connections, service, pulse, state);
    runtime.block_on(serving)?;
    Ok(())
}
