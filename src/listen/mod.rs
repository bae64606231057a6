//! Sockets: receive → `wire` → `tracker` → `wire` → send, and nothing else.
//!
//! Each HTTP worker is a thread with its own runtime and its own listener on every address
//! (SO_REUSEPORT); each UDP socket has a thread. They share nothing but the tracker.

pub mod http;
pub mod udp;

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// What the listeners do. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenState {
    /// They accept and answer.
    Open,
    /// The same, but each reply closes its connection: then few are left to be closed while idle.
    Closing,
    /// Nothing is accepted; requests in flight are finished, and idle connections closed.
    Draining,
    /// Nothing is accepted; replies in flight are finished. Everything else is left to the next process:
    /// connections, and packets, which are read and kept.
    HandingOver,
    /// Packets are not read any more either.
    HandedOver,
}

/// Connections that the kernel queues for a listener.
const BACKLOG: i32 = 4096;

/// Opens `number` listeners on one address, one for each worker.
///
/// # Errors
/// The address is in use, possibly by another process with `SO_REUSEPORT`; or it is not an address of
/// this host, or its port needs privileges.
pub fn bind(address: SocketAddr, number: usize) -> io::Result<Vec<TcpListener>> {
    let sockets = share(address, number, Protocol::TCP, |socket| {
        socket.set_reuse_address(true)?;
        // Connections inherit it. Without it a second reply could wait for the acknowledgement of
        // the first.
        socket.set_tcp_nodelay(true)
    })?;
    sockets
        .into_iter()
        .map(|socket| {
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .collect()
}

/// Binds `number` sockets to one address with `SO_REUSEPORT`; `prepare` sets other options before that.
fn share(
    address: SocketAddr,
    number: usize,
    protocol: Protocol,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Vec<Socket>> {
    let kind = match protocol {
        Protocol::UDP => Type::DGRAM,
        _ => Type::STREAM,
    };
    let open = |address: SocketAddr, share| {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        socket.set_reuse_port(share)?;
        if address.is_ipv6() {
            // IPv4 has its own sockets.
            socket.set_only_v6(true)?;
        }
        prepare(&socket)?;
        socket.bind(&address.into())?;
        io::Result::Ok(socket)
    };
    // A first socket without `SO_REUSEPORT` fails if another process has the address. It does not
    // listen, because its connections would be reset when it is closed.
    let alone = open(address, false)?;
    let address = alone
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    drop(alone);
    (0..number).map(|_| open(address, true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_one_process_share_an_address_and_others_are_refused() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(
            listeners
                .iter()
                .all(|listener| listener.local_addr().unwrap() == address)
        );
        assert_eq!(
            bind(address, 1).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(listeners);
        bind(address, 1).unwrap();
    }
}
