//! The listening sockets: opened before anything is loaded, so that a port in use fails the start at
//! once. Those that were inherited are used as they are.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::config::{Config, Mode};
use crate::listen;
use crate::listen::udp::{self, Spool};
use crate::net::host::families::{counterpart, family, is_missing};
use crate::net::host::ports::{Holder, OutgoingPorts, Transport, holder};
use crate::node::Options;
use crate::node::api::is_wanted as is_api_wanted;
use crate::node::handover::{EarlyReaders, Inherited, Legacy};
use crate::node::serve::Early;

/// How long to wait before each further try for a port that a connection of this host holds: some
/// three seconds in all.
const PAUSES_MS: [u64; 5] = [100, 200, 400, 800, 1600];

/// All sockets.
pub(super) struct Sockets {
    /// The listeners of each HTTP worker.
    pub http: Vec<Vec<TcpListener>>,
    /// One for each UDP thread.
    pub udp: Vec<UdpSocket>,
    pub early: Early,
    api: Vec<TcpListener>,
}

/// Copies of all sockets, by which these stay open for the next process.
pub(super) struct KeptSockets {
    listeners: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

/// The list of addresses that a key of the config holds.
struct Listen<'a> {
    /// `http`, `udp` or `api`.
    section: &'static str,
    addresses: &'a [SocketAddr],
    transport: Transport,
}

// === impl Sockets ===

impl Sockets {
    /// Opens the addresses of the config, for each worker, unless they are inherited. Packets that arrive at
    /// inherited sockets are read from now on.
    ///
    /// # Errors
    /// Names the address that can't be bound, why, and what to do.
    pub async fn open(
        options: &Options,
        inherited: &mut Inherited,
    ) -> Result<(Self, EarlyReaders)> {
        let config = &options.config.config;
        let workers = options.procs;
        let inherited = RefCell::new(inherited);
        let bind_tcp = |address, number| {
            let found = inherited.borrow_mut().listeners(address);
            if found.is_empty() {
                return listen::bind(address, number);
            }
            at_least(found, number, TcpListener::try_clone)
        };
        let bind_udp = |address| {
            let found = inherited.borrow_mut().udp(address);
            if found.is_empty() {
                let bound = udp::bind(address, workers)?.into_iter();
                return Ok(bound.map(|socket| (socket, None)).collect());
            }
            let found = found.into_iter().map(|(socket, spool)| {
                udp::prepare(&socket)?;
                Ok((socket, Some(spool)))
            });
            let found = found.collect::<io::Result<Vec<_>>>()?;
            let copy = |(socket, _): &(UdpSocket, _)| Ok((socket.try_clone()?, None));
            at_least(found, workers, copy)
        };
        let mut http: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let listen = Listen::of("http", &config.http.listen);
        for listeners in listen.open(|address| bind_tcp(address, workers)).await? {
            for (number, listener) in listeners.into_iter().enumerate() {
                http[number % workers].push(listener);
            }
        }
        let listen = Listen::of("udp", &config.udp.listen);
        let udp = listen.open(bind_udp).await?.into_iter().flatten();
        let (udp, spools): (Vec<UdpSocket>, Vec<Option<Spool>>) = udp.unzip();
        let readers = EarlyReaders::start(&udp, spools)?;
        let api = open_api(config, |address| bind_tcp(address, 1)).await?;
        inherited.borrow_mut().close_rest();
        let early = Early::default();
        Ok((
            Self {
                http,
                udp,
                early,
                api,
            },
            readers,
        ))
    }

