//! The worker threads: each with sockets of its own, stopped in order.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::base::limit::SourceLimit;
use crate::config::{self, Config};
use crate::listen::http::{self, HttpService, HttpSettings};
use crate::listen::udp::{self, ConnectionSecret, HeldReplies, UdpService, UdpSettings};
use crate::net::permits::Permits;
use crate::net::tls::Certificate;
use crate::node::sockets::Sockets;
use crate::node::watchdog::Watched;
use crate::node::{Node, Options, settings};
use crate::telemetry::pulse::Pulse;

/// The running worker threads.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    watched: Vec<Watched>,
    stop: watch::Sender<bool>,
    failed: Arc<Notify>,
    settings: ListenerSettings,
    /// UDP replies that are held back.
    held: HeldReplies,
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
        let http = HttpService {
            tracker: Arc::clone(&node.tracker),
            settings: Arc::clone(&settings.http),
            certificate,
            permits: permits(&settings, options.procs, node),
            clock: node.clock,
            metrics: Arc::clone(&node.metrics),
        };
        let held = HeldReplies::new(
            Arc::clone(&node.tracker),
            Arc::clone(&node.metrics),
            Arc::clone(&settings.udp),
            Handle::current(),
        );
        let (stop, stopped) = watch::channel(false);
        let mut workers = Self {
            threads: Vec::new(),
            watched: Vec::new(),
            stop,
            failed: Arc::default(),
            settings,
            held,
        };
        for (number, listeners) in sockets.http.into_iter().enumerate() {
            let (service, stopped) = (http.clone(), stopped.clone());
            workers.spawn(format!("http-{number}"), move |pulse| {
                work(number, listeners, service, pulse, stopped)
            })?;
        }
        if sockets.udp.is_empty() {
            return Ok(workers);
        }
        let udp = workers.udp_service(&config.udp, node)?;
        for (number, socket) in sockets.udp.into_iter().enumerate() {
            let (service, stopped) = (udp.clone(), stopped.clone());
            workers.spawn(format!("udp-{number}"), move |pulse| {
                Ok(udp::serve(socket, service, pulse, stopped)?)
            })?;
        }
        Ok(workers)
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
    ) -> Result<()> {
        let alarm = Alarm {
            failed: Arc::clone(&self.failed),
            stop: self.stop.subscribe(),
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
        self.threads
            .push(thread.context("can't start a worker thread")?);
        Ok(())
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
        self.stop.send_replace(true);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A panic of a worker was logged, and there is nothing left of it.
                let _ = thread.join();
            }
        });
        let _ = joined.await;
        self.held.emptied().await;
    }
}

/// Notifies when a worker thread ends early, also by a panic.
struct Alarm {
    failed: Arc<Notify>,
    stop: watch::Receiver<bool>,
}

// === impl Alarm ===

impl Drop for Alarm {
    fn drop(&mut self) {
        if !*self.stop.borrow() {
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
    service: HttpService,
    pulse: Pulse,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(http::serve(number, listeners, service, pulse, stop))?;
    Ok(())
}
