//! A listener that hands out connections which the runtime does not know yet.
//!
//! The runtime's own listener registers each connection with the selector as it comes: three
//! system calls and an allocation that one which is answered and closed at once does not need.

#![allow(unsafe_code)] // the registration of the listener, and a socket option that no library has

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use libc::{IPPROTO_TCP, TCP_DEFER_ACCEPT, c_int, setsockopt, socklen_t};
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// Seconds for which the kernel may keep a connection on which nothing was sent yet. Then it is
/// accepted all the same.
const DEFER_SECONDS: c_int = 1;

pub(super) struct Listener(AsyncFd<TcpListener>);

/// Connections wait at a listener, as far as is known.
pub(super) struct Queue<'a>(AsyncFdReadyGuard<'a, TcpListener>);

// === impl Listener ===

impl Listener {
    /// Takes over a socket that does not block.
    ///
    /// # Errors
    /// The socket can't be used with this thread's runtime.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        defer_accept(&listener)?;
        // SAFETY: a `TcpListener` owns its descriptor, keeps it open until it is dropped, and
        // always names the same; and nothing takes it out of the `AsyncFd`.
        let registered = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits for connections.
    ///
    /// # Errors
    /// The runtime ends.
    pub async fn connections(&self) -> io::Result<Queue<'_>> {
        Ok(Queue(self.0.readable().await?))
    }
}

// === impl Queue ===

impl Queue<'_> {
    /// The next connection, which does not block, and its client's address; none if no more wait.
    ///
    /// # Errors
    /// The connection is broken already, or the process can't have another file.
    pub fn next(&mut self) -> Option<io::Result<(TcpStream, IpAddr)>> {
        self.0.try_io(|listener| accept(listener.get_ref())).ok()
    }
}

fn accept(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, address) = acceptfrom_with(listener, flags)?;
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    let address = address.ok_or(ErrorKind::AddrNotAvailable)?;
    Ok((stream.into(), address.ip()))
}

/// Lets the kernel hold a connection back until its first bytes are there, so that accepting and
/// answering it are one. Clients speak first, with TLS and without.
fn defer_accept(listener: &TcpListener) -> io::Result<()> {
    let seconds = DEFER_SECONDS;
    let length = size_of_val(&seconds) as socklen_t;
    let value = (&raw const seconds).cast();
    // SAFETY: the descriptor is open while it is borrowed, and `value` points to `length` bytes.
    let result = unsafe {
        setsockopt(
            listener.as_raw_fd(),
            IPPROTO_TCP,
            TCP_DEFER_ACCEPT,
            value,
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
