//! Opens the sockets of one address, one for each worker.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::Protocol;

use super::batch::enable_pktinfo;
use crate::listen::share;

/// Bytes of packets that the kernel may buffer: half a second of a flood. The system may cap it.
const RECEIVE_BUFFER: usize = 8 << 20;
const SEND_BUFFER: usize = 2 << 20;

/// Opens `number` sockets on one address, over which the kernel distributes the clients.
///
/// # Errors
/// The address is in use, possibly by another process with `SO_REUSEPORT`; or it is not an address of
/// this host, or its port needs privileges.
pub fn bind(address: SocketAddr, number: usize) -> io::Result<Vec<UdpSocket>> {
    let sockets = share(address, number, Protocol::UDP, |socket| {
        // The default works, too.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        Ok(())
    })?;
    sockets
        .into_iter()
        .map(|socket| {
            let socket = UdpSocket::from(socket);
            prepare(&socket)?;
            Ok(socket)
        })
        .collect()
}

/// Sets the options that a bound socket needs, also one that was inherited.
pub fn prepare(socket: &UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.ip().is_unspecified() {
        enable_pktinfo(socket)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_one_process_share_an_address_and_others_are_refused() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let sockets = bind(any.parse().unwrap(), 3).unwrap();
            let address = sockets[0].local_addr().unwrap();
            assert!(
                sockets
                    .iter()
                    .all(|socket| socket.local_addr().unwrap() == address)
            );
            let error = bind(address, 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            drop(sockets);
            bind(address, 1).unwrap();
        }
    }
}
