//! The worker threads: bound before the start is through, stopped in order.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::config::{Mode, Source};
use crate::listen::http::{HttpService, HttpSettings};
use crate::listen::tls::Certificate;
use crate::listen::{self, http};
use crate::node::{Node, Options, settings};

/// The listeners of each worker.
pub(super) struct Listeners {
    by_worker: Vec<Vec<TcpListener>>,
}

/// The running worker threads.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    failed: Arc<Notify>,
    settings: Arc<ArcSwap<HttpSettings>>,
}

/// Opens the listeners of all workers.
pub(super) fn bind(options: &Options) -> Result<Listeners> {
    let mut by_worker: Vec<Vec<TcpListener>> = (0..options.procs).map(|_| Vec::new()).collect();
    for &address in &options.config.config.http.listen {
        let listeners = match listen::bind(address, options.procs) {
            Ok(listeners) => listeners,
            Err(error) if may_do_without(options, address, &error) => {
                tracing::warn!(%address, "not listening: this host has no IPv6");
                continue;
            }
            Err(error) => return Err(anyhow!(explain(address, &error))),
        };
        for (worker, listener) in by_worker.iter_mut().zip(listeners) {
            worker.push(listener);
        }
    }
    Ok(Listeners { by_worker })
}

/// Only the built-in defaults ask for IPv6 without anybody having asked for it.
fn may_do_without(options: &Options, address: SocketAddr, error: &io::Error) -> bool {
    let no_such_family =
        error.raw_os_error() == Some(97) || error.kind() == ErrorKind::AddrNotAvailable;
    address.is_ipv6() && no_such_family && matches!(options.config.source, Source::BuiltIn)
}

fn explain(address: SocketAddr, error: &io::Error) -> String {
    let mend = match error.kind() {
        ErrorKind::AddrInUse => {
            "another program listens there: stop it, or choose another port in http.listen"
                .to_owned()
        }
        ErrorKind::PermissionDenied => format!(
            "port {} needs rights: choose one from 1024 up in http.listen, or grant CAP_NET_BIND_SERVICE",
            address.port()
        ),
        ErrorKind::AddrNotAvailable => {
            "this host has no such address: correct http.listen".to_owned()
        }
        _ => error.to_string(),
    };
    format!("can't listen on {address}: {mend}")
}

// === impl Workers ===

impl Workers {
    pub fn start(
        options: &Options,
        listeners: Listeners,
        node: &Node,
        certificate: Option<Certificate>,
    ) -> Result<Self> {
        let config = &options.config.config;
        let settings = Arc::new(ArcSwap::from_pointee(settings::http(config)));
        announce_urls(options, &listeners);
        let service = HttpService {
            tracker: Arc::clone(&node.tracker),
            settings: Arc::clone(&settings),
            certificate,
            clock: node.clock,
            metrics: Arc::clone(&node.metrics),
            max_connections: (config.http.max_connections as usize).div_ceil(options.procs),
        };
        let (stop, stopped) = watch::channel(false);
        let mut workers = Self {
            threads: Vec::new(),
            stop,
            failed: Arc::default(),
            settings,
        };
        for (number, listeners) in listeners.by_worker.into_iter().enumerate() {
            let (service, stopped) = (service.clone(), stopped.clone());
            workers.spawn(number, move || work(listeners, service, stopped))?;
        }
        Ok(workers)
    }

    fn spawn(
        &mut self,
        number: usize,
        work: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let alarm = Alarm {
            failed: Arc::clone(&self.failed),
            stop: self.stop.subscribe(),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        let thread = thread.spawn(move || {
            let _alarm = alarm;
            if let Err(error) = work() {
                tracing::error!(error = format!("{error:#}"), "worker failed");
            }
        });
        self.threads.push(thread.context("no thread for a worker")?);
        Ok(())
    }

    /// The settings that a reload may change.
    pub fn settings(&self) -> Arc<ArcSwap<HttpSettings>> {
        Arc::clone(&self.settings)
    }

    /// Resolves when a worker has ended that was not told to.
    pub async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Lets the workers finish what is in flight, and waits for them.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A worker that panicked has told so, and there is nothing to take over from it.
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}

/// Tells when a worker thread ends without having been told to, also by a panic.
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

/// One worker: a runtime on this thread for its listeners.
fn work(
    listeners: Vec<TcpListener>,
    service: HttpService,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(http::serve(listeners, service, stop))?;
    Ok(())
}

/// Says where clients find the tracker.
fn announce_urls(options: &Options, listeners: &Listeners) {
    let config = &options.config.config;
    let scheme = if config.http.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let path = match config.mode {
        Mode::Public => "/announce",
        Mode::Private => "/<passkey>/announce",
    };
    for listener in listeners.by_worker.first().into_iter().flatten() {
        let Ok(address) = listener.local_addr() else {
            continue;
        };
        tracing::info!(%address, "listening");
        let host = reachable(address);
        tracing::info!("announce URL: {scheme}://{host}{path}");
    }
}

/// The address as others reach it: for "any address", the one that this host speaks from.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Connecting a UDP socket sends nothing; it only asks the system for the way out.
    let (any, outside, own): (IpAddr, IpAddr, IpAddr) = if address.is_ipv4() {
        (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
            Ipv4Addr::LOCALHOST.into(),
        )
    } else {
        (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::LOCALHOST.into(),
        )
    };
    let way_out = UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect((outside, 9)).map(|()| socket))
        .and_then(|socket| socket.local_addr());
    let ip = way_out.map_or(own, |way| way.ip());
    (ip, address.port()).into()
}
