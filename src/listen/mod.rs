//! Sockets: receive → `wire` → `tracker` → `wire` → send, and nothing else.
//!
//! Each HTTP worker is a thread with a runtime of its own and a listener of its own on every
//! address (SO_REUSEPORT); each UDP socket has a thread. They share nothing but the tracker.

pub mod http;
pub mod udp;

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds for a listener until they are accepted.
const BACKLOG: i32 = 4096;

/// Opens `number` listeners on one address, one for each worker.
///
/// # Errors
/// The address is in use, also if it is by another process that shares its ports; or it is not
/// this host's, or its port needs rights.
pub fn bind(address: SocketAddr, number: usize) -> io::Result<Vec<TcpListener>> {
    let sockets = share(address, number, Protocol::TCP, |socket| {
        socket.set_reuse_address(true)?;
        // Connections inherit it. Without it a second reply could wait for an acknowledgement of
        // the first.
        socket.set_tcp_nodelay(true)
    })?;
    let listeners = sockets.into_iter().map(|socket| {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    });
    listeners.collect()
}

/// Binds `number` sockets to one address, which they share; `prepare` sets what else they need
/// before.
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
            // IPv4 has sockets of its own.
            socket.set_only_v6(true)?;
        }
        prepare(&socket)?;
        socket.bind(&address.into())?;
        io::Result::Ok(socket)
    };
    // A first socket that shares with nobody finds out whether somebody else is there. It does
    // not listen: whoever had come to it would be reset when it goes.
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
    fn listeners_of_one_process_share_and_others_are_noticed() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(
            listeners
                .iter()
                .all(|it| it.local_addr().unwrap() == address)
        );
        assert_eq!(
            bind(address, 1).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(listeners);
        bind(address, 1).unwrap();
    }
}
