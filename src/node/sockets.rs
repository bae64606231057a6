//! The sockets that clients come to: opened before anything is loaded, so that a port in use is
//! told at once.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Result, anyhow};

use crate::config::{Config, Mode, Source};
use crate::listen;
use crate::listen::udp;
use crate::node::Options;
use crate::node::api::is_wanted as is_api_wanted;

/// All sockets.
pub(super) struct Sockets {
    /// The listeners of each HTTP worker.
    pub http: Vec<Vec<TcpListener>>,
    /// One for each UDP thread.
    pub udp: Vec<UdpSocket>,
    api: Vec<TcpListener>,
}

// === impl Sockets ===

impl Sockets {
    /// Opens what the config names, for as many workers as there are to be.
    ///
    /// # Errors
    /// Says which address can't be had, why, and what to do.
    pub fn open(options: &Options) -> Result<Self> {
        let config = &options.config.config;
        let workers = options.procs;
        let mut http: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        for &address in &config.http.listen {
            let Some(listeners) = open(options, "http", address, listen::bind)? else {
                continue;
            };
            for (worker, listener) in http.iter_mut().zip(listeners) {
                worker.push(listener);
            }
        }
        let mut udp = Vec::new();
        for &address in &config.udp.listen {
            let sockets = open(options, "udp", address, udp::bind)?;
            udp.extend(sockets.into_iter().flatten());
        }
        let mut api = Vec::new();
        if is_api_wanted(config) {
            for &address in &config.api.listen {
                api.extend(open_api(config, address)?);
            }
        }
        Ok(Self { http, udp, api })
    }

    /// Those of clients, and those of the API.
    pub fn part(mut self) -> (Self, Vec<TcpListener>) {
        let api = std::mem::take(&mut self.api);
        (self, api)
    }

    /// Says where clients find the tracker; returns how many addresses that are.
    pub fn announce_urls(&self, config: &Config) -> usize {
        let path = match config.mode {
            Mode::Public => "/announce",
            Mode::Private => "/<passkey>/announce",
        };
        let scheme = match config.http.tls {
            Some(_) => "https",
            None => "http",
        };
        let listeners = self.http.first().into_iter().flatten();
        let http = listeners.map(|it| (scheme, it.local_addr()));
        let udp = self.udp.iter().map(|it| ("udp", it.local_addr()));
        let mut told = Vec::new();
        for (scheme, address) in http.chain(udp) {
            let Ok(address) = address else { continue };
            // Of UDP there is a socket for each worker.
            if told.contains(&(scheme, address)) {
                continue;
            }
            told.push((scheme, address));
            tracing::info!(%address, scheme, "listening");
            let host = reachable(address);
            tracing::info!("announce URL: {scheme}://{host}{path}");
        }
        told.len()
    }
}

/// An API that nobody asked for by name must not keep a second tracker of this host from starting.
fn open_api(config: &Config, address: SocketAddr) -> Result<Option<TcpListener>> {
    match listen::bind(address, 1) {
        Ok(mut listeners) => Ok(listeners.pop()),
        Err(error) if config.api.is_default => {
            tracing::warn!(%address, %error, "no API: its address can't be had");
            Ok(None)
        }
        Err(error) => Err(anyhow!(explain("api", address, &error))),
    }
}

/// None if it is not worth failing for.
fn open<S>(
    options: &Options,
    section: &str,
    address: SocketAddr,
    bind: impl FnOnce(SocketAddr, usize) -> io::Result<Vec<S>>,
) -> Result<Option<Vec<S>>> {
    match bind(address, options.procs) {
        Ok(sockets) => Ok(Some(sockets)),
        Err(error) if may_do_without(options, address, &error) => {
            tracing::warn!(%address, "not listening: this host has no IPv6");
            Ok(None)
        }
        Err(error) => Err(anyhow!(explain(section, address, &error))),
    }
}

/// Only the built-in defaults ask for IPv6 without anybody having asked for it.
fn may_do_without(options: &Options, address: SocketAddr, error: &io::Error) -> bool {
    let no_such_family =
        error.raw_os_error() == Some(97) || error.kind() == ErrorKind::AddrNotAvailable;
    address.is_ipv6() && no_such_family && matches!(options.config.source, Source::BuiltIn)
}

fn explain(section: &str, address: SocketAddr, error: &io::Error) -> String {
    let mend = match error.kind() {
        ErrorKind::AddrInUse => {
            format!(
                "another program listens there: stop it, or choose another port in {section}.listen"
            )
        }
        ErrorKind::PermissionDenied => format!(
            "port {} needs rights: choose one from 1024 up in {section}.listen, or grant CAP_NET_BIND_SERVICE",
            address.port()
        ),
        ErrorKind::AddrNotAvailable => {
            format!("this host has no such address: correct {section}.listen")
        }
        _ => error.to_string(),
    };
    format!("can't listen on {address}: {mend}")
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