    /// Copies of all of them.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn keep(&self) -> io::Result<KeptSockets> {
        let listeners = self.http.iter().flatten().chain(&self.api);
        Ok(KeptSockets {
            listeners: listeners
                .map(TcpListener::try_clone)
                .collect::<Result<_, _>>()?,
            udp: self
                .udp
                .iter()
                .map(UdpSocket::try_clone)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Splits them into those of clients and those of the API.
    pub fn split(mut self) -> (Self, Vec<TcpListener>) {
        let api = std::mem::take(&mut self.api);
        (self, api)
    }

    /// Logs where clients find the tracker; returns the number of addresses.
    pub fn log_announce_urls(&self, config: &Config) -> usize {
        let path = match config.mode {
            Mode::Public => "/announce",
            Mode::Private => "/<passkey>/announce",
        };
        let scheme = match config.http.tls {
            Some(_) => "https",
            None => "http",
        };
        let listeners = self.http.first().into_iter().flatten();
        let http = listeners.map(|listener| (scheme, listener.local_addr()));
        let udp = self.udp.iter().map(|socket| ("udp", socket.local_addr()));
        let mut logged = Vec::new();
        for (scheme, address) in http.chain(udp) {
            let Ok(address) = address else { continue };
            // UDP has a socket for each worker.
            if logged.contains(&(scheme, address)) {
                continue;
            }
            logged.push((scheme, address));
            tracing::info!(%address, scheme, "listening");
            let host = reachable(address);
            tracing::info!("announce URL: {scheme}://{host}{path}");
        }
        logged.len()
    }
}

/// An API that the config does not name must not keep a second tracker of this host from starting.
async fn open_api(
    config: &Config,
    bind: impl Fn(SocketAddr) -> io::Result<Vec<TcpListener>>,
) -> Result<Vec<TcpListener>> {
    if !is_api_wanted(config) {
        return Ok(Vec::new());
    }
    let listen = Listen::of("api", &config.api.listen);
    if config.api.is_default {
        let mut listeners = Vec::new();
        for &address in &config.api.listen {
            match listen.bind(address, &bind).await {
                Ok(bound) => listeners.extend(bound),
                Err(error) => {
                    tracing::warn!(%address, %error, "no API at this address: it can't be bound");
                }
            }
        }
        return Ok(listeners);
    }
    let opened = listen.open(bind).await?;
    Ok(opened.into_iter().flatten().collect())
}

/// Adds copies of sockets until there are `number`. Copies share one queue, from which each worker takes what
/// it can.
fn at_least<S>(
    mut sockets: Vec<S>,
    number: usize,
    copy: impl Fn(&S) -> io::Result<S>,
) -> io::Result<Vec<S>> {
    let own = sockets.len();
    for at in own..number {
        sockets.push(copy(&sockets[at % own])?);
    }
    Ok(sockets)
}

// === impl KeptSockets ===

impl KeptSockets {
    /// For the next process, with what was read from each UDP socket and not answered.
    pub fn leave(self, spools: Vec<Spool>) -> Legacy {
        Legacy {
            listeners: self.listeners,
            udp: self.udp.into_iter().zip(spools).collect(),
            ..Legacy::default()
        }
    }
}

// === impl Listen ===

impl<'a> Listen<'a> {
    fn of(section: &'static str, addresses: &'a [SocketAddr]) -> Self {
        let transport = match section {
            "udp" => Transport::Udp,
            _ => Transport::Tcp,
        };
        Self {
            section,
            addresses,
            transport,
        }
    }

    /// Opens all of them. One in a family that this host lacks is left out if the list has its
    /// counterpart in the other family, and that one can be bound.
    async fn open<S>(
        &self,
        bind: impl Fn(SocketAddr) -> io::Result<Vec<S>>,
    ) -> Result<Vec<Vec<S>>> {
        let mut opened = Vec::new();
        let mut given_up = None;
        for &address in self.addresses {
            match self.bind(address, &bind).await {
                Ok(sockets) => opened.push(sockets),
                Err(error) if is_missing(address.ip(), &error) => {
                    let Some(other) = counterpart(address, self.addresses) else {
                        return Err(anyhow!(self.explain(address, &error)));
                    };
                    let (family, section) = (family(address.ip()), self.section);
                    tracing::warn!(
                        "not listening on {address}: this host has no {family}, so clients find \
                         {other} only; take {address} out of {section}.listen to silence this"
                    );
                    given_up = Some((address, error));
                }
                Err(error) => return Err(anyhow!(self.explain(address, &error))),
            }
        }
        match given_up {
            Some((address, error)) if opened.is_empty() => {
                Err(anyhow!(self.explain(address, &error)))
            }
            _ => Ok(opened),
        }
    }

    /// Binds an address; tries some more times while a connection of this host has its port.
    async fn bind<S>(
        &self,
        address: SocketAddr,
        bind: &impl Fn(SocketAddr) -> io::Result<Vec<S>>,
    ) -> io::Result<Vec<S>> {
        for pause in PAUSES_MS {
            match bind(address) {
                Err(error) if error.kind() == ErrorKind::AddrInUse && !self.is_served(address) => {
                    if pause == PAUSES_MS[0] {
                        tracing::warn!(%address, "the port is in use; trying again for some seconds");
                    }
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                result => return result,
            }
        }
        bind(address)
    }

    /// Whether another program listens there, which is unlikely to end soon. A UDP socket that waits for
    /// a few answers looks like one that serves.
    fn is_served(&self, address: SocketAddr) -> bool {
        self.transport == Transport::Tcp
            && holder(address, self.transport) == Some(Holder::Listener)
    }

    /// What is wrong with an address, and what to do.
    fn explain(&self, address: SocketAddr, error: &io::Error) -> String {
        let (section, port) = (self.section, address.port());
        let advice = match error.kind() {
            ErrorKind::AddrInUse => {
                let holder = holder(address, self.transport);
                in_use(section, port, holder, OutgoingPorts::read().as_ref())
            }
            ErrorKind::PermissionDenied => format!(
                "port {port} needs rights: choose one from 1024 up in {section}.listen, or grant \
                 CAP_NET_BIND_SERVICE"
            ),
            _ if is_missing(address.ip(), error) => {
                let family = family(address.ip());
                format!("this host has no {family}: take {address} out of {section}.listen")
            }
            ErrorKind::AddrNotAvailable => {
                format!("this host has no such address: correct {section}.listen")
            }
            _ => format!("{error}: correct {section}.listen"),
        };
        format!("can't listen on {address}: {advice}")
    }
}

/// What to do about a port that is taken.
fn in_use(
    section: &str,
    port: u16,
    holder: Option<Holder>,
    outgoing: Option<&OutgoingPorts>,
) -> String {
    let may_take = outgoing.is_some_and(|ports| ports.may_take(port));
    match holder {
        Some(Holder::Connection) => format!(
            "the port is in use by a connection that this host made itself, or by what is left of one (TIME-WAIT, \
             up to a minute): start again later, and reserve the port by the sysctl \
             net.ipv4.ip_local_reserved_ports={port}, or choose another one in {section}.listen"
        ),
        _ if may_take && (holder.is_none() || section == "udp") => format!(
            "the port is in use: another program listens there, or a connection that this host made \
             had the port: stop the program, or start again in a minute and reserve the port by the \
             sysctl net.ipv4.ip_local_reserved_ports={port}, or choose another one in \
             {section}.listen"
        ),
        _ => format!(
            "the port is in use: another program listens there: stop it, or choose another port in \
             {section}.listen"
        ),
    }
}

/// The address as others reach it: for "any address", the one that this host sends from.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Connecting a UDP socket sends nothing; it only asks the system for the way out.
    let (outside, own): (IpAddr, IpAddr) = if address.is_ipv4() {
        let outside = Ipv4Addr::new(192, 0, 2, 1);
        (outside.into(), Ipv4Addr::LOCALHOST.into())
    } else {
        let outside = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        (outside.into(), Ipv6Addr::LOCALHOST.into())
    };
    let way_out = UdpSocket::bind((address.ip(), 0))
        .and_then(|socket| socket.connect((outside, 9)).map(|()| socket))
        .and_then(|socket| socket.local_addr());
    let ip = way_out.map_or(own, |way| way.ip());
    (ip, address.port()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_explained_by_who_may_have_it() {
        let outgoing = OutgoingPorts::read();
        let of_connection = in_use("http", 34000, Some(Holder::Connection), outgoing.as_ref());
        assert!(
            of_connection.contains("ip_local_reserved_ports=34000"),
            "{of_connection}"
        );
        let of_listener = in_use("http", 34000, Some(Holder::Listener), outgoing.as_ref());
        assert!(of_listener.contains("another program listens there: stop it"));
        assert!(!of_listener.contains("sysctl"), "{of_listener}");
        let unknown = in_use("udp", 80, None, outgoing.as_ref());
        assert!(!unknown.contains("sysctl"), "{unknown}");
    }

    #[tokio::test]
    async fn a_family_that_the_host_lacks_is_left_out_beside_its_counterpart_only() {
        let bind = |address: SocketAddr| match address.ip() {
            IpAddr::V4(_) => Ok(vec![address]),
            IpAddr::V6(_) => Err(io::Error::from_raw_os_error(97)),
        };
        let open = async |listen: &[&str]| {
            let addresses: Vec<SocketAddr> = listen.iter().map(|it| it.parse().unwrap()).collect();
            let opened = Listen::of("udp", &addresses).open(bind).await;
            opened.map(|it| it.len()).map_err(|it| it.to_string())
        };
        assert_eq!(open(&["0.0.0.0:1", "[::]:1"]).await, Ok(1));
        assert_eq!(open(&["[::]:1", "0.0.0.0:1"]).await, Ok(1));
        assert_eq!(open(&["127.0.0.1:1", "[::1]:1"]).await, Ok(1));
        for listen in [
            &["[::]:1"][..],
            &["0.0.0.0:1", "[::]:2"],
            &["0.0.0.0:1", "[2001:db8::1]:1"],
        ] {
            let error = open(listen).await.unwrap_err();
            assert!(error.contains("has no IPv6"), "{error}");
            assert!(error.contains("out of udp.listen"), "{error}");
        }
    }

    #[tokio::test]
    async fn without_either_family_the_start_fails() {
        let addresses: Vec<SocketAddr> =
            vec!["0.0.0.0:1".parse().unwrap(), "[::]:1".parse().unwrap()];
        let none = |_| Err::<Vec<()>, _>(io::Error::from_raw_os_error(97));
        let error = Listen::of("http", &addresses).open(none).await.unwrap_err();
        assert!(error.to_string().contains("http.listen"), "{error}");
    }

    #[tokio::test]
    async fn a_port_of_an_outgoing_connection_is_tried_again() {
        let tries = std::cell::Cell::new(0);
        let bind = |_| {
            tries.set(tries.get() + 1);
            match tries.get() {
                1..=3 => Err(io::Error::from_raw_os_error(98)),
                _ => Ok(vec![()]),
            }
        };
        // Nothing listens at port 0.
        let addresses: Vec<SocketAddr> = vec!["127.0.0.1:0".parse().unwrap()];
        let listen = Listen::of("http", &addresses);
        assert_eq!(listen.open(bind).await.unwrap().len(), 1);
    }
}
