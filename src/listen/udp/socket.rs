//! Opening the sockets of one address, one for each worker.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::batch::tell_destinations;

/// Bytes of packets that may wait in the kernel: half a second of a flood. The system may cap it.
const RECEIVE_BUFFER: usize = 8 << 20;
const SEND_BUFFER: usize = 2 << 20;

/// Opens `number` sockets on one address. The kernel spreads clients over them.
///
/// # Errors
/// The address is in use, also if it is by another process that shares its ports; or it is not
/// this host's, or its port needs rights.
pub fn bind(address: SocketAddr, number: usize) -> io::Result<Vec<UdpSocket>> {
    // A first socket that shares with nobody finds out whether somebody else is there.
    let alone = open(address, false)?;
    let address = alone.local_addr()?;
    drop(alone);
    (0..number).map(|_| open(address, true)).collect()
}

fn open(address: SocketAddr, share: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_reuse_port(share)?;
    if address.is_ipv6() {
        // IPv4 has sockets of its own.
        socket.set_only_v6(true)?;
    }
    // As much as the system grants; the default does, too.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.bind(&address.into())?;
    let socket = UdpSocket::from(socket);
    if address.ip().is_unspecified() {
        tell_destinations(&socket)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_one_process_share_and_others_are_noticed() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let sockets = bind(any.parse().unwrap(), 3).unwrap();
            let address = sockets[0].local_addr().unwrap();
            assert!(sockets.iter().all(|it| it.local_addr().unwrap() == address));
            let error = bind(address, 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            drop(sockets);
            bind(address, 1).unwrap();
        }
    }
}
