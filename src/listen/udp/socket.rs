//! Opening the sockets of one address, one for each worker.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::Protocol;

use super::batch::tell_destinations;
use crate::listen::share;

/// Bytes of packets that may wait in the kernel: half a second of a flood. The system may cap it.
const RECEIVE_BUFFER: usize = 8 << 20;
const SEND_BUFFER: usize = 2 << 20;

/// Opens `number` sockets on one address. The kernel spreads clients over them.
///
/// # Errors
/// The address is in use, also if it is by another process that shares its ports; or it is not
/// this host's, or its port needs rights.
pub fn bind(address: SocketAddr, number: usize) -> io::Result<Vec<UdpSocket>> {
    let sockets = share(address, number, Protocol::UDP, |socket| {
        // As much as the system grants; the default does, too.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        Ok(())
    })?;
    let sockets = sockets.into_iter().map(|socket| {
        let socket = UdpSocket::from(socket);
        if address.ip().is_unspecified() {
            tell_destinations(&socket)?;
        }
        Ok(socket)
    });
    sockets.collect()
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
